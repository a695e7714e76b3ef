//! Harvesting as a user meets it: killed and taken up, shards lost and made anew, split into parts and joined, disks that are full.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use serde_json::Value;

use crate::{
    run::{Run, command, monosema, small, start},
    training::Dice,
};

/// Many shards, of windows that the model takes two by two.
const SHARDS: [&str; 6] = [
    "--set",
    "harvest.tokens=60000",
    "--set",
    "harvest.shard_tokens=1000",
    "--set",
    "harvest.batch_tokens=256",
];

/// Documents kept apart, each window by itself: parts then hold what the whole does.
const APART: [&str; 8] = [
    "--set",
    "context.span_documents=false",
    "--set",
    "harvest.batch_tokens=1",
    "--set",
    "harvest.shard_tokens=1000",
    "--set",
    "harvest.text.max_documents=100",
];

fn with<'a>(settings: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [settings, more].concat()
}

fn shards(acts: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(acts).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut shards: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|e| e == "parquet")).collect();
    shards.sort();
    shards
}

fn files(acts: &Path) -> Value {
    let manifest = fs::read(acts.join("manifest.json")).unwrap();
    serde_json::from_slice::<Value>(&manifest).unwrap()["files"].clone()
}

fn verified(acts: &Path) -> Run {
    monosema(&["inspect", acts.to_str().unwrap(), "--verify", "--json"]).ok()
}

/// Starts a harvest and kills it once there are so many shards. Returns whether it could be killed.
fn kill_at(n: usize, out: &Path, more: &[&str]) -> bool {
    kill_when(|| shards(&out.join("acts")).len() >= n, out, more)
}

fn kill_when(there: impl Fn() -> bool, out: &Path, more: &[&str]) -> bool {
    let mut child = start(&small("harvest", out, more));
    while !there() {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            return false;
        }
        sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

#[test]
fn a_killed_harvest_comes_to_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, killed] = ["whole", "killed"].map(|name| dir.path().join(name));
    monosema(&small("harvest", &whole, &SHARDS)).ok();
    let mut dice = Dice::new();
    let about = format!("MONOSEMA_TEST_SEED={}", dice.0);
    let (mut kills, mut there) = (0, 0);
    for part in 0..4 {
        let at = 1 + (50.0 * (f64::from(part) + dice.throw()) / 4.0) as usize;
        if at > there && !kill_at(at, &killed, &SHARDS) {
            break;
        }
        kills += 1;
        assert!(!killed.join("acts/manifest.json").exists(), "{about}");
        there = shards(&killed.join("acts")).len();
    }
    assert!(kills > 0, "it was never killed: {about}");
    // The last one is cut short, as no kill leaves it but a disk may.
    let last = shards(&killed.join("acts")).pop().unwrap();
    fs::File::options().write(true).open(&last).unwrap().set_len(1000).unwrap();
    let first = shards(&killed.join("acts"))[0].clone();
    let before = fs::metadata(&first).unwrap().modified().unwrap();
    let again = monosema(&small("harvest", &killed, &SHARDS)).ok();
    assert!(again.stderr.contains("shard(s) are there already"), "{}", again.stderr);
    // Nobody can tell what a file was that cannot be read, so it is kept.
    fs::remove_file(last.with_extension("parquet.damaged")).unwrap();
    assert_eq!(fs::metadata(&first).unwrap().modified().unwrap(), before, "{about}");
    assert_eq!(files(&killed.join("acts")), files(&whole.join("acts")), "{about}");
    verified(&killed.join("acts"));
}

#[test]
fn an_interrupted_harvest_of_other_work_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    assert!(kill_at(2, &out, &SHARDS));
    let there = shards(&out.join("acts"));
    let other = with(&SHARDS, &["--set", "seed=7"]);
    monosema(&small("harvest", &out, &other)).fails(2, &["acts", "other work", "--overwrite", "--out"]);
    assert_eq!(shards(&out.join("acts")), there, "what was there is untouched");
    fs::write(out.join("acts/notes.txt"), "mine").unwrap();
    monosema(&small("harvest", &out, &with(&other, &["--overwrite"]))).ok();
    assert_eq!(verified(&out.join("acts")).json()["manifest"]["seed"], 7);
    assert_eq!(fs::read(out.join("acts/notes.txt")).unwrap(), b"mine", "files of others are kept");
}

#[test]
fn shards_that_were_lost_are_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let acts = out.join("acts");
    monosema(&small("harvest", &out, &SHARDS)).ok();
    let names = shards(&acts);
    let read = || names.iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>();
    let stamps = || {
        let modified = |path: &PathBuf| fs::metadata(path).unwrap().modified().unwrap();
        names.iter().map(modified).collect::<Vec<_>>()
    };
    let (bytes, before) = (read(), stamps());
    fs::remove_file(&names[10]).unwrap();
    fs::File::options().write(true).open(&names[20]).unwrap().set_len(1000).unwrap();
    monosema(&small("train", &out, &[])).fails(2, &["shard-00010.parquet", "run the harvest stage again"]);
    let other = with(&SHARDS, &["--set", "seed=7"]);
    monosema(&small("harvest", &out, &other)).fails(2, &["other work", "seed"]);
    let again = monosema(&small("harvest", &out, &SHARDS)).ok();
    assert!(again.stderr.contains("2 shard(s) are missing"), "{}", again.stderr);
    assert!(read() == bytes);
    let changed = stamps().iter().zip(&before).filter(|(now, before)| now != before).count();
    assert_eq!(changed, 2, "the others are left alone");
    let done = monosema(&small("harvest", &out, &SHARDS)).ok();
    assert!(done.stderr.contains("already done, skipped"), "{}", done.stderr);

    // What a digest alone can tell.
    let mut damaged = bytes[30].clone();
    damaged[500] ^= 1;
    fs::write(&names[30], damaged).unwrap();
    let verify = ["inspect", acts.to_str().unwrap(), "--verify"];
    monosema(&verify).fails(1, &["shard-00030.parquet", "expected sha256", "remove it"]);
    fs::remove_file(&names[30]).unwrap();
    monosema(&small("harvest", &out, &SHARDS)).ok();
    assert!(read() == bytes);
}

/// A limit of the size of files stands in for a full disk: the system says no in the middle of a shard.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_what_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, full] = ["whole", "full"].map(|name| dir.path().join(name));
    monosema(&small("harvest", &whole, &SHARDS)).ok();
    // The last shard is the shortest; all others are refused, unless they are there.
    assert!(kill_at(3, &full, &SHARDS));
    let there = shards(&full.join("acts"));
    let plain = command(&small("harvest", &full, &SHARDS));
    let mut limited = std::process::Command::new("sh");
    // In blocks of 512 bytes; what the signal would say is said by the call too.
    limited.args(["-c", "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\""]).arg(plain.get_program());
    let output = limited.args(plain.get_args()).current_dir(crate::run::root()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["there is no room for the", "bytes of this shard", "still to come", "it goes on from"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    assert!(shards(&full.join("acts")).starts_with(&there), "what is finished stays");
    monosema(&small("harvest", &full, &SHARDS)).ok();
    assert_eq!(files(&full.join("acts")), files(&whole.join("acts")));
}

#[test]
fn parts_beside_one_another_make_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, split] = ["whole", "split"].map(|name| dir.path().join(name));
    let train = ["--set", "train.tokens=8192", "--set", "train.batch_tokens=1024"];
    monosema(&small("harvest", &whole, &APART)).ok();
    monosema(&small("train", &whole, &with(&APART, &train))).ok();

    let part = |part| with(&APART, &["--part", part]);
    let acts = split.join("acts");
    let mut first = start(&small("harvest", &split, &part("1/3")));
    let mut second = start(&small("harvest", &split, &part("2/3")));
    assert!(first.wait().unwrap().success() && second.wait().unwrap().success(), "side by side");
    monosema(&small("train", &split, &APART)).fails(2, &["(2 of 3)", "monosema seal"]);
    monosema(&small("harvest", &split, &APART)).fails(2, &["not joined", "monosema seal"]);
    let seal = |out: &Path, more: &[&str]| {
        let settings = with(&APART, more);
        let mut args = vec!["seal", "configs/quickstart.toml", "--out", out.to_str().unwrap()];
        // What trainings and evaluations are told is no matter of it.
        args.extend(["--set", "harvest.tokens=20000"]);
        args.extend(settings);
        monosema(&args)
    };
    seal(&split, &[]).fails(1, &["part-00003-of-00003", "part 3/3 is not finished", "--part 3/3"]);
    monosema(&["inspect", acts.to_str().unwrap()]).fails(2, &["(2 of 3)", "monosema seal"]);
    let third = with(&part("3/3"), &["--set", "seed=7"]);
    monosema(&small("harvest", &split, &third)).ok();
    seal(&split, &[]).fails(1, &["part-00003-of-00003: a part of other work", "seed"]);
    fs::remove_dir_all(acts.join("part-00003-of-00003")).unwrap();
    monosema(&small("harvest", &split, &part("3/3"))).ok();
    assert_eq!(seal(&split, &["--json"]).ok().json()["config"]["parts"], 3);
    verified(&acts);

    // Fewer tokens than the whole had were asked of no part, so that the parts have what the whole has, to the bit.
    let tokens = |acts: &Path| verified(acts).json()["tokens"].clone();
    assert_eq!(tokens(&acts), tokens(&whole.join("acts")));
    let trained = |out: &Path| fs::read(out.join("dictionary/sae_weights.safetensors")).unwrap();
    monosema(&small("train", &split, &with(&APART, &train))).ok();
    assert!(trained(&split) == trained(&whole));

    // To the program it is done, whichever way it is asked.
    for again in [part("2/3"), APART.to_vec()] {
        let again = monosema(&small("harvest", &split, &again)).ok();
        assert!(again.stderr.contains("already done, skipped"), "{}", again.stderr);
    }
    let lost = acts.join("part-00002-of-00003/shard-00001.parquet");
    let bytes = fs::read(&lost).unwrap();
    fs::remove_file(&lost).unwrap();
    monosema(&small("harvest", &split, &APART)).fails(2, &["shard-00001.parquet", "--part 2/3"]);
    monosema(&small("harvest", &split, &part("2/3"))).ok();
    assert!(fs::read(&lost).unwrap() == bytes);
    let anew = with(&part("2/3"), &["--overwrite", "--set", "seed=7"]);
    monosema(&small("harvest", &split, &anew)).fails(2, &["joined", "manifest.json"]);
    monosema(&small("harvest", &whole, &part("1/3"))).fails(2, &["not split into parts"]);
    monosema(&small("harvest", &whole, &part("4/3"))).fails(2, &["such as 1/16"]);
}

#[test]
fn hooks_with_shards_of_their_own_go_on_and_go_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let [whole, killed, moved] = ["whole", "killed", "moved"].map(|name| dir.path().join(name));
    let (one, two) = ("blocks.1.hook_resid_post", "blocks.2.hook_resid_post");
    let hooks = format!("harvest.hooks=['{one}','{two}']");
    let hook = format!("train.hook='{two}'");
    let settings = with(&SHARDS, &["--set", &hooks, "--set", "harvest.hooks_apart=true", "--set", &hook]);
    monosema(&small("harvest", &whole, &settings)).ok();
    let there = || shards(&killed.join("acts").join(one)).len() >= 5;
    assert!(kill_when(there, &killed, &settings));
    let other = with(&settings, &["--set", "seed=7"]);
    monosema(&small("harvest", &killed, &other)).fails(2, &["other work", "--overwrite"]);
    monosema(&small("harvest", &killed, &settings)).ok();
    assert_eq!(files(&killed.join("acts")), files(&whole.join("acts")));
    assert_eq!(verified(&killed.join("acts")).json()["schema"]["hooks"].as_array().unwrap().len(), 2);

    // One of them alone.
    fs::create_dir(&moved).unwrap();
    fs::rename(killed.join("acts").join(two), moved.join("acts")).unwrap();
    verified(&moved.join("acts"));
    monosema(&small("train", &killed, &settings)).fails(2, &[two, "run the harvest stage again"]);
    let trained = |out: &Path| {
        monosema(&small("train", out, &settings)).ok();
        fs::read(out.join("dictionary/sae_weights.safetensors")).unwrap()
    };
    assert!(trained(&moved) == trained(&whole));
    monosema(&small("harvest", &killed, &settings)).ok();
    assert_eq!(files(&killed.join("acts").join(two)), files(&moved.join("acts")));
}

#[test]
fn what_is_read_does_not_depend_on_how_it_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let trained = |name: &str, settings: &[&str]| {
        let out = dir.path().join(name);
        monosema(&small("harvest", &out, settings)).ok();
        monosema(&small("train", &out, settings)).ok();
        fs::read(out.join("dictionary/sae_weights.safetensors")).unwrap()
    };
    let expected = trained("one", &[]);
    let cut = ["--set", "harvest.shard_tokens=3000", "--set", "harvest.row_group_tokens=100"];
    assert!(trained("many", &cut) == expected);
    assert!(trained("lists", &with(&cut, &["--set", "harvest.layout=list"])) == expected);
    let buffer = ["--set", "train.shuffle_buffer_tokens=1024"];
    assert!(trained("buffer", &buffer) == expected, "nothing is shuffled in memory");
    assert!(trained("text", &["--set", "harvest.order=text"]) != expected);

    let told = verified(&dir.path().join("many/acts")).json();
    assert_eq!(told["schema"]["order"], "shuffled");
    let figure = |told: &Value, of: &str, key: &str| told["shuffle"][of][key].as_f64().unwrap();
    let error = figure(&told, "as_read", "standard_error");
    assert!(figure(&told, "as_read", "excess").abs() < 4.0 * error, "{told}");
    assert!(figure(&told, "as_harvested", "excess") > 1.0, "{told}");
    let table = monosema(&["inspect", dir.path().join("text/acts").to_str().unwrap()]).ok().stdout;
    assert!(table.contains("order        text") && table.contains("of what chance makes"), "{table}");
}
