//! What can go wrong with files that are elsewhere.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A file that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// A name that says no place.
    #[error("`{address}`: {reason}")]
    BadAddress {
        /// As written.
        address: String,
        /// Expected and found.
        reason: String,
    },
    /// No such repository, revision, bucket, file or object.
    #[error("{what}: not found: {reason}")]
    NotFound {
        /// What was asked for.
        what: String,
        /// What is not there, and what to do.
        reason: String,
    },
    /// It is there, perhaps, but not for everybody.
    #[error("{what}: access denied: {reason}")]
    Denied {
        /// What was asked for.
        what: String,
        /// Why, and what to do.
        reason: String,
    },
    /// Nobody answered.
    #[error("{what}: {place} cannot be reached: {reason}")]
    Unreachable {
        /// What was asked for.
        what: String,
        /// Who should have answered.
        place: String,
        /// The cause, and what to do.
        reason: String,
    },
    /// The network may not be used, and the cache does not have it.
    #[error("{what}: not in the cache {}, and HF_HUB_OFFLINE forbids to fetch it: {reason}", cache.display())]
    Offline {
        /// What was asked for.
        what: String,
        /// The cache.
        cache: PathBuf,
        /// What is missing, and what to do.
        reason: String,
    },
    /// What came is not what was promised.
    #[error("{what}: damaged: {reason}")]
    Damaged {
        /// What was asked for.
        what: String,
        /// Expected and found.
        reason: String,
    },
    /// No room.
    #[error(
        "{}: the disk is full: {what} needs {needed} bytes more; make room, or name a larger disk ({instead}), and \
         run the command again: what has come is kept",
        path.display()
    )]
    DiskFull {
        /// Where it was to be written.
        path: PathBuf,
        /// What was being fetched.
        what: String,
        /// What it still lacks.
        needed: u64,
        /// The variable that names another place.
        instead: &'static str,
    },
    /// The disk failed.
    #[error("{}: cannot be read or written: {source}", path.display())]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Anything else that a server says.
    #[error("{what}: {reason}")]
    Failed {
        /// What was asked for.
        what: String,
        /// What it said.
        reason: String,
    },
}

impl RemoteError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// What writing to `path` came to, when `needed` bytes of `what` were still to be written.
    pub(crate) fn writing<W: ToString>(
        path: &Path,
        what: &W,
        needed: u64,
        instead: &'static str,
    ) -> impl FnOnce(io::Error) -> Self + use<W> {
        let (path, what) = (path.to_owned(), what.to_string());
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::DiskFull { path, what, needed, instead }
            }
            _ => Self::Io { path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_with_what_is_lacking() {
        let error = |kind: io::ErrorKind| {
            RemoteError::writing(Path::new("/cache/x"), &"hf:o/n", 1000, "HF_HUB_CACHE")(kind.into())
                .to_string()
        };
        let full = error(io::ErrorKind::StorageFull);
        for said in [
            "/cache/x: the disk is full",
            "hf:o/n needs 1000 bytes more",
            "HF_HUB_CACHE",
            "what has come is kept",
        ] {
            assert!(full.contains(said), "{said} in {full}");
        }
        assert!(error(io::ErrorKind::PermissionDenied).starts_with("/cache/x: cannot be read or written"));
    }
}
