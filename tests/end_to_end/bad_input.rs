//! Bad input of every kind: a clear error, the right exit status, and nothing lost.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::run::{monosema, root, small};

/// A copy of the demo's model to damage.
fn model(dir: &Path) -> PathBuf {
    let copy = dir.join("model");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(root().join("data/demo/model")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    copy
}

fn truncate(file: &Path, bytes: u64) {
    fs::OpenOptions::new().write(true).open(file).unwrap().set_len(bytes).unwrap();
}

/// Asserts that nothing was begun.
fn untouched(out: &Path) {
    assert!(!out.exists(), "{} was made", out.display());
}

#[test]
fn configuration() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let fails = |more: &[&str], parts: &[&str]| {
        monosema(&small("run", &out, more)).fails(2, parts);
        untouched(&out);
    };
    fails(
        &["--set", "train.learning_rate=1e-4"],
        &["unknown field `learning_rate`", "nearest key that is known here is `lr`"],
    );
    fails(&["--set", "train.batch_token=1"], &["unknown field `batch_token`", "did you mean `batch_tokens`"]);
    fails(&["--set", "harvest.hooks=['blocks.99.hook_resid_post']"], &["blocks.99.hook_resid_post", "4"]);
    fails(&["--set", "harvest.hooks=['blocks.1.resid']"], &["blocks.1.resid", "hook_resid_post"]);
    fails(&["--set", "train.shuffle_buffer_tokens=10"], &["shuffle_buffer_tokens", "1024"]);
    fails(&["--set", "model.path=no/such/model"], &["no/such/model"]);
    fails(&["--set", "harvest.text.files=['no/such/*.txt']"], &["no/such/*.txt"]);
    fails(&["--set", "context.length=100000"], &["100000"]);
    fails(&["--set", "device=tpu"], &["tpu", "cpu"]);
    fails(&["--set", "harvest.dtype=f31"], &["unknown variant `f31`", "did you mean"]);
    let bare = dir.path().join("bare.toml");
    fs::write(&bare, "[model]\npath = 'data/demo/model'\n").unwrap();
    monosema(&["run", bare.to_str().unwrap()]).fails(2, &["bare.toml", "[harvest]"]);
    monosema(&["run", "no/such.toml"]).fails(2, &["no/such.toml"]);
    monosema(&["run"]).fails(2, &["Usage"]);
}

#[test]
fn weights() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let model = model(dir.path());
    let path = format!("model.path={}", model.display());
    let weights = model.join("model.safetensors");
    let length = fs::metadata(&weights).unwrap().len();
    truncate(&weights, length / 2);
    monosema(&small("run", &out, &["--set", &path])).fails(2, &["model.safetensors"]);
    untouched(&out);

    fs::remove_file(&weights).unwrap();
    monosema(&small("run", &out, &["--set", &path])).fails(2, &["model.safetensors"]);
    fs::write(model.join("config.json"), "{").unwrap();
    monosema(&small("run", &out, &["--set", &path])).fails(2, &["config.json"]);
    untouched(&out);
}

#[test]
fn a_gguf_of_an_unknown_type() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    // Version 3, one tensor, no metadata: `w`, one dimension of 32, ggml type 99, at offset 0.
    let mut gguf = b"GGUF".to_vec();
    gguf.extend(3u32.to_le_bytes());
    gguf.extend(1u64.to_le_bytes());
    gguf.extend(0u64.to_le_bytes());
    gguf.extend(1u64.to_le_bytes());
    gguf.extend(b"w");
    gguf.extend(1u32.to_le_bytes());
    gguf.extend(32u64.to_le_bytes());
    gguf.extend(99u32.to_le_bytes());
    gguf.extend(0u64.to_le_bytes());
    gguf.resize(4096, 0);
    let file = dir.path().join("model.gguf");
    fs::write(&file, &gguf).unwrap();
    let path = format!("model.path={}", file.display());
    monosema(&small("run", &out, &["--set", &path])).fails(2, &["model.gguf", "99"]);
    truncate(&file, 30);
    monosema(&small("run", &out, &["--set", &path])).fails(2, &["model.gguf"]);
    untouched(&out);
}

#[test]
fn text() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("text.txt");
    let files = format!("harvest.text.files=['{}']", file.display());
    for (contents, parts) in [
        (&b"fine so far \xff\xfe and no further"[..], &["text.txt", "UTF-8", "12"][..]),
        (b"", &["text"]),
        (b" ", &["text"]),
    ] {
        let out = dir.path().join("run");
        fs::write(&file, contents).unwrap();
        monosema(&small("run", &out, &["--set", &files])).fails(2, parts);
        assert!(!out.join("acts/manifest.json").exists(), "nothing is sealed");
    }
}

/// A harvest of `file` alone into `out`, which is not there yet.
fn harvest(out: &Path, file: &Path, more: &[&str]) -> crate::run::Run {
    let files = format!("harvest.text.files=['{}']", file.display());
    let _ = fs::remove_dir_all(out);
    monosema(&small("harvest", out, &[&["--set", &files][..], more].concat()))
}

#[test]
fn lines_and_rows() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let fails = |name: &str, contents: &[u8], parts: &[&str]| {
        let file = dir.path().join(name);
        fs::write(&file, contents).unwrap();
        harvest(&out, &file, &[]).fails(2, parts);
        untouched(&out);
    };
    fails("text.jsonl", b"{\"text\": \"a\"}\n{\"txt\": \"b\"}\n", &["text.jsonl:2", "`text`"]);
    fails("array.jsonl", b"[\n{\"text\": \"a\"}\n]", &["array.jsonl:1", "one whole JSON object"]);
    fails("empty.jsonl", b"", &["0 token(s) in 0 document(s)"]);
    fails("blank.jsonl", b"{\"text\": \"\"}\n{\"text\": null}\n", &["0 token(s) in 2 document(s)"]);
    fails("empty.parquet", b"", &["empty.parquet", "an empty file"]);
    fails("text.parquet", b"not Parquet, but a line of text", &["text.parquet", "not Parquet"]);
    fails("packed.txt", b"\x1f\x8b\x08\0\0\0\0\0", &["packed.txt", "found gzip", "gunzip"]);
    fails("wide.jsonl", b"\xff\xfe{\0\"\0", &["wide.jsonl", "found UTF-16", "iconv -f utf-16"]);
    // A hole of 2 GB, which takes no room on the disk: one line that does not end.
    let file = dir.path().join("endless.jsonl");
    fs::write(&file, "{\"text\": \"the dog ran\"}\n").unwrap();
    let hole = fs::OpenOptions::new().write(true).open(&file).unwrap();
    hole.set_len(2 << 30).unwrap();
    harvest(&out, &file, &[]).fails(2, &["endless.jsonl:2", "67108864 bytes"]);
    untouched(&out);
}

#[test]
fn text_that_is_not_utf8_is_replaced_where_it_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let file = dir.path().join("text.jsonl");
    // More than the sample that the plan reads, and its last line is where it is not UTF-8; with NULs, too.
    let line = format!("{{\"text\": \"{}\\u0000\"}}\n", "the dog ran to the river. ".repeat(30));
    let broken = [line.repeat(100).as_bytes(), b"{\"text\": \"the \xffdog\xe2\x82 ran\"}\n"].concat();
    fs::write(&file, &broken).unwrap();
    let more = [
        "--set",
        "harvest.tokens=100000",
        "--set",
        "context.separator=eos",
        "--set",
        "context.skip_tokens=['.']",
    ];
    let place = format!("byte {}, in line 101", 100 * line.len() + 14);
    harvest(&out, &file, &more).fails(1, &["text.jsonl", &place, "invalid_utf8 = \"replace\""]);
    assert!(!out.join("acts/manifest.json").exists(), "nothing is sealed");

    let replace = [&more[..], &["--set", "harvest.text.invalid_utf8=replace", "--json"]].concat();
    let run = harvest(&out, &file, &replace).ok();
    let counts = &run.json()["counts"];
    assert_eq!((&counts["invalid_utf8"], &counts["nul"]), (&2.into(), &100.into()), "{counts}");
    assert_eq!(counts["documents"], 101);
    let count = |name: &str| counts[name].as_u64().unwrap();
    // A separator after each document but the last, and full stops: some of either where windows end or begin.
    assert!((90..=100).contains(&count("skipped_special")), "{counts}");
    assert!((2900..=3000).contains(&count("skipped_token")), "{counts}");
    let left_out: u64 = ["position", "bos", "special", "token", "norm"]
        .map(|why| count(&format!("skipped_{why}")))
        .iter()
        .sum();
    assert_eq!(count("tokens"), count("tokens_seen") - left_out);
    for part in [
        "text.jsonl: document 100: invalid UTF-8",
        "by position",
        "2 invalid UTF-8 sequences replaced",
        "100 NUL",
    ] {
        assert!(run.stderr.contains(part), "{part:?} is not in {}", run.stderr);
    }
}

#[test]
fn context() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    for (set, parts) in [
        ("context.positions=1..x", &["positions `1..x`", "`1..64` (64 not included)"][..]),
        ("context.positions='500'", &["[context] positions", "below length"]),
        ("context.positions='0'", &["[context] positions", "skip_first = 1"]),
        ("context.only_tokens=['rivver']", &["[context] only_tokens", "`rivver` is no token", "nearest"]),
        ("context.only_tokens=['<|endoftext|>']", &["[context] only_tokens", "special token", "= false"]),
        ("context.skip_tokens=[99999]", &["[context] skip_tokens", "no token 99999"]),
        ("harvest.max_norm_multiple=1", &["[harvest] max_norm_multiple", "above 1"]),
    ] {
        monosema(&small("run", &out, &["--set", set])).fails(2, parts);
        untouched(&out);
    }
    // What is chosen for the harvest is chosen for the report.
    let set = ["--set", "context.positions=8..16,last", "--set", "harvest.tokens=5000"];
    let run = monosema(&small("run", &out, &[&set[..], &["--json"]].concat())).ok();
    let counted = &run.json()["counted"];
    let skipped = counted["skipped_position"].as_u64().unwrap();
    assert!(skipped > counted["counted_tokens"].as_u64().unwrap(), "{counted}");
    assert!(counted["rule"].as_str().unwrap().contains("only positions 8..16,last"), "{counted}");
}

#[test]
fn a_truncated_shard_and_a_damaged_dictionary() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    monosema(&small("run", &out, &[])).ok();
    let acts = out.join("acts");
    let shard = fs::read_dir(&acts)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|e| e == "parquet"))
        .unwrap();
    let name = shard.file_name().unwrap().to_str().unwrap().to_owned();
    let weights = fs::read(out.join("dictionary/sae_weights.safetensors")).unwrap();
    let length = fs::metadata(&shard).unwrap().len();
    truncate(&shard, length - 100);
    monosema(&small("train", &out, &["--overwrite"])).fails(2, &[&name, "expected"]);
    assert_eq!(
        fs::read(out.join("dictionary/sae_weights.safetensors")).unwrap(),
        weights,
        "the dictionary is kept"
    );

    let inspect = ["inspect", acts.to_str().unwrap(), "--verify"];
    monosema(&inspect).fails(2, &[&name, "expected"]);

    truncate(&out.join("dictionary/sae_weights.safetensors"), 1000);
    monosema(&small("eval", &out, &[])).fails(2, &["sae_weights.safetensors"]);
    monosema(&["inspect", out.join("dictionary").to_str().unwrap()]).fails(2, &["sae_weights.safetensors"]);
}

#[test]
fn what_was_to_be_replaced_comes_back_if_its_replacement_fails() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    monosema(&small("harvest", &out, &[])).ok();
    let manifest = fs::read(out.join("acts/manifest.json")).unwrap();
    let device = ["--overwrite", "--set", "harvest.tokens=5000", "--set", "device=tpu"];
    monosema(&small("harvest", &out, &device)).fails(2, &["tpu"]);
    assert_eq!(fs::read(out.join("acts/manifest.json")).unwrap(), manifest);

    // A file whose second line shows only when the harvest reaches it: the estimate reads a sample.
    let text = dir.path().join("text.jsonl");
    let line = |words: usize| format!("{{\"text\": \"{}\"}}\n", "the dog ran ".repeat(words));
    fs::write(&text, format!("{}{}not json\n", line(20_000), line(2000))).unwrap();
    let files = format!("harvest.text.files=['{}']", text.display());
    let broken = ["--overwrite", "--set", &files, "--set", "harvest.tokens=1000000"];
    monosema(&small("harvest", &out, &broken)).fails(1, &["text.jsonl:3"]);
    assert_eq!(fs::read(out.join("acts/manifest.json")).unwrap(), manifest);
    assert!(!out.join("acts.replacement").exists());
    monosema(&["inspect", out.join("acts").to_str().unwrap(), "--verify"]).ok();
}

#[test]
fn a_report_of_somebody_else_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("report.json"), "{\"mine\": 1}").unwrap();
    monosema(&small("run", &out, &[])).fails(2, &["report.json", "--overwrite"]);
    assert_eq!(fs::read(out.join("report.json")).unwrap(), b"{\"mine\": 1}");
    assert!(!out.join("acts").exists(), "refused before anything is done");
    // What shows only after a stage has worked is no fault of usage.
    monosema(&small("run", &out, &["--overwrite"])).ok();
    let report = fs::read(out.join("report.json")).unwrap();
    fs::remove_dir_all(out.join("dictionary")).unwrap();
    monosema(&small("run", &out, &["--set", "train.sparsity=2"])).fails(1, &["report.json", "--overwrite"]);
    assert_eq!(fs::read(out.join("report.json")).unwrap(), report);
}

/// Changes one byte in the middle of `file`, so that only a digest tells.
fn flip(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn what_differs_from_its_manifest_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    monosema(&small("run", &out, &[])).ok();
    fs::remove_file(out.join("report.json")).unwrap();
    flip(&out.join("dictionary/sae_weights.safetensors"));
    monosema(&small("eval", &out, &[])).fails(2, &["sae_weights.safetensors", "expected sha256"]);
    fs::remove_dir_all(out.join("dictionary")).unwrap();
    flip(&out.join("acts/shard-00000.parquet"));
    monosema(&small("train", &out, &[])).fails(1, &["shard-00000.parquet", "expected sha256"]);
    assert!(!out.join("dictionary/manifest.json").exists());
}

#[test]
fn a_dictionary_from_elsewhere_is_evaluated_and_never_trained_over() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    monosema(&small("run", &out, &[])).ok();
    let dictionary = out.join("dictionary");
    fs::remove_file(dictionary.join("manifest.json")).unwrap();
    fs::remove_file(out.join("report.json")).unwrap();
    let weights = || fs::read(dictionary.join("sae_weights.safetensors")).unwrap();
    let before = weights();
    // Ours without its manifest: done anew, but it stays if that fails.
    let diverges = ["--set", "train.lr=1e300"];
    monosema(&small("train", &out, &diverges))
        .fails(1, &["diverged", "stays until its replacement is whole"]);
    assert!(weights() == before);
    // Another's.
    let cfg = dictionary.join("cfg.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&cfg).unwrap()).unwrap();
    json["metadata"].as_object_mut().unwrap().remove("monosema").expect("what monosema says of its own");
    fs::write(&cfg, json.to_string()).unwrap();
    monosema(&small("eval", &out, &[])).ok();
    monosema(&small("train", &out, &[])).fails(2, &["monosema did not train", "--overwrite"]);
    assert!(weights() == before);
}
