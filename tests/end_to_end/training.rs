//! Training as a user meets it: killed and taken up, many at once, every architecture.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::run::{monosema, small, start};

/// Long enough to be killed in the middle many times; a checkpoint at every line of the logs.
const LONG: [&str; 6] = [
    "--set",
    "train.tokens=600000",
    "--set",
    "train.checkpoint_seconds=0",
    "--set",
    "train.log_every_steps=3",
];

/// What must be the same, bit for bit.
const RESULTS: [&str; 5] = [
    "sae_weights.safetensors",
    "sparsity.safetensors",
    "cfg.json",
    "logs/metrics.jsonl",
    "logs/density.jsonl",
];

fn results(dictionary: &Path) -> Vec<Vec<u8>> {
    RESULTS.iter().map(|name| fs::read(dictionary.join(name)).unwrap()).collect()
}

/// The newest checkpoint of a dictionary's directory, if there is one.
fn newest(dictionary: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(dictionary.join("checkpoints")).ok()?.flatten().map(|entry| entry.path());
    files.filter(|path| path.extension().is_some_and(|e| e == "safetensors")).max()
}

/// Harvests the small experiment once, for others to train on.
fn harvested(dir: &Path) -> PathBuf {
    let out = dir.join("harvested");
    monosema(&small("harvest", &out, &[])).ok();
    out.join("acts")
}

/// A run's directory with these activations.
fn with_acts(acts: &Path, out: &Path) {
    fs::create_dir_all(out.join("acts")).unwrap();
    for entry in fs::read_dir(acts).unwrap().flatten() {
        fs::hard_link(entry.path(), out.join("acts").join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_training_killed_again_and_again_comes_to_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let acts = harvested(dir.path());
    // One with everything that is carried from step to step: dead latents, a moving average, a running threshold.
    let batch_top_k = [
        &LONG[..],
        &["--set", "train.architecture={kind='batch_top_k',k=8}", "--set", "train.ema_decay=0.9"],
        &[
            "--set",
            "train.sparsity=0.0",
            "--set",
            "train.dead_after_tokens=5000",
            "--set",
            "train.width={latents=512}",
        ],
    ]
    .concat();
    for (i, more) in [LONG.to_vec(), batch_top_k].into_iter().enumerate() {
        let [whole, killed] = ["whole", "killed"].map(|name| dir.path().join(format!("{name}{i}")));
        with_acts(&acts, &whole);
        with_acts(&acts, &killed);
        let began = Instant::now();
        monosema(&small("train", &whole, &more)).ok();
        let needed = began.elapsed();
        let (mut kills, mut resumed) = (0, 0);
        // At points that have nothing to do with checkpoints.
        for nth in 1..=12 {
            let before = newest(&killed.join("dictionary"));
            let mut child = start(&small("train", &killed, &more));
            sleep(needed.mul_f64([0.31, 0.17, 0.23, 0.41][nth % 4]));
            if child.try_wait().unwrap().is_some() {
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            resumed += usize::from(before.is_some() && newest(&killed.join("dictionary")) > before);
        }
        assert!(kills >= 3 && resumed >= 1, "{kills} kills, {resumed} of a training that had gone on");
        monosema(&small("train", &killed, &more)).ok();
        assert!(results(&killed.join("dictionary")) == results(&whole.join("dictionary")), "{more:?}");
        assert!(!killed.join("dictionary/checkpoints").exists());
    }
}

/// Kills a training into `out` once it has a checkpoint.
fn interrupt(out: &Path, more: &[&str], dictionary: &Path) {
    let mut child = start(&small("train", out, more));
    while newest(dictionary).is_none() {
        assert!(child.try_wait().unwrap().is_none(), "it ended without a checkpoint");
        sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn another_configuration_does_not_take_up_what_was_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    with_acts(&harvested(dir.path()), &out);
    interrupt(&out, &LONG, &out.join("dictionary"));
    let other = [&LONG[..], &["--set", "train.lr=3e-4"]].concat();
    let refused = monosema(&small("train", &out, &other));
    refused.fails(2, &["dictionary", "schedule.lr", "0.001", "0.0003", "--overwrite"]);
    let overwritten = [&other[..], &["--overwrite"]].concat();
    monosema(&small("train", &out, &overwritten)).ok();
    assert!(monosema(&small("train", &out, &other)).ok().stderr.contains("skipped"));
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let (acts, whole, out) = (harvested(dir.path()), dir.path().join("whole"), dir.path().join("run"));
    with_acts(&acts, &whole);
    with_acts(&acts, &out);
    monosema(&small("train", &whole, &LONG)).ok();
    let dictionary = out.join("dictionary");
    interrupt(&out, &LONG, &dictionary);
    let path = newest(&dictionary).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let again = monosema(&small("train", &out, &LONG)).ok();
    assert!(again.stderr.contains("cannot be taken up"), "{}", again.stderr);
    assert!(results(&dictionary) == results(&whole.join("dictionary")));
}

#[test]
fn a_member_of_a_sweep_is_what_it_is_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (acts, sweep) = (harvested(dir.path()), dir.path().join("sweep"));
    with_acts(&acts, &sweep);
    let grid = "train.sweep=[{sparsity=[1.0,3.0],seed=[0,7]},{width={latents=[96]}}]";
    let more = [&LONG[..], &["--set", grid]].concat();
    let names = [
        "sparsity=1.0,seed=0",
        "sparsity=1.0,seed=7",
        "sparsity=3.0,seed=0",
        "sparsity=3.0,seed=7",
        "width.latents=96",
    ];
    let member = |name: &str| sweep.join("sweep").join(name).join("dictionary");
    interrupt(&sweep, &more, &member(names[4]));
    let table = monosema(&small("train", &sweep, &more)).ok().stdout;
    assert!(names.iter().all(|name| table.contains(name)) && table.contains("summary.html"), "{table}");
    let alone: [(&str, &[&str]); 3] = [
        (names[0], &["--set", "train.sparsity=1.0"]),
        (names[3], &["--set", "train.sparsity=3.0", "--set", "train.seed=7"]),
        (names[4], &["--set", "train.width={latents=96}"]),
    ];
    for (i, (name, own)) in alone.into_iter().enumerate() {
        let out = dir.path().join(format!("alone{i}"));
        with_acts(&acts, &out);
        monosema(&small("train", &out, &[&LONG[..], own].concat())).ok();
        assert!(results(&out.join("dictionary")) == results(&member(name)), "{name}");
    }
}

#[test]
fn every_architecture_goes_through_the_whole_pipeline() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let grid = "train.sweep=[{architecture={kind=['relu','p_anneal','gated','jump_relu']}},\
                {architecture={kind=['top_k','batch_top_k','matryoshka'],k=8}}]";
    let same = ["--set", "train.normalize='mean_square'", "--set", "train.sparsity_warmup={fraction=0.1}"];
    let more = [&same[..], &["--set", grid, "--set", "train.lr=1e-3", "--json"]].concat();
    let rows = monosema(&small("run", &out, &more)).ok().json();
    assert_eq!(rows.as_array().unwrap().len(), 7);
    for row in rows.as_array().unwrap() {
        let figure = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{row}"));
        assert!(figure("fvu") > 0.0 && figure("fvu") < 1.5 && figure("l0") > 0.0, "{row}");
        assert!(figure("loss_recovered") <= 1.0, "{row}");
        let member = out.join("sweep").join(row["name"].as_str().unwrap());
        for file in ["report.html", "dictionary/cfg.json", "dictionary/logs/report.html"] {
            assert!(member.join(file).is_file(), "{file} of {row}");
        }
    }
    let again = monosema(&small("run", &out, &more)).ok();
    assert_eq!(again.stderr.matches("skipped").count(), 1 + 7 + 7, "{}", again.stderr);
}

#[test]
fn a_transcoder_reads_one_hook_and_is_judged_at_another() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let more = [
        "--set",
        "harvest.hooks=['blocks.1.hook_resid_mid','blocks.1.hook_mlp_out']",
        "--set",
        "train.hook='blocks.1.hook_resid_mid'",
        "--set",
        "train.hook_out='blocks.1.hook_mlp_out'",
        "--set",
        "train.skip=true",
        "--json",
    ];
    let report = monosema(&small("run", &out, &more)).ok().json();
    assert_eq!(report["dictionary"]["hook_out"], "blocks.1.hook_mlp_out");
    let fvu = report["metrics"]["fvu"].as_f64().unwrap();
    assert!(fvu > 0.0 && fvu < 0.9, "{fvu}");
    let figure = |name: &str| report["metrics"][name].as_f64().unwrap();
    assert!(figure("ce.clean") < figure("ce.sae") && figure("ce.sae") < figure("ce.zero"));
    let cfg: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("dictionary/cfg.json")).unwrap()).unwrap();
    assert_eq!(cfg["architecture"], "skip_transcoder");
}

#[test]
fn recipes_are_listed_and_printed() {
    let list = monosema(&["recipes"]).ok().stdout;
    assert!(list.lines().count() >= 10 && list.contains("gao2024"), "{list}");
    let recipe = monosema(&["recipes", "gao2024"]).ok().stdout;
    assert!(recipe.contains("geometric_median") && recipe.contains("arxiv.org/abs/2406.04093"), "{recipe}");
    monosema(&["recipes", "gao"]).fails(2, &["expected one of", "gao2024"]);
}
