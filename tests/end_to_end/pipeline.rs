//! What the pipeline does when nothing, or only the power, is wrong.

use std::{fs, path::Path, thread::sleep, time::Duration};

use serde_json::Value;

use crate::run::{monosema, small, start};

fn report(out: &Path) -> Value {
    serde_json::from_slice(&fs::read(out.join("report.json")).unwrap()).unwrap()
}

fn files(out: &Path, directory: &str) -> Value {
    let manifest = fs::read(out.join(directory).join("manifest.json")).unwrap();
    serde_json::from_slice::<Value>(&manifest).unwrap()["files"].clone()
}

#[test]
fn run_makes_everything_and_a_second_run_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let first = monosema(&small("run", &out, &[])).ok();
    assert!(first.stdout.contains("ce.clean") && first.stdout.contains("report.html"), "{}", first.stdout);
    for name in [
        "acts/manifest.json",
        "dictionary/cfg.json",
        "dictionary/sae_weights.safetensors",
        "dictionary/sparsity.safetensors",
        "dictionary/manifest.json",
        "report.json",
        "report.html",
    ] {
        assert!(out.join(name).is_file(), "{name} is missing");
    }
    let report = report(&out);
    let figure = |name: &str| report["metrics"][name].as_f64().unwrap_or_else(|| panic!("no {name}"));
    assert!(figure("ce.clean") < figure("ce.sae"), "a reconstruction cannot be better than the original");
    assert!(figure("ce.sae") < figure("ce.zero"), "even a short training is better than nothing");
    assert!(figure("fvu") > 0.0 && figure("fvu") < 1.0);
    assert!(figure("l0") > 0.0);

    let stamp = |name: &str| fs::metadata(out.join(name)).unwrap().modified().unwrap();
    let before = ["acts/manifest.json", "dictionary/manifest.json", "report.json"].map(stamp);
    let second = monosema(&small("run", &out, &[])).ok();
    assert_eq!(second.stdout, first.stdout, "the report is the same");
    assert_eq!(second.stderr.matches("skipped").count(), 3, "{}", second.stderr);
    assert_eq!(["acts/manifest.json", "dictionary/manifest.json", "report.json"].map(stamp), before);
}

#[test]
fn other_work_is_refused_unless_told_to_overwrite() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    monosema(&small("harvest", &out, &[])).ok();
    let acts = files(&out, "acts");
    let other = ["--set", "harvest.tokens=10000"];
    monosema(&small("harvest", &out, &other)).fails(2, &["tokens", "20000", "10000", "--overwrite", "--out"]);
    assert_eq!(files(&out, "acts"), acts, "what was there is untouched");
    monosema(&small("harvest", &out, &[&other[..], &["--overwrite"]].concat())).ok();
    assert_ne!(files(&out, "acts"), acts);
}

#[test]
fn a_killed_run_is_redone_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    monosema(&small("run", &whole, &[])).ok();
    // Kill in the harvest, then in the training, then wherever it is a little later.
    for (sign, wait) in [("acts", 100), ("acts/manifest.json", 150), ("dictionary", 50)] {
        let mut child = start(&small("run", &killed, &[]));
        for _ in 0..6000 {
            if killed.join(sign).exists() || child.try_wait().unwrap().is_some() {
                break;
            }
            sleep(Duration::from_millis(10));
        }
        sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    monosema(&small("run", &killed, &[])).ok();
    assert_eq!(files(&killed, "acts"), files(&whole, "acts"));
    let weights = |out: &Path| fs::read(out.join("dictionary/sae_weights.safetensors")).unwrap();
    assert!(weights(&killed) == weights(&whole), "the dictionaries differ");
    assert_eq!(report(&killed)["metrics"], report(&whole)["metrics"]);
    let leftovers: Vec<_> = fs::read_dir(killed.join("acts"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().contains("unfinished"))
        .collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
}

#[test]
fn a_dry_run_tells_the_plan_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let plan = monosema(&small("run", &out, &["--dry-run"])).ok();
    for part in ["tokens", "disk", "memory", "steps"] {
        assert!(plan.stdout.contains(part), "{part:?} is not in {}", plan.stdout);
    }
    let json = monosema(&small("run", &out, &["--dry-run", "--json"])).ok().json();
    assert!(json["train"]["steps"].as_u64().unwrap() > 0, "{json}");
    assert!(!out.exists());
}

#[test]
fn inspect_tells_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    monosema(&small("run", &out, &[])).ok();
    let path = |name: &str| out.join(name).to_str().unwrap().to_owned();

    let acts = monosema(&["inspect", &path("acts"), "--verify", "--json"]).ok().json();
    assert_eq!(acts["kind"], "activations");
    let dictionary = monosema(&["inspect", &path("dictionary"), "--json"]).ok().json();
    assert_eq!((&dictionary["kind"], &dictionary["d_sae"]), (&"dictionary".into(), &256.into()));
    let report = monosema(&["inspect", &path("report.json")]).ok();
    assert!(report.stdout.contains("ce.clean"), "{}", report.stdout);

    let text = ["--text", "data/demo/stories/heldout.jsonl", "--tokens", "1000"];
    let table = monosema(&[&["inspect", "data/demo/model"][..], &text[..]].concat()).ok();
    assert!(table.stdout.contains("blocks.0.hook_resid_post"), "{}", table.stdout);
    let model = monosema(&[&["inspect", "data/demo/model", "--json"][..], &text[..]].concat()).ok().json();
    let ce = model["ce"]["mean"].as_f64().unwrap();
    assert!(ce > 0.1 && ce < 3.0, "a trained model's cross-entropy, found {ce}");
    assert!(!model["predictions"].as_array().unwrap().is_empty());
}

#[test]
fn devices_lists_the_cpu_and_never_fails() {
    let devices = monosema(&["devices", "--json"]).ok().json();
    assert!(
        devices["devices"].as_array().unwrap().iter().any(|d| d["name"] == "cpu" && d["state"] == "works")
    );
}
