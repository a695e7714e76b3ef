//! What a manifest asks of the place where its files are.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{AtomicFile, Digest, digest_file};

/// A place that holds files by their names: a directory, or what behaves as one.
pub trait Files: Sync {
    /// What users know the file `name` by.
    fn locate(&self, name: &str) -> PathBuf;

    /// What it holds.
    ///
    /// # Errors
    /// Of the kind [`NotFound`](io::ErrorKind::NotFound) if there is none.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Makes `contents` the file `name`, whole or not at all.
    ///
    /// # Errors
    /// A place that does not take it.
    fn write(&self, name: &str, contents: &[u8]) -> io::Result<()>;

    /// How long it is.
    ///
    /// # Errors
    /// As of [`read`](Self::read).
    fn length(&self, name: &str) -> io::Result<u64>;

    /// The digest of what it holds.
    ///
    /// # Errors
    /// As of [`read`](Self::read).
    fn digest(&self, name: &str) -> io::Result<Digest>;
}

impl Files for Path {
    fn locate(&self, name: &str) -> PathBuf {
        self.join(name)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.join(name))
    }

    fn write(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        AtomicFile::write(self.join(name), contents)
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.join(name))?.len())
    }

    fn digest(&self, name: &str) -> io::Result<Digest> {
        digest_file(&self.join(name))
    }
}

impl Files for PathBuf {
    fn locate(&self, name: &str) -> PathBuf {
        self.as_path().locate(name)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.as_path().read(name)
    }

    fn write(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        self.as_path().write(name, contents)
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        self.as_path().length(name)
    }

    fn digest(&self, name: &str) -> io::Result<Digest> {
        self.as_path().digest(name)
    }
}
