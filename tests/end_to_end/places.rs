//! What becomes of a training's directory: replaced, interrupted, diverged, somebody else's.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    run::{Run, monosema, small},
    training::{LONG, harvested, interrupt, newest, results, with_acts},
};

/// A training that ends in numbers that are none, once it has checkpoints.
const DIVERGES: [&str; 6] =
    ["--set", "train.lr=5.0", "--set", "train.grad_clip='none'", "--set", "train.lr_warmup={fraction=0.8}"];

fn train(out: &Path, more: &[&[&str]]) -> Run {
    monosema(&small("train", out, &[&[&LONG[..]], more].concat().concat()))
}

fn weights(dictionary: &Path) -> Vec<u8> {
    fs::read(dictionary.join("sae_weights.safetensors")).unwrap()
}

/// Where what replaces it is made.
fn beside(dictionary: &Path) -> PathBuf {
    dictionary.with_file_name("dictionary.replacement")
}

fn said(run: &Run, what: &str) {
    assert!(run.stderr.contains(what), "{what:?} is not in {}", run.stderr);
}

#[test]
fn a_killed_overwrite_goes_on_and_the_old_stays_until_then() {
    let dir = tempfile::tempdir().unwrap();
    let (acts, out, whole) = (harvested(dir.path()), dir.path().join("run"), dir.path().join("whole"));
    with_acts(&acts, &out);
    with_acts(&acts, &whole);
    let dictionary = out.join("dictionary");
    train(&out, &[]).ok();
    fs::write(dictionary.join("notes.txt"), "mine").unwrap();
    let old = weights(&dictionary);
    let other = ["--set", "train.lr=2e-3"];
    train(&whole, &[&other]).ok();
    for _ in 0..2 {
        interrupt(&out, &[&LONG[..], &other, &["--overwrite"]].concat(), &beside(&dictionary));
        assert!(weights(&dictionary) == old);
        monosema(&["inspect", dictionary.to_str().unwrap(), "--verify"]).ok();
    }
    let again = train(&out, &[&other, &["--overwrite"]]).ok();
    said(&again, "goes on after step");
    assert!(results(&dictionary) == results(&whole.join("dictionary")));
    assert_eq!(fs::read(dictionary.join("notes.txt")).unwrap(), b"mine", "files of others are kept");
    assert!(!beside(&dictionary).exists() && !dictionary.join("checkpoints").exists());
}

#[test]
fn a_member_that_diverges_takes_nothing_from_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (out, alone) = (dir.path().join("run"), dir.path().join("alone"));
    let acts = harvested(dir.path());
    with_acts(&acts, &out);
    with_acts(&acts, &alone);
    let member = |name: &str| out.join("sweep").join(name).join("dictionary");
    train(&out, &[&["--set", "train.sweep=[{lr=[1e-3,2e-3]}]"]]).ok();
    let old = weights(&member("lr=0.001"));
    // Another seed; and the second is replaced by one that diverges, the third is new and diverges.
    let grid = "train.sweep=[{lr=[1e-3]},{lr=[5.0,6.0],grad_clip=['none'],lr_warmup={fraction=[0.8]}}]";
    let more = ["--set", grid, "--set", "train.seed=5"];
    let bad = [5.0, 6.0].map(|lr| format!("lr={lr:.1},grad_clip=none,lr_warmup.fraction=0.8"));
    let run = monosema(&small("run", &out, &[&LONG[..], &more, &["--overwrite"]].concat()))
        .fails(1, &["2 of 3 members diverged", &bad[0], &bad[1]]);
    assert!(run.stdout.contains("summary.html") && run.stdout.contains("loss recovered"), "{}", run.stdout);
    train(&alone, &[&["--set", "train.lr=1e-3", "--set", "train.seed=5"]]).ok();
    assert!(results(&member("lr=0.001")) == results(&alone.join("dictionary")));
    assert!(weights(&member("lr=0.001")) != old);
    assert!(out.join("sweep/lr=0.001/report.json").is_file());
    let summary = fs::read_to_string(out.join("sweep/summary.json")).unwrap();
    for name in &bad {
        for file in ["diverged.json", "logs/report.html", "last-good/sae_weights.safetensors"] {
            assert!(member(name).join(file).is_file(), "{name}: no {file}");
        }
        assert!(!member(name).join("checkpoints").exists());
        assert!(summary.contains(&format!("{name}/dictionary/logs/report.html")), "{summary}");
    }
    // Nothing is trained again, and nothing is forgotten.
    let again = monosema(&small("run", &out, &[&LONG[..], &more].concat()))
        .fails(1, &["2 of 3 members diverged", "not trained again"]);
    assert!(!again.stderr.contains("steps of"), "{}", again.stderr);
    monosema(&small("eval", &out, &[&LONG[..], &more].concat())).fails(1, &["2 of 3 members diverged"]);
}

#[test]
fn what_diverged_is_told_again_and_trained_anew_when_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    with_acts(&harvested(dir.path()), &out);
    let dictionary = out.join("dictionary");
    train(&out, &[&DIVERGES]).fails(1, &["diverged: after step", "last-good"]);
    let page = fs::read_to_string(dictionary.join("logs/report.html")).unwrap();
    assert!(page.contains("diverged: after step"));
    let told = train(&out, &[&DIVERGES]).fails(1, &["diverged: after step", "not trained again"]);
    assert!(!told.stderr.contains("steps of"), "{}", told.stderr);
    train(&out, &[]).fails(2, &["results of other work", "schedule.lr"]);
    let anew = train(&out, &[&DIVERGES, &["--overwrite"]]).fails(1, &["diverged: after step"]);
    assert!(
        anew.stderr.contains("steps of") && !anew.stderr.contains("not trained again"),
        "{}",
        anew.stderr
    );
    train(&out, &[&["--overwrite"]]).ok();
    assert!(dictionary.join("manifest.json").is_file());
    assert!(!dictionary.join("diverged.json").exists() && !dictionary.join("last-good").exists());
    assert!(!beside(&dictionary).exists());
}

#[test]
fn members_are_taken_up_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let (acts, out, alone) = (harvested(dir.path()), dir.path().join("run"), dir.path().join("alone"));
    with_acts(&acts, &out);
    with_acts(&acts, &alone);
    let member = |name: &str| out.join("sweep").join(name).join("dictionary");
    let two = ["--set", "train.sweep=[{lr=[1e-3,2e-3]}]"];
    interrupt(&out, &[&LONG[..], &two].concat(), &member("lr=0.002"));
    let run = train(&out, &[&["--set", "train.sweep=[{lr=[3e-3,1e-3,2e-3]}]"]]).ok();
    said(&run, "2 of 3 begin after step");
    assert_eq!(run.stderr.matches("goes on after step").count(), 2, "{}", run.stderr);
    for lr in ["0.001", "0.003"] {
        let set = format!("train.lr={lr}");
        train(&alone, &[&["--set", &set, "--overwrite"]]).ok();
        assert!(results(&member(&format!("lr={lr}"))) == results(&alone.join("dictionary")), "{lr}");
    }
}

#[test]
fn an_interrupted_training_begins_anew_when_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let (acts, out, whole) = (harvested(dir.path()), dir.path().join("run"), dir.path().join("whole"));
    with_acts(&acts, &out);
    with_acts(&acts, &whole);
    let dictionary = out.join("dictionary");
    train(&whole, &[]).ok();
    interrupt(&out, &LONG, &dictionary);
    let checkpoint = newest(&dictionary).unwrap();
    fs::remove_file(dictionary.join("logs/events.out.tfevents.monosema")).unwrap();
    train(&out, &[]).fails(1, &["tfevents", "shorter", "--overwrite"]);
    assert!(checkpoint.exists());
    train(&out, &[&["--overwrite"]]).ok();
    assert!(results(&dictionary) == results(&whole.join("dictionary")));
    assert!(!dictionary.join("checkpoints").exists() && !beside(&dictionary).exists());
}

#[test]
fn what_a_kill_leaves_behind_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    with_acts(&harvested(dir.path()), &out);
    let dictionary = out.join("dictionary");
    let left = ["checkpoints/.unfinished-1.tmp", "logs/.unfinished-2.tmp", ".unfinished-3.tmp"];
    let leave = || left.map(|name| fs::write(dictionary.join(name), "").unwrap());
    interrupt(&out, &LONG, &dictionary);
    leave();
    train(&out, &[]).ok();
    let gone = |left: &[&str]| left.iter().all(|name| !dictionary.join(name).exists());
    assert!(gone(&left));
    // As if killed when it was sealed.
    fs::create_dir(dictionary.join("checkpoints")).unwrap();
    leave();
    said(&train(&out, &[]).ok(), "skipped");
    assert!(gone(&left) && gone(&["checkpoints"]));
    // And nothing of it is taken for somebody else's.
    fs::create_dir(dictionary.join("checkpoints")).unwrap();
    leave();
    train(&out, &[&["--set", "train.lr=2e-3", "--overwrite"]]).ok();
    assert!(gone(&left) && gone(&["checkpoints"]));
}

#[test]
fn every_member_is_looked_at_before_anything_begins() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    with_acts(&harvested(dir.path()), &out);
    let member = |name: &str| out.join("sweep").join(name).join("dictionary");
    let foreign = member("lr=0.002");
    fs::create_dir_all(&foreign).unwrap();
    fs::write(foreign.join("cfg.json"), "{}").unwrap();
    let grid = ["--set", "train.sweep=[{lr=[1e-3,2e-3]}]"];
    train(&out, &[&grid]).fails(2, &["lr=0.002", "did not train"]);
    // Nor is there a harvest first.
    let bare = dir.path().join("bare");
    fs::create_dir_all(bare.join("sweep/lr=0.002/dictionary")).unwrap();
    fs::write(bare.join("sweep/lr=0.002/dictionary/cfg.json"), "{}").unwrap();
    monosema(&small("run", &bare, &grid)).fails(2, &["lr=0.002", "did not train"]);
    assert!(!bare.join("acts").exists() && !member("lr=0.001").exists());
    fs::remove_dir_all(&foreign).unwrap();
    train(&out, &[&["--set", "train.sweep=[{lr=[2e-3]}]", "--set", "train.seed=1"]]).ok();
    train(&out, &[&grid]).fails(2, &["lr=0.002", "results of other work", "seed"]);
    assert!(!member("lr=0.001").exists(), "nothing was begun");
}
