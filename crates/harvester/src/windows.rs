//! Text to windows for the model, tokenised on a thread of its own.

use monosema_core::Ahead;
use monosema_text::{ContextBatch, Corpus, TextError, Tokenizer, batches, contexts};
use monosema_transformer::Checkpoint;

use crate::{HarvestError, HarvestPlan};

/// Batches tokenised ahead of the model.
const BATCHES_AHEAD: usize = 4;

/// Windows that the model runs over at once.
pub(crate) struct Windows {
    pub(crate) batch: ContextBatch,
    /// How many of their counted tokens are wanted, from the first on; at least one unless none counts.
    pub(crate) wanted: usize,
}

impl Windows {
    /// The documents of the wanted tokens.
    pub(crate) fn documents(&self) -> impl Iterator<Item = u64> {
        let tokens = self.batch.contexts.iter().flat_map(|c| c.documents.iter().zip(&c.counted));
        tokens.filter(|(_, counts)| **counts).map(|(&document, _)| document).take(self.wanted)
    }
}

/// The windows of the plan's text, up to its limit of tokens, so many times.
pub(crate) fn windows(
    plan: &HarvestPlan,
    checkpoint: &Checkpoint,
    epochs: u64,
) -> Result<Ahead<Result<Windows, HarvestError>>, HarvestError> {
    let (tokenizer, corpus) = (checkpoint.tokenizer()?, Corpus::open(&plan.text)?);
    let plan = plan.clone();
    Ok(Ahead::made_by(BATCHES_AHEAD, move |hand_over| {
        for epoch in 0..epochs {
            if epoch > 0 {
                tracing::info!("the text begins again, for the {}. time", epoch + 1);
            }
            if !read_once(&plan, &corpus, &tokenizer, hand_over) {
                break;
            }
        }
    }))
}

/// Returns whether the text may be read again.
fn read_once(
    plan: &HarvestPlan,
    corpus: &Corpus,
    tokenizer: &Tokenizer,
    hand_over: &mut dyn FnMut(Result<Windows, HarvestError>) -> bool,
) -> bool {
    let limit = plan.limit().unwrap_or(u64::MAX);
    let (mut counted, mut seen) = (0, 0);
    // Documents keep the numbers that they have in the whole text.
    let of_part = |number| plan.part.is_none_or(|part| part.takes(number));
    let documents = corpus.documents().filter(|document| document.as_ref().map_or(true, |d| of_part(d.id)));
    let contexts = contexts(documents, tokenizer, &plan.context);
    for batch in batches(contexts, plan.batch_contexts * plan.context.length) {
        let batch = match batch {
            Ok(batch) => batch,
            // A part may come away with nothing; the whole may not.
            Err(TextError::NoContexts { .. }) if plan.part.is_some() => return false,
            Err(error) => {
                hand_over(Err(error.into()));
                return false;
            }
        };
        seen += batch.n_tokens() as u64;
        let wanted = usize::try_from(limit - counted).unwrap_or(usize::MAX).min(batch.n_counted());
        counted += wanted as u64;
        if !hand_over(Ok(Windows { batch, wanted })) {
            return false;
        }
        if counted >= limit {
            return true;
        }
    }
    if counted == 0 && plan.part.is_none() {
        hand_over(Err(HarvestError::NothingCounts { seen, skip_first: plan.context.skip_first }));
    }
    counted > 0
}
