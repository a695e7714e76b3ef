//! What can be wrong with a store.

use std::{
    io,
    path::{Path, PathBuf},
};

use monosema_core::{Digest, HookPoint, ManifestError};
use monosema_remote::RemoteError;
use parquet::errors::ParquetError;

use crate::{Part, VectorDtype};

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
    /// An object store that does not answer, or not us.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The disk is full, or the user may not use more of it.
    #[error(
        "{}: there is no room for the {bytes} bytes of this shard; make room and run the same command again: it goes on from \
         the shards that are finished, which stay",
        path.display()
    )]
    Full {
        /// The shard.
        path: PathBuf,
        /// What it needs, roughly.
        bytes: u64,
        /// What the system says.
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
    /// The directory holds shards of an interrupted harvest of something else.
    #[error(
        "{}: an interrupted harvest of other work is there (another configuration, model, text or version); choose another \
         --out, or replace it with --overwrite",
        directory.display()
    )]
    OtherWork {
        /// The directory.
        directory: PathBuf,
    },
    /// A shard that was lost and made anew is not what it was.
    #[error(
        "{}: expected sha256 {expected}, found {found} when it was made anew: another version, device or processor rounds \
         otherwise; restore it, or harvest all of it again with --overwrite",
        file.display()
    )]
    NotTheSame {
        /// The shard.
        file: PathBuf,
        /// Its digest as the manifest has it.
        expected: Digest,
        /// Its digest now.
        found: Digest,
    },
    /// Parts of a harvest that nobody joined.
    #[error(
        "{}: parts of a harvest are there ({found} of {of}), not joined; when all are finished, join them with `monosema seal`",
        directory.display()
    )]
    Unjoined {
        /// The directory.
        directory: PathBuf,
        /// Parts that are there.
        found: u64,
        /// Parts that there must be.
        of: u64,
    },
    /// Parts that are no whole.
    #[error("{}: {reason}", directory.display())]
    CannotJoin {
        /// The directory of a part, or of all.
        directory: PathBuf,
        /// Expected and found, and what to do.
        reason: String,
    },
    /// A part that is missing or interrupted.
    #[error("{}: part {part} is not finished; run `monosema harvest` with --part {part}", directory.display())]
    UnfinishedPart {
        /// Where it should be.
        directory: PathBuf,
        /// The part.
        part: Part,
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
    #[error("{}: damaged, or not Parquet: {reason}; restore it, or remove it and harvest again", file.display())]
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

    /// Of writing a shard of so many bytes to `path`.
    pub(crate) fn of_writing(path: &Path, bytes: u64, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full { path, bytes, source }
            }
            _ => Self::Io { path, source },
        }
    }

    /// What Parquet's reader says of `path`: an error of the object store that it read from, or `words` of what is wrong with it.
    pub(crate) fn reading(
        path: &Path,
        error: ParquetError,
        words: impl FnOnce(&ParquetError) -> String,
    ) -> Self {
        match error {
            ParquetError::External(source) => match source.downcast::<RemoteError>() {
                Ok(remote) => Self::Remote(*remote),
                Err(other) => Self::damaged(path, words(&ParquetError::External(other))),
            },
            error => Self::damaged(path, words(&error)),
        }
    }

    pub(crate) fn damaged(file: &Path, reason: impl ToString) -> Self {
        Self::Damaged { file: file.to_owned(), reason: reason.to_string() }
    }
}
