//! The `[eval]` section, checked against the model, the dictionary and the texts: what will be done, and what
//! it takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use monosema_core::{
    HookPoint, Seed, Stage,
    manifest::{Input, Work},
};
use monosema_sae::Metadata;
use monosema_text::{ContextConfig, ContextPlan, Corpus, Estimate, SourceFile, TextConfig, TextError};
use monosema_transformer::{Checkpoint, ModelInfo, Tiles};
use serde::{Deserialize, Serialize};

use crate::{
    config::{EvalConfig, NamedText},
    conventions::Convention,
    dictionary::{self, DictionaryShape},
    error::EvalError,
    labelled::{self, ConceptsConfig, ProbesConfig},
    metrics::{Ablation, documents},
    reconstruct::chunk_rows,
};

/// Tokens that go through the model at once, unless the configuration says otherwise.
const BATCH_TOKENS: usize = 1024;

/// What passes that stand at the hook may take. What does not fit is run up to there a second time.
pub(crate) const KEPT_BYTES: u64 = 1 << 30;

/// From the hook on over every window: with what is there, and with the reconstruction. Each ablation is one more.
const FROM_HOOK: u32 = 2;

/// Resamples of documents, unless the configuration says otherwise.
const RESAMPLES: u32 = 1000;

/// The fields of an [`EvalPlan`] that the result does not depend on: estimates, and the names of what the work's
/// inputs hold by digest.
const IRRELEVANT: [&str; 6] = ["memory_bytes", "counted_tokens", "n_files", "bytes", "passes", "files"];

/// A checked evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalPlan {
    /// The dictionary to evaluate, as far as the plan depends on it.
    pub dictionary: DictionaryShape,
    /// The held-out texts.
    pub texts: Vec<PlannedText>,
    /// How windows are cut and which positions count.
    pub context: ContextPlan,
    /// Stop in each text after so many counted tokens.
    pub tokens: Option<u64>,
    /// How many resamples of documents the confidence intervals are from.
    pub resamples: u32,
    /// What to put in the place of activations besides reconstructions.
    pub ablations: BTreeSet<Ablation>,
    /// Whose figures to give too.
    pub conventions: BTreeSet<Convention>,
    /// How many windows go through the model at once.
    pub batch_contexts: usize,
    /// Texts with labelled spans.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub concepts: Vec<ConceptsConfig>,
    /// Texts of labelled documents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<ProbesConfig>,
    /// Passes over the text.
    pub passes: PlannedPasses,
    /// Memory that weights, dictionary and the largest buffers take; an estimate.
    pub memory_bytes: u64,
    /// The experiment's seed: resample ablation and resamples of documents draw from it.
    #[serde(skip)]
    pub seed: Seed,
    /// What a user should know before believing the figures.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// What is known of how the dictionary was trained.
#[derive(Clone, Copy, Debug, Default)]
pub struct Training<'a> {
    /// The text: a held-out text that shares a file with it is not held out.
    pub text: Option<&'a TextConfig>,
    /// What the dictionary says of itself. `None` for one that this experiment is yet to train.
    pub metadata: Option<&'a Metadata>,
}

/// One held-out text of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedText {
    /// What the report calls it.
    pub name: String,
    /// Where it comes from.
    pub text: TextConfig,
    /// How many files that is.
    pub n_files: usize,
    /// Their size.
    pub bytes: u64,
    /// Tokens that will count, at most the limit: an estimate from a sample.
    pub counted_tokens: u64,
}

impl PlannedText {
    /// What is wrong with it, under its name.
    pub(crate) fn error(&self, source: TextError) -> EvalError {
        EvalError::Text { name: self.name.clone(), source }
    }
}

/// Passes through the model over every window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedPasses {
    /// From tokens to where the dictionary belongs.
    pub to_hook: u32,
    /// From there to logits.
    pub from_hook: u32,
}

impl EvalPlan {
    /// Checks `config` against everything it names.
    ///
    /// `dictionary` may be that of a dictionary yet to be trained. What `training` tells of how it was trained is
    /// compared with how it is to be evaluated: differences are warnings.
    ///
    /// # Errors
    /// No text, or two of one name; a text without files; a hook that the model lacks; a dictionary of another
    /// width than the model's there; windows longer than the model reads; a limit of 0.
    pub fn resolve(
        config: &EvalConfig,
        context: &ContextConfig,
        checkpoint: &Checkpoint,
        dictionary: &DictionaryShape,
        training: &Training,
        seed: Seed,
    ) -> Result<Self, EvalError> {
        let info = checkpoint.info();
        check_limits(config)?;
        check_names(&config.texts)?;
        labelled::check(&config.concepts, &config.probes)?;
        check_widths(dictionary, info, context.length)?;
        check_context(context, info)?;
        let tokenizer = checkpoint.tokenizer()?;
        let context = ContextPlan::new(context, &tokenizer).map_err(EvalError::Context)?;
        context.check_vocabulary(&tokenizer, info.d_vocab).map_err(EvalError::Context)?;
        let training_files = training.text.map(files_of).unwrap_or_default();
        let mut warnings = match training.metadata {
            Some(metadata) => other_circumstances(metadata, checkpoint, &context)?,
            None => Vec::new(),
        };
        let mut texts = Vec::new();
        let mut tokenizing_bytes = 0;
        for named in &config.texts {
            let in_text = |source| EvalError::Text { name: named.name.clone(), source };
            let corpus = Corpus::open(&named.text()).map_err(in_text)?;
            let Estimate { counted, .. } = corpus.estimate(&tokenizer, &context).map_err(in_text)?;
            tokenizing_bytes = corpus.tokenizing_bytes().max(tokenizing_bytes);
            warnings.extend(overlap(&named.name, &corpus, &training_files));
            texts.push(PlannedText {
                name: named.name.clone(),
                text: named.text(),
                n_files: corpus.files().len(),
                bytes: corpus.bytes(),
                counted_tokens: counted.min(config.tokens.unwrap_or(u64::MAX)),
            });
        }
        let batch_contexts = config.batch_contexts.unwrap_or((BATCH_TOKENS / context.length).max(1));
        let kept =
            texts.iter().map(|text| 4 * dictionary.d_in as u64 * text.counted_tokens).max().unwrap_or(0);
        // What is not counted is run too: about as much, then.
        let to_hook = if kept < KEPT_BYTES { 1 } else { 2 };
        let ablations = config.ablations.clone().unwrap_or_else(|| Ablation::ALL.into());
        let from_hook = FROM_HOOK + ablations.len() as u32 + 2 * config.conventions.len() as u32;
        // Of every text, and of all of them together.
        let sums: u64 =
            texts.iter().map(|text| 2 * documents::bytes(text.counted_tokens, dictionary.d_in)).sum();
        let memory_bytes = memory(info, dictionary, batch_contexts, context.length)
            .saturating_add(tokenizing_bytes)
            .saturating_add(kept.min(KEPT_BYTES))
            .saturating_add(sums)
            .saturating_add(labelled::memory(&config.concepts, &config.probes, dictionary));
        Ok(Self {
            dictionary: *dictionary,
            texts,
            context,
            tokens: config.tokens,
            resamples: config.resamples.unwrap_or(RESAMPLES),
            ablations,
            conventions: config.conventions.clone(),
            batch_contexts,
            concepts: config.concepts.clone(),
            probes: config.probes.clone(),
            passes: PlannedPasses { to_hook, from_hook },
            memory_bytes,
            seed,
            warnings,
        })
    }

    /// All that the report depends on: the plan, and the digests of the model, the dictionary and the texts.
    ///
    /// # Errors
    /// An input that cannot be read.
    pub fn work(&self, checkpoint: &Checkpoint, dictionary_dir: &Path) -> Result<Work, EvalError> {
        let mut inputs = BTreeMap::from([
            ("model".to_owned(), checkpoint.input()?),
            (
                "dictionary".to_owned(),
                Input::new(dictionary_dir.display().to_string(), dictionary::digest(dictionary_dir)?),
            ),
        ]);
        for PlannedText { name, text, .. } in &self.texts {
            let in_text = |source| EvalError::Text { name: name.clone(), source };
            let input = Corpus::open(text).and_then(|corpus| corpus.input(text)).map_err(in_text)?;
            inputs.insert(format!("text {name}"), input);
        }
        inputs.extend(labelled::inputs(&self.concepts, &self.probes)?);
        Ok(Work::new(Stage::Eval, self, &IRRELEVANT, self.seed, inputs))
    }

    /// Whether the passes through the model are the same, but for what comes out of the dictionary.
    pub fn shares_passes(&self, other: &Self) -> bool {
        let of = |plan: &Self| (plan.dictionary.target(), plan.tokens, plan.batch_contexts, plan.seed);
        let asked = |plan: &Self| (plan.ablations.clone(), plan.conventions.clone());
        of(self) == of(other)
            && asked(self) == asked(other)
            && self.context == other.context
            && self.texts == other.texts
    }

    /// Tokens that will count in all texts together, an estimate.
    pub fn counted_tokens(&self) -> u64 {
        self.texts.iter().map(|text| text.counted_tokens).sum()
    }

    /// Tokens that go through the model at once, at most.
    pub(crate) fn batch_tokens(&self) -> usize {
        self.batch_contexts.saturating_mul(self.context.length)
    }

    /// Where the dictionary is spliced in.
    pub fn hook(&self) -> HookPoint {
        self.dictionary.hook
    }

    /// Which tokens count, and what is done there, in words.
    pub(crate) fn rule(&self) -> String {
        let ContextPlan { length, .. } = self.context;
        let rule = self.context.rule();
        let hook = self.hook();
        let spliced = spliced(&self.ablations);
        let others = match self.ablations.contains(&Ablation::Resample) {
            true => ", and so are the activations of other tokens (from a random 4,096 of them)",
            false => "",
        };
        format!(
            "Text is read in windows of up to {length} tokens (where shorter ones are padded at their ends, padding is \
             neither seen nor counted); {rule}; every other \
             position counts. Activations at {hook} are measured at the counted positions. Spliced in at \
             exactly these positions are {spliced}, and all other positions keep the clean \
             value, in every variant alike. Cross-entropy and divergence are of the predictions made from counted positions, of the \
             next token in the same window (the last position of a window predicts nothing). The mean activation of \
             a text is that of all of its own counted tokens, from a clean pass{others}."
        )
    }
}

/// What comes in the place of activations, in words.
fn spliced(ablations: &BTreeSet<Ablation>) -> String {
    let mut all: Vec<&str> = vec!["reconstructions"];
    all.extend(ablations.iter().map(|ablation| match ablation {
        Ablation::Zero => "zero",
        Ablation::Mean => "the mean",
        Ablation::Resample => "another token's activation",
    }));
    match all.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => all.concat(),
    }
}

/// The dictionary must be as wide as the model is where it reads and where it is spliced in.
fn check_widths(dictionary: &DictionaryShape, info: &ModelInfo, length: usize) -> Result<(), EvalError> {
    let DictionaryShape { hook, d_in, .. } = *dictionary;
    let target = dictionary.target();
    let [width, d_out] = [info.width(hook, length)?, info.width(target, length)?];
    let refused = |reason| Err(EvalError::BadConfig { key: "dictionary".into(), reason });
    for hook in [hook, target] {
        // As wide as a window is long: a shorter one has nothing that a dictionary could read.
        if info.width(hook, 1)? != info.width(hook, 2)? {
            return refused(format!("{hook} has another width in every window, and is not evaluated"));
        }
    }
    if width != d_in {
        return Err(EvalError::WidthMismatch { hook, d_in, model: info.name.clone(), width });
    }
    if d_out != d_in {
        return refused(format!(
            "it reads {d_in} dimensions and gives {target}, of {d_out}; expected as many as it reads, others are not \
             evaluated"
        ));
    }
    Ok(())
}

/// Windows must not be longer than the model reads.
pub(crate) fn check_context(context: &ContextConfig, info: &ModelInfo) -> Result<(), EvalError> {
    let (model, max_context, length) = (info.name.clone(), info.max_context, context.length);
    if length > max_context { Err(EvalError::ContextTooLong { model, max_context, length }) } else { Ok(()) }
}

fn check_limits(config: &EvalConfig) -> Result<(), EvalError> {
    let zero = |key: &str| EvalError::BadConfig {
        key: key.into(),
        reason: "expected at least 1; leave the key out for the default".into(),
    };
    match config {
        EvalConfig { tokens: Some(0), .. } => Err(zero("tokens")),
        EvalConfig { batch_contexts: Some(0), .. } => Err(zero("batch_contexts")),
        _ => Ok(()),
    }
}

fn check_names(texts: &[NamedText]) -> Result<(), EvalError> {
    let bad = |reason: String| EvalError::BadConfig { key: "texts".into(), reason };
    if texts.is_empty() {
        return Err(bad("expected at least one [[eval.texts]] with a name and files".into()));
    }
    let mut seen = BTreeSet::from(["all"]);
    for NamedText { name, .. } in texts {
        if name.trim().is_empty() {
            return Err(bad("expected a name for each text, found an empty one".into()));
        }
        if !seen.insert(name.as_str()) {
            let reason =
                if name == "all" { "is what the report calls them together" } else { "is there twice" };
            return Err(bad(format!("the name `{name}` {reason}; choose another")));
        }
    }
    Ok(())
}

/// In what the dictionary was trained otherwise than it is to be evaluated, as far as it says.
fn other_circumstances(
    metadata: &Metadata,
    checkpoint: &Checkpoint,
    context: &ContextPlan,
) -> Result<Vec<String>, EvalError> {
    let mut warnings = Vec::new();
    let name = &checkpoint.info().name;
    let trained_on = metadata.model_name.as_deref();
    // The digest says it exactly. A dictionary from elsewhere has a name at most.
    let other_model = match metadata.facts.get("model_sha256").and_then(|digest| digest.as_str()) {
        Some(digest) => (checkpoint.digest()?.as_str() != digest)
            .then_some("another model, or the same in other files, precision or quantisation"),
        None => trained_on.filter(|trained_on| trained_on != name).map(|_| "another name, at least"),
    };
    if let Some(difference) = other_model {
        warnings.push(format!(
            "the dictionary was trained on activations of {}, and is evaluated in {name}: {difference}",
            trained_on.unwrap_or("a model it does not name")
        ));
    }
    if let Some(trained) = metadata.context_size.filter(|&trained| trained < context.length) {
        warnings.push(format!(
            "the dictionary was trained on windows of {trained} tokens, and is evaluated on windows of {}: it has \
             never seen the later positions",
            context.length
        ));
    }
    let bos = context.bos.is_some();
    if metadata.prepend_bos.is_some_and(|trained| trained != bos) {
        let with = |bos: bool| if bos { "with BOS" } else { "without BOS" };
        warnings.push(format!(
            "the dictionary was trained on windows {} in front, and is evaluated on windows {}; see [context] bos",
            with(!bos),
            with(bos)
        ));
    }
    Ok(warnings)
}

/// The files of a text as the system names them; none if they cannot be found, which is not ours to report.
fn files_of(text: &TextConfig) -> BTreeSet<PathBuf> {
    Corpus::open(text).map(|corpus| canonical(corpus.files())).unwrap_or_default()
}

fn canonical(files: &[SourceFile]) -> BTreeSet<PathBuf> {
    files.iter().map(SourceFile::name).map(|name| fs::canonicalize(&name).unwrap_or(name)).collect()
}

fn overlap(name: &str, corpus: &Corpus, training_files: &BTreeSet<PathBuf>) -> Option<String> {
    let files = canonical(corpus.files());
    let shared: Vec<_> = files.intersection(training_files).collect();
    let first = shared.first()?;
    Some(format!(
        "text {name} is not held out: {} of its {} file(s) are training text too, {} first; its figures will \
         flatter the dictionary",
        shared.len(),
        files.len(),
        first.display()
    ))
}

/// What stands in memory at once: weights; activations of a batch; latents and logits in chunks.
fn memory(info: &ModelInfo, dictionary: &DictionaryShape, contexts: usize, length: usize) -> u64 {
    let batch_tokens = contexts.saturating_mul(length);
    // In f64, because a batch may be as absurd as the user likes, and the sum must still say so.
    let floats = |rows: usize, width: usize| 4.0 * rows as f64 * width as f64;
    let weights = 4.0 * info.n_parameters as f64 + 2.0 * floats(dictionary.d_in, dictionary.d_sae);
    // Five final hidden states, x, x̂ and four spliced x; a dozen widths inside a block and its MLP.
    let hidden = 28.0 * floats(batch_tokens, info.d_model);
    // The model's heads are not known here, and taken as 64 wide; queries are worked on 512 at a time.
    let scores = 2.0 * info.d_model.div_ceil(64) as f64 * floats(batch_tokens, length.min(512));
    let latents = 2.0 * floats(chunk_rows(dictionary.d_sae).min(batch_tokens), dictionary.d_sae);
    let logits = floats(Tiles::default().logits(info.d_vocab), 1);
    (weights + hidden + scores.max(latents).max(logits)) as u64
}
