//! What predictions lose, under one pass or several: cross-entropy, divergence, agreement.
//!
//! Logits `[batch * seq, d_vocab]` never exist whole. They are computed tile by tile, some positions under every pass by some tokens
//! of the vocabulary, and what is wanted of a distribution is kept as sums in f64 that are merged from tile to tile (the running softmax
//! of Milakov and Gimelshein, 2018, arXiv:1805.02867, which the divergence goes along with). A tile stays in the cache, and its product
//! reads the columns of the output matrix once for all positions and passes. On the CPU the cores share out parts of the vocabulary.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData, TensorReadError};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::{
    LanguageModel,
    alike::{self, Alike},
    host::{self, LANES},
};

/// In how many parts the cores of a processor take the vocabulary: enough that none is left waiting for long.
const PARTS: usize = 16;

/// How many logits are computed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// How many rows a tile has at most: positions times passes, or one position if there are more passes than that.
    pub rows: usize,
    /// How many tokens of the vocabulary, at most.
    pub tokens: usize,
}

impl Default for Tiles {
    /// 8 MiB. With one tile for all cores, speed was the same from 512 rows by 4,096 tokens to 8,192 by 512.
    fn default() -> Self {
        Self { rows: 2048, tokens: 1024 }
    }
}

impl Tiles {
    /// How many logits of a vocabulary stand in host memory at once, where each core has a tile.
    pub fn logits(&self, d_vocab: usize) -> usize {
        let tiles = rayon::current_num_threads().min(PARTS);
        self.rows.saturating_mul(self.tokens.min(d_vocab.div_ceil(PARTS))).saturating_mul(tiles)
    }
}

/// What one prediction loses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loss {
    /// Cross-entropy, in nats: `-log softmax(logits)[target]`.
    pub ce: f64,
    /// KL(first ‖ this) over the vocabulary, in nats.
    pub kl: f64,
    /// Whether the most probable token under the first pass (the first of them) is one of the most probable here.
    pub agrees: bool,
}

impl Loss {
    /// Whether both are numbers.
    pub fn is_finite(&self) -> bool {
        self.ce.is_finite() && self.kl.is_finite()
    }
}

/// What is predicted from some positions loses under each of some passes; divergence and agreement are from the first. A list for each
/// pass, with an entry for each position. No gradient flows through it.
///
/// # Shapes
/// `passes`: final hidden states `[batch, seq, d_model]` each, as [`LanguageModel::forward`] returns them; `positions`: indices into
/// `batch * seq`; `targets`: which token follows each of them.
///
/// # Errors
/// A device that fails.
///
/// # Panics
/// If there is no pass, not a target for each position, or a target that is no token of the model.
pub fn losses(
    model: &LanguageModel,
    passes: &[Tensor<3>],
    positions: &[i32],
    targets: &[u32],
    tiles: Tiles,
) -> Result<Vec<Vec<Loss>>, TensorReadError> {
    let d_vocab = model.info().d_vocab;
    assert!(!passes.is_empty(), "there is a pass");
    assert_eq!(positions.len(), targets.len(), "a target for each position");
    assert!(targets.iter().all(|&target| (target as usize) < d_vocab), "targets are of {d_vocab} tokens");
    let mut losses = vec![Vec::with_capacity(targets.len()); passes.len()];
    let at_once = (tiles.rows / passes.len()).max(1);
    for (positions, targets) in positions.chunks(at_once).zip(targets.chunks(at_once)) {
        let n = positions.len();
        let indices = Tensor::<1, Int>::from_data(TensorData::new(positions.to_vec(), [n]), model.device());
        let chosen = |hidden: &Tensor<3>| {
            let [batch, seq, d_model] = hidden.dims();
            hidden.clone().reshape([batch * seq, d_model]).select(0, indices.clone())
        };
        let hidden: Tensor<2> = Tensor::cat(passes.iter().map(chosen).collect(), 0);
        let (values, all) = (hidden.clone().try_into_data()?, n * passes.len());
        let Alike { firsts, which } = Alike::of((0..all).map(|index| alike::row(&values, index, all)));
        let hidden = hidden.select(0, alike::indices(&firsts, model.device()));
        let over = |part: Range<usize>| -> Result<Vec<Row>, TensorReadError> {
            let mut rows = vec![Row::nothing(passes.len()); n];
            // As even as they go: products with few columns are slow.
            let width = part.len().div_ceil(part.len().div_ceil(tiles.tokens));
            for first in part.clone().step_by(width) {
                let tokens = first..(first + width).min(part.end);
                let tile = model.unembed_tokens(hidden.clone(), tokens.clone()).try_into_vec_as::<f32>()?;
                let add = |room: &mut Vec<f32>, (position, row): (usize, &mut Row)| {
                    let target = targets[position] as usize;
                    row.merge(&Arch::new().dispatch(Seen {
                        passes: passes.len(),
                        logits: |pass| &tile[which[pass * n + position] * tokens.len()..][..tokens.len()],
                        target: tokens.contains(&target).then(|| target - tokens.start),
                        room,
                    }));
                };
                rows.par_iter_mut().enumerate().for_each_init(Vec::new, add);
            }
            Ok(rows)
        };
        let mut parts = host::each(parts(d_vocab, model.device()), over).into_iter();
        let mut rows = parts.next().expect("there is a part")?;
        for part in parts {
            rows.iter_mut().zip(&part?).for_each(|(row, part)| row.merge(part));
        }
        for row in rows {
            losses.iter_mut().zip(row.finish()).for_each(|(losses, loss)| losses.push(loss));
        }
    }
    Ok(losses)
}

/// The vocabulary in parts that the cores of a processor take: the same ones however many cores there are, because the order of a
/// sum is that of its parts.
fn parts(d_vocab: usize, device: &Device) -> Vec<Range<usize>> {
    let parts = if host::applies_to(device) { PARTS } else { 1 };
    let tokens = d_vocab.div_ceil(parts);
    (0..d_vocab).step_by(tokens).map(|first| first..(first + tokens).min(d_vocab)).collect()
}

/// The cross-entropy, in nats, of every token but the first given those before it. No gradient flows through it.
///
/// # Shapes
/// `hidden`: `[batch, seq, d_model]` as [`LanguageModel::forward`] returns it; `tokens`: `[batch, seq]`. Result:
/// `[batch, seq - 1]`; sequences of one token or none have no losses, `[batch, 0]`.
///
/// # Errors
/// A device that fails.
///
/// # Panics
/// If a token is none of the model's.
pub fn next_token_losses(
    model: &LanguageModel,
    hidden: Tensor<3>,
    tokens: Tensor<2, Int>,
) -> Result<Tensor<2>, TensorReadError> {
    let ([batch, seq], device) = (tokens.dims(), hidden.device());
    let predictions = seq.saturating_sub(1);
    if batch * predictions == 0 {
        return Ok(Tensor::zeros([batch, predictions], &device));
    }
    let targets = tokens.narrow(1, 1, predictions).try_into_vec_as::<u32>()?;
    let positions = (0..batch).flat_map(|row| row * seq..row * seq + predictions);
    let positions: Vec<i32> =
        positions.map(|index| i32::try_from(index).expect("a batch has fewer than 2^31 tokens")).collect();
    let losses = losses(model, &[hidden], &positions, &targets, Tiles::default())?;
    let ce: Vec<f32> = losses[0].iter().map(|loss| loss.ce as f32).collect();
    Ok(Tensor::from_data(TensorData::new(ce, [batch, predictions]), &device))
}

/// The distributions of one prediction under each pass, as far as their logits have come by.
#[derive(Clone)]
struct Row(Vec<Running>);

/// A distribution: `exp(l - top)` is what a logit weighs.
#[derive(Clone)]
struct Running {
    /// The largest logit.
    top: f32,
    /// Σ exp(l − top).
    weight: f64,
    /// Σ exp(c − top of the first) (c − l), with c the logits of the first pass.
    apart: f64,
    /// The logit of the target.
    target: f32,
    /// The logit of the first pass's favourite.
    favourite: f32,
}

/// The logits of one prediction for some tokens.
struct Seen<'a, F> {
    passes: usize,
    /// Under each pass.
    logits: F,
    /// Which of these tokens follows, if it is one of them.
    target: Option<usize>,
    room: &'a mut Vec<f32>,
}

/// The distributions over these tokens. No closure: one as large as this is not inlined where it is compiled for vectors.
impl<'a, F: Fn(usize) -> &'a [f32]> WithSimd for Seen<'a, F> {
    type Output = Row;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Row {
        let Self { passes, logits, target, room: weights } = self;
        let clean = logits(0);
        let highest = host::max(clean);
        let favourite = clean.iter().position(|&l| l == highest);
        let shift = finite(highest);
        weights.resize(clean.len(), 0.0);
        weights.iter_mut().zip(clean).for_each(|(weight, &l)| *weight = host::exp(l - shift));
        let one = |of: &[f32], place: Option<usize>| place.map_or(f32::NAN, |place| of[place]);
        let mut row = Row::nothing(passes);
        // No iterator that collects: what it calls is not inlined either.
        for (pass, of) in row.0.iter_mut().enumerate() {
            let theirs = logits(pass);
            (of.target, of.favourite) = (one(theirs, target), one(theirs, favourite));
            if pass == 0 {
                of.top = highest;
                of.weight = host::sum_f64(weights, |weight| weight);
            } else {
                of.top = host::max(theirs);
                let shift = finite(of.top);
                of.weight = host::sum_f64(theirs, |l| host::exp(l - shift));
                of.apart = weighted_difference(weights, clean, theirs);
            }
        }
        row
    }
}

impl Row {
    /// Of no logits yet.
    fn nothing(passes: usize) -> Self {
        let nothing = Running {
            top: f32::NEG_INFINITY,
            weight: 0.0,
            apart: 0.0,
            target: f32::NAN,
            favourite: f32::NAN,
        };
        Self(vec![nothing; passes])
    }

    /// Adds what was found of later tokens.
    fn merge(&mut self, later: &Self) {
        let [mine, theirs] = [&*self, later].map(|Self(passes)| passes[0].top);
        let all = mine.max(theirs);
        for (of, later) in self.0.iter_mut().zip(&later.0) {
            of.apart = lowered(of.apart, mine, all) + lowered(later.apart, theirs, all);
            if theirs > mine {
                of.favourite = later.favourite;
            }
            if of.target.is_nan() {
                of.target = later.target;
            }
            let top = of.top.max(later.top);
            of.weight = lowered(of.weight, of.top, top) + lowered(later.weight, later.top, top);
            of.top = top;
        }
    }

    /// With p the first pass's distribution, KL(p ‖ q) = Σ p (l_p − l_q) − log Z_p + log Z_q for logits l.
    fn finish(&self) -> impl Iterator<Item = Loss> {
        let first = &self.0[0];
        self.0.iter().enumerate().map(|(pass, of)| {
            let kl = of.apart / first.weight - first.normaliser() + of.normaliser();
            // Rounding may put the divergence of equal distributions a hair below 0. Not `max`, which makes 0 of NaN.
            let kl = if pass == 0 || (kl < 0.0 && kl.is_finite()) { 0.0 } else { kl };
            Loss {
                ce: of.normaliser() - f64::from(of.target),
                kl,
                agrees: pass == 0 || of.favourite == of.top,
            }
        })
    }
}

impl Running {
    /// log Z.
    fn normaliser(&self) -> f64 {
        f64::from(self.top) + self.weight.ln()
    }
}

/// The largest logit, to be subtracted from all: where all are −∞, because a model rules those tokens out, something finite.
#[inline(always)]
fn finite(top: f32) -> f32 {
    top.max(f32::MIN)
}

/// `sum`, of weights that are relative to the logit `from`, relative to `to`, which is as large or larger.
fn lowered(sum: f64, from: f32, to: f32) -> f64 {
    // Of −∞ and −∞ the difference is not a number; and what weighs nothing may be infinitely far away.
    if from == to || sum == 0.0 {
        return sum;
    }
    let factor = (f64::from(from) - f64::from(to)).exp();
    if factor == 0.0 && !sum.is_nan() { 0.0 } else { sum * factor }
}

/// Σ w (a − b), in f64: logits may be far from one another, and yet say nearly the same. Where a is −∞ there is nothing to weigh.
#[inline(always)]
fn weighted_difference(weights: &[f32], a: &[f32], b: &[f32]) -> f64 {
    let term = |w: f32, a: f32, b: f32| {
        let difference = f64::from(a) - f64::from(b);
        f64::from(w) * if a == f32::NEG_INFINITY { 0.0 } else { difference }
    };
    let mut lanes = [0.0; LANES];
    let [(weights, w_rest), (a, a_rest), (b, b_rest)] =
        [weights, a, b].map(|values| values.as_chunks::<LANES>());
    for ((weights, a), b) in weights.iter().zip(a).zip(b) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(weights[lane], a[lane], b[lane]);
        }
    }
    let rest = w_rest.iter().zip(a_rest).zip(b_rest);
    lanes.iter().sum::<f64>() + rest.map(|((&w, &a), &b)| term(w, a, b)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits of one prediction in tiles of `width`.
    fn compare(passes: &[&[f32]], target: u32, width: usize) -> Vec<Loss> {
        let mut row = Row::nothing(passes.len());
        for first in (0..passes[0].len()).step_by(width) {
            let tokens = first..(first + width).min(passes[0].len());
            let target = target as usize;
            row.merge(&Arch::new().dispatch(Seen {
                passes: passes.len(),
                logits: |pass: usize| &passes[pass][tokens.clone()],
                target: tokens.contains(&target).then(|| target - tokens.start),
                room: &mut Vec::new(),
            }));
        }
        row.finish().collect()
    }

    #[test]
    fn numbers_worked_out_by_hand() {
        // Distributions (1/2, 1/4, 1/4) and (1/4, 1/2, 1/4), with arbitrary constants added to the logits.
        let ln2 = std::f32::consts::LN_2;
        let p = [10.0 + ln2, 10.0, 10.0];
        let q = [-300.0, -300.0 + ln2, -300.0];
        for width in 1..=3 {
            let found = compare(&[&p, &q], 0, width);
            let [clean, other] = found[..] else { panic!("{found:?}") };
            let ln2 = std::f64::consts::LN_2;
            assert!((clean.ce - ln2).abs() < 1e-6 && clean.kl == 0.0, "{clean:?}");
            assert!((other.ce - 2.0 * ln2).abs() < 1e-5, "{other:?}");
            assert!(clean.agrees && !other.agrees);
            // 1/2 ln 2 + 1/4 ln 1/2.
            assert!((other.kl - 0.25 * ln2).abs() < 1e-5, "{other:?}");
        }
    }

    #[test]
    fn tiles_do_not_matter() {
        let wave = |step: f32| (0..1003).map(move |v| (v as f32 * step).sin() * 30.0).collect::<Vec<_>>();
        let passes = [wave(0.7), wave(0.9), wave(0.7000001)];
        let passes: Vec<&[f32]> = passes.iter().map(Vec::as_slice).collect();
        for target in [0, 500, 1002] {
            let whole = compare(&passes, target, 1003);
            assert_eq!([0, 1, 2].map(|pass| whole[pass].agrees), [true, false, true]);
            for width in [1, 17, 64, 1002] {
                for (tiled, whole) in compare(&passes, target, width).iter().zip(&whole) {
                    assert!(
                        (tiled.ce - whole.ce).abs() < 2e-6 && (tiled.kl - whole.kl).abs() < 2e-6,
                        "{width}"
                    );
                    assert_eq!(tiled.agrees, whole.agrees);
                }
            }
        }
    }

    #[test]
    fn of_equal_favourites_the_first_one_counts() {
        for width in 1..=2 {
            let agrees = |other: [f32; 2]| compare(&[&[1.0, 1.0], &other], 0, width)[1].agrees;
            assert!(agrees([1.0, 0.0]) && agrees([1.0, 1.0]) && !agrees([0.0, 1.0]), "{width}");
        }
    }

    #[test]
    fn how_far_logits_are_apart_does_not_matter() {
        let row: Vec<f32> = (0..1003).map(|v| (v as f32 * 0.7).sin() * 4.0).collect();
        for offset in [30.0, 1000.0, -1000.0] {
            // What the offset rounds away belongs to both.
            let far: Vec<f32> = row.iter().map(|l| l + offset).collect();
            let near: Vec<f32> = far.iter().map(|l| l - offset).collect();
            let found = compare(&[&near, &far], 3, 100)[1];
            assert!(found.kl < 1e-7 && found.agrees, "{offset}: {found:?}");
        }
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        for broken in [[f32::NAN; 2], [f32::NAN, 1.0], [1.0, f32::NAN]] {
            for width in 1..=2 {
                let found = compare(&[&[0.0, 1.0], &broken], 0, width)[1];
                assert!(found.ce.is_nan() && found.kl.is_nan(), "{found:?}");
                let found = compare(&[&broken, &[0.0, 1.0]], 0, width);
                assert!(found[0].ce.is_nan() && found[1].kl.is_nan(), "{found:?}");
            }
        }
    }

    #[test]
    fn tokens_that_are_ruled_out_weigh_nothing() {
        let (out, ln2) = (f32::NEG_INFINITY, std::f64::consts::LN_2);
        for width in 1..=4 {
            let by = |other: [f32; 4]| compare(&[&[out, 2.0, 2.0, out], &other], 1, width);
            let [first, same] = by([out, 7.0, 7.0, out])[..] else { panic!() };
            assert!((first.ce - ln2).abs() < 1e-6 && (same.ce - ln2).abs() < 1e-6 && same.kl < 1e-6);
            // Half of what the other has is on tokens that the first rules out.
            let half = by([2.0; 4])[1];
            assert!((half.kl - ln2).abs() < 1e-6, "{half:?}");
            // And what the other rules out is infinitely far from it.
            assert_eq!(by([2.0, out, 2.0, 2.0])[1].kl, f64::INFINITY);
        }
    }

    #[test]
    fn equal_logits_do_not_diverge() {
        let row: Vec<f32> = (0..1003).map(|v| (v as f32 * 0.7).sin() * 9.0).collect();
        let found = compare(&[&row, &row], 1002, 100);
        let [clean, same] = found[..] else { panic!("{found:?}") };
        assert_eq!(clean.ce, same.ce);
        assert!(same.agrees);
        assert!(same.kl < 1e-12);
        let direct = row.iter().map(|&l| f64::from(l).exp()).sum::<f64>().ln() - f64::from(row[1002]);
        assert!((clean.ce - direct).abs() < 1e-6);
    }
}
