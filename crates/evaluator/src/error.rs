//! What can be wrong with an evaluation.

use std::{io, path::PathBuf};

use monosema_core::HookPoint;
use monosema_sae::SaeError;
use monosema_text::TextError;
use monosema_transformer::ModelError;

use crate::dictionary::DictionaryShape;

/// An evaluation that cannot be done, or failed.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// An `[eval]` setting that cannot work.
    #[error("[eval] {key}: {reason}")]
    BadConfig {
        /// The setting.
        key: String,
        /// Expected and found.
        reason: String,
    },
    /// A dictionary for activations of another width than the model's.
    #[error(
        "the dictionary takes activations of {d_in} dimensions, but {hook} of {model} has {width}; it was trained \
         on another model"
    )]
    WidthMismatch {
        /// The hook point that the dictionary names.
        hook: HookPoint,
        /// Width that the dictionary takes.
        d_in: usize,
        /// The model's name.
        model: String,
        /// Width that the model has there.
        width: usize,
    },
    /// A dictionary for another hook than the plan was made for.
    #[error("{}: expected a dictionary {expected}, found {found}; resolve the plan again", directory.display())]
    OtherDictionary {
        /// The dictionary.
        directory: PathBuf,
        /// What the plan was made for.
        expected: DictionaryShape,
        /// What is there.
        found: DictionaryShape,
    },
    /// Windows longer than the model can read.
    #[error(
        "[context] length: expected at most {max_context} tokens, which is as long as {model} reads; found {length}"
    )]
    ContextTooLong {
        /// The model's name.
        model: String,
        /// The longest sequence it was made for.
        max_context: usize,
        /// The window length asked for.
        length: usize,
    },
    /// A held-out text that cannot be read or tokenised.
    #[error("[[eval.texts]] {name}")]
    Text {
        /// The text's name in the configuration.
        name: String,
        /// The cause.
        source: TextError,
    },
    /// A labelled text that cannot be read, tokenised or understood.
    #[error("[[eval.{section}]] {name}")]
    Labelled {
        /// `concepts` or `probes`.
        section: &'static str,
        /// The text's name in the configuration.
        name: String,
        /// The cause.
        source: TextError,
    },
    /// Labelled spans of which no value can be judged.
    #[error(
        "[[eval.concepts]] {name}: of {values} value(s) on {tokens} counted tokens none has {min_tokens} tokens with it and \
         {min_tokens} without it in each half of the documents; give more text (tokens), or set min_tokens lower"
    )]
    NoConcept {
        /// The text's name in the configuration.
        name: String,
        /// Counted tokens.
        tokens: u64,
        /// Values that came up.
        values: u64,
        /// Tokens of either kind that each half needs.
        min_tokens: u64,
    },
    /// Labelled documents of which no class can be told.
    #[error(
        "[[eval.probes]] {name}: {documents} document(s) of {classes} class(es) by the field `{field}`: expected at least two classes, with {least} \
         documents of each in each half; give more documents, or name another field with `label`"
    )]
    NoClass {
        /// The text's name in the configuration.
        name: String,
        /// The field that holds the class.
        field: String,
        /// Documents with a counted token.
        documents: u64,
        /// Different classes among them.
        classes: u64,
        /// Documents of a class that each half needs.
        least: u64,
    },
    /// A text to inspect a model with that cannot be read or tokenised. It names its files itself.
    #[error(transparent)]
    Inspected(TextError),
    /// A `[context]` setting that cannot work.
    #[error(transparent)]
    Context(TextError),
    /// A held-out text of which no token counts, or none with a next token to predict.
    #[error(
        "[[eval.texts]] {name}: of its {positions} tokens {counted} count and none of those has a next token in its \
         window, so there is nothing to measure; give a longer text, or skip less (context.skip_first, \
         context.skip_special)"
    )]
    NothingCounted {
        /// The text's name in the configuration.
        name: String,
        /// Tokens read.
        positions: u64,
        /// Tokens that count.
        counted: u64,
    },
    /// The model cannot be used.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The dictionary cannot be used.
    #[error(transparent)]
    Dictionary(#[from] SaeError),
    /// The device failed.
    #[error(
        "the device failed while {doing}: {reason}; try a smaller eval.batch_contexts, or device = \"cpu\""
    )]
    Device {
        /// What was being computed.
        doing: &'static str,
        /// What the device says.
        reason: String,
    },
    /// A value that should be a number is not.
    #[error(
        "{what} of text {name} is not finite: the model, or it with what is spliced in, overflows on this device"
    )]
    NotFinite {
        /// The text's name in the configuration.
        name: String,
        /// Which value.
        what: &'static str,
    },
    /// What comes out of a dictionary, or of the model with it, is not a number.
    #[error(
        "{}: {what} of text {name} is not finite: the dictionary's weights, or what the model makes of its reconstructions, \
         overflow in f32", dictionary.display()
    )]
    Overflow {
        /// Where the dictionary is.
        dictionary: PathBuf,
        /// The text's name in the configuration.
        name: String,
        /// Which value.
        what: &'static str,
    },
    /// The disk failed.
    #[error("{}: cannot be read or written", path.display())]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A report that cannot be read back.
    #[error("{}: {reason}; run the eval stage again", path.display())]
    BadReport {
        /// The report.
        path: PathBuf,
        /// Expected and found.
        reason: String,
    },
}
