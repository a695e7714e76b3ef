//! Cross-entropy and other figures of the logits, in chunks of positions: for a batch of any size the logits of
//! all positions never exist at once.

use std::ops::Range;

use burn::tensor::{Int, Tensor, activation::log_softmax};

use crate::{LanguageModel, host};

/// How many logits a chunk holds at most, for each of the streams of hidden states: 64 MB.
const CHUNK_LOGITS: usize = 1 << 24;

/// Per-token cross-entropy in nats: `-log softmax(unembed(hidden))[target]`.
///
/// # Shapes
/// `hidden`: `[batch, seq, d_model]` as [`LanguageModel::forward`] returns it; `targets`: `[batch, seq]`, what
/// should follow each position. Result: `[batch, seq]`.
pub fn token_losses(model: &LanguageModel, hidden: Tensor<3>, targets: Tensor<2, Int>) -> Tensor<2> {
    let [batch, seq] = targets.dims();
    let targets = targets.reshape([batch * seq, 1]);
    let mut losses = Vec::new();
    for_each_logit_chunk(model, [hidden], |rows, [logits]| {
        let target_logits = logits.clone().gather(1, targets.clone().slice(rows));
        losses.push(log_sum_exp(logits) - target_logits);
    });
    Tensor::cat(losses, 0).reshape([batch, seq])
}

/// As [`token_losses`], of every token but the first given those before it.
///
/// # Shapes
/// `hidden`: `[batch, seq, d_model]`; `tokens`: `[batch, seq]`, at least two positions. Result: `[batch, seq - 1]`.
pub fn next_token_losses(model: &LanguageModel, hidden: Tensor<3>, tokens: Tensor<2, Int>) -> Tensor<2> {
    let seq = tokens.dims()[1];
    token_losses(model, hidden.narrow(1, 0, seq - 1), tokens.narrow(1, 1, seq - 1))
}

/// Unembeds several streams of hidden states (a clean one and a spliced one, say) chunk by chunk and hands `f`
/// the rows of each chunk (positions counted through the batch, `seq` a sequence) with the logits of each stream.
///
/// # Shapes
/// `hidden`: `[batch, seq, d_model]` each. Logits: `[rows.len(), d_vocab]` each.
pub fn for_each_logit_chunk<const N: usize>(
    model: &LanguageModel,
    hidden: [Tensor<3>; N],
    mut f: impl FnMut(Range<usize>, [Tensor<2>; N]),
) {
    let Some([batch, seq, d_model]) = hidden.first().map(Tensor::dims) else { return };
    let n = batch * seq;
    let hidden = hidden.map(|h| h.reshape([n, d_model]));
    let rows_per_chunk = (CHUNK_LOGITS / model.info().d_vocab).max(1);
    for begin in (0..n).step_by(rows_per_chunk) {
        let rows = begin..(begin + rows_per_chunk).min(n);
        let logits = hidden.each_ref().map(|h| model.unembed_rows(h.clone().slice(rows.clone())));
        f(rows, logits);
    }
}

/// `logits - log sum exp(logits)`, over the last dimension.
///
/// # Shapes
/// `logits` and the result: `[n, d_vocab]`.
pub fn log_probabilities(logits: Tensor<2>) -> Tensor<2> {
    if host::applies(&logits) {
        return host::map_rows(logits, |_, row| {
            let shift = host::log_sum_exp(row);
            row.iter_mut().for_each(|x| *x -= shift);
        });
    }
    log_softmax(logits, 1)
}

/// `log sum exp` over the last dimension: `[n, d_vocab]` to `[n, 1]`.
fn log_sum_exp(logits: Tensor<2>) -> Tensor<2> {
    if host::applies(&logits) {
        return host::reduce_rows(logits, host::log_sum_exp);
    }
    let max = logits.clone().max_dim(1);
    (logits - max.clone()).exp().sum_dim(1).log() + max
}
