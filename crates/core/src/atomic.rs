//! Files that appear whole or not at all.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use tempfile::{Builder, NamedTempFile};

/// How the name of an unfinished file begins.
const PREFIX: &str = ".unfinished-";

/// How it ends.
const SUFFIX: &str = ".tmp";

/// A file being written beside its destination. [`AtomicFile::commit`] syncs it and renames it into
/// place; dropped without that, it vanishes and whatever stood at the destination is untouched.
#[derive(Debug)]
pub struct AtomicFile {
    temporary: NamedTempFile,
    destination: PathBuf,
}

impl AtomicFile {
    /// Begins to write what will become `destination`. Its directory must exist.
    pub fn create(destination: impl Into<PathBuf>) -> io::Result<Self> {
        let destination = destination.into();
        let mut builder = Builder::new();
        builder.prefix(PREFIX).suffix(SUFFIX);
        // A temporary file is private to its owner; what becomes an ordinary file should look like one, within
        // the user's umask.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let temporary = builder.tempfile_in(parent(&destination))?;
        Ok(Self { temporary, destination })
    }

    /// The open file.
    pub fn file_mut(&mut self) -> &mut File {
        self.temporary.as_file_mut()
    }

    /// Where the bytes are until [`AtomicFile::commit`], for libraries that insist on a path.
    pub fn temporary_path(&self) -> &Path {
        self.temporary.path()
    }

    /// Makes the file durable under its final name.
    pub fn commit(self) -> io::Result<()> {
        self.temporary.as_file().sync_all()?;
        self.temporary.persist(&self.destination).map_err(|e| e.error)?;
        // The rename itself is durable once the directory is.
        File::open(parent(&self.destination))?.sync_all()
    }

    /// Writes `contents` to `destination`, whole or not at all.
    pub fn write(destination: impl Into<PathBuf>, contents: &[u8]) -> io::Result<()> {
        let mut file = Self::create(destination)?;
        io::Write::write_all(file.file_mut(), contents)?;
        file.commit()
    }

    /// Whether a file of this name is what an interrupted run left.
    pub fn is_leftover(name: &str) -> bool {
        name.starts_with(PREFIX) && name.ends_with(SUFFIX)
    }

    /// Removes what interrupted runs left in `directory`. Returns how many files that were.
    pub fn sweep(directory: &Path) -> io::Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if Self::is_leftover(&entry.file_name().to_string_lossy()) {
                fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_dropped_file_leaves_the_old_one_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest.json");
        AtomicFile::write(&path, b"old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.file_mut().write_all(b"half of the new").unwrap();
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn sweep_removes_only_leftovers() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".unfinished-x1.tmp"), b"").unwrap();
        fs::write(dir.path().join("shard-00000.parquet"), b"").unwrap();
        assert_eq!(AtomicFile::sweep(dir.path()).unwrap(), 1);
        assert!(dir.path().join("shard-00000.parquet").exists());
    }
}
