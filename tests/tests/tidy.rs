//! What review would have to look for each time: the crate graph, a `//!` on top of each file, and the
//! registered names of the repository.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The only edges there are (ARCHITECTURE.md); every crate may use `core`.
const GRAPH: [(&str, &[&str]); 13] = [
    ("core", &[]),
    ("page", &[]),
    ("remote", &[]),
    ("text", &["remote"]),
    ("transformer", &["text"]),
    ("store", &["remote"]),
    ("allocator", &[]),
    ("kernels", &[]),
    ("sae", &["kernels"]),
    ("harvester", &["text", "transformer", "store"]),
    ("trainer", &["page", "store", "kernels", "sae"]),
    ("evaluator", &["page", "text", "transformer", "sae"]),
    (
        "cli",
        &["allocator", "remote", "text", "transformer", "store", "sae", "harvester", "trainer", "evaluator"],
    ),
];

/// Libraries that must stay on their side of a border.
const FOREIGN: [(&str, &[&str]); 7] = [
    ("remote", &["burn", "arrow", "parquet", "tokenizers"]),
    ("core", &["burn", "arrow", "parquet", "tokenizers"]),
    ("page", &["burn", "arrow", "parquet", "tokenizers", "monosema-core"]),
    ("text", &["burn"]),
    ("store", &["burn", "tokenizers"]),
    ("kernels", &["arrow", "parquet", "tokenizers", "monosema-core"]),
    ("sae", &["arrow", "parquet", "tokenizers"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn dependencies(name: &str) -> BTreeSet<String> {
    let path = root().join("crates").join(name).join("Cargo.toml");
    let manifest: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
    manifest["dependencies"].as_table().unwrap().keys().cloned().collect()
}

#[test]
fn the_crate_graph_is_the_one_written_down() {
    let graph = BTreeMap::from(GRAPH);
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name == "cubecl-llvm-stub" {
            continue;
        }
        let allowed = graph.get(name.as_str()).unwrap_or_else(|| panic!("crate {name} is not in the graph"));
        for dependency in dependencies(&name) {
            let Some(dependency) = dependency.strip_prefix("monosema-") else { continue };
            assert!(
                dependency == "core" || allowed.contains(&dependency),
                "{name} must not depend on {dependency}; see ARCHITECTURE.md"
            );
        }
    }
}

#[test]
fn crates_stay_on_their_side_of_a_border() {
    for (name, foreign) in FOREIGN {
        let found = dependencies(name);
        for library in foreign {
            assert!(!found.contains(*library), "{name} must not know {library}; see ARCHITECTURE.md");
        }
    }
}

#[test]
fn no_document_holds_what_a_merge_or_a_patch_left() {
    let mut files = Vec::new();
    collect(&root(), "md", &mut files);
    assert!(files.len() > 5, "the search found only {files:?}");
    for file in files {
        for (i, line) in fs::read_to_string(&file).unwrap().lines().enumerate() {
            let left =
                ["<<<<<<<", "|||||||", ">>>>>>>", "@@"].into_iter().find(|mark| line.starts_with(mark));
            assert_eq!(left, None, "{}:{}: {line}", file.display(), i + 1);
        }
    }
}

#[test]
fn every_rust_file_says_what_it_is_for() {
    let mut files = Vec::new();
    for top in ["crates", "tests", "benches"] {
        collect(&root().join(top), "rs", &mut files);
    }
    assert!(files.len() > 50, "the search found only {} files", files.len());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//!"), "{} does not begin with //!", file.display());
    }
}

/// Files with this extension, in directories that are neither hidden nor made by a build, a run or a download.
fn collect(directory: &Path, extension: &str, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && !["target", "runs", "cache"].contains(&&*name) {
            collect(&path, extension, files);
        } else if path.extension().is_some_and(|e| e == extension) {
            files.push(path);
        }
    }
}
