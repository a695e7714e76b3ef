//! What can be wrong with a store.

use std::{
    io,
    path::{Path, PathBuf},
};

use monosema_core::{HookPoint, ManifestError};

use crate::VectorDtype;

/// A store that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk failed, or is full.
    #[error("{}: cannot be read or written", path.display())]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The directory is not, or not correctly, sealed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The directory holds a finished store already.
    #[error("{}: holds a finished store; remove it or write elsewhere", directory.display())]
    Sealed {
        /// The directory.
        directory: PathBuf,
    },
    /// A store that cannot be written as asked for.
    #[error("[harvest] {key}: {reason}")]
    BadSchema {
        /// The setting, as users write it.
        key: &'static str,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A shard that is not Parquet, or damaged.
    #[error("{}: damaged, or not Parquet: {reason}; restore it, or harvest again", file.display())]
    Damaged {
        /// The shard.
        file: PathBuf,
        /// What Parquet says.
        reason: String,
    },
    /// A shard that is not one of ours, or not of this store.
    #[error("{}: {reason}", file.display())]
    WrongShard {
        /// The shard.
        file: PathBuf,
        /// Expected and found.
        reason: String,
    },
    /// Rows whose parts do not match.
    #[error("rows to store: {part} should hold {expected} values, but holds {found}")]
    WrongRows {
        /// The part.
        part: String,
        /// Values expected.
        expected: usize,
        /// Values found.
        found: usize,
    },
    /// An activation that is infinite or not a number.
    #[error(
        "{hook}: found {value} at position {position} of document {document} (token {token}); the model's numbers overflow \
         there (weights or computation in too small a type?)"
    )]
    NotFinite {
        /// The hook.
        hook: HookPoint,
        /// The token's document.
        document: u64,
        /// The token's position in its window.
        position: u32,
        /// The token.
        token: u32,
        /// The value.
        value: f32,
    },
    /// An activation that the dtype cannot hold.
    #[error(
        "{hook}: found {value} at position {position} of document {document} (token {token}), but {dtype} ends at {limit}; \
         set dtype = \"{instead}\" (or do not count such tokens: [context] skip_first and skip_tokens, [harvest] \
         max_norm_multiple)"
    )]
    Overflow {
        /// The hook.
        hook: HookPoint,
        /// The token's document.
        document: u64,
        /// The token's position in its window.
        position: u32,
        /// The token.
        token: u32,
        /// The value.
        value: f32,
        /// The dtype.
        dtype: VectorDtype,
        /// Its largest value.
        limit: f32,
        /// A dtype that holds it.
        instead: &'static str,
    },
    /// A hook that the store does not hold.
    #[error("{place}: expected activations of {hook}, found those of {found}")]
    NoSuchHook {
        /// The store.
        place: String,
        /// The hook asked for.
        hook: HookPoint,
        /// The hooks there are.
        found: String,
    },
    /// What makes the activations failed.
    #[error(transparent)]
    Source(Box<dyn std::error::Error + Send + Sync>),
    /// Batches that cannot be made.
    #[error("batches as asked for: {reason}")]
    BadPlan {
        /// Expected and found.
        reason: String,
    },
}

impl StoreError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn damaged(file: &Path, reason: impl ToString) -> Self {
        Self::Damaged { file: file.to_owned(), reason: reason.to_string() }
    }
}
