//! What SAELens and SAEBench measure of a dictionary, on the same windows, is what we measure where their conventions are ours
//! (crates/evaluator/CONVENTIONS.md). `scripts/conformance.sh --write-fixture` wrote what they found, and holds the rest against ours.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

use crate::run::{monosema, root};

/// Relative. Theirs are means of f32 values, of a language model in torch; about 1e-6 was seen.
const TOLERANCE: f64 = 1e-4;

/// Figures by their name and ours, of which SAELens's definition is ours if the same positions are measured, in one batch.
const SAME: [(&str, &str); 10] = [
    ("ce_loss_without_sae", "ce.clean"),
    ("ce_loss_with_sae", "ce.sae"),
    ("explained_variance", "ev.r2"),
    ("explained_variance_legacy", "ev.legacy"),
    ("mse", "mse"),
    ("cossim", "cos"),
    ("l2_ratio", "l2_ratio"),
    ("l0", "l0"),
    ("l1", "l1"),
    ("relative_reconstruction_bias", "rel_bias"),
];

/// What SAEBench defines otherwise: see there.
const OTHER_IN_SAEBENCH: [&str; 2] = ["explained_variance", "mse"];

/// The report on the fixture's windows, and the fixture.
fn measured(out: &Path) -> (Value, Value) {
    let fixture = root().join("tests/fixtures/conformance");
    let expected = fs::read(fixture.join("figures.json")).unwrap();
    let expected: Value = serde_json::from_slice(&expected).unwrap();
    let dictionary = out.join("dictionary");
    fs::create_dir(&dictionary).unwrap();
    for file in fs::read_dir(fixture.join("dictionary")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), dictionary.join(file.file_name())).unwrap();
    }
    // All special tokens are EOS, 0: without them, all windows whole.
    let windows = expected["windows"].as_array().unwrap();
    let tokens = windows.iter().flat_map(|window| window.as_array().unwrap());
    let counted = tokens.filter(|token| token.as_u64() != Some(0)).count();
    let text = format!("data/demo/stories/{}", expected["text"].as_str().unwrap());
    let config = out.join("eval.toml");
    let toml = format!(
        "[model]\npath = 'data/demo/model'\n[context]\nskip_first = 0\n[eval]\ntokens = {counted}\nconventions = ['saelens', 'saebench']\n\
         [[eval.texts]]\nname = 'text'\nfiles = ['{text}']\n"
    );
    fs::write(&config, toml).unwrap();
    let (config, out) = (config.to_str().unwrap(), out.to_str().unwrap());
    (monosema(&["eval", config, "--out", out, "--json"]).ok().json(), expected)
}

#[test]
fn figures_are_those_of_saelens_and_saebench_where_they_mean_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (report, expected) = measured(dir.path());
    assert_eq!(report["texts"][0]["windows_sha256"], expected["windows_sha256"], "other windows");
    let number = |value: &Value, name: &str| value[name].as_f64().unwrap_or_else(|| panic!("no {name}"));
    let same = |judge: &str, theirs: &str, ours: f64| {
        let theirs_is = number(&expected["judges"][judge], theirs);
        assert!(
            (ours - theirs_is).abs() <= TOLERANCE * theirs_is,
            "{theirs}: {judge} {theirs_is}, ours {ours}"
        );
    };
    let metrics = &report["metrics"];
    let saebench = "SAEBench, exclude_special_tokens";
    for (theirs, ours) in SAME {
        let ours = number(metrics, ours);
        same("SAELens", theirs, ours);
        if !OTHER_IN_SAEBENCH.contains(&theirs) {
            same(saebench, theirs, ours);
        }
    }
    // Under its convention every figure of each is ours.
    for (judge, convention) in [("SAELens", "saelens"), ("SAEBench", "saebench")] {
        let theirs = expected["judges"][judge].as_object().unwrap();
        let ours = &report["conventions"][convention];
        let names = ours.as_object().unwrap().keys();
        assert_eq!(names.collect::<BTreeSet<_>>(), theirs.keys().collect::<BTreeSet<_>>());
        theirs.keys().for_each(|name| same(judge, name, number(ours, name)));
    }
    let d_sae = number(&report["dictionary"], "d_sae");
    same(saebench, "frac_alive", 1.0 - number(metrics, "dead"));
    same(saebench, "freq_over_1_percent", number(metrics, "density.above_0.01") / d_sae);
    same(saebench, "freq_over_10_percent", number(metrics, "density.above_0.1") / d_sae);
}
