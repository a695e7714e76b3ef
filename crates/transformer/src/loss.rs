//! Cross-entropy and other figures of the logits, in chunks of positions: for a batch of any size the logits of
//! all positions never exist at once.

use std::{convert::Infallible, ops::Range};

use burn::tensor::{Int, Tensor};

use crate::{LanguageModel, host};

/// How many logits a chunk holds for each of the streams of hidden states: 32 MB.
const CHUNK_LOGITS: usize = 1 << 23;

/// How many rows a chunk has at least: enough for an efficient product, even where the vocabulary is huge.
const MIN_CHUNK: usize = 32;

/// Per-token cross-entropy in nats: `-log softmax(unembed(hidden))[target]`.
///
/// # Shapes
/// `hidden`: `[batch, seq, d_model]` as [`LanguageModel::forward`] returns it; `targets`: `[batch, seq]`, what
/// should follow each position. Result: `[batch, seq]`, empty if these are.
pub fn token_losses(model: &LanguageModel, hidden: Tensor<3>, targets: Tensor<2, Int>) -> Tensor<2> {
    let [batch, seq] = targets.dims();
    if batch * seq == 0 {
        return Tensor::zeros([batch, seq], &hidden.device());
    }
    let targets = targets.reshape([batch * seq, 1]);
    let mut losses = Vec::new();
    let Ok(()) = for_each_logit_chunk(model, &[hidden], |rows, logits| {
        let [logits] = <[_; 1]>::try_from(logits).expect("one stream went in");
        let target_logits = logits.clone().gather(1, targets.clone().slice(rows));
        losses.push(log_sum_exp(logits) - target_logits);
        Ok::<_, Infallible>(())
    });
    Tensor::cat(losses, 0).reshape([batch, seq])
}

/// As [`token_losses`], of every token but the first given those before it.
///
/// # Shapes
/// `hidden`: `[batch, seq, d_model]`; `tokens`: `[batch, seq]`. Result: `[batch, seq - 1]`; sequences of one token
/// or none have no losses, `[batch, 0]`.
pub fn next_token_losses(model: &LanguageModel, hidden: Tensor<3>, tokens: Tensor<2, Int>) -> Tensor<2> {
    let [batch, seq] = tokens.dims();
    if seq <= 1 {
        return Tensor::zeros([batch, 0], &hidden.device());
    }
    token_losses(model, hidden.narrow(1, 0, seq - 1), tokens.narrow(1, 1, seq - 1))
}

/// How many rows [`for_each_logit_chunk`] holds the logits of at once.
pub fn logit_chunk_rows(d_vocab: usize) -> usize {
    (CHUNK_LOGITS / d_vocab.max(1)).max(MIN_CHUNK)
}

/// Unembeds several streams of hidden states (a clean one and a spliced one, say) chunk by chunk and hands `f`
/// the rows of each chunk (positions counted through the batch, `seq` a sequence) with the logits of each stream.
///
/// # Shapes
/// `hidden`: `[batch, seq, d_model]` each. Logits: `[rows.len(), d_vocab]` each.
///
/// # Errors
/// The first error of `f`.
pub fn for_each_logit_chunk<E>(
    model: &LanguageModel,
    hidden: &[Tensor<3>],
    mut f: impl FnMut(Range<usize>, Vec<Tensor<2>>) -> Result<(), E>,
) -> Result<(), E> {
    let Some([batch, seq, d_model]) = hidden.first().map(Tensor::dims) else { return Ok(()) };
    let n = batch * seq;
    let hidden: Vec<_> = hidden.iter().map(|hidden| hidden.clone().reshape([n, d_model])).collect();
    let rows_per_chunk = logit_chunk_rows(model.info().d_vocab);
    for begin in (0..n).step_by(rows_per_chunk) {
        let rows = begin..(begin + rows_per_chunk).min(n);
        let logits =
            hidden.iter().map(|hidden| model.unembed_rows(hidden.clone().slice(rows.clone()))).collect();
        f(rows, logits)?;
    }
    Ok(())
}

/// `log sum exp` over the last dimension: `[n, d_vocab]` to `[n, 1]`.
fn log_sum_exp(logits: Tensor<2>) -> Tensor<2> {
    if host::applies(&logits) {
        return host::reduce_rows(logits, host::log_sum_exp);
    }
    let max = logits.clone().max_dim(1);
    (logits - max.clone()).exp().sum_dim(1).log() + max
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_bounded_and_never_empty() {
        assert_eq!(logit_chunk_rows(49_152), 170);
        assert_eq!(logit_chunk_rows(usize::MAX), MIN_CHUNK);
        assert!(logit_chunk_rows(0) > 0);
    }
}
