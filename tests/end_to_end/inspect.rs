//! `monosema inspect`: what it tells of a model, of what the stages wrote, and of what is neither.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::run::{Run, monosema, small};

/// `monosema inspect` of a path, with further arguments.
fn inspect(path: &Path, more: &[&str]) -> Run {
    monosema(&[&["inspect", path.to_str().unwrap()][..], more].concat())
}

#[test]
fn inspect_tells_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    monosema(&small("run", &out, &[])).ok();

    let acts = inspect(&out.join("acts"), &["--verify", "--json"]).ok().json();
    assert_eq!(acts["kind"], "activations");
    assert_eq!(acts["verified"], true);
    let dictionary = inspect(&out.join("dictionary"), &["--json"]).ok().json();
    assert_eq!((&dictionary["kind"], &dictionary["d_sae"]), (&"dictionary".into(), &256.into()));
    let report = inspect(&out.join("report.json"), &[]).ok();
    assert!(report.stdout.contains("ce.clean"), "{}", report.stdout);

    let whole = inspect(&out, &["--json", "--verify"]).ok().json();
    assert_eq!((&whole["kind"], &whole["acts"]["tokens"]), (&"run".into(), &acts["tokens"]));
    for (part, kind) in [("acts", "activations"), ("dictionary", "dictionary"), ("report", "report")] {
        assert_eq!((&whole[part]["kind"], &whole[part]["verified"]), (&kind.into(), &true.into()), "{part}");
    }
    assert_eq!(whole["report"]["stale"], false);

    inspect(&out.join("dictionary"), &["--text", "x.txt"]).fails(2, &["--text", "models"]);
    fs::write(out.join("report.html"), "edited").unwrap();
    for path in [out.join("report.json"), out] {
        inspect(&path, &[]).ok();
        inspect(&path, &["--verify"]).fails(1, &["report.html", "expected sha256"]);
    }
}

#[test]
fn what_is_unfinished_hides_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    monosema(&small("run", &out, &[])).ok();
    let (acts, dictionary) = (out.join("acts"), out.join("dictionary"));

    // A dictionary from elsewhere: it has no manifest, and is not the report's.
    fs::remove_file(dictionary.join("manifest.json")).unwrap();
    let cfg = dictionary.join("cfg.json");
    fs::write(&cfg, fs::read_to_string(&cfg).unwrap() + "\n").unwrap();
    inspect(&dictionary, &["--verify"]).fails(2, &["dictionary", "train stage (again)"]);
    let whole = inspect(&out, &["--json", "--verify"]).ok().json();
    assert_eq!(whole["dictionary"]["verified"], false);
    assert_eq!((&whole["report"]["stale"], &whole["report"]["verified"]), (&true.into(), &true.into()));
    let told = inspect(&out, &[]).ok().stdout;
    assert!(told.contains("of another dictionary than the one here; run the eval stage again"), "{told}");

    // As killed stages leave them.
    fs::remove_file(&cfg).unwrap();
    fs::remove_file(acts.join("manifest.json")).unwrap();
    let whole = inspect(&out, &["--json", "--verify"]).ok().json();
    assert_eq!(whole["acts"], json!({ "kind": "unfinished", "stage": "harvest" }));
    assert_eq!(whole["dictionary"], json!({ "kind": "unfinished", "stage": "train" }));
    assert_eq!(whole["report"]["kind"], "report");
    let told = inspect(&out, &[]).ok().stdout;
    for part in ["unfinished: being harvested", "unfinished: being trained", "ce.clean"] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    inspect(&dictionary, &[]).fails(2, &["dictionary", "train stage (again)"]);
    inspect(&acts, &[]).fails(2, &["acts", "harvest stage (again)"]);

    // Killed within the first shard.
    let begun = dir.path().join("begun");
    fs::create_dir(&begun).unwrap();
    fs::write(begun.join(".unfinished-x1.tmp"), "").unwrap();
    inspect(&begun, &[]).fails(2, &["begun", "harvest stage (again)"]);
}

#[test]
fn what_inspect_takes_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let here = |name: &str| {
        let path = dir.path().join(name);
        fs::write(&path, "PAR1").unwrap();
        path
    };
    let files = ["shard-00000.parquet", "report.html", "manifest.json"].map(here);
    let others = ["configs/quickstart.toml", "data/demo/stories/heldout.jsonl"].map(PathBuf::from);
    for path in files.iter().chain(&others) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let takes = [name, "a model", "activations", "a dictionary", "a report.json", "a run's directory"];
        inspect(path, &[]).fails(2, &[&takes[..], &["give the directory"]].concat());
    }
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    inspect(&empty, &[]).fails(2, &["empty", "a model", "a run's directory"]);
    inspect(&dir.path().join("nowhere"), &[]).fails(2, &["nowhere", "no such file"]);
}

#[test]
fn a_model_is_looked_at_through_a_text() {
    let model = Path::new("data/demo/model");
    let read = ["--text", "data/demo/stories/heldout.jsonl", "--tokens", "1000"];
    let table = inspect(model, &read).ok();
    for hook in ["blocks.0.hook_resid_pre", "blocks.0.hook_resid_post"] {
        assert!(table.stdout.contains(hook), "{}", table.stdout);
    }
    inspect(model, &["--verify"]).fails(2, &["--verify"]);
    inspect(model, &["--text", "no.txt"]).fails(2, &["--text", "no.txt"]);
    inspect(model, &["--text", read[1], "--context", "100000"]).fails(2, &["--context", "100000"]);
    inspect(model, &["--text", read[1], "--tokens", "0"]).fails(2, &["--tokens"]);
    let model = inspect(model, &[&["--json"][..], &read[..]].concat()).ok().json();
    let ce = model["ce"]["mean"].as_f64().unwrap();
    assert!(ce > 0.1 && ce < 3.0, "a trained model's cross-entropy, found {ce}");
    assert!(!model["predictions"].as_array().unwrap().is_empty());
}
