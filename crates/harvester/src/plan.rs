//! A harvest, checked and with every derived number filled in.

use std::collections::BTreeMap;

use monosema_core::{HookPoint, Seed, Stage, manifest::Work};
use monosema_store::{Compression, HookColumn, Layout, Order, Part, StoreSchema, VectorDtype, WriterOptions};
use monosema_text::{ContextConfig, ContextPlan, Corpus, Tally, TextConfig, Tokenizer, contexts};
use monosema_transformer::Checkpoint;
use serde::Serialize;

use crate::{HarvestConfig, HarvestError, running::Running};

/// Tokens that the model runs over at once, unless more or fewer are asked for.
const BATCH_TOKENS: usize = 2048;

/// Memory for the program and the tokenizer's tables, roughly.
const PROGRAM_BYTES: f64 = 60e6;

/// The fields of [`HarvestPlan`] that the result does not depend on: estimates, and the names of what the work's
/// inputs hold by digest.
const IRRELEVANT: [&str; 5] = ["tokens", "disk_bytes", "memory_bytes", "model", "files"];

/// What a harvest will do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HarvestPlan {
    /// The name of the model.
    pub model: String,
    /// The hooks and the widths of their vectors.
    pub hooks: Vec<HookColumn>,
    /// The text.
    pub text: TextConfig,
    /// How it is cut into windows.
    pub context: ContextPlan,
    /// Stop after so many tokens that count and are kept.
    pub max_tokens: Option<u64>,
    /// Leave out tokens whose norm is above so many times their batch's median.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_norm_multiple: Option<f64>,
    /// Whether nothing is stored.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stream: bool,
    /// The part of the documents that is harvested, if it is not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// In which order rows lie on disk. A stream has that of the text.
    pub order: Order,
    /// Whether every hook has shards of its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hooks_apart: bool,
    /// The type activations are stored as.
    pub dtype: VectorDtype,
    /// How a vector lies in its column.
    pub layout: Layout,
    /// Windows that the model runs over at once.
    pub batch_contexts: usize,
    /// Whether that was asked for.
    #[serde(skip)]
    batch_is_given: bool,
    /// What running the model takes.
    #[serde(skip)]
    running: Running,
    /// How the store is cut into files.
    pub shards: WriterOptions,
    /// The experiment's seed, which decides the order of the rows.
    #[serde(skip)]
    pub seed: Seed,
    /// Counted tokens to expect: `max_tokens`, or what a sample of the text suggests if that is less.
    pub tokens: u64,
    /// Bytes on disk to expect, before compression.
    pub disk_bytes: u64,
    /// Bytes of memory to expect, roughly.
    pub memory_bytes: u64,
}

impl HarvestPlan {
    /// Checks `config` against the model and the text. Reads a sample of the text, no weights.
    ///
    /// # Errors
    /// A hook that the model lacks or that is named twice; windows that are longer than the model takes, or
    /// otherwise cannot be cut; text that is not there, or of which nothing counts; activations that cannot be
    /// stored so.
    pub fn resolve(
        config: &HarvestConfig,
        context: &ContextConfig,
        checkpoint: &Checkpoint,
        seed: Seed,
    ) -> Result<Self, HarvestError> {
        let bad = |section, key, reason| HarvestError::BadConfig { section, key, reason };
        let info = checkpoint.info();
        let column = |&hook| Ok(HookColumn { hook, width: info.width(hook, context.length)? });
        let hooks = config.hooks.iter().map(column).collect::<Result<_, HarvestError>>()?;
        // Nothing of a stream is sorted: it is shuffled in the buffer alone.
        let order = if config.stream { Order::Text } else { config.order };
        let schema = StoreSchema { hooks, dtype: config.dtype, layout: config.layout, order };
        schema.check()?;
        let shards = WriterOptions {
            shard_tokens: config.shard_tokens,
            row_group_tokens: config.row_group_tokens,
            compression: config.compression,
        };
        shards.check()?;
        if config.batch_tokens == Some(0) {
            return Err(bad("harvest", "batch_tokens", "expected at least 1, found 0".into()));
        }
        if config.tokens == Some(0) {
            let reason = "expected at least 1; leave the key out to harvest all of the text".into();
            return Err(bad("harvest", "tokens", reason));
        }
        if let Some(multiple) = config.max_norm_multiple.filter(|&m| !(m.is_finite() && m > 1.0)) {
            let reason =
                format!("expected a number above 1, found {multiple}; leave the key out to keep all");
            return Err(bad("harvest", "max_norm_multiple", reason));
        }
        if context.length > info.max_context {
            let reason =
                format!("{} takes up to {} tokens, found {}", info.name, info.max_context, context.length);
            return Err(bad("context", "length", reason));
        }
        let corpus = Corpus::open(&config.text)?;
        let tokenizer = checkpoint.tokenizer()?;
        let context = ContextPlan::new(context, &tokenizer)?;
        context.check_vocabulary(&tokenizer, info.d_vocab)?;
        let expected = expected_tokens(&corpus, &tokenizer, &context)?;
        let tokens = config.tokens.map_or(expected, |limit| limit.min(expected));
        let batch_contexts = (config.batch_tokens.unwrap_or(BATCH_TOKENS) / context.length).max(1);
        let held = if config.stream { shards.row_group_tokens } else { shards.shard_tokens.min(tokens) };
        let running = Running::new(info, &schema, context.length);
        let held = 2.0 * held as f64 * schema.token_bytes() as f64;
        let memory_bytes = ((running.bytes(batch_contexts) + held + PROGRAM_BYTES) as u64)
            .saturating_add(corpus.tokenizing_bytes());
        let mut plan = Self {
            model: info.name.clone(),
            disk_bytes: 0,
            hooks: schema.hooks,
            text: config.text.clone(),
            context,
            max_tokens: config.tokens,
            max_norm_multiple: config.max_norm_multiple,
            stream: config.stream,
            part: None,
            order,
            hooks_apart: config.hooks_apart && !config.stream,
            dtype: config.dtype,
            layout: config.layout,
            batch_contexts,
            batch_is_given: config.batch_tokens.is_some(),
            running,
            shards,
            seed,
            tokens,
            memory_bytes,
        };
        // The footers are small beside a shard.
        plan.disk_bytes = if config.stream { 0 } else { tokens.saturating_mul(plan.token_bytes()) };
        Ok(plan)
    }

    /// The same for one part of the documents, with its share of the tokens.
    ///
    /// # Errors
    /// Fewer tokens than parts.
    pub fn of_part(mut self, part: Part) -> Result<Self, HarvestError> {
        if let Some(limit) = self.max_tokens.filter(|&limit| limit < part.of()) {
            let reason = format!("expected at least one for each of the {} parts, found {limit}", part.of());
            return Err(HarvestError::BadConfig { section: "harvest", key: "tokens", reason });
        }
        self.part = Some(part);
        self.tokens = part.share(self.tokens).max(1);
        self.disk_bytes = self.tokens.saturating_mul(self.token_bytes());
        Ok(self)
    }

    /// The same for a GPU with so many bytes free, which runs over as many windows at once as they hold, if no number was asked for.
    /// With `max_norm_multiple` the number is part of the result, and stays.
    #[must_use]
    pub fn for_gpu(mut self, free_bytes: u64) -> Self {
        if !self.batch_is_given && !self.rows_depend_on_values() {
            self.batch_contexts = self.running.windows(free_bytes, self.context.length);
        }
        self
    }

    /// Where to stop, in counted tokens: a part has its share.
    pub(crate) fn limit(&self) -> Option<u64> {
        self.max_tokens.map(|limit| self.part.map_or(limit, |part| part.share(limit)))
    }

    /// The columns of vectors that the store will have.
    pub fn columns(&self) -> Vec<HookColumn> {
        self.hooks.clone()
    }

    /// What the store will hold.
    pub fn schema(&self) -> StoreSchema {
        let hooks = self.hooks.clone();
        StoreSchema { hooks, dtype: self.dtype, layout: self.layout, order: self.order }
    }

    /// Bytes of memory that a training will need to read it, beside batches and a shuffle buffer.
    pub fn reading_bytes(&self) -> u64 {
        let plain = self.layout == Layout::Binary && self.shards.compression == Compression::None;
        let shards = self.tokens.div_ceil(self.shards.shard_tokens);
        if plain || self.stream { 0 } else { self.schema().decoding_bytes(shards) }
    }

    /// Whether how many rows a batch of windows gives is known only when the model has run over it.
    pub fn rows_depend_on_values(&self) -> bool {
        self.max_norm_multiple.is_some()
    }

    /// What the sets of shards hold, where every hook has its own.
    pub(crate) fn sets(&self) -> Vec<(HookPoint, StoreSchema)> {
        let set = |column: &HookColumn| (column.hook, StoreSchema { hooks: vec![*column], ..self.schema() });
        self.hooks.iter().map(set).collect()
    }

    /// Bytes on disk of one token, before compression.
    fn token_bytes(&self) -> u64 {
        match self.hooks_apart {
            true => self.sets().iter().map(|(_, schema)| schema.token_bytes()).sum(),
            false => self.schema().token_bytes(),
        }
    }

    /// All that the result depends on. Reads the model and the text, for their digests.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn work(&self, checkpoint: &Checkpoint) -> Result<Work, HarvestError> {
        let text = Corpus::open(&self.text)?.input(&self.text)?;
        let model = checkpoint.input()?;
        let inputs = BTreeMap::from([("model".to_owned(), model), ("text".to_owned(), text)]);
        let mut irrelevant = IRRELEVANT.to_vec();
        if !self.rows_depend_on_values() {
            irrelevant.push("batch_contexts");
        }
        Ok(Work::new(Stage::Harvest, self, &irrelevant, self.seed, inputs))
    }
}

/// How many tokens of `corpus` count, by a sample; at least one.
fn expected_tokens(
    corpus: &Corpus,
    tokenizer: &Tokenizer,
    context: &ContextPlan,
) -> Result<u64, HarvestError> {
    let expected = corpus.estimate(tokenizer, context)?.counted;
    if expected > 0 {
        return Ok(expected);
    }
    // Nothing in the sample. Is there anything at all?
    let mut tally = Tally::default();
    for window in contexts(corpus.documents(), tokenizer, context) {
        tally += window?.verdicts.into_iter().collect();
        if tally.counted > 0 {
            return Ok(1);
        }
    }
    Err(HarvestError::NothingCounts { tally })
}
