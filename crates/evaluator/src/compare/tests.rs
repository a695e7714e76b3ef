//! Comparisons of dictionaries whose latents are known.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use monosema_core::Seed;
use monosema_sae::{Dictionary, Metadata, Output, Sae, SaeConfig, Size, Weights};
use rand::Rng;
use tempfile::TempDir;

use super::{
    CompareError, CompareOptions, Comparison, CosineHistogram, Pair, compare, cosines::in_blocks_of,
    directions::Directions, matching::partners, side::name,
};

/// Rows of f32, each a latent's.
type Rows = Vec<Vec<f32>>;

/// Dictionaries on disk.
struct World(TempDir);

impl World {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Of these rows of W_dec and columns of W_enc.
    fn dictionary(&self, name: &str, decoder: &Rows, encoder: &Rows) -> PathBuf {
        self.with_sparsity(name, decoder, encoder, None)
    }

    fn with_sparsity(
        &self,
        name: &str,
        decoder: &Rows,
        encoder: &Rows,
        log_sparsity: Option<Vec<f32>>,
    ) -> PathBuf {
        let (d_in, d_sae, d_out) = (encoder[0].len(), decoder.len(), decoder[0].len());
        let mut weights = Weights::default();
        let w_enc = (0..d_in).flat_map(|d| encoder.iter().map(move |row| row[d])).collect();
        weights.insert("W_enc", w_enc, [d_in, d_sae]);
        weights.insert("b_enc", vec![0.0; d_sae], [d_sae]);
        weights.insert("W_dec", decoder.concat(), [d_sae, d_out]);
        weights.insert("b_dec", vec![0.0; d_out], [d_out]);
        let hook = "blocks.1.hook_resid_post".parse().unwrap();
        let mut metadata = Metadata::new(hook);
        let mut size = Size::new(d_in, d_sae);
        if d_out != d_in {
            size.output = Some(Output { d_out, skip: false });
            metadata.hook_out = Some(hook);
        }
        let sae = Sae::from_weights(&SaeConfig::default(), size, weights, &Device::flex());
        let directory = self.0.path().join(name);
        std::fs::create_dir(&directory).unwrap();
        Dictionary::new(sae, metadata, log_sparsity).save(&directory).unwrap();
        directory
    }
}

fn run(directories: &[PathBuf]) -> Comparison {
    compare(directories, CompareOptions::default(), &Device::flex()).unwrap()
}

fn figure(pair: &Pair, name: &str) -> f64 {
    pair.figures[name].unwrap_or_else(|| panic!("{name} is not defined"))
}

fn assert_figures(pair: &Pair, expected: &[(&str, f64)]) {
    for &(name, expected) in expected {
        let found = figure(pair, name);
        // Directions are f32.
        assert!((found - expected).abs() < 1e-6, "{name}: {found}, expected {expected}");
    }
}

/// Coordinates from -1 to 1: in 40 dimensions no two are near.
fn random(stream: &str, n: usize, width: usize) -> Rows {
    let mut rng = Seed(7).stream(stream);
    (0..n).map(|_| (0..width).map(|_| rng.random_range(-1.0..1.0)).collect()).collect()
}

fn plus(row: &[f32], noise: f32, other: &[f32]) -> Vec<f32> {
    row.iter().zip(other).map(|(a, b)| a + noise * b).collect()
}

fn scaled(row: &[f32], factor: f32) -> Vec<f32> {
    row.iter().map(|v| v * factor).collect()
}

#[test]
fn a_permuted_and_rescaled_copy_is_the_same_dictionary() {
    let (world, n) = (World::new(), 50);
    let (decoder, encoder) = (random("decoder", n, 40), random("encoder", n, 40));
    // Latent i is latent 7i + 3 of the copy, whose norms are others.
    let place = |i: usize| (7 * i + 3) % n;
    let mut copies = [decoder.clone(), encoder.clone()];
    for (copy, rows) in copies.iter_mut().zip([&decoder, &encoder]) {
        for (i, row) in rows.iter().enumerate() {
            copy[place(i)] = scaled(row, 0.5 + i as f32);
        }
    }
    let a = world.dictionary("a", &decoder, &encoder);
    let b = world.dictionary("b", &copies[0], &copies[1]);
    let comparison = run(&[a, b]);
    let pair = &comparison.pairs[0];
    let ones = ["mmcs.a_to_b", "mmcs.b_to_a", "found.a_to_b", "found.b_to_a"];
    let matched = ["match.decoder.cos", "match.decoder.shared", "match.both.cos", "match.both.shared"];
    for name in ones.into_iter().chain(matched).chain(["split.children"]) {
        assert_figures(pair, &[(name, 1.0)]);
    }
    assert_figures(pair, &[("split.lost", 0.0), ("split.split", 0.0), ("split.novel", 0.0)]);
    let places: Vec<_> = (0..n).map(|i| Some(place(i))).collect();
    let matchings = pair.matchings.as_ref().unwrap();
    assert_eq!((&pair.a_to_b.nearest, &matchings.decoder.partner), (&places, &places));
    assert_eq!(matchings.both.as_ref().unwrap().partner, places);
    assert_eq!(pair.a_to_b.histogram.latents.last(), Some(&50));
    assert_eq!(comparison.warnings, Vec::<String>::new());
}

#[test]
fn what_was_split_is_found() {
    let (world, n) = (World::new(), 20);
    let (parents, noise, new) = (random("parents", n, 40), random("noise", 2 * n, 40), random("new", 10, 40));
    // Norms are about √(40/3) each, so that the cosine with the parent is about 1/√(1 + .4²) = .93.
    let mut children: Rows = (0..2 * n).map(|j| plus(&parents[j / 2], 0.4, &noise[j])).collect();
    children.extend(new);
    let a = world.dictionary("a", &parents, &parents);
    let b = world.dictionary("b", &children, &children);
    for (order, smaller) in [([a.clone(), b.clone()], "A"), ([b, a], "B")] {
        let comparison = run(&order);
        let pair = &comparison.pairs[0];
        assert_eq!((pair.splitting.smaller.as_str(), pair.splitting.novel), (smaller, 10));
        assert_eq!(pair.splitting.parents, [(2, 20)].into());
        let expected =
            [("split.lost", 0.0), ("split.split", 1.0), ("split.children", 2.0), ("split.novel", 0.2)];
        assert_figures(pair, &expected);
        // Each latent of the smaller one has a partner, one of its children.
        let matching = &pair.matchings.as_ref().unwrap().decoder;
        assert_eq!(matching.pairs, n);
        for (latent, partner) in matching.partner.iter().enumerate() {
            match (smaller, partner) {
                ("A", partner) => assert_eq!(partner.unwrap() / 2, latent),
                (_, Some(partner)) => assert_eq!(latent / 2, *partner),
                (_, None) => {}
            }
        }
    }
}

/// Rows e₁, e₂, e₃ against these: cosines [[.6, .28, 0], [.8, 0, 0], [0, .96, 1]].
fn by_hand() -> [Rows; 2] {
    let axes = vec![vec![2.0, 0.0, 0.0], vec![0.0, 1.0, 0.0], vec![0.0, 0.0, 0.5]];
    [axes, vec![vec![0.6, 0.8, 0.0], vec![0.28, 0.0, 0.96], vec![0.0, 0.0, 3.0]]]
}

#[test]
fn three_latents_by_hand() {
    let (world, [axes, others]) = (World::new(), by_hand());
    let comparison = run(&[world.dictionary("a", &axes, &axes), world.dictionary("b", &others, &others)]);
    let pair = &comparison.pairs[0];
    assert_eq!(pair.a_to_b.nearest, [Some(0), Some(0), Some(2)]);
    assert_eq!(pair.b_to_a.nearest, [Some(1), Some(2), Some(2)]);
    // Of the six ways to pair them .28 + .8 + 1 is the most.
    let matchings = pair.matchings.as_ref().unwrap();
    assert_eq!(matchings.decoder.partner, [Some(1), Some(0), Some(2)]);
    assert_figures(
        pair,
        &[
            ("mmcs.a_to_b", (0.6 + 0.8 + 1.0) / 3.0),
            ("mmcs.b_to_a", (0.8 + 0.96 + 1.0) / 3.0),
            ("found.a_to_b", 2.0 / 3.0),
            ("found.b_to_a", 1.0),
            ("match.decoder.cos", 2.08 / 3.0),
            ("match.decoder.shared", 2.0 / 3.0),
            // e₁ has no child, e₂ one, e₃ two.
            ("split.lost", 1.0 / 3.0),
            ("split.split", 1.0 / 3.0),
            ("split.children", 1.0),
            ("split.novel", 0.0),
        ],
    );
    // Encoders that are the same for all three take nothing from the choice, and half of the cosine.
    let same = vec![vec![1.0, 0.0, 0.0]; 3];
    let against = vec![vec![0.0, 1.0, 0.0]; 3];
    let comparison = run(&[world.dictionary("c", &axes, &same), world.dictionary("d", &others, &against)]);
    let pair = &comparison.pairs[0];
    assert_eq!(pair.matchings.as_ref().unwrap().both.as_ref().unwrap().partner, [Some(1), Some(0), Some(2)]);
    let expected =
        [("match.both.cos", 1.04 / 3.0), ("match.both.shared", 0.0), ("match.decoder.shared", 0.0)];
    assert_figures(pair, &expected);
}

/// Every way to choose `n` of `from`, in order.
fn arrangements(from: &[usize], n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![vec![]];
    }
    let with = |&first: &usize| {
        let rest: Vec<usize> = from.iter().copied().filter(|&other| other != first).collect();
        arrangements(&rest, n - 1).into_iter().map(move |rest| [vec![first], rest].concat())
    };
    from.iter().flat_map(with).collect()
}

#[test]
fn pairs_are_the_best_of_all() {
    for (a, b) in [(6, 6), (4, 6), (6, 4), (1, 1), (1, 5), (5, 1)] {
        for trial in 0..20 {
            let rows = |name: &str, n| Directions::of(random(&format!("{name} {trial}"), n, 4).concat(), 4);
            let (of_a, of_b) = (rows("a", a), rows("b", b));
            let found = partners(&of_a, &of_b, &Device::flex()).unwrap().unwrap();
            let pairs: Vec<_> = found.iter().enumerate().filter_map(|(i, j)| Some((i, (*j)?))).collect();
            assert_eq!(pairs.len(), a.min(b));
            let mut taken: Vec<usize> = pairs.iter().map(|pair| pair.1).collect();
            taken.sort_unstable();
            taken.dedup();
            assert_eq!(taken.len(), pairs.len(), "one is in two pairs");
            let total = pairs.iter().map(|&(i, j)| of_a.cosine(i, &of_b, j)).sum::<f64>();
            let (small, large) = if a <= b { (&of_a, &of_b) } else { (&of_b, &of_a) };
            let places: Vec<usize> = (0..large.n()).collect();
            let sum = |places: Vec<usize>| -> f64 {
                places.iter().enumerate().map(|(i, &j)| small.cosine(i, large, j)).sum()
            };
            let best =
                arrangements(&places, small.n()).into_iter().map(sum).fold(f64::NEG_INFINITY, f64::max);
            // Cosines are rounded to half a millionth.
            assert!((total - best).abs() < 1e-5, "{a} × {b}: {total}, the best is {best}");
        }
    }
}

#[test]
fn equal_latents_are_matched_whichever() {
    // All cosines are 1, or 0: nothing but ties.
    let rows = Directions::of([[1.0, 0.0]; 9].concat(), 2);
    let others = Directions::of([vec![0.0, 1.0], vec![1.0, 0.0], vec![0.0, 1.0]].concat(), 2);
    assert_eq!(partners(&rows, &rows, &Device::flex()).unwrap().unwrap().iter().flatten().count(), 9);
    let found = partners(&rows, &others, &Device::flex()).unwrap().unwrap();
    assert_eq!(found.iter().flatten().count(), 3);
}

#[test]
fn cosines_do_not_depend_on_the_blocks() {
    let rows = |stream: &str, n| Directions::of(random(stream, n, 9).concat(), 9);
    let (a, b) = (rows("a", 11), rows("b", 5));
    for most in [1, 5, 12, 1000] {
        let mut all = Vec::new();
        in_blocks_of(most, &a, &b, &Device::flex(), |first, block| {
            assert_eq!(all.len(), first * 5);
            all.extend_from_slice(block);
        })
        .unwrap();
        assert_eq!(all.len(), 55);
        for (place, &cosine) in all.iter().enumerate() {
            let exact = a.cosine(place / 5, &b, place % 5);
            assert!((f64::from(cosine) - exact).abs() < 1e-6, "{place}: {cosine}, expected {exact}");
        }
    }
}

#[test]
fn dictionaries_of_one_latent() {
    let world = World::new();
    let one = |name: &str, row: [f32; 2]| world.dictionary(name, &vec![row.into()], &vec![row.into()]);
    let [axis, opposite] = [one("axis", [1.0, 0.0]), one("opposite", [-2.0, 0.0])];
    let comparison = run(&[axis.clone(), opposite]);
    let pair = &comparison.pairs[0];
    let expected = [("mmcs.a_to_b", -1.0), ("match.decoder.cos", -1.0), ("split.lost", 1.0)];
    assert_figures(pair, &expected);
    assert_eq!(pair.a_to_b.histogram.negative, 1);
    let several = vec![vec![0.0, 1.0], vec![1.0, 1.0], vec![1.0, 0.1]];
    let several = world.dictionary("several", &several, &several);
    for order in [[axis.clone(), several.clone()], [several, axis]] {
        let comparison = run(&order);
        let cosines = [("match.decoder.cos", 1.0 / 1.01_f64.sqrt()), ("split.children", 2.0)];
        assert_figures(&comparison.pairs[0], &cosines);
    }
}

#[test]
fn latents_that_point_nowhere_are_left_out_and_said() {
    let (world, [axes, others]) = (World::new(), by_hand());
    let mut gaps = others.clone();
    gaps.insert(1, vec![0.0; 3]);
    let a = world.dictionary("a", &axes, &axes);
    let whole = run(&[a.clone(), world.dictionary("whole", &others, &others)]);
    let comparison = run(&[a.clone(), world.dictionary("gaps", &gaps, &gaps)]);
    assert_eq!(comparison.pairs[0].figures, whole.pairs[0].figures);
    assert_eq!(comparison.pairs[0].a_to_b.nearest, [Some(0), Some(0), Some(3)]);
    assert_eq!(comparison.pairs[0].b_to_a.nearest, [Some(1), None, Some(2), Some(2)]);
    assert!(comparison.warnings[0].starts_with("1 latents of B"), "{:?}", comparison.warnings);
    // An encoder of zeros reads nothing: its cosines are 0.
    let blind = world.dictionary("blind", &axes, &vec![vec![0.0; 3]; 3]);
    let figures = &run(&[a.clone(), blind]).pairs[0];
    assert_figures(
        figures,
        &[("match.decoder.cos", 1.0), ("match.both.cos", 0.5), ("match.both.shared", 0.0)],
    );

    let nowhere = world.dictionary("nowhere", &vec![vec![0.0; 3]; 2], &vec![vec![1.0; 3]; 2]);
    let error = compare(&[a, nowhere], CompareOptions::default(), &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("nowhere") && error.contains("2 have a decoder row of zeros"), "{error}");
}

#[test]
fn dead_latents_are_said_and_can_be_left_out() {
    let (world, [axes, others]) = (World::new(), by_hand());
    let a = world.dictionary("a", &axes, &axes);
    let b = world.with_sparsity("b", &others, &others, Some(vec![-2.0, -10.0, -1.0]));
    let kept = run(&[a.clone(), b.clone()]);
    assert_eq!((kept.dictionaries[1].dead, kept.dictionaries[1].compared), (Some(1), 3));
    assert!(kept.warnings[0].contains("--without-dead"), "{:?}", kept.warnings);
    let options = CompareOptions { without_dead: true, ..CompareOptions::default() };
    let without = compare(&[a.clone(), b], options, &Device::flex()).unwrap();
    assert_eq!((without.dictionaries[1].dead, without.dictionaries[1].compared), (Some(1), 2));
    assert_eq!(without.pairs[0].b_to_a.nearest, [Some(1), None, Some(2)]);
    assert_eq!(without.pairs[0].matchings.as_ref().unwrap().decoder.partner, [None, Some(0), Some(2)]);
    assert!(
        without.warnings.iter().any(|warning| warning.contains("A does not say")),
        "{:?}",
        without.warnings
    );
    let dead = world.with_sparsity("dead", &others, &others, Some(vec![-10.0; 3]));
    let error = compare(&[a, dead], options, &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("3 are dead"), "{error}");
}

#[test]
fn too_many_latents_are_not_matched_and_it_is_said_how_they_can_be() {
    let (world, [axes, others]) = (World::new(), by_hand());
    let both = [world.dictionary("a", &axes, &axes), world.dictionary("b", &others, &others)];
    let options = CompareOptions { match_up_to: 2, ..CompareOptions::default() };
    let comparison = compare(&both, options, &Device::flex()).unwrap();
    let pair = &comparison.pairs[0];
    assert!(pair.matchings.is_none() && pair.figures["match.both.cos"].is_none());
    assert_figures(pair, &[("mmcs.a_to_b", 0.8), ("split.split", 1.0 / 3.0)]);
    assert!(comparison.warnings[0].contains("--match-up-to 3"), "{:?}", comparison.warnings);
}

#[test]
fn a_transcoder_is_compared_by_what_it_writes() {
    let (world, [axes, others]) = (World::new(), by_hand());
    let a = world.dictionary("a", &axes, &axes);
    let b = world.dictionary("b", &others, &random("encoder", 3, 5));
    let comparison = run(&[a, b]);
    let pair = &comparison.pairs[0];
    assert_figures(pair, &[("mmcs.a_to_b", 0.8), ("match.decoder.cos", 2.08 / 3.0)]);
    assert_eq!((pair.figures["match.decoder.shared"], pair.figures["match.both.cos"]), (None, None));
    assert!(comparison.warnings[0].contains("3 and 5 dimensions"), "{:?}", comparison.warnings);
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let (world, [axes, others]) = (World::new(), by_hand());
    let a = world.dictionary("a", &axes, &axes);
    let wide = world.dictionary("wide", &random("wide", 3, 4), &random("wide", 3, 4));
    let refused = |directories: &[PathBuf], options: CompareOptions| {
        compare(directories, options, &Device::flex()).unwrap_err()
    };
    let options = CompareOptions::default();
    let error = refused(&[a.clone(), wide], options);
    assert!(matches!(error, CompareError::Width { found: 4, expected: 3, .. }), "{error}");
    assert!(matches!(refused(std::slice::from_ref(&a), options), CompareError::TooFew(1)));
    for threshold in [1.0, -1.0, f64::NAN, 70.0] {
        let options = CompareOptions { threshold, ..options };
        assert!(matches!(refused(&[a.clone(), a.clone()], options), CompareError::BadThreshold(_)));
    }
    let error = refused(&[a.clone(), world.0.path().join("none")], options);
    assert!(matches!(error, CompareError::Dictionary(_)), "{error}");

    // A weight that is no number.
    let broken = world.dictionary("broken", &others, &others);
    let file = broken.join("sae_weights.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let place = bytes.windows(4).rposition(|four| four == 0.28_f32.to_le_bytes()).unwrap();
    bytes[place..place + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&file, bytes).unwrap();
    let error = refused(&[a, broken], options).to_string();
    assert!(error.contains("sae_weights.safetensors") && error.contains("NaN"), "{error}");
}

#[test]
fn every_two_of_several_are_compared_and_twins_are_told() {
    let (world, [axes, others]) = (World::new(), by_hand());
    let a = world.dictionary("a", &axes, &axes);
    let b = world.dictionary("b", &others, &others);
    let comparison = run(&[a.clone(), b, a]);
    let names: Vec<_> = comparison.pairs.iter().map(Pair::name).collect();
    assert_eq!(names, ["A, B", "A, C", "B, C"]);
    assert_eq!(comparison.warnings, ["A and C are the same files"]);
    assert_eq!(comparison.rows()[0].values.len(), 3);
    assert_eq!([0, 25, 26, 701, 702].map(name), ["A", "Z", "AA", "ZZ", "AAA"]);
}

#[test]
fn what_is_written_is_what_was_found() {
    let (world, [axes, others]) = (World::new(), by_hand());
    let comparison = run(&[world.dictionary("a", &axes, &axes), world.dictionary("b", &others, &others)]);
    let out = world.0.path().join("deep/out");
    comparison.write(&out).unwrap();
    let read = |name: &str| std::fs::read_to_string(Path::new(&out).join(name)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&read("compare.json")).unwrap();
    assert_eq!(json["definitions"].as_object().unwrap().len(), comparison.pairs[0].figures.len());
    assert_eq!(serde_json::from_value::<Comparison>(json).unwrap(), comparison);
    let page = read("compare.html");
    for row in comparison.rows() {
        let (name, value) = (row.definition.name, row.values[0].unwrap());
        let cell = format!(r#"data-figure="{name}" data-pair="A, B" data-value="{value}""#);
        assert!(page.contains(&cell), "{cell}");
    }
    for outside in ["http", "<script", "<link", "src="] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn cosines_land_in_their_bins() {
    let histogram = CosineHistogram::of([-0.2, 0.0, 0.049, 0.05, 0.7, 0.999, 1.0]);
    let mut expected = [0; 20];
    (expected[0], expected[1], expected[14], expected[19]) = (2, 1, 1, 2);
    assert_eq!((histogram.latents.as_slice(), histogram.negative), (&expected[..], 1));
}
