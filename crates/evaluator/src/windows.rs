//! A held-out text as batches of windows.

use burn::tensor::{Int, Tensor, TensorData};
use monosema_core::{Digest, Hasher};
use monosema_text::{ContextBatch, Corpus, TextError, Tokenizer, batches, contexts, limited};
use monosema_transformer::LanguageModel;

use crate::{
    error::EvalError,
    plan::{EvalPlan, PlannedText},
};

/// Reads a text up to the plan's limit, in batches of windows. Returns the digest of the windows' ids.
pub(crate) fn for_each_batch(
    plan: &EvalPlan,
    text: &PlannedText,
    tokenizer: &Tokenizer,
    mut visit: impl FnMut(ContextBatch) -> Result<(), EvalError>,
) -> Result<Digest, EvalError> {
    let in_text = |source| text.error(source);
    let corpus = Corpus::open(&text.text).map_err(in_text)?;
    let mut digest = Hasher::default();
    let windows = contexts(corpus.documents(), tokenizer, &plan.context);
    let windows = limited(windows, plan.tokens).inspect(|window| {
        // In the order of the text, whatever batches make of it.
        window.iter().flat_map(|window| &window.tokens).for_each(|id| digest.update(&id.to_le_bytes()));
    });
    for batch in batches(windows, plan.batch_tokens()) {
        visit(batch.map_err(in_text)?)?;
    }
    Ok(digest.finish())
}

/// The ids of a batch, `[batch, seq]`, where the model is. `in_text` says in an error which text it is of.
pub(crate) fn tokens(
    model: &LanguageModel,
    batch: &ContextBatch,
    in_text: impl FnOnce(TextError) -> EvalError,
) -> Result<Tensor<2, Int>, EvalError> {
    let ids = batch.token_ids(model.info().d_vocab).map_err(in_text)?;
    let data = TensorData::new(ids, [batch.n_contexts(), batch.seq_len()]);
    Ok(Tensor::from_data(data, model.device()))
}
