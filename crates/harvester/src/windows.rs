//! Text to windows for the model, tokenised on a thread of its own.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use monosema_core::Ahead;
use monosema_text::{
    ContextBatch, Corpus, Document, Tally, TextError, Tokenizer, batches, contexts, limited,
};
use monosema_transformer::Checkpoint;

use crate::{HarvestError, HarvestPlan};

/// Batches tokenised ahead of the model.
const BATCHES_AHEAD: usize = 4;

/// Windows that the model runs over at once.
pub(crate) struct Windows {
    pub(crate) batch: ContextBatch,
    /// How many times the text was read before.
    pub(crate) epoch: u64,
    /// How many times of reading are over, because nothing more is wanted of them.
    over: Arc<AtomicU64>,
}

impl Windows {
    /// Nothing more is wanted of this time of reading. It changes no result: what still comes is left out anyway.
    pub(crate) fn end_epoch(&self) {
        self.over.fetch_max(self.epoch + 1, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn new(batch: ContextBatch) -> Self {
        Self { batch, epoch: 0, over: Arc::default() }
    }
}

/// The windows of the plan's text, up to its limit of tokens, so many times. Where rows depend on what the model makes of
/// them, all of its windows: the limit is kept later.
pub(crate) fn windows(
    plan: &HarvestPlan,
    checkpoint: &Checkpoint,
    epochs: u64,
) -> Result<Ahead<Result<Windows, HarvestError>>, HarvestError> {
    let (tokenizer, corpus) = (checkpoint.tokenizer()?, Corpus::open(&plan.text)?);
    let (plan, over) = (plan.clone(), Arc::default());
    Ok(Ahead::made_by(BATCHES_AHEAD, move |hand_over| {
        for epoch in 0..epochs {
            if epoch > 0 {
                tracing::info!("the text begins again, for the {}. time", epoch + 1);
            }
            if !read_once(&plan, &corpus, &tokenizer, epoch, &over, hand_over) {
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
    epoch: u64,
    over: &Arc<AtomicU64>,
    hand_over: &mut dyn FnMut(Result<Windows, HarvestError>) -> bool,
) -> bool {
    // Where rows depend on what the model makes of them, the limit is kept after it.
    let limit = plan.limit().filter(|_| !plan.rows_depend_on_values());
    let (mut counted, mut tally) = (0, Tally::default());
    let mut told = epoch > 0;
    // Documents keep the numbers that they have in the whole text.
    let of_part = |number| plan.part.is_none_or(|part| part.takes(number));
    let documents = corpus.documents().filter(|document| document.as_ref().map_or(true, |d| of_part(d.id)));
    let documents = documents.inspect(|document| {
        let Ok(Document { id, source, flaws, .. }) = document else { return };
        if flaws.invalid_utf8 > 0 && !std::mem::replace(&mut told, true) {
            tracing::warn!("{}: document {id}: invalid UTF-8 is replaced by U+FFFD", source.display());
        }
    });
    let contexts = limited(contexts(documents, tokenizer, &plan.context), limit);
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
        if counted == 0 {
            tally += batch.contexts.iter().flat_map(|context| context.verdicts.iter().copied()).collect();
        }
        counted += batch.n_counted();
        if !hand_over(Ok(Windows { batch, epoch, over: over.clone() })) {
            return false;
        }
        if over.load(Ordering::Relaxed) > epoch {
            return true;
        }
    }
    if counted == 0 && plan.part.is_none() {
        hand_over(Err(HarvestError::NothingCounts { tally }));
    }
    counted > 0
}
