//! A look at a language model through a text: what it predicts, and how large its residual stream grows.
//!
//! It is how one picks a layer, and sees massive activations (almost always at position 0) before they spoil a
//! dictionary.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use monosema_core::{BlockHook, HookPoint, Progress};
use monosema_text::{
    ContextBatch, ContextConfig, ContextPlan, Corpus, TextConfig, Tokenizer, batches, contexts,
};
use monosema_transformer::{Checkpoint, LanguageModel, Tap};
use serde::Serialize;

use crate::{
    error::EvalError, host, model::ModelFacts, plan::check_context, predictions, report::format_figure,
};

/// Tokens that go through the model at once.
const BATCH_TOKENS: usize = 1024;

/// How many of a layer's largest norms are listed.
const LARGEST: usize = 8;

/// What a model does with a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelInspection {
    /// The model.
    pub model: ModelFacts,
    /// How the text was cut into windows, and which positions would count in a harvest.
    pub context: ContextPlan,
    /// Windows read.
    pub contexts: u64,
    /// Tokens in them.
    pub tokens: u64,
    /// Cross-entropy of the next token, in nats: every position of a window but the last predicts.
    pub ce: CrossEntropy,
    /// The residual stream before the first block and after every block, at all positions.
    pub layers: Vec<LayerNorms>,
    /// Every prediction, in order.
    pub predictions: Vec<Prediction>,
}

/// Mean cross-entropies, in nats a token.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CrossEntropy {
    /// Over all predictions.
    pub mean: f64,
    /// How many those are.
    pub predictions: u64,
    /// Over predictions made from counted positions, as evaluation has it; `None` if there are none.
    pub counted_mean: Option<f64>,
    /// How many those are.
    pub counted_predictions: u64,
}

/// ‖x‖₂ at one hook, over all positions of all windows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerNorms {
    /// Where.
    pub hook: HookPoint,
    /// Mean.
    pub mean: f64,
    /// Median; of an even count, the mean of the two in the middle.
    pub median: f64,
    /// Largest.
    pub max: f64,
    /// Mean over counted positions; `None` if there are none.
    pub counted_mean: Option<f64>,
    /// The largest norms, falling.
    pub largest: Vec<LargeNorm>,
}

/// One of the largest norms of a layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LargeNorm {
    /// ‖x‖₂.
    pub norm: f64,
    /// Position in its window.
    pub position: usize,
    /// The window, from 0.
    pub context: u64,
    /// The document.
    pub document: u64,
    /// The token there.
    pub token_id: u32,
    /// Its text.
    pub token: String,
}

/// One prediction.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The window, from 0.
    pub context: u64,
    /// The document of the token that it is made from.
    pub document: u64,
    /// The position that it is made from.
    pub position: usize,
    /// Whether that position counts.
    pub counted: bool,
    /// The token that came next.
    pub target_id: u32,
    /// Its text.
    pub target: String,
    /// Cross-entropy in nats.
    pub ce: f64,
}

/// Runs the model over up to `max_tokens` tokens of `text`, in whole windows, at least one.
///
/// # Errors
/// A model or text that cannot be read; windows longer than the model reads; a device that fails.
pub fn inspect_model(
    checkpoint: &Checkpoint,
    device: &Device,
    text: &TextConfig,
    context: &ContextConfig,
    max_tokens: u64,
) -> Result<ModelInspection, EvalError> {
    check_context(context, checkpoint.info())?;
    let tokenizer = checkpoint.tokenizer()?;
    let plan = ContextPlan::new(context, &tokenizer).map_err(EvalError::Context)?;
    plan.check_vocabulary(&tokenizer, checkpoint.info().d_vocab).map_err(EvalError::Context)?;
    let corpus = Corpus::open(text).map_err(EvalError::Inspected)?;
    let model = checkpoint.load(device)?;
    let mut seen = Seen::new(hooks(model.info().n_layers));
    let mut progress = Progress::start("inspect", "tokens", max_tokens);
    // Whole windows: those that begin before the limit.
    let mut begun = 0;
    let windows = contexts(corpus.documents(), &tokenizer, &plan).take_while(|window| {
        let before = begun;
        begun += window.as_ref().map_or(0, |window| window.len() as u64);
        before < max_tokens.max(1)
    });
    for batch in batches(windows, BATCH_TOKENS) {
        let batch = batch.map_err(EvalError::Inspected)?;
        seen.batch(&model, &tokenizer, &batch)?;
        progress.advance(batch.n_tokens() as u64, String::new);
    }
    progress.finish();
    Ok(seen.finish(ModelFacts::new(checkpoint), plan, &tokenizer))
}

/// The residual stream as the model goes from block to block.
fn hooks(n_layers: usize) -> Vec<HookPoint> {
    let posts = (0..n_layers).map(|layer| HookPoint::block(layer, BlockHook::ResidPost));
    std::iter::once(HookPoint::block(0, BlockHook::ResidPre)).chain(posts).collect()
}

/// Takes the norms at some hooks, without holding the values.
struct Norms {
    taken: BTreeMap<HookPoint, Option<Tensor<3>>>,
}

impl Tap for Norms {
    fn wants(&self, hook: HookPoint) -> bool {
        self.taken.contains_key(&hook)
    }

    fn visit(&mut self, hook: HookPoint, x: Tensor<3>) -> Tensor<3> {
        self.taken.insert(hook, Some(x.clone().square().sum_dim(2).sqrt()));
        x
    }
}

/// Where a token stood.
struct Place {
    context: u64,
    document: u64,
    position: usize,
    token: u32,
    counted: bool,
}

/// What was seen so far, token after token.
struct Seen {
    hooks: Vec<HookPoint>,
    contexts: u64,
    places: Vec<Place>,
    /// For each hook the norm at each place.
    norms: Vec<Vec<f32>>,
    predictions: Vec<Prediction>,
}

impl Seen {
    fn new(hooks: Vec<HookPoint>) -> Self {
        let norms = vec![Vec::new(); hooks.len()];
        Self { hooks, contexts: 0, places: Vec::new(), norms, predictions: Vec::new() }
    }

    fn batch(
        &mut self,
        model: &LanguageModel,
        tokenizer: &Tokenizer,
        batch: &ContextBatch,
    ) -> Result<(), EvalError> {
        let ids = batch.token_ids(model.info().d_vocab).map_err(EvalError::Inspected)?;
        let shape = [batch.n_contexts(), batch.seq_len()];
        let tokens = Tensor::from_data(TensorData::new(ids, shape), model.device());
        let mut tap = Norms { taken: self.hooks.iter().map(|&hook| (hook, None)).collect() };
        let hidden = model.forward(tokens, &mut tap);
        for (hook, norms) in self.hooks.iter().zip(&mut self.norms) {
            let taken = tap.taken.remove(hook).flatten().expect("a whole pass visits every hook");
            let values = host::values(taken, "taking norms of the residual stream")?;
            for (row, window) in values.chunks_exact(batch.seq_len()).zip(&batch.contexts) {
                norms.extend_from_slice(&row[..window.len()]);
            }
        }
        let mut made_from = Vec::new();
        for (row, window) in batch.contexts.iter().enumerate() {
            let context = self.contexts;
            self.contexts += 1;
            for (position, (&token, &document)) in window.tokens.iter().zip(&window.documents).enumerate() {
                let counted = window.counts(position);
                self.places.push(Place { context, document, position, token, counted });
                if let Some(&target_id) = window.tokens.get(position + 1) {
                    let target = tokenizer.token(target_id).unwrap_or_default();
                    let index = row * batch.seq_len() + position;
                    made_from.push(i32::try_from(index).expect("a batch has fewer than 2^31 tokens"));
                    let ce = f64::NAN;
                    self.predictions.push(Prediction {
                        context,
                        document,
                        position,
                        counted,
                        target_id,
                        target,
                        ce,
                    });
                }
            }
        }
        let first = self.predictions.len() - made_from.len();
        let targets: Vec<u32> = self.predictions[first..].iter().map(|p| p.target_id).collect();
        let losses = predictions::losses(model, &hidden, &[], &made_from, &targets)?;
        for (prediction, loss) in self.predictions[first..].iter_mut().zip(&losses[0]) {
            prediction.ce = loss.ce;
        }
        Ok(())
    }

    fn finish(self, model: ModelFacts, context: ContextPlan, tokenizer: &Tokenizer) -> ModelInspection {
        let counted = self.predictions.iter().filter(|p| p.counted);
        let ce = CrossEntropy {
            mean: mean(self.predictions.iter().map(|p| p.ce)).unwrap_or(f64::NAN),
            predictions: self.predictions.len() as u64,
            counted_mean: mean(counted.clone().map(|p| p.ce)),
            counted_predictions: counted.count() as u64,
        };
        let layers = self
            .hooks
            .iter()
            .zip(&self.norms)
            .map(|(&hook, norms)| layer(hook, norms, &self.places, tokenizer));
        ModelInspection {
            model,
            context,
            contexts: self.contexts,
            tokens: self.places.len() as u64,
            ce,
            layers: layers.collect(),
            predictions: self.predictions,
        }
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0u64), |(sum, n), value| (sum + value, n + 1));
    (n > 0).then(|| sum / n as f64)
}

/// Statistics of the norms at one hook; `norms[i]` was found at `places[i]`, and there is at least one.
fn layer(hook: HookPoint, norms: &[f32], places: &[Place], tokenizer: &Tokenizer) -> LayerNorms {
    let mut order: Vec<usize> = (0..norms.len()).collect();
    order.sort_unstable_by(|&a, &b| norms[b].total_cmp(&norms[a]).then(a.cmp(&b)));
    let norm = |i: usize| f64::from(norms[i]);
    let largest = order.iter().take(LARGEST).map(|&i| {
        let Place { context, document, position, token: token_id, .. } = places[i];
        let token = tokenizer.token(token_id).unwrap_or_default();
        LargeNorm { norm: norm(i), position, context, document, token_id, token }
    });
    // The order falls. Of an odd count both are the one in the middle.
    let middle = [order.len().saturating_sub(1) / 2, order.len() / 2];
    LayerNorms {
        hook,
        mean: mean((0..norms.len()).map(norm)).unwrap_or(f64::NAN),
        median: mean(middle.iter().filter_map(|&rank| order.get(rank)).map(|&i| norm(i))).unwrap_or(f64::NAN),
        max: order.first().map_or(f64::NAN, |&i| norm(i)),
        counted_mean: mean((0..norms.len()).filter(|&i| places[i].counted).map(norm)),
        largest: largest.collect(),
    }
}

impl LayerNorms {
    /// At which positions the largest norms sit, and how many of them: `0 ×7, 53`.
    pub fn positions(&self) -> String {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for large in &self.largest {
            *counts.entry(large.position).or_default() += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by_key(|&(_, n)| std::cmp::Reverse(n));
        let words = counts
            .iter()
            .map(|&(position, n)| if n > 1 { format!("{position} ×{n}") } else { position.to_string() });
        words.collect::<Vec<_>>().join(", ")
    }
}

impl ModelInspection {
    /// Heads of the table of layers.
    pub const COLUMNS: [&'static str; 6] =
        ["hook", "mean ‖x‖", "mean, counted", "median", "largest", "largest at position"];

    /// The table of layers: one row a hook.
    pub fn rows(&self) -> Vec<[String; 6]> {
        let figure = |value: f64| format_figure(Some(value));
        let row = |layer: &LayerNorms| {
            let counted = format_figure(layer.counted_mean);
            let LayerNorms { hook, mean, median, max, .. } = *layer;
            [hook.to_string(), figure(mean), counted, figure(median), figure(max), layer.positions()]
        };
        self.layers.iter().map(row).collect()
    }
}
