//! What can be wrong with a dictionary on disk.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A dictionary that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SaeError {
    /// The disk failed, or a file is missing.
    #[error("{}: cannot be read or written", path.display())]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// No known format is in the directory.
    #[error("{}: not a dictionary: expected {expected}", directory.display())]
    NotADictionary {
        /// The directory.
        directory: PathBuf,
        /// The files that each known format consists of.
        expected: String,
    },
    /// The configuration is not JSON, or not an object.
    #[error("{}: expected a JSON object: {reason}", file.display())]
    NotJson {
        /// The configuration.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A key of the configuration has a value that cannot be used.
    #[error("{}: `{key}`: expected {expected}, found {found}", file.display())]
    Config {
        /// The configuration.
        file: PathBuf,
        /// The key, with dots between levels.
        key: String,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The tensor file is damaged, or is none.
    #[error("{}: not a whole {kind} file: {reason}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What it should be.
        kind: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A tensor is not there.
    #[error("{}: tensor `{name}` is missing: expected it with shape {expected:?}; found {found}", file.display())]
    MissingTensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        expected: Vec<usize>,
        /// The tensors that are there.
        found: String,
    },
    /// A tensor is there that the architecture does not have, so the architecture must be another.
    #[error("{}: tensor `{name}` has no place: {architecture} has only {expected}", file.display())]
    ExtraTensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// The architecture of the configuration.
        architecture: String,
        /// The tensors that it has.
        expected: String,
    },
    /// A tensor has the wrong shape.
    #[error("{}: tensor `{name}`: expected shape {expected:?}, found {found:?}", file.display())]
    Shape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// As the configuration has it.
        expected: Vec<usize>,
        /// As the file has it.
        found: Vec<usize>,
    },
    /// A tensor has another number of dimensions, or one of them is 0.
    #[error("{}: tensor `{name}`: expected {expected} dimensions, none of them 0, found shape {found:?}", file.display())]
    Rank {
        /// The file.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// How many it should have.
        expected: usize,
        /// Its shape.
        found: Vec<usize>,
    },
    /// A tensor has a type that is not a floating-point number.
    #[error("{}: tensor `{name}`: expected f32, f64, f16 or bf16, found {found}", file.display())]
    DType {
        /// The file.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// A weight is infinite or not a number.
    #[error("{}: tensor `{name}`: expected finite numbers, found {value} at index {index}", file.display())]
    NotFinite {
        /// The file.
        file: PathBuf,
        /// The tensor.
        name: String,
        /// Which of its values, counted row by row.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The files do not say where in a model the dictionary belongs.
    #[error(
        "{}: which hook it {what} is not known: {reason}; give one, as in `monosema convert SRC DST {option} \
         blocks.5.hook_resid_post`",
        directory.display()
    )]
    NoHook {
        /// The directory.
        directory: PathBuf,
        /// `reads` or `writes`.
        what: &'static str,
        /// Why not.
        reason: String,
        /// The option that says it.
        option: &'static str,
    },
    /// A dictionary that is no function of one activation at a time, or none that is known here.
    #[error("{}: this dictionary cannot be read: {reason}", file.display())]
    Refused {
        /// Where that is seen.
        file: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A format that cannot hold this dictionary.
    #[error("{format} cannot hold this dictionary: {what}")]
    NotExpressible {
        /// The format.
        format: &'static str,
        /// What it cannot hold.
        what: String,
    },
}

impl SaeError {
    /// It is not known which hook the dictionary in `directory` reads.
    pub(crate) fn no_hook(directory: &Path, reason: impl Into<String>) -> Self {
        let (directory, reason) = (directory.to_owned(), reason.into());
        Self::NoHook { directory, what: "reads", reason, option: "--hook" }
    }

    /// It is not known which hook the transcoder in `directory` gives.
    pub(crate) fn no_hook_out(directory: &Path, reason: impl Into<String>) -> Self {
        let (directory, reason) = (directory.to_owned(), reason.into());
        Self::NoHook { directory, what: "writes", reason, option: "--hook-out" }
    }
}
