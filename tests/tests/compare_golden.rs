//! What a comparison of dictionaries finds, against numpy and scipy (`tests/fixtures/compare/export.py`).

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use monosema_evaluator::compare::{CompareOptions, Matching, compare};
use serde_json::Value;

/// Directions are f32 here and f64 there: cosines differ by some 1e-7.
const TOLERANCE: f64 = 1e-6;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/compare")
}

/// Latents by number, none left out.
fn places(latents: &[Option<usize>]) -> Value {
    latents.iter().map(|latent| Value::from(*latent)).collect()
}

#[test]
fn figures_and_pairs_are_those_of_scipy() {
    let expected: Value =
        serde_json::from_slice(&std::fs::read(fixture().join("expected.json")).unwrap()).unwrap();
    for other in ["b", "c"] {
        let expected = &expected[format!("a, {other}")];
        let directories = ["a", other].map(|name| fixture().join(name));
        let comparison = compare(&directories, CompareOptions::default(), &Device::flex()).unwrap();
        assert!(comparison.warnings.is_empty(), "{:?}", comparison.warnings);
        let pair = &comparison.pairs[0];
        let figures = expected["figures"].as_object().unwrap();
        assert_eq!(pair.figures.len(), figures.len());
        for (name, value) in figures {
            let (found, expected) = (pair.figures[name].unwrap(), value.as_f64().unwrap());
            assert!((found - expected).abs() < TOLERANCE, "{other}: {name}: {found}, expected {expected}");
        }
        for (direction, found) in [("a_to_b", &pair.a_to_b), ("b_to_a", &pair.b_to_a)] {
            assert_eq!(places(&found.nearest), expected["nearest"][direction], "{other}: {direction}");
        }
        let matchings = pair.matchings.as_ref().unwrap();
        let partners = |matching: &Matching| places(&matching.partner);
        assert_eq!(partners(&matchings.decoder), expected["partners"]["decoder"], "{other}");
        assert_eq!(partners(matchings.both.as_ref().unwrap()), expected["partners"]["both"], "{other}");
        // The other way round they are the same pairs, and the smaller dictionary is still the smaller one.
        let back = compare(
            &[directories[1].clone(), directories[0].clone()],
            CompareOptions::default(),
            &Device::flex(),
        )
        .unwrap();
        let back = &back.pairs[0];
        assert_eq!(back.b_to_a, pair.a_to_b);
        let forth = &matchings.decoder.partner;
        for (j, i) in back.matchings.as_ref().unwrap().decoder.partner.iter().enumerate() {
            if let Some(i) = i {
                assert_eq!(forth[*i], Some(j), "{other}");
            }
        }
        if other == "c" {
            assert_eq!(back.splitting.parents, pair.splitting.parents);
        }
    }
}
