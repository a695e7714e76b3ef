//! What can be wrong with a model.

use std::{io, path::PathBuf};

use monosema_core::HookPoint;
use monosema_text::TextError;

/// A model that cannot be read, or not be used as asked.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Neither a Hugging Face directory nor a GGUF file.
    #[error(
        "{}: {reason}; expected a Hugging Face directory (config.json and model.safetensors) or a .gguf file",
        path.display()
    )]
    NotAModel {
        /// What was given as the model.
        path: PathBuf,
        /// What it is instead.
        reason: String,
    },
    /// The disk failed.
    #[error("{}: cannot be read or written", path.display())]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file that is cut short, or not of the format its name says.
    #[error("{}: {reason}", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// Expected and found, and what to do about it.
        reason: String,
    },
    /// A value of the model's configuration that is missing or makes no sense.
    #[error("{}: {key}: {reason}", file.display())]
    Config {
        /// config.json, or the GGUF file.
        file: PathBuf,
        /// The key.
        key: String,
        /// Expected and found.
        reason: String,
    },
    /// A model, or something in it, that this version does not implement.
    #[error("{}: {what} is not supported: {supported}", file.display())]
    Unsupported {
        /// config.json, or the GGUF file.
        file: PathBuf,
        /// What was found.
        what: String,
        /// What would be.
        supported: String,
    },
    /// A tensor that the configuration asks for is not there.
    #[error(
        "{}: tensor {tensor} {expected:?} is missing; either weights were not fetched completely, or the \
         configuration is not of these weights: fetch both again from one place",
        path.display()
    )]
    MissingTensor {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor's name, as the checkpoint should have it.
        tensor: String,
        /// Its shape.
        expected: Vec<usize>,
    },
    /// Tensors that the configured model does not have.
    #[error(
        "{}: the configured model has no tensor {}; the configuration is not of these weights",
        path.display(), tensors.join(", ")
    )]
    ExtraTensors {
        /// The checkpoint.
        path: PathBuf,
        /// Their names.
        tensors: Vec<String>,
    },
    /// A tensor of another shape than the configuration says.
    #[error("{}: tensor {tensor}: expected shape {expected:?}, found {found:?}", file.display())]
    MisshapenTensor {
        /// The file that holds the tensor.
        file: PathBuf,
        /// Its name.
        tensor: String,
        /// The shape by the configuration.
        expected: Vec<usize>,
        /// The shape by the file.
        found: Vec<usize>,
    },
    /// A tensor that cannot be used.
    #[error("{}: tensor {tensor}: {reason}", file.display())]
    BadTensor {
        /// The file that holds the tensor.
        file: PathBuf,
        /// Its name.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A hook point that the model lacks.
    #[error("{model} has no {hook}: {reason}")]
    NoSuchHook {
        /// The model's name.
        model: String,
        /// The hook point.
        hook: HookPoint,
        /// Which it has instead.
        reason: String,
    },
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The tokenizer within a GGUF file cannot be rebuilt.
    #[error("{}: tokenizer: {reason}", file.display())]
    Tokenizer {
        /// The file.
        file: PathBuf,
        /// What is missing, malformed or not supported.
        reason: String,
    },
}
