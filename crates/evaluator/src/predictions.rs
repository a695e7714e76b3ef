//! Cross-entropy and divergence of the same predictions under several forward passes.
//!
//! A distribution over the vocabulary is needed of every pass at once, but only for a few positions at a time:
//! logits `[batch * seq, d_vocab]` never exist whole. They are reduced on the host: log-softmax, gather and
//! the divergence are one sweep over a row there, with sums in f64, where tensor operations on the CPU
//! backend would each walk the logits again, mostly on one thread.

use burn::tensor::{Int, Tensor, TensorData};
use monosema_transformer::{LanguageModel, for_each_logit_chunk};
use rayon::prelude::*;

use crate::{error::EvalError, host, metrics::Loss};

/// So many passes are compared with the first at once: their logits stand in memory together.
const TOGETHER: usize = 4;

/// The losses of the predictions made from `positions` (indices into `batch * seq`) of the tokens `targets` under each of some
/// passes, of which the final hidden states `[batch, seq, d_model]` are given; divergence and agreement are from the first. A list
/// for each pass, with an entry for each prediction.
pub(crate) fn losses(
    model: &LanguageModel,
    first: &Tensor<3>,
    others: &[Tensor<3>],
    positions: &[i32],
    targets: &[u32],
) -> Result<Vec<Vec<Loss>>, EvalError> {
    let mut losses = Vec::with_capacity(1 + others.len());
    let groups = others.chunks(TOGETHER).map(<[_]>::to_vec);
    // Of the first alone there is a loss too.
    for group in groups.chain(others.is_empty().then(Vec::new)) {
        let passes: Vec<_> = std::iter::once(first.clone()).chain(group).collect();
        let found = compared(model, &passes, positions, targets)?;
        losses.extend(found.into_iter().skip(usize::from(!losses.is_empty())));
    }
    Ok(losses)
}

/// The same of as many passes as may stand in memory together.
fn compared(
    model: &LanguageModel,
    passes: &[Tensor<3>],
    positions: &[i32],
    targets: &[u32],
) -> Result<Vec<Vec<Loss>>, EvalError> {
    let mut losses = vec![Vec::with_capacity(targets.len()); passes.len()];
    if positions.is_empty() {
        return Ok(losses);
    }
    let (d_vocab, n) = (model.info().d_vocab, positions.len());
    let indices = Tensor::<1, Int>::from_data(TensorData::new(positions.to_vec(), [n]), model.device());
    let rows = |hidden: &Tensor<3>| {
        let [batch, seq, d_model] = hidden.dims();
        hidden.clone().reshape([batch * seq, d_model]).select(0, indices.clone()).unsqueeze_dim(0)
    };
    let rows: Vec<Tensor<3>> = passes.iter().map(rows).collect();
    for_each_logit_chunk(model, &rows, |range, tensors| {
        let mut logits = Vec::with_capacity(passes.len());
        for tensor in tensors {
            logits.push(host::values(tensor, "computing logits")?);
        }
        let compare_row = |room: &mut Vec<f32>, (row, &target): (usize, &u32)| {
            let rows: Vec<&[f32]> =
                logits.iter().map(|logits| &logits[row * d_vocab..(row + 1) * d_vocab]).collect();
            compare(&rows, target as usize, room)
        };
        let found: Vec<Vec<Loss>> =
            targets[range].par_iter().enumerate().map_init(Vec::new, compare_row).collect();
        for (pass, losses) in losses.iter_mut().enumerate() {
            losses.extend(found.iter().map(|row| row[pass]));
        }
        Ok::<_, EvalError>(())
    })?;
    Ok(losses)
}

/// Losses of one prediction under each pass. `probabilities` is room to work in.
///
/// With p the first pass's distribution, KL(p ‖ q) = Σ p (l_p − l_q) − log Z_p + log Z_q for logits l.
fn compare(passes: &[&[f32]], target: usize, probabilities: &mut Vec<f32>) -> Vec<Loss> {
    let clean = passes[0];
    let top = maximum(clean);
    probabilities.clear();
    probabilities.extend(clean.iter().map(|&l| (l - top).exp()));
    let weight = sum(probabilities.len(), |v| f64::from(probabilities[v]));
    let normaliser = f64::from(top) + weight.ln();
    let favourite = clean.iter().position(|&l| l == top);
    let first = Loss { ce: normaliser - f64::from(clean[target]), kl: 0.0, agrees: true };
    let others = passes[1..].iter().map(|logits| {
        let top = maximum(logits);
        let theirs = f64::from(top) + sum(logits.len(), |v| f64::from((logits[v] - top).exp())).ln();
        let apart =
            sum(logits.len(), |v| f64::from(probabilities[v]) * (f64::from(clean[v]) - f64::from(logits[v])));
        let kl = apart / weight - normaliser + theirs;
        // Rounding may put the divergence of equal distributions a hair below 0. Not `max`, which makes 0 of NaN.
        let kl = if kl < 0.0 { 0.0 } else { kl };
        let agrees = favourite.is_some_and(|token| logits[token] == top);
        Loss { ce: theirs - f64::from(logits[target]), kl, agrees }
    });
    std::iter::once(first).chain(others).collect()
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
        let found = compare(&[&p, &q], 0, &mut Vec::new());
        let [clean, other] = found[..] else { panic!("{found:?}") };
        let ln2 = std::f64::consts::LN_2;
        assert!((clean.ce - ln2).abs() < 1e-6 && clean.kl == 0.0, "{clean:?}");
        assert!((other.ce - 2.0 * ln2).abs() < 1e-5, "{other:?}");
        assert!(clean.agrees && !other.agrees);
        // 1/2 ln 2 + 1/4 ln 1/2.
        assert!((other.kl - 0.25 * ln2).abs() < 1e-5, "{other:?}");
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        let broken = compare(&[&[0.0, 1.0], &[f32::NAN, f32::NAN]], 0, &mut Vec::new())[1];
        assert!(broken.ce.is_nan() && broken.kl.is_nan(), "{broken:?}");
    }

    #[test]
    fn equal_logits_do_not_diverge() {
        let row: Vec<f32> = (0..1003).map(|v| (v as f32 * 0.7).sin() * 9.0).collect();
        let found = compare(&[&row, &row], 1002, &mut Vec::new());
        let [clean, same] = found[..] else { panic!("{found:?}") };
        assert_eq!(clean.ce, same.ce);
        assert!(same.agrees);
        assert!(same.kl < 1e-12);
        let direct = row.iter().map(|&l| f64::from(l).exp()).sum::<f64>().ln() - f64::from(row[1002]);
        assert!((clean.ce - direct).abs() < 1e-6);
    }
}
