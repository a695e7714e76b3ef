//! One step from front to back: encode, go through the decoder and back, gather the gradients, and move.
//!
//! Every sum has an order of its own that does not depend on the number of threads: the same numbers come out to the
//! bit on any number of cores.

use std::time::{Duration, Instant};

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    adam::{Rule, Update},
    encode::{Product, encode},
    exact::Exact,
    gradients::{self, Batch, Latents},
    pairs::{Multiplier, Multiply, WithMultiplier},
    screened::{self, Screened},
    select::{self, Entries, Select},
    through::{self, Block, Decoder},
    vectors::{add, dot},
};
use crate::{Activation, CLIP_EPSILON, Form, Last, NORM_TINY, Path, Phases, Precision, Settings};

/// Tokens that one task works on.
pub(super) const TOKENS: usize = 128;

/// Latents that one task of the gradients works on.
const LATENTS: usize = 32;

/// Numbers that one task of the optimiser works on.
const CHUNK: usize = 1 << 14;

/// A value for every parameter.
pub(crate) struct Values<T> {
    /// `[d_sae, d_in]`.
    pub(crate) w_enc: T,
    /// `[d_sae, d_in]`.
    pub(crate) w_dec: T,
    /// `[d_sae]`.
    pub(crate) b_enc: T,
    /// `[d_in]`.
    pub(crate) b_dec: T,
}

impl<T> Values<T> {
    fn into_parts(self) -> [T; 4] {
        [self.w_enc, self.w_dec, self.b_enc, self.b_dec]
    }
}

/// Measures one phase after the other.
struct Lap(Instant);

impl Lap {
    /// The time since the last phase ended.
    fn end(&mut self) -> Duration {
        let begun = std::mem::replace(&mut self.0, Instant::now());
        self.0 - begun
    }
}

/// What a step changes.
pub(crate) struct State<'a> {
    pub(crate) parameters: Values<&'a mut [f32]>,
    pub(crate) gradients: Values<&'a mut [f32]>,
    /// Adam's moments.
    pub(crate) first: Values<&'a mut [f32]>,
    pub(crate) second: Values<&'a mut [f32]>,
}

/// What a step found.
pub(crate) struct Found {
    pub(crate) squared_error: f64,
    pub(crate) penalty: f64,
    pub(crate) grad_norm: f64,
    pub(crate) share: f64,
    pub(crate) floor: f32,
    pub(crate) path: Path,
    pub(crate) phases: Phases,
    pub(crate) fired: Vec<f32>,
}

/// Takes a step on `x [n, d_in]`.
pub(crate) fn step(state: State<'_>, x: &[f32], form: Form, settings: &Settings, last: &Last) -> Found {
    step_by(Multiplier::detect(), state, x, form, settings, last)
}

/// [`step`] with these instructions to screen with.
fn step_by(
    multiplier: Option<Multiplier>,
    state: State<'_>,
    x: &[f32],
    form: Form,
    settings: &Settings,
    last: &Last,
) -> Found {
    let State { parameters, mut gradients, first, second } = state;
    let (d_in, d_sae) = (parameters.b_dec.len(), parameters.b_enc.len());
    let n = x.len() / d_in;
    let (mut phases, mut lap) = (Phases::default(), Lap(Instant::now()));
    let shifted = form.apply_b_dec_to_input.then(|| minus(x, parameters.b_dec));
    let input = shifted.as_deref().unwrap_or(x);

    let entries = activate(multiplier, &parameters, input, form, settings, last);
    phases.encode = lap.end();
    let active: usize = entries.iter().flatten().map(Vec::len).sum();
    let share = active as f64 / (n * d_sae) as f64;
    let floor = match form.activation {
        Activation::BatchTopK { k } if active >= k.saturating_mul(n) => smallest(&entries),
        // No threshold: every positive one is there.
        _ => 0.0,
    };
    let path = settings.path.unwrap_or_else(|| Path::for_share(share));

    let norms: Vec<f32> =
        parameters.w_dec.par_chunks(d_in).map(|row| Arch::new().dispatch(Norm(row))).collect();
    let of_penalty = (settings.l1 / n as f64) as f32;
    let packed = (path == Path::Dense).then(|| through::Packed::new(parameters.w_dec, d_in));
    let decoder = Decoder {
        dec: parameters.w_dec,
        b_dec: parameters.b_dec,
        weights: &norms,
        of_error: 2.0 / n as f32,
        of_penalty,
        packed: packed.as_ref(),
    };
    let tasks = entries.into_par_iter().zip(x.par_chunks(TOKENS * d_in));
    let blocks: Vec<Block> = tasks.map(|(entries, x)| Block::new(decoder, entries, x)).collect();
    phases.decode = lap.end();

    let packed = (path == Path::Dense).then(|| gradients::Packed::new(input, &blocks, d_in));
    let batch = Batch {
        blocks: &blocks,
        input,
        d_in,
        penalty: (of_penalty != 0.0).then_some((of_penalty, &norms)),
        unit_decoder: form.unit_decoder,
        packed: packed.as_ref(),
    };
    let mut fired = vec![0.0; d_sae];
    let of_latents = of_latents(batch, &parameters, &mut gradients, &mut fired);
    let of_b_dec = of_b_dec(&blocks, &parameters, &mut gradients, form.apply_b_dec_to_input);
    let grad_norm = (of_latents + of_b_dec).sqrt();
    phases.gradients = lap.end();

    adam([parameters, gradients, first, second], d_in, form, grad_norm, settings);
    phases.update = lap.end();
    let mean = |of: fn(&Block) -> f64| blocks.iter().map(of).sum::<f64>() / n as f64;
    Found {
        squared_error: mean(|block| block.squared_error),
        penalty: mean(|block| block.penalty),
        grad_norm,
        share,
        floor,
        path,
        phases,
        fired,
    }
}

/// Whether there are instructions to screen with.
pub(crate) fn screens() -> bool {
    Multiplier::detect().is_some()
}

/// The entries of every token of `input [n, d_in]`, task by task.
fn activate(
    multiplier: Option<Multiplier>,
    parameters: &Values<&mut [f32]>,
    input: &[f32],
    form: Form,
    settings: &Settings,
    last: &Last,
) -> Vec<Vec<Entries>> {
    let d_in = parameters.b_dec.len();
    let select = match form.activation {
        Activation::Relu => Select::Above(0.0),
        Activation::TopK { k } => Select::Largest(k),
        Activation::BatchTopK { .. } => Select::Above(GUESS * last.floor.max(0.0)),
    };
    // Where many latents are active, screening leaves most of the work still to do.
    let screens = settings.precision == Precision::Auto && last.share < screened::WORTHWHILE;
    let activate = Activate { parameters, input, activation: form.activation, select };
    match multiplier.filter(|_| screens) {
        Some(multiplier) => multiplier.dispatch(activate),
        None => activate.by(&Exact::new(parameters.w_enc, parameters.b_enc, d_in)),
    }
}

/// Tokens, and what they activate.
struct Activate<'a, 'b> {
    parameters: &'a Values<&'b mut [f32]>,
    input: &'a [f32],
    activation: Activation,
    select: Select,
}

impl WithMultiplier for Activate<'_, '_> {
    type Output = Vec<Vec<Entries>>;

    fn with_multiplier<M: Multiply>(self, multiplier: M) -> Vec<Vec<Entries>> {
        let Values { w_enc, b_enc, b_dec, .. } = self.parameters;
        self.by(&Screened::new(multiplier, w_enc, b_enc, b_dec.len()))
    }
}

impl Activate<'_, '_> {
    fn by<P: Product>(self, product: &P) -> Vec<Vec<Entries>> {
        let Self { parameters, input, activation, select } = self;
        let d_in = parameters.b_dec.len();
        let weights = [&*parameters.w_enc, &*parameters.b_enc];
        let encoded = |select| -> Vec<Vec<Entries>> {
            input.par_chunks(TOKENS * d_in).map(|input| encode(product, weights, select, input)).collect()
        };
        let mut entries = encoded(select);
        if let Activation::BatchTopK { k } = activation {
            let wanted = k.saturating_mul(input.len() / d_in);
            let found: usize = entries.iter().flatten().map(Vec::len).sum();
            if found < wanted && select.floor() > 0.0 {
                entries = encoded(Select::Above(0.0));
            }
            select::largest_of_batch(wanted, &mut entries);
        }
        entries
    }
}

/// A batch's smallest active pre-activation is taken to be no less than this much of the last one's. If it is, encoding is
/// repeated.
const GUESS: f32 = 0.8;

/// The smallest pre-activation of all entries.
fn smallest(entries: &[Vec<Entries>]) -> f32 {
    entries.iter().flatten().flatten().map(|(_, value)| *value).fold(f32::INFINITY, f32::min)
}

/// Gradients of the latents' rows and biases; Σ of their squares.
fn of_latents(
    batch: Batch<'_>,
    parameters: &Values<&mut [f32]>,
    gradients: &mut Values<&mut [f32]>,
    fired: &mut [f32],
) -> f64 {
    let rows = LATENTS * batch.d_in;
    let matrices = gradients.w_enc.par_chunks_mut(rows).zip(gradients.w_dec.par_chunks_mut(rows));
    let vectors = gradients.b_enc.par_chunks_mut(LATENTS).zip(fired.par_chunks_mut(LATENTS));
    let tasks = parameters.w_dec.par_chunks(rows).zip(matrices.zip(vectors)).enumerate();
    let squares: Vec<f64> = tasks
        .map(|(task, (w_dec, ((enc, dec), (b_enc, fired))))| {
            Latents { first: task * LATENTS, w_dec, enc, dec, b_enc, fired }.compute(batch)
        })
        .collect();
    squares.iter().sum()
}

/// Gradient of the decoder's bias; Σ of its squares.
fn of_b_dec(
    blocks: &[Block],
    parameters: &Values<&mut [f32]>,
    gradients: &mut Values<&mut [f32]>,
    of_input: bool,
) -> f64 {
    let d_in = parameters.b_dec.len();
    let mut parts: Vec<Vec<f32>> = blocks
        .par_iter()
        .map(|block| weighted_sum(&block.error, &vec![1.0; block.error.len() / d_in], d_in))
        .collect();
    let mut weights = vec![1.0; parts.len()];
    if of_input {
        let tasks = parameters.w_enc.par_chunks(TOKENS * d_in).zip(gradients.b_enc.par_chunks(TOKENS));
        parts.par_extend(tasks.map(|(rows, pulls)| weighted_sum(rows, pulls, d_in)));
        weights.resize(parts.len(), -1.0);
    }
    let sum = weighted_sum(&parts.concat(), &weights, d_in);
    gradients.b_dec.copy_from_slice(&sum);
    sum.iter().map(|gradient| f64::from(*gradient).powi(2)).sum()
}

/// Σ weightsᵢ · rowsᵢ.
fn weighted_sum(rows: &[f32], weights: &[f32], d_in: usize) -> Vec<f32> {
    Arch::new().dispatch(WeightedSum { rows, weights, d_in })
}

struct WeightedSum<'a> {
    rows: &'a [f32],
    weights: &'a [f32],
    d_in: usize,
}

impl WithSimd for WeightedSum<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<f32> {
        let mut sum = vec![0.0; self.d_in];
        for (row, weight) in self.rows.chunks_exact(self.d_in).zip(self.weights) {
            add(&mut sum, *weight, row);
        }
        sum
    }
}

/// Each row of `x` minus `row`.
fn minus(x: &[f32], row: &[f32]) -> Vec<f32> {
    let mut shifted = vec![0.0; x.len()];
    let rows = shifted.par_chunks_mut(row.len()).zip(x.par_chunks(row.len()));
    rows.for_each(|(shifted, x)| {
        shifted.iter_mut().zip(x.iter().zip(row)).for_each(|(shifted, (x, row))| *shifted = x - row);
    });
    shifted
}

/// Clips the gradients by their norm together, takes Adam's step, and makes rows of the decoder as long as they must be.
fn adam(
    [parameters, gradients, first, second]: [Values<&mut [f32]>; 4],
    d_in: usize,
    form: Form,
    grad_norm: f64,
    settings: &Settings,
) {
    let Settings { lr, betas, eps, grad_clip, time, .. } = *settings;
    let rule = Rule {
        factor: (grad_clip / (grad_norm + CLIP_EPSILON)).min(1.0) as f32,
        betas: betas.map(|beta| beta as f32),
        rest: betas.map(|beta| (1.0 - beta) as f32),
        correct: betas.map(|beta| (1.0 / (1.0 - beta.powi(time))) as f32),
        lr: lr as f32,
        eps: eps as f32,
    };
    // Whole rows, so that a task can see to their norms.
    let chunk = CHUNK.next_multiple_of(d_in);
    let unit_rows = [None, form.unit_decoder.then_some(d_in), None, None];
    let parts = parameters.into_parts().into_iter().zip(gradients.into_parts());
    let moments = first.into_parts().into_iter().zip(second.into_parts());
    for (((weights, gradients), (first, second)), unit_rows) in parts.zip(moments).zip(unit_rows) {
        let tasks = weights.par_chunks_mut(chunk).zip(gradients.par_chunks(chunk));
        let moments = first.par_chunks_mut(chunk).zip(second.par_chunks_mut(chunk));
        tasks.zip(moments).for_each(|((weights, gradients), (first, second))| {
            Arch::new().dispatch(Update { rule, weights, gradients, first, second, unit_rows });
        });
    }
}

/// ‖row‖₂, never 0.
struct Norm<'a>(&'a [f32]);

impl WithSimd for Norm<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        (dot(simd, self.0, self.0) + NORM_TINY).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    /// Numbers without structure, between -1 and 1.
    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        let value = |i: u64| {
            let mixed =
                (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed.wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((mixed >> 40) as f32) / (1 << 23) as f32 - 1.0
        };
        (0..n as u64).map(value).collect()
    }

    /// What a step leaves behind: parameters and gradients, one after the other.
    fn after(
        multiplier: Option<Multiplier>,
        [n, d_in, d_sae]: [usize; 3],
        form: Form,
        floor: f32,
    ) -> [Vec<f32>; 2] {
        let scaled = |n, seed, scale: f32| numbers(n, seed).iter().map(|value| value * scale).collect();
        let scale = (3.0 / d_in as f32).sqrt();
        let parameters: [Vec<f32>; 4] = [
            scaled(d_sae * d_in, 1, scale),
            scaled(d_sae * d_in, 2, scale),
            scaled(d_sae, 3, 0.3).into_iter().map(|bias: f32| bias - 0.5).collect(),
            scaled(d_in, 4, 0.3),
        ];
        let zeros = || parameters.each_ref().map(|values| vec![0.0; values.len()]);
        let mut all = [parameters.clone(), zeros(), zeros(), zeros()];
        let [parameters, gradients, first, second] = all.each_mut().map(|values| {
            let [w_enc, w_dec, b_enc, b_dec] = values.each_mut().map(|values| &mut values[..]);
            Values { w_enc, w_dec, b_enc, b_dec }
        });
        let settings = Settings {
            l1: 0.7,
            lr: 1e-3,
            betas: [0.9, 0.999],
            eps: 1e-8,
            grad_clip: 1.0,
            time: 1,
            precision: Precision::Auto,
            path: Some(Path::Sparse),
        };
        let state = State { parameters, gradients, first, second };
        let last = Last { share: 0.0, floor, ..Last::default() };
        step_by(multiplier, state, &numbers(n * d_in, 5), form, &settings, &last);
        let [parameters, gradients, ..] = all;
        [parameters.concat(), gradients.concat()]
    }

    #[test]
    fn all_instructions_find_the_same_latents() {
        let forms = [Activation::Relu, Activation::TopK { k: 7 }, Activation::BatchTopK { k: 5 }]
            .map(|activation| Form { activation, apply_b_dec_to_input: true, unit_decoder: false });
        for size in [[23, 11, 37], [301, 19, 1061], [140, 1301, 97], [33, 31, 50]] {
            for form in forms {
                for floor in [0.0, 0.3, 1e3] {
                    let [_, exact] = after(None, size, form, floor);
                    let mut screened = Multiplier::all().into_iter();
                    let first = after(screened.next(), size, form, floor);
                    let largest = exact.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
                    for (found, expected) in first[1].iter().zip(&exact) {
                        assert!((found - expected).abs() <= 1e-5 * largest, "{size:?} {form:?} {floor}");
                    }
                    // What is active is computed in f32, so that nothing is left of how it was found.
                    for multiplier in screened {
                        let other = after(Some(multiplier), size, form, floor);
                        assert!(first == other, "{multiplier:?} {size:?} {form:?} {floor}");
                    }
                }
            }
        }
    }
}
