//! Training as a user meets it: killed and taken up, many at once, every architecture.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, UNIX_EPOCH},
};

use crate::run::{monosema, small, start};

/// Long enough to be killed in the middle many times; a checkpoint at every line of the logs.
pub(crate) const LONG: [&str; 6] = [
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

pub(crate) fn results(dictionary: &Path) -> Vec<Vec<u8>> {
    RESULTS.iter().map(|name| fs::read(dictionary.join(name)).unwrap()).collect()
}

/// The newest checkpoint of a dictionary's directory, if there is one.
pub(crate) fn newest(dictionary: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(dictionary.join("checkpoints")).ok()?.flatten().map(|entry| entry.path());
    files.filter(|path| path.extension().is_some_and(|e| e == "safetensors")).max()
}

/// Harvests the small experiment once, for others to train on.
pub(crate) fn harvested(dir: &Path) -> PathBuf {
    let out = dir.join("harvested");
    monosema(&small("harvest", &out, &[])).ok();
    out.join("acts")
}

/// A run's directory with these activations.
pub(crate) fn with_acts(acts: &Path, out: &Path) {
    fs::create_dir_all(out.join("acts")).unwrap();
    for entry in fs::read_dir(acts).unwrap().flatten() {
        fs::hard_link(entry.path(), out.join("acts").join(entry.file_name())).unwrap();
    }
}

/// Into how many parts a training is broken.
const PARTS: u32 = 4;

/// Points to kill at, from a seed that a failure tells.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// As good as random; the seed of `MONOSEMA_TEST_SEED` if there is one.
    pub(crate) fn new() -> Self {
        let given = std::env::var("MONOSEMA_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = || UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into();
        Self(given.unwrap_or_else(now))
    }

    /// Between 0 and 1. (SplitMix64.)
    pub(crate) fn throw(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Kills a training at random points until it is through, and compares it with one that was left alone.
fn killed_again_and_again(settings: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let acts = harvested(dir.path());
    let [whole, killed] = ["whole", "killed"].map(|name| dir.path().join(name));
    with_acts(&acts, &whole);
    with_acts(&acts, &killed);
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    let more: Vec<&str> = LONG.into_iter().chain(settings).collect();
    monosema(&small("train", &whole, &more)).ok();
    let (dictionary, mut dice) = (killed.join("dictionary"), Dice::new());
    let about = format!("MONOSEMA_TEST_SEED={}, {more:?}", dice.0);
    let lines = fs::read_to_string(whole.join("dictionary/logs/metrics.jsonl")).unwrap().lines().count();
    // Somewhere in each of these parts of the training, and a while after the checkpoint there.
    let mut kills = 0;
    'parts: for part in 0..PARTS {
        let at = (0.9 * 3.0 * lines as f64 * (f64::from(part) + dice.throw()) / f64::from(PARTS)) as usize;
        let mut child = start(&small("train", &killed, &more));
        while newest(&dictionary) < Some(dictionary.join(format!("checkpoints/step-{at:012}.safetensors"))) {
            // On a busy machine the end may come before anybody looks.
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "it failed before step {at}: {about}");
                break 'parts;
            }
            sleep(Duration::from_millis(1));
        }
        sleep(Duration::from_secs_f64(0.02 * dice.throw()));
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            break;
        }
        kills += 1;
    }
    assert!(kills > 0, "it was never killed: {about}");
    monosema(&small("train", &killed, &more)).ok();
    assert!(results(&killed.join("dictionary")) == results(&whole.join("dictionary")), "{about}");
    assert!(!killed.join("dictionary/checkpoints").exists());
}

#[test]
fn a_killed_relu_comes_to_the_same() {
    killed_again_and_again(&[]);
}

/// Dead latents, a moving average, a running threshold.
#[test]
fn a_killed_batch_top_k_comes_to_the_same() {
    killed_again_and_again(&[
        "train.architecture={kind='batch_top_k',k=8}",
        "train.tokens=400000",
        "train.ema_decay=0.9",
        "train.sparsity=0.0",
        "train.dead_after_tokens=5000",
        "train.width={latents=512}",
    ]);
}

/// Dead latents that begin anew.
#[test]
fn a_killed_gated_that_is_resampled_comes_to_the_same() {
    killed_again_and_again(&[
        "train.architecture={kind='gated'}",
        "train.tokens=300000",
        "train.resample_every={steps=50}",
        "train.resample_until={fraction=0.9}",
        "train.dead_after_tokens=5000",
    ]);
}

/// A penalty and its coefficient that change.
#[test]
fn a_killed_p_annealing_comes_to_the_same() {
    killed_again_and_again(&[
        "train.architecture={kind='p_anneal',annealing={p_start=1.0,p_end=0.3,start=0.05,end=0.9,changes=25}}",
        "train.sparsity=0.05",
        "train.tokens=300000",
    ]);
}

/// The other step, in parts of a batch.
#[test]
fn a_killed_autodiff_training_comes_to_the_same() {
    killed_again_and_again(&[
        "train.step='autodiff'",
        "train.micro_batch_tokens=300",
        "train.ema_decay=0.99",
        "train.tokens=200000",
    ]);
}

/// Kills a training into `out` once it has a checkpoint.
pub(crate) fn interrupt(out: &Path, more: &[&str], dictionary: &Path) {
    interrupt_after(None, out, more, dictionary);
}

/// Kills it once it has a later checkpoint than this one.
fn interrupt_after(checkpoint: Option<&Path>, out: &Path, more: &[&str], dictionary: &Path) {
    let mut child = start(&small("train", out, more));
    while newest(dictionary).as_deref() <= checkpoint {
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
    interrupt_after(newest(&dictionary).as_deref(), &out, &LONG, &dictionary);
    let path = newest(&dictionary).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    // It no longer counts as one of those that are kept.
    let aside = path.with_extension("safetensors.unusable");
    interrupt_after(Some(&path), &out, &LONG, &dictionary);
    assert!(aside.exists());
    monosema(&small("train", &out, &LONG)).ok();
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

    // At all hooks at once, which is this one: it reads before the first of them.
    let evaluated = |cfg: &serde_json::Value, name: &str, more: &[&str]| {
        let copy = dir.path().join(name);
        fs::create_dir(&copy).unwrap();
        fs::write(copy.join("cfg.json"), cfg.to_string()).unwrap();
        fs::copy(out.join("dictionary/sae_weights.safetensors"), copy.join("sae_weights.safetensors"))
            .unwrap();
        let (elsewhere, copy) = (dir.path().join("elsewhere"), copy.to_str().unwrap().to_owned());
        monosema(&small("eval", &elsewhere, &[&[&*copy, "--json"], more].concat())).ok().json()
    };
    let together = evaluated(&cfg, "copy", &["--together"]);
    for name in ["ce.clean", "ce.sae", "ce.resample", "kl"] {
        let value = together["together"]["metrics"][name].as_f64().unwrap();
        assert!((value - figure(name)).abs() < 1e-6, "{name}: {value}, alone {}", figure(name));
    }
    // One that says to write where it reads replaces what it read.
    let mut same = cfg;
    let metadata = same["metadata"].as_object_mut().unwrap();
    metadata["hook_name_out"] = metadata["hook_name"].clone();
    for more in [&[][..], &["--together"]] {
        evaluated(&same, if more.is_empty() { "same" } else { "all" }, more);
    }
}

#[test]
fn recipes_are_listed_and_printed() {
    let list = monosema(&["recipes"]).ok().stdout;
    assert!(list.lines().count() >= 10 && list.contains("gao2024"), "{list}");
    let recipe = monosema(&["recipes", "gao2024"]).ok().stdout;
    assert!(recipe.contains("geometric_median") && recipe.contains("arxiv.org/abs/2406.04093"), "{recipe}");
    monosema(&["recipes", "gao"]).fails(2, &["expected one of", "gao2024"]);
}
