//! Trainings straight from the language model.

use std::{fs, thread::sleep, time::Duration};

use crate::run::{monosema, small, start};

const STREAM: [&str; 4] = ["--set", "harvest.stream=true", "--set", "harvest.dtype='bf16'"];

#[test]
fn a_run_without_activations_on_disk_comes_to_a_dictionary_as_good() {
    let dir = tempfile::tempdir().unwrap();
    let [streamed, stored] = ["streamed", "stored"].map(|name| dir.path().join(name));
    let figures = |args: &[&str]| {
        let report = monosema(args).ok().json();
        ["fvu", "l0"].map(|name| report["metrics"][name].as_f64().unwrap())
    };
    let more = [&STREAM[..], &["--json"]].concat();
    let [fvu, l0] = figures(&small("run", &streamed, &more));
    assert!(!streamed.join("acts").exists());
    let [stored_fvu, stored_l0] = figures(&small("run", &stored, &["--json"]));
    // The tokens are the same, in another order.
    assert!((fvu / stored_fvu - 1.0).abs() < 0.05, "{fvu} instead of {stored_fvu}");
    assert!((l0 / stored_l0 - 1.0).abs() < 0.1, "{l0} instead of {stored_l0}");
    let again = monosema(&small("run", &streamed, &more)).ok();
    assert_eq!(again.stderr.matches("skipped").count(), 2, "{}", again.stderr);
    // What it is trained on is another work than a store, and what it is made of is known.
    let cfg = fs::read_to_string(streamed.join("dictionary/cfg.json")).unwrap();
    assert!(cfg.contains("stories") && cfg.contains("\"context_size\""), "{cfg}");
    let refused = monosema(&small("train", &streamed, &[]));
    refused.fails(2, &["acts"]);
}

#[test]
fn a_streamed_training_that_is_killed_goes_on_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, killed] = ["whole", "killed"].map(|name| dir.path().join(name));
    let often = ["--set", "train.checkpoint_seconds=0", "--set", "train.log_every_steps=3"];
    // So long that there is time to kill it in the middle.
    let more = [&STREAM[..], &often, &["--set", "train.tokens=200000"]].concat();
    monosema(&small("train", &whole, &more)).ok();
    let checkpoints = killed.join("dictionary/checkpoints");
    let mut child = start(&small("train", &killed, &more));
    // Beyond the first reading of the text, of 20,000 tokens.
    while !fs::read_dir(&checkpoints).is_ok_and(|files| {
        files.flatten().any(|file| file.file_name().to_string_lossy().as_ref() > "step-000000000030")
    }) {
        assert!(child.try_wait().unwrap().is_none(), "it ended without a checkpoint");
        sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let rest = monosema(&small("train", &killed, &more)).ok();
    assert!(rest.stderr.contains("goes on after step"), "{}", rest.stderr);
    for file in
        ["sae_weights.safetensors", "sparsity.safetensors", "logs/metrics.jsonl", "logs/density.jsonl"]
    {
        let read = |out: &std::path::Path| fs::read(out.join("dictionary").join(file)).unwrap();
        assert!(read(&whole) == read(&killed), "{file}");
    }
}

#[test]
fn what_is_only_streamed_is_not_harvested() {
    let dir = tempfile::tempdir().unwrap();
    monosema(&small("harvest", dir.path(), &STREAM)).fails(2, &["stream = true", "harvest.stream=false"]);
    let plan = monosema(&small("run", dir.path(), &[&STREAM[..], &["--dry-run"]].concat())).ok().stdout;
    assert!(plan.contains("none stored"), "{plan}");
}
