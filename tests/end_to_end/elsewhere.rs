//! Activations in an object store; a directory plays its part, through the same code (scripts/object-store-check.sh does the same
//! with a real server).

use std::{
    fs,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::run::{monosema, small, start};

/// Documents have windows of their own, so that parts cut them alike, and all of them are read; shards are small.
const PARTED: [&str; 6] = [
    "--set",
    "context.span_documents=false",
    "--set",
    "harvest.shard_tokens=2000",
    "--set",
    "harvest.text.max_documents=60",
];

fn files(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

fn weights(out: &Path) -> Vec<u8> {
    fs::read(out.join("dictionary/sae_weights.safetensors")).unwrap()
}

#[test]
fn harvests_in_parts_go_to_one_place_and_are_trained_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let [local, first, second, bucket] =
        ["local", "first", "second", "bucket"].map(|name| dir.path().join(name));
    let to = format!("harvest.to='file://{}/acts'", bucket.display());
    let there = [&PARTED[..], &["--set", &to]].concat();
    let part = |n| [&there[..], &["--part", n]].concat();
    monosema(&small("train", &local, &PARTED)).fails(2, &["acts"]);
    monosema(&small("harvest", &local, &PARTED)).ok();
    monosema(&small("train", &local, &PARTED)).ok();

    // Two machines, each with a disk of its own.
    monosema(&small("harvest", &first, &part("1/2"))).ok();
    assert!(!first.join("acts").exists());
    let unfinished = monosema(&small("seal", &first, &there));
    unfinished.fails(1, &["part-00002-of-00002", "`monosema harvest` with --part 2/2"]);
    monosema(&small("train", &first, &there)).fails(2, &["monosema seal"]);
    monosema(&small("harvest", &second, &part("2/2"))).ok();
    monosema(&small("seal", &second, &there)).ok();
    let trained = monosema(&small("train", &first, &there)).ok();
    assert!(trained.stderr.contains("train:"), "{}", trained.stderr);
    assert!(weights(&first) == weights(&local));

    let place = format!("file://{}/acts", bucket.display());
    let inspected = monosema(&["inspect", &place, "--verify"]).ok();
    assert!(inspected.stdout.contains("verified"), "{}", inspected.stdout);
    // Done is done, wherever it is asked; and other work is refused, and never replaced.
    let again = monosema(&small("harvest", &first, &part("2/2"))).ok();
    assert!(again.stderr.contains("already done, skipped"), "{}", again.stderr);
    let other = [&part("2/2")[..], &["--set", "harvest.dtype='bf16'", "--overwrite"]].concat();
    monosema(&small("harvest", &first, &other)).fails(2, &["results of other work", "choose another `to`"]);
    monosema(&small("harvest", &first, &["--set", "harvest.to='acts'"]))
        .fails(2, &["to = \"acts\"", "s3://bucket/acts"]);
}

#[test]
fn a_harvest_elsewhere_that_is_killed_goes_on_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, killed, bucket] = ["whole", "killed", "bucket"].map(|name| dir.path().join(name));
    let to = format!("harvest.to='file://{}'", bucket.display());
    let small_shards = ["--set", "harvest.shard_tokens=1500"];
    let there = [&small_shards[..], &["--set", &to]].concat();
    monosema(&small("harvest", &whole, &small_shards)).ok();
    let mut kills = 0;
    let began = Instant::now();
    while kills < 3 {
        assert!(began.elapsed() < Duration::from_secs(120), "it was never there to be killed");
        let before = files(&bucket).len();
        let mut child = start(&small("harvest", &killed, &there));
        while files(&bucket).len() < before + 2 {
            if child.try_wait().unwrap().is_some() {
                break;
            }
            sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    monosema(&small("harvest", &killed, &there)).ok();
    let shards: Vec<_> =
        files(&whole.join("acts")).into_iter().filter(|name| name.ends_with(".parquet")).collect();
    assert_eq!(shards.len(), 14);
    for shard in &shards {
        assert!(
            fs::read(bucket.join(shard)).unwrap() == fs::read(whole.join("acts").join(shard)).unwrap(),
            "{shard}"
        );
    }
}
