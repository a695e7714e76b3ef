//! `monosema convert`: dictionaries of other tools become ones of SAELens's or sparsify's, or nothing does.

use std::{fs, path::Path};

use crate::run::{Run, monosema, root, small};

fn convert(source: &Path, destination: &Path, more: &[&str]) -> Run {
    monosema(&[&["convert", source.to_str().unwrap(), destination.to_str().unwrap()][..], more].concat())
}

#[test]
fn a_dictionary_goes_around_and_is_evaluated_alike() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let top_k = ["--set", "train.architecture={kind='top_k',k=8}", "--set", "train.sparsity=0.0"];
    monosema(&small("run", &out, &top_k)).ok();
    let figures = |out: &Path| monosema(&small("eval", out, &["--json"])).ok().json()["metrics"].clone();
    let (trained, acts) = (out.join("dictionary"), out.join("acts"));

    let other = dir.path().join("other");
    let sparse = other.join("dictionary");
    let told = convert(&trained, &sparse, &["--to", "sparsify", "--acts", acts.to_str().unwrap(), "--json"])
        .ok()
        .json();
    assert_eq!((&told["from"], &told["to"]), (&"SAELens v6".into(), &"sparsify".into()));
    assert_eq!(told["verified"]["activations"]["tokens"], 4096);
    assert!(told["largest_relative_difference"].as_f64().unwrap() < 1e-4, "{told}");
    let inspected = monosema(&["inspect", sparse.to_str().unwrap(), "--json"]).ok().json();
    assert_eq!((&inspected["format"], &inspected["architecture"]), (&"sparsify".into(), &"topk".into()));

    let back = dir.path().join("back/dictionary");
    let told = convert(&sparse, &back, &[]).ok();
    assert!(told.stdout.contains("largest relative difference 0.0e0"), "{}", told.stdout);
    let inspected = monosema(&["inspect", back.to_str().unwrap()]).ok().stdout;
    assert!(inspected.contains("SAELens v6") && inspected.contains("topk"), "{inspected}");

    let [first, second, third] = [&out, &other, &dir.path().join("back")].map(|out| figures(out));
    assert!(!first.is_null() && first == second && first == third, "{first} {second} {third}");
}

#[test]
fn other_tools_files_are_read_where_a_dictionary_is_expected() {
    let dir = tempfile::tempdir().unwrap();
    let fixtures = root().join("tests/fixtures");
    let gemma = fixtures.join("gemma_scope/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71");
    let inspected = monosema(&["inspect", gemma.to_str().unwrap(), "--json"]).ok().json();
    assert_eq!((&inspected["format"], &inspected["model"]), (&"Gemma Scope".into(), &"gemma-2-2b".into()));
    let saelens = dir.path().join("new/saelens");
    let told = convert(&gemma, &saelens, &["--model-name", "google/gemma-2-2b"]).ok().stdout;
    assert!(told.contains("blocks.20.hook_resid_post") && told.contains("google/gemma-2-2b"), "{told}");
    assert_eq!(fs::read_dir(dir.path().join("new")).unwrap().count(), 1, "nothing unfinished is left");

    // Once more: nothing is overwritten.
    convert(&gemma, &saelens, &[]).fails(2, &["there already"]);
    let sparsify = dir.path().join("sparsify");
    convert(&gemma, &sparsify, &["--to", "sparsify"]).fails(2, &["sparsify cannot hold", "jumprelu"]);
    let nameless = fixtures.join("dictionary_learning/jump_relu");
    convert(&nameless, &sparsify, &[]).fails(2, &["which hook it reads", "submodule_name", "--hook"]);
    monosema(&["inspect", nameless.to_str().unwrap()]).fails(2, &["monosema convert", "--hook"]);
    convert(&nameless, &sparsify, &["--hook", "blocks.5.resid"])
        .fails(2, &["blocks.5.resid", "hook_resid_pre"]);
    let hook = ["--hook", "blocks.5.hook_resid_pre"];
    convert(&nameless, &sparsify, &[&hook[..], &["--hook-out", "hook_embed"]].concat())
        .fails(2, &["--hook-out", "autoencoder"]);
    convert(&nameless, &sparsify, &[&hook[..], &["--acts", "configs"]].concat()).fails(2, &["configs"]);
    convert(&root().join("configs"), &sparsify, &[]).fails(2, &["not a dictionary", "ae.pt and config.json"]);
    assert!(!sparsify.exists());
    convert(&nameless, &sparsify, &hook).ok();
    assert!(sparsify.join("cfg.json").is_file());
}
