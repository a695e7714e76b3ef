//! Whether two dictionaries compute the same: what a conversion is held to.
//!
//! Both encode and decode the same inputs. Sums in another order, or with something folded into them, round differently, so numbers
//! may differ a little. And a latent may be on an edge: at its threshold, or as large as another of which only one is chosen. There
//! rounding decides whether it is active, and everything else follows. So where one dictionary has a latent active and the other has
//! not, inputs a little beside are tried: on an edge each of them is of two minds itself.

use burn::tensor::{Tensor, TensorData};
use monosema_core::Seed;
use rand::Rng;

use crate::{Dictionary, Normalization, weights::normal_pair};

/// How large a relative difference may be that rounding made: f32 sums over thousands of values, twice.
pub const TOLERANCE: f64 = 1e-4;

/// Which share of the tokens may have a latent on an edge.
const AT_EDGES: f64 = 0.1;

/// How far beside an input others are tried, in parts of its size, and how many.
const BESIDE: f64 = 1e-5;
const TRIALS: usize = 32;

/// Entries of activations that are held at a time.
const ENTRIES: usize = 1 << 25;

/// Tokens of each scale that are drawn.
const TOKENS: usize = 64;

/// Latents whose thresholds inputs are made for.
const LATENTS: usize = 128;

/// How two dictionaries differ.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Difference {
    /// Tokens that were compared.
    pub tokens: usize,
    /// The largest of an activation, in parts of the largest activation of its token.
    pub acts: f64,
    /// The largest ‖x̂ − x̂′‖₂ of a token, in parts of the larger of ‖x̂‖₂ and ‖b_dec‖₂.
    pub x_hat: f64,
    /// Tokens with an active latent: where there is none, nothing but biases was compared.
    pub active: usize,
    /// Tokens with a latent on an edge, whose activity rounding decides.
    pub at_edges: usize,
}

impl Difference {
    /// Whether there is none but what rounding makes.
    pub fn is_rounding(&self) -> bool {
        let edges = self.at_edges as f64 <= AT_EDGES * self.tokens as f64;
        self.acts <= TOLERANCE && self.x_hat <= TOLERANCE && edges
    }

    /// The larger of both.
    pub fn largest(&self) -> f64 {
        worse(self.acts, self.x_hat)
    }

    /// Of these tokens and those.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            tokens: self.tokens + other.tokens,
            acts: worse(self.acts, other.acts),
            x_hat: worse(self.x_hat, other.x_hat),
            active: self.active + other.active,
            at_edges: self.at_edges + other.at_edges,
        }
    }
}

/// The larger; what is not a number is worse than everything.
fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// How `after` differs from `before` on `x [n, d_in]`, on whose device both are.
///
/// # Panics
/// If they have other sizes than one another, or `x` has another width.
pub fn difference(before: &Dictionary, after: &Dictionary, x: &Tensor<2>) -> Difference {
    assert_eq!(before.size(), after.size(), "conversions keep sizes");
    let [n, d_in] = x.dims();
    let rows = (ENTRIES / before.d_sae()).clamp(1, n.max(1));
    (0..n)
        .step_by(rows)
        .map(|begin| x.clone().slice([begin..(begin + rows).min(n), 0..d_in]))
        .map(|x| of_batch(before, after, &x))
        .fold(Difference::default(), Difference::and)
}

fn of_batch(before: &Dictionary, after: &Dictionary, x: &Tensor<2>) -> Difference {
    let ([n, d_in], d_sae) = (x.dims(), before.d_sae());
    let acts = [before, after].map(|dictionary| dictionary.encode(x.clone()));
    let x_hat = values(before.decode(acts[0].clone(), x.clone()));
    let own = values(after.decode(acts[1].clone(), x.clone()));
    // What the other decoder makes of the same activations, for tokens with a latent on an edge.
    let of_same = values(after.decode(acts[0].clone(), x.clone()));
    let [a, b] = acts.map(values);
    let bias = b_dec_norm(before);
    let mut found = Difference { tokens: n, ..Difference::default() };
    for token in 0..n {
        let row = |values: &[f32], width: usize| values[token * width..][..width].to_vec();
        let (a, b) = (row(&a, d_sae), row(&b, d_sae));
        let x = x.clone().slice([token..token + 1, 0..d_in]);
        let (acts, at_edge) = of_acts([before, after], &a, &b, &x);
        found.acts = worse(found.acts, acts);
        found.active += usize::from(a.iter().any(|&act| act > 0.0));
        found.at_edges += usize::from(at_edge);
        let width = before.d_out();
        let other = row(if at_edge { &of_same } else { &own }, width);
        found.x_hat = worse(found.x_hat, of_vectors(&row(&x_hat, width), &other, bias));
    }
    found
}

/// The largest difference of activations of a token, and whether there are latents on an edge, which do not count.
fn of_acts([before, after]: [&Dictionary; 2], a: &[f32], b: &[f32], x: &Tensor<2>) -> (f64, bool) {
    let scale = a.iter().chain(b).fold(0.0, |largest: f64, &act| largest.max(f64::from(act)));
    let relative = |i: usize| (f64::from(a[i]) - f64::from(b[i])).abs() / scale;
    // What is not a number differs from itself.
    let differ: Vec<usize> = (0..a.len()).filter(|&i| a[i] != b[i]).collect();
    let (flipped, changed): (Vec<_>, Vec<_>) =
        differ.into_iter().partition(|&i| (a[i] > 0.0) != (b[i] > 0.0) && relative(i) > TOLERANCE);
    let largest = |of: &[usize]| of.iter().map(|&i| relative(i)).fold(0.0, worse);
    if flipped.is_empty() {
        return (largest(&changed), false);
    }
    if [before, after].iter().all(|dictionary| on_edge(dictionary, &flipped, x)) {
        return (largest(&changed), true);
    }
    (worse(largest(&changed), largest(&flipped)), false)
}

/// Whether each of these latents is active on some inputs beside `x [1, d_in]`, and not on others.
fn on_edge(dictionary: &Dictionary, latents: &[usize], x: &Tensor<2>) -> bool {
    let x_values = values(x.clone());
    let width = x_values.len();
    let size = (norm(&x_values) + b_dec_norm(dictionary)) / (width as f64).sqrt();
    let mut rng = Seed(0).stream("beside");
    let mut normal = normals(&mut rng);
    let beside: Vec<f32> = (0..TRIALS)
        .flat_map(|_| {
            x_values.iter().map(|&x| (f64::from(x) + BESIDE * size * normal()) as f32).collect::<Vec<_>>()
        })
        .collect();
    let beside = Tensor::from_data(TensorData::new(beside, [TRIALS, width]), &x.device());
    let acts = values(dictionary.encode(beside));
    latents.iter().all(|&latent| {
        let active = (0..TRIALS).filter(|trial| acts[trial * dictionary.d_sae() + latent] > 0.0).count();
        (1..TRIALS).contains(&active)
    })
}

fn of_vectors(a: &[f32], b: &[f32], least: f64) -> f64 {
    let apart: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let apart = norm(&apart);
    if apart == 0.0 { 0.0 } else { apart / norm(a).max(least) }
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}

fn b_dec_norm(dictionary: &Dictionary) -> f64 {
    norm(&values(dictionary.sae().affine().b_dec.val()))
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data_as::<f32>().try_into_vec().expect("activations are f32")
}

/// Standard normal values.
fn normals(rng: &mut impl Rng) -> impl FnMut() -> f64 {
    let mut kept = None;
    move || {
        kept.take().unwrap_or_else(|| {
            let [first, second] = normal_pair(rng);
            kept = Some(second);
            first
        })
    }
}

/// Inputs on which a dictionary shows what it computes, `[n, d_in]` on its device: normal ones of scales from 1/1000 to 1000; for
/// some latents, ones that they see a tenth above their threshold and a tenth below; and sums of such. Around b_dec, where that is
/// subtracted. The same for every call.
pub fn inputs(dictionary: &Dictionary) -> Tensor<2> {
    let (d_in, d_sae) = (dictionary.d_in(), dictionary.d_sae());
    let affine = dictionary.sae().affine();
    let centre = if affine.apply_b_dec_to_input { values(affine.b_dec.val()) } else { vec![0.0; d_in] };
    let mut rng = Seed(0).stream("inputs");
    let mut x: Vec<f32> = Vec::new();
    let mut add = |of: &dyn Fn(usize) -> f64| x.extend((0..d_in).map(|d| centre[d] + of(d) as f32));
    let mut normal = normals(&mut rng);
    for scale in [1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0] {
        for _ in 0..TOKENS {
            let drawn: Vec<f64> = (0..d_in).map(|_| scale * normal()).collect();
            add(&|d| drawn[d]);
        }
    }
    // Where activations are normalised, an input is seen at another size than it has.
    if dictionary.metadata().normalization == Normalization::None {
        let steps: Vec<Vec<f64>> = (0..LATENTS.min(d_sae))
            .map(|i| i * d_sae / LATENTS.min(d_sae))
            .flat_map(|latent| [0.9, 1.1].map(|part| to_threshold(dictionary, latent, part)))
            .collect();
        for step in &steps {
            add(&|d| step[d]);
        }
        // A handful at once, one in so many of those that there are.
        for first in 0..TOKENS {
            add(&|d| {
                steps.iter().skip(first % steps.len()).step_by(steps.len() / 8 + 1).map(|s| 2.0 * s[d]).sum()
            });
        }
    }
    let n = x.len() / d_in;
    Tensor::from_data(TensorData::new(x, [n, d_in]), &affine.w_enc.val().device())
}

/// What takes a latent's pre-activation to `part` of its threshold, along what it reads; to a little above 0 or below without one.
fn to_threshold(dictionary: &Dictionary, latent: usize, part: f64) -> Vec<f64> {
    let affine = dictionary.sae().affine();
    let column = values(affine.w_enc.val().slice([0..dictionary.d_in(), latent..latent + 1]));
    let of = |tensor: Tensor<1>| f64::from(tensor.narrow(0, latent, 1).into_scalar::<f32>());
    let bias = of(affine.b_enc.val());
    let length = norm(&column);
    let is_threshold =
        dictionary.sae().config().vectors().first().is_some_and(|(name, _)| *name == "threshold");
    let threshold = if is_threshold { of(affine.vector(0)) } else { 0.0 };
    let target = match threshold > 0.0 {
        true => part * threshold,
        // The same distance from 0, in units of what is there.
        false => (part - 1.0) * if bias == 0.0 { length } else { bias.abs() },
    };
    let factor = if length > 0.0 { (target - bias) / length.powi(2) } else { 0.0 };
    column.into_iter().map(|w| factor * f64::from(w)).collect()
}

#[cfg(test)]
mod tests;
