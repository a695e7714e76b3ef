//! Cross-entropy and divergence of the same predictions under several forward passes.
//!
//! A distribution over the vocabulary is needed of every pass at once, but only for a few positions at a time:
//! logits `[batch * seq, d_vocab]` never exist whole. They are reduced on the host: log-softmax, gather and
//! the divergence are one sweep over a row there, with sums in f64, where tensor operations on the CPU
//! backend would each walk the logits again, mostly on one thread.

use burn::tensor::{Int, Tensor, TensorData};
use monosema_transformer::{LanguageModel, for_each_logit_chunk};
use rayon::prelude::*;

use crate::{
    error::EvalError,
    host,
    metrics::{Predictions, Spliced},
};

/// Final hidden states `[batch, seq, d_model]` of the same tokens under four passes.
pub(crate) struct Passes {
    pub(crate) clean: Tensor<3>,
    pub(crate) sae: Tensor<3>,
    pub(crate) zero: Tensor<3>,
    pub(crate) mean: Tensor<3>,
}

/// Measures the predictions made from `positions` (indices into `batch * seq`) of the tokens `targets`.
pub(crate) fn measure(
    model: &LanguageModel,
    passes: Passes,
    positions: &[i32],
    targets: &[u32],
) -> Result<Predictions, EvalError> {
    let mut predictions = Predictions::default();
    let passes = [passes.clean, passes.sae, passes.zero, passes.mean];
    for_each_chunk(model, passes, positions, targets, |losses| {
        predictions.clean.extend(losses.iter().map(|[clean, ..]| clean.ce));
        let spliced = [&mut predictions.sae, &mut predictions.zero, &mut predictions.mean];
        for (pass, Spliced { ce, kl, top1 }) in (1..).zip(spliced) {
            ce.extend(losses.iter().map(|loss| loss[pass].ce));
            kl.extend(losses.iter().map(|loss| loss[pass].kl));
            top1.extend(losses.iter().map(|loss| f64::from(u8::from(loss[pass].agrees))));
        }
    })?;
    Ok(predictions)
}

/// Cross-entropies, in nats, of the predictions made from `positions` (indices into `batch * seq`) of `hidden
/// [batch, seq, d_model]`.
pub(crate) fn cross_entropies(
    model: &LanguageModel,
    hidden: Tensor<3>,
    positions: &[i32],
    targets: &[u32],
) -> Result<Vec<f64>, EvalError> {
    let mut ce = Vec::with_capacity(positions.len());
    for_each_chunk(model, [hidden], positions, targets, |losses| {
        ce.extend(losses.iter().map(|[loss]| loss.ce))
    })?;
    Ok(ce)
}

/// Hands the losses under each pass to `take`, a chunk of positions at a time.
fn for_each_chunk<const N: usize>(
    model: &LanguageModel,
    passes: [Tensor<3>; N],
    positions: &[i32],
    targets: &[u32],
    mut take: impl FnMut(&[[Loss; N]]),
) -> Result<(), EvalError> {
    if positions.is_empty() {
        return Ok(());
    }
    let d_vocab = model.info().d_vocab;
    let n = positions.len();
    let indices = Tensor::<1, Int>::from_data(TensorData::new(positions.to_vec(), [n]), model.device());
    let rows = passes.map(|hidden| {
        let [batch, seq, d_model] = hidden.dims();
        hidden.reshape([batch * seq, d_model]).select(0, indices.clone()).unsqueeze_dim(0)
    });
    for_each_logit_chunk(model, rows, |range, tensors| {
        let mut logits = Vec::with_capacity(N);
        for tensor in tensors {
            logits.push(host::values(tensor, "computing logits")?);
        }
        let compare_row = |probabilities: &mut Vec<f32>, (row, &target): (usize, &u32)| {
            let of = |pass: usize| &logits[pass][row * d_vocab..(row + 1) * d_vocab];
            compare(std::array::from_fn::<_, N, _>(of), target as usize, probabilities)
        };
        let losses: Vec<_> = targets[range].par_iter().enumerate().map_init(Vec::new, compare_row).collect();
        take(&losses);
        Ok(())
    })
}

/// The loss of one prediction under one pass, in nats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Loss {
    ce: f64,
    /// KL(first pass ‖ this pass).
    kl: f64,
    /// Whether the first pass's most probable token (the first of them) is one of this pass's.
    agrees: bool,
}

/// Losses of one prediction under each pass. `probabilities` is room to work in.
///
/// With p the first pass's distribution, KL(p ‖ q) = Σ p (l_p − l_q) − log Z_p + log Z_q for logits l.
fn compare<const N: usize>(logits: [&[f32]; N], target: usize, probabilities: &mut Vec<f32>) -> [Loss; N] {
    let clean = logits[0];
    let top = maximum(clean);
    probabilities.clear();
    probabilities.extend(clean.iter().map(|&l| (l - top).exp()));
    let weight = sum(probabilities.len(), |v| f64::from(probabilities[v]));
    let normaliser = f64::from(top) + weight.ln();
    let favourite = clean.iter().position(|&l| l == top);
    let mut losses = [Loss { ce: normaliser - f64::from(clean[target]), kl: 0.0, agrees: true }; N];
    for (loss, logits) in losses.iter_mut().zip(logits).skip(1) {
        let top = maximum(logits);
        let theirs = f64::from(top) + sum(logits.len(), |v| f64::from((logits[v] - top).exp())).ln();
        let apart =
            sum(logits.len(), |v| f64::from(probabilities[v]) * (f64::from(clean[v]) - f64::from(logits[v])));
        let kl = apart / weight - normaliser + theirs;
        // Rounding may put the divergence of equal distributions a hair below 0. Not `max`, which makes 0 of NaN.
        let kl = if kl < 0.0 { 0.0 } else { kl };
        let agrees = favourite.is_some_and(|token| logits[token] == top);
        *loss = Loss { ce: theirs - f64::from(logits[target]), kl, agrees };
    }
    losses
}

fn maximum(values: &[f32]) -> f32 {
    values.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Σ f(v) for v in 0..n. Eight sums side by side: one alone would wait for every addition.
fn sum(n: usize, f: impl Fn(usize) -> f64) -> f64 {
    const LANES: usize = 8;
    let mut lanes = [0.0; LANES];
    let whole = n - n % LANES;
    for base in (0..whole).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(base + lane);
        }
    }
    lanes.iter().sum::<f64>() + (whole..n).map(f).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_worked_out_by_hand() {
        // Distributions (1/2, 1/4, 1/4) and (1/4, 1/2, 1/4), with arbitrary constants added to the logits.
        let ln2 = std::f32::consts::LN_2;
        let p = [10.0 + ln2, 10.0, 10.0];
        let q = [-300.0, -300.0 + ln2, -300.0];
        let [clean, other] = compare([&p, &q], 0, &mut Vec::new());
        let ln2 = std::f64::consts::LN_2;
        assert!((clean.ce - ln2).abs() < 1e-6 && clean.kl == 0.0, "{clean:?}");
        assert!((other.ce - 2.0 * ln2).abs() < 1e-5, "{other:?}");
        assert!(clean.agrees && !other.agrees);
        // 1/2 ln 2 + 1/4 ln 1/2.
        assert!((other.kl - 0.25 * ln2).abs() < 1e-5, "{other:?}");
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        let [_, broken] = compare([&[0.0, 1.0], &[f32::NAN, f32::NAN]], 0, &mut Vec::new());
        assert!(broken.ce.is_nan() && broken.kl.is_nan(), "{broken:?}");
    }

    #[test]
    fn equal_logits_do_not_diverge() {
        let row: Vec<f32> = (0..1003).map(|v| (v as f32 * 0.7).sin() * 9.0).collect();
        let [clean, same] = compare([&row, &row], 1002, &mut Vec::new());
        assert_eq!(clean.ce, same.ce);
        assert!(same.agrees);
        assert!(same.kl < 1e-12);
        let direct = row.iter().map(|&l| f64::from(l).exp()).sum::<f64>().ln() - f64::from(row[1002]);
        assert!((clean.ce - direct).abs() < 1e-6);
    }
}
