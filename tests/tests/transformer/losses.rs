//! Losses by tiles are those of whole rows of logits.

use burn::tensor::Device;
use monosema_transformer::{LanguageModel, Loss, NoTap, Tiles, losses};

use crate::fixture::{Case, values};

/// Relative, or in nats where numbers are small: logits are f32, and a tile's product may sum them in another order.
const TOLERANCE: f64 = 1e-5;

/// The log-probabilities of one row, in f64.
fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weight: f64 = logits.iter().map(|l| (l - top).exp()).sum();
    logits.iter().map(|l| l - top - weight.ln()).collect()
}

fn first_best(values: &[f64]) -> usize {
    (0..values.len()).rev().max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap()
}

/// What `losses` should say of one position, from its logits under each pass.
fn expected(passes: &[Vec<f64>], target: usize) -> Vec<Loss> {
    let favourite = first_best(&passes[0]);
    let of = |pass: &Vec<f64>| Loss {
        ce: -pass[target],
        kl: passes[0].iter().zip(pass).map(|(p, q)| p.exp() * (p - q)).sum(),
        agrees: first_best(pass) == favourite,
    };
    passes.iter().map(of).collect()
}

fn check(model: &LanguageModel, case: &Case, tiles: Tiles) {
    let d_vocab = model.info().d_vocab;
    let hidden = model.forward(case.tokens(model.device()), &mut NoTap);
    let passes = [hidden.clone(), hidden.clone() * 0.7 + 0.1, hidden];
    let logits = passes.each_ref().map(|hidden| values(model.unembed(hidden.clone())));
    // Not all of them, and not in their order.
    let positions: Vec<i32> = (0..(logits[0].len() / d_vocab) as i32).rev().filter(|i| i % 3 != 1).collect();
    let targets: Vec<u32> = positions.iter().map(|&i| (7 * i as u32 + 3) % d_vocab as u32).collect();
    let found = losses(model, &passes, &positions, &targets, tiles).unwrap();
    for (index, (&position, &target)) in positions.iter().zip(&targets).enumerate() {
        let row = |logits: &Vec<f64>| log_softmax(&logits[position as usize * d_vocab..][..d_vocab]);
        let rows = logits.each_ref().map(row);
        let expected = expected(&rows, target as usize);
        for (pass, expected) in expected.iter().enumerate() {
            let (found, what) = (found[pass][index], format!("{} {tiles:?} {position} {pass}", case.name));
            let close = |a: f64, b: f64| (a - b).abs() <= TOLERANCE * b.abs().max(1.0);
            assert!(
                close(found.ce, expected.ce) && close(found.kl, expected.kl),
                "{what}: {found:?} {expected:?}"
            );
            assert_eq!(found.agrees, expected.agrees, "{what}");
        }
    }
}

#[test]
fn tiles_of_any_size_give_what_whole_rows_give() {
    let device = Device::flex();
    for case in Case::all() {
        let model = case.load(&device);
        // One position and token at a time; several, with a rest; everything at once. The parts that cores take have 2 to 9 tokens.
        for (rows, tokens) in [(1, 1), (10, 3), (usize::MAX, usize::MAX)] {
            check(&model, &case, Tiles { rows, tokens });
        }
    }
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    let device = Device::flex();
    let case = Case::all().remove(0);
    let model = case.load(&device);
    let hidden = model.forward(case.tokens(&device), &mut NoTap);
    let [batch, seq, _] = hidden.dims();
    let passes = [hidden.clone(), hidden * 0.7 + 0.1];
    let positions: Vec<i32> = (0..(batch * seq) as i32).collect();
    let targets = vec![5; positions.len()];
    let by = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| losses(&model, &passes, &positions, &targets, Tiles { rows: 10, tokens: 3 }).unwrap())
    };
    assert_eq!(by(1), by(3));
}
