//! Cross-entropy on held-out stories, beside what counting reaches on the same predictions.

use std::path::Path;

use burn::tensor::{Int, Tensor, TensorData};
use monosema_text::{ContextConfig, ContextPlan, Corpus, TextConfig, Tokenizer, batches, contexts};
use monosema_transformer::{LanguageModel, NoTap, next_token_losses};
use serde::Serialize;

use crate::baseline::Counts;

const BATCH: usize = 16;

/// Means over the held-out predictions, in nats a token.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// Tokens in a window.
    length: usize,
    /// Of every prediction: from each position of a window but its last.
    all: Means,
    /// From the positions that count by default: not the first of a window, not a special token.
    counted: Means,
}

/// Means of the same predictions.
#[derive(Debug, Default, Serialize)]
struct Means {
    predictions: u64,
    model: f64,
    unigram: f64,
    bigram: f64,
}

impl Means {
    fn add(&mut self, model: f64, unigram: f64, bigram: f64) {
        self.predictions += 1;
        self.model += model;
        self.unigram += unigram;
        self.bigram += bigram;
    }

    fn finish(&mut self) {
        let n = self.predictions as f64;
        self.model /= n;
        self.unigram /= n;
        self.bigram /= n;
    }
}

/// Evaluates `model` on the stories in `file`, packed as harvesting and evaluation pack them, in windows of `length`. `training`
/// is what the baselines count.
pub(crate) fn evaluate(
    model: &LanguageModel,
    tokenizer: &Tokenizer,
    file: &Path,
    length: usize,
    training: &[u32],
) -> anyhow::Result<Figures> {
    let counts = Counts::new(training, tokenizer.vocab_size());
    let corpus = Corpus::open(&TextConfig::new(vec![file.display().to_string()]))?;
    let plan = ContextPlan::new(&ContextConfig { length, ..ContextConfig::default() }, tokenizer)?;
    let mut figures = Figures { length, ..Figures::default() };
    for batch in batches(contexts(corpus.documents(), tokenizer, &plan), BATCH * length) {
        let batch = batch?;
        let shape = [batch.n_contexts(), batch.seq_len()];
        let ids = TensorData::new(batch.token_ids(model.info().d_vocab)?, shape);
        let ids: Tensor<2, Int> = Tensor::from_data(ids, model.device());
        let losses = next_token_losses(model, model.forward(ids.clone(), &mut NoTap), ids)?;
        let losses: Vec<f32> = losses.into_data().try_to_vec()?;
        for (context, losses) in batch.contexts.iter().zip(losses.chunks(shape[1] - 1)) {
            // A short window has padding behind it.
            for (position, &loss) in losses[..context.len() - 1].iter().enumerate() {
                let (token, next) = (context.tokens[position], context.tokens[position + 1]);
                let (unigram, bigram) = (counts.unigram_loss(next), counts.bigram_loss(token, next));
                figures.all.add(f64::from(loss), unigram, bigram);
                if context.counts(position) {
                    figures.counted.add(f64::from(loss), unigram, bigram);
                }
            }
        }
    }
    figures.all.finish();
    figures.counted.finish();
    Ok(figures)
}
