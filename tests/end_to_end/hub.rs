//! A model and text from a hub that runs in the test.

use std::{fs, path::Path};

use crate::{
    hub_server::{Repo, Server},
    run::{Run, command, root, small},
};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The files of `directory` in the repository, under `prefix`.
fn repo(directory: &str, prefix: &str) -> Repo {
    let files = fs::read_dir(root().join(directory)).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (format!("{prefix}{}", entry.file_name().to_str().unwrap()), fs::read(entry.path()).unwrap())
    });
    Repo { commit: COMMIT.into(), files: files.collect(), gated: None }
}

fn run(server: &Server, cache: &Path, offline: bool, args: &[&str]) -> Run {
    let mut command = command(args);
    command.env("HF_ENDPOINT", &server.endpoint).env("HF_HUB_CACHE", cache).env("HF_TOKEN", "");
    command.env("HF_HUB_OFFLINE", if offline { "1" } else { "0" });
    Run::of(&mut command)
}

#[test]
fn a_run_from_the_hub_is_the_run_from_the_disk() {
    let server = Server::start(&[
        ("models/demo/lm", repo("data/demo/model", "")),
        ("datasets/demo/stories", repo("data/demo/stories", "data/")),
    ]);
    let dir = tempfile::tempdir().unwrap();
    let [remote, local, cache] = ["remote", "local", "cache"].map(|name| dir.path().join(name));
    let there = [
        "--set",
        "model.path='hf:demo/lm'",
        "--set",
        "harvest.text.files=['hf:datasets/demo/stories/data/train*']",
        "--json",
    ];
    let harvest = small("harvest", &remote, &there);
    let found = run(&server, &cache, false, &harvest).ok();
    let manifest = found.json();
    assert_eq!(manifest["inputs"]["model"]["name"], "demo/lm");
    assert_eq!(manifest["inputs"]["model"]["resolved"], format!("hf:demo/lm@{COMMIT}"));
    let text = format!("hf:datasets/demo/stories/data/train*@{COMMIT}");
    assert_eq!(manifest["inputs"]["text"]["resolved"], text);
    let here = run(&server, &cache, false, &small("harvest", &local, &["--json"])).ok().json();
    assert_eq!(manifest["files"], here["files"]);
    assert_eq!(manifest["inputs"]["model"]["sha256"], here["inputs"]["model"]["sha256"]);
    // What is not needed is not fetched.
    let mut downloads = server.downloads();
    downloads.sort();
    let needed =
        ["config.json", "data/train.jsonl", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    assert_eq!(downloads, needed);
    // The same work, and nothing to ask for.
    let again = run(&server, &cache, true, &harvest).ok();
    assert!(again.stderr.contains("already done, skipped"), "{}", again.stderr);
    assert_eq!(server.requests(), Vec::<String>::new());
    let inspected = run(&server, &cache, true, &["inspect", "hf:demo/lm"]).ok();
    assert!(inspected.stdout.contains("demo/lm"), "{}", inspected.stdout);
}

#[test]
fn what_the_hub_does_not_have_is_bad_usage() {
    let gated = Repo { gated: Some(403), ..repo("data/demo/model", "") };
    let server = Server::start(&[("models/demo/gated", gated)]);
    let dir = tempfile::tempdir().unwrap();
    let (out, cache) = (dir.path().join("out"), dir.path().join("cache"));
    let model = |name: &str| format!("model.path='{name}'");
    for (offline, name, said) in [
        (false, "hf:demo/none", ["hf:demo/none@main", "does not exist"]),
        (false, "hf:demo/gated", ["accept its terms at", "HF_TOKEN"]),
        (true, "hf:demo/gated@v1", ["hf:demo/gated@v1", "HF_HUB_OFFLINE"]),
        (false, "hf:gpt2", ["`hf:gpt2`", "hf:openai-community/gpt2"]),
    ] {
        run(&server, &cache, offline, &small("harvest", &out, &["--set", &model(name)])).fails(2, &said);
    }
    assert!(!out.exists());
    let text = "harvest.text.files=['hf:datasets/demo/none']";
    let refused = run(&server, &cache, false, &small("harvest", &out, &["--set", text]));
    refused.fails(2, &["hf:datasets/demo/none@main", "does not exist"]);
}
