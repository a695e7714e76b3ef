//! `eval` with dictionaries from anywhere.

use std::{fs, path::Path};

use serde_json::Value;

use crate::run::{monosema, small};

/// A small dictionary of `hook`, in a run of its own.
fn run(out: &Path, hook: &str) {
    let (hooks, seed) = (format!("harvest.hooks=[\"{hook}\"]"), "seed=1");
    monosema(&small("run", out, &["--set", &hooks, "--set", seed])).ok();
}

#[test]
fn dictionaries_are_compared_and_spliced_in_all_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second, out] = ["first", "second", "out"].map(|name| dir.path().join(name));
    run(&first, "blocks.1.hook_resid_post");
    run(&second, "blocks.2.hook_resid_post");
    let inside = second.join("dictionary");
    let given = [first.to_str().unwrap(), inside.to_str().unwrap()];
    let compare = |more: &[&str]| {
        let args: Vec<&str> = given.iter().copied().chain(more.iter().copied()).collect();
        monosema(&small("eval", &out, &[&["--set", "seed=1"], &args[..]].concat()))
    };
    let shown = compare(&[]).ok();
    for part in ["first", "second", "loss_recovered.zero", "summary.html"] {
        assert!(shown.stdout.contains(part), "{}", shown.stdout);
    }
    // Each is what it is alone.
    let figures = |path: &Path| -> Value {
        let report: Value = serde_json::from_slice(&fs::read(path.join("report.json")).unwrap()).unwrap();
        report["metrics"].clone()
    };
    assert_eq!(figures(&out.join("eval/second")), figures(&second));
    assert_eq!(figures(&out.join("eval/first")), figures(&first));
    let before = fs::metadata(out.join("eval/first/report.json")).unwrap().modified().unwrap();
    let together = compare(&["--together", "--json"]).ok();
    assert_eq!(together.stderr.matches("skipped").count(), 2, "{}", together.stderr);
    assert_eq!(fs::metadata(out.join("eval/first/report.json")).unwrap().modified().unwrap(), before);
    let json = together.json();
    assert_eq!(json["dictionaries"][1]["name"], "second");
    let value = |figure: &str| json["together"]["metrics"][figure].as_f64().unwrap();
    assert_eq!(json["together"]["hooks"].as_array().unwrap().len(), 2);
    assert_eq!(value("ce.clean"), figures(&second)["ce.clean"].as_f64().unwrap());
    // Two lose more than either; and zero at both hooks is zero at the last, but for what the first does to tokens that do not
    // count and keep their place there.
    for one in [&first, &second] {
        assert!(value("ce.sae") > figures(one)["ce.sae"].as_f64().unwrap());
    }
    let zero = figures(&second)["ce.zero"].as_f64().unwrap();
    assert!((value("ce.zero") - zero).abs() < 1e-2 * zero, "{} {zero}", value("ce.zero"));
    assert!(json["together"]["metrics"].get("fvu").is_none());

    monosema(&small("eval", &out, &[given[0], given[0]])).fails(2, &["more than once"]);
    monosema(&small("eval", &out, &["nowhere"])).fails(2, &["nowhere"]);
    monosema(&small("eval", &out, &["--together"])).fails(2, &["DICTIONARY"]);
    let copy = dir.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for name in ["cfg.json", "sae_weights.safetensors"] {
        fs::copy(first.join("dictionary").join(name), copy.join(name)).unwrap();
    }
    let twice = [given[0], copy.to_str().unwrap(), "--together", "--set", "seed=1"];
    monosema(&small("eval", &out, &twice)).fails(2, &["--together", "blocks.1.hook_resid_post"]);
}
