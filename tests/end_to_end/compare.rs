//! `monosema compare`: dictionaries against each other.

use std::{fs, path::Path};

use crate::run::{monosema, root, small};

/// What `tests/fixtures/compare/export.py` wrote.
fn fixture(name: &str) -> String {
    root().join("tests/fixtures/compare").join(name).to_str().unwrap().to_owned()
}

#[test]
fn dictionaries_are_compared_on_the_terminal_and_on_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("compared");
    let to = out.to_str().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(fixture);
    let told = monosema(&["compare", &a, &b, &c, "--out", to]).ok();
    for part in ["mmcs.a_to_b", "match.both.shared", "split.novel", "A, B", "B, C", "compare.html"] {
        assert!(told.stdout.contains(part), "{part:?} is not in {}", told.stdout);
    }
    let json = monosema(&["compare", &a, &b, &c, "--json"]).ok().json();
    let written: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("compare.json")).unwrap()).unwrap();
    assert_eq!(json["pairs"], written["pairs"]);
    assert_eq!(json["pairs"].as_array().unwrap().len(), 3);
    let page = fs::read_to_string(out.join("compare.html")).unwrap();
    assert!(page.contains("Latents of A by their number of children in C"));

    monosema(&["compare", &a, &b, "--out", to]).fails(2, &["compare.json", "--overwrite"]);
    monosema(&["compare", &a, &b, "--out", to, "--overwrite"]).ok();
}

#[test]
fn runs_are_compared_by_their_dictionaries() {
    let dir = tempfile::tempdir().unwrap();
    let (out, other) = (dir.path().join("run"), dir.path().join("other"));
    monosema(&small("harvest", &out, &[])).ok();
    monosema(&small("train", &out, &[])).ok();
    monosema(&small("harvest", &other, &[])).ok();
    monosema(&small("train", &other, &["--set", "train.width={latents=128}"])).ok();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let json = monosema(&["compare", &path(&out), &path(&other), "--json"]).ok().json();
    let pair = &json["pairs"][0];
    assert_eq!((&pair["splitting"]["smaller"], &pair["splitting"]["larger"]), (&"B".into(), &"A".into()));
    let mmcs = pair["figures"]["mmcs.a_to_b"].as_f64().unwrap();
    assert!(mmcs > 0.0 && mmcs < 1.0, "{mmcs}");
    let itself = monosema(&["compare", &path(&out), &path(&out.join("dictionary"))]).ok();
    assert!(itself.stderr.contains("A and B are the same files"), "{}", itself.stderr);
}

#[test]
fn what_cannot_be_compared_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(fixture);
    monosema(&["compare", &a]).fails(2, &["DIR"]);
    monosema(&["compare", &a, "nowhere"])
        .fails(2, &["nowhere", "the directory of a dictionary", "found nothing"]);
    monosema(&["compare", &a, "README.md"]).fails(2, &["README.md", "found a file"]);
    let empty = dir.path().to_str().unwrap();
    monosema(&["compare", &a, empty]).fails(2, &[empty, "not a dictionary", "cfg.json"]);
    monosema(&["compare", &a, &b, "--threshold", "70"]).fails(2, &["threshold", "70"]);
    monosema(&["compare", &a, &b, "--out", "README.md"]).fails(2, &["--out README.md", "directory"]);
    let other = root().join("tests/fixtures/saelens/plain").to_str().unwrap().to_owned();
    monosema(&["compare", &a, &other]).fails(2, &["plain", "12 dimensions", "of 10"]);
    let limited = monosema(&["compare", &a, &b, "--match-up-to", "23"]).ok();
    assert!(limited.stderr.contains("--match-up-to 24"), "{}", limited.stderr);
}
