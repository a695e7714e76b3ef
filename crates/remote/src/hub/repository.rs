//! A repository at a commit: its files, fetched one by one.

use std::path::PathBuf;

pub use super::listing::Entry;
use super::{Address, Hub, download::Meter};
use crate::{RemoteError, runtime};

/// A repository at a commit.
#[derive(Clone, Debug)]
pub struct Repository {
    pub(super) hub: Hub,
    /// With the commit in place of what the user called it.
    pub(super) address: Address,
    files: Vec<Entry>,
}

impl Hub {
    /// Finds out which commit `address` means, and which files that has.
    ///
    /// # Errors
    /// A repository or a revision that is not there or not for us, or nobody to ask.
    pub fn open(&self, address: &Address) -> Result<Repository, RemoteError> {
        let (commit, files) = self.list(address)?;
        Ok(Repository { hub: self.clone(), address: address.at(&commit), files })
    }
}

impl Repository {
    /// The commit.
    pub fn commit(&self) -> &str {
        &self.address.revision
    }

    /// The address that means this commit for ever: `hf:owner/name@COMMIT`.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Its files, by path.
    pub fn files(&self) -> &[Entry] {
        &self.files
    }

    /// The file of this path.
    pub fn file(&self, path: &str) -> Option<&Entry> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether the cache has `file`.
    pub fn has(&self, file: &Entry) -> bool {
        std::fs::metadata(self.directory().join(&file.path)).is_ok_and(|found| found.len() == file.bytes)
    }

    /// Where the files lie by their names, those that were fetched.
    pub fn directory(&self) -> PathBuf {
        self.hub.snapshot(&self.address, self.commit())
    }

    /// Fetches `file` unless the cache has it, and tells `meter` how many of its bytes are there as they come.
    ///
    /// # Errors
    /// A file that cannot be fetched or written, or that is not what the repository says it is.
    pub fn fetch(&self, file: &Entry, meter: &mut Meter<'_>) -> Result<PathBuf, RemoteError> {
        runtime::wait(self.download(file, meter))
    }
}
