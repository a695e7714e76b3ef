//! What the pipeline does when nothing, or only the power, is wrong.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
    thread::sleep,
    time::Duration,
};

use serde_json::Value;

use crate::run::{command, monosema, small, start};

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
    // Kill in each stage, as soon as there is a sign of it.
    for (sign, seal) in [
        ("acts", "acts/manifest.json"),
        ("dictionary", "dictionary/manifest.json"),
        ("dictionary/manifest.json", "report.json"),
    ] {
        let mut child = start(&small("run", &killed, &[]));
        wait_for(&killed.join(sign), &mut child);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!killed.join(seal).exists(), "the stage was over before it was killed");
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

/// Waits until a running `child` has made `path`.
fn wait_for(path: &Path, child: &mut Child) {
    while !path.exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended without {}", path.display());
        sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_killed_overwrite_leaves_what_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let harvested = monosema(&small("harvest", &out, &["--json"])).ok().json();
    assert_eq!((&harvested["stage"], &harvested["counts"]["tokens"]), (&"harvest".into(), &20000.into()));
    fs::write(out.join("acts/notes.txt"), "mine").unwrap();
    let other = ["--overwrite", "--set", "harvest.tokens=15000"];
    let mut child = start(&small("harvest", &out, &other));
    wait_for(&out.join("acts.replacement"), &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    let again = monosema(&small("harvest", &out, &[])).ok();
    assert!(again.stderr.contains("skipped"), "{}", again.stderr);
    assert!(!out.join("acts.replacement").exists());
    monosema(&small("harvest", &out, &other)).ok();
    assert_eq!(fs::read(out.join("acts/notes.txt")).unwrap(), b"mine", "files of others are kept");
}

#[test]
fn two_at_once_do_not_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let mut first = start(&small("run", &out, &[]));
    wait_for(&out.join("acts"), &mut first);
    monosema(&small("run", &out, &[])).fails(2, &["another monosema is at work"]);
    assert!(first.wait().unwrap().success(), "the first goes on undisturbed");
    monosema(&["inspect", out.join("acts").to_str().unwrap(), "--verify"]).ok();
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let args = ["inspect", "data/demo/model", "--text", "data/demo/stories/heldout.jsonl", "--json"];
    let mut child = command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && !said.contains("panicked"), "{said}");
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
    let absurd = ["--dry-run", "--set", "harvest.batch_tokens=9223372036854775807"];
    let warned = monosema(&small("run", &out, &absurd)).ok();
    assert!(warned.stderr.contains("a smaller batch, buffer or dictionary needs less"), "{}", warned.stderr);
    assert!(!out.exists());
}

#[test]
fn devices_lists_the_cpu_and_never_fails() {
    let devices = monosema(&["devices", "--json"]).ok().json();
    assert!(
        devices["devices"].as_array().unwrap().iter().any(|d| d["name"] == "cpu" && d["state"] == "works")
    );
}

#[test]
fn models_lists_every_family_and_what_it_reads() {
    let families = monosema(&["models", "--json"]).ok().json()["families"].as_array().unwrap().clone();
    let named = |name: &str| families.iter().find(|family| family["family"] == name).unwrap();
    assert_eq!(named("gpt2")["model_types"], serde_json::json!(["gpt2"]));
    assert_eq!(named("gpt_neox")["gguf_architecture"], "gptneox");
    assert_eq!(named("gpt_neox")["hooks_not_in_every_block"], serde_json::json!(["hook_resid_mid"]));
    let table = monosema(&["models"]).ok().stdout;
    for family in &families {
        assert!(table.contains(family["family"].as_str().unwrap()), "{family} is not in {table}");
    }
    for part in ["mistral", "gemma3_text", "blocks.L.attn.hook_pattern", "safetensors"] {
        assert!(table.contains(part), "{part:?} is not in {table}");
    }
}

#[test]
fn a_device_is_held_against_the_cpu() {
    let check = monosema(&["check-device", "cpu", "data/demo/model"]).ok();
    for part in ["blocks.3.hook_mlp_out", "logits, blocks.2.hook_resid_pre halved", "W_dec moved", "x_hat"] {
        assert!(check.stdout.contains(part), "{part:?} is not in {}", check.stdout);
    }
    monosema(&["check-device", "tpu", "data/demo/model"]).fails(2, &["tpu"]);
}
