//! Replacing a sealed directory: the old one is put aside and comes back if the new one fails.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A directory put aside.
pub(crate) struct Aside {
    directory: PathBuf,
    aside: PathBuf,
}

impl Aside {
    /// Moves `directory` to `NAME.replaced` beside it.
    pub(crate) fn put(directory: &Path) -> io::Result<Self> {
        let mut name = directory.file_name().unwrap_or_default().to_owned();
        name.push(".replaced");
        let aside = directory.with_file_name(name);
        // What a killed replacement left there is older still.
        remove(&aside)?;
        fs::rename(directory, &aside)?;
        Ok(Self { directory: directory.to_owned(), aside })
    }

    /// The new directory is whole: removes the old one.
    pub(crate) fn discard(self) -> io::Result<()> {
        remove(&self.aside)
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.aside.exists() {
            return;
        }
        let restored = remove(&self.directory).and_then(|()| fs::rename(&self.aside, &self.directory));
        match restored {
            Ok(()) => tracing::warn!("{}: what was there before is back", self.directory.display()),
            Err(error) => tracing::error!(
                "{}: what was there before is now {}: {error}",
                self.directory.display(),
                self.aside.display()
            ),
        }
    }
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_comes_back_unless_the_new_is_whole() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let acts = dir.path().join("acts");
        let write = |text: &str| {
            fs::create_dir_all(&acts).and_then(|()| fs::write(acts.join("x"), text)).expect("writable");
        };
        let read = || fs::read_to_string(acts.join("x")).expect("there");
        write("old");
        let aside = Aside::put(&acts).expect("movable");
        write("half");
        drop(aside);
        assert_eq!(read(), "old");
        let aside = Aside::put(&acts).expect("movable");
        write("new");
        aside.discard().expect("removable");
        assert_eq!(read(), "new");
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 1);
    }
}
