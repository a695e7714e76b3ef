//! Replacing a sealed directory: the old one is put aside and comes back if the new one does not come about.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use monosema_core::manifest;

/// A directory put aside.
pub(crate) struct Aside {
    directory: PathBuf,
    aside: PathBuf,
}

impl Aside {
    /// Moves `directory` to `NAME.replaced` beside it.
    pub(crate) fn put(directory: &Path) -> io::Result<Self> {
        let aside = place(directory);
        fs::rename(directory, &aside)?;
        Ok(Self { directory: directory.to_owned(), aside })
    }

    /// Ends a replacement that was killed: if the new directory is whole, the old one goes; else it comes back.
    pub(crate) fn recover(directory: &Path) -> io::Result<()> {
        let aside = place(directory);
        if !aside.exists() {
            return Ok(());
        }
        if directory.join(manifest::FILE_NAME).exists() {
            tracing::info!("{}: replaced; what was there before is removed", directory.display());
            return remove(&aside);
        }
        // The unfinished new directory is removed when this is dropped.
        drop(Self { directory: directory.to_owned(), aside });
        Ok(())
    }

    /// The new directory is whole: removes the old one, whose files are `ours`. Files of somebody else move into the
    /// new directory.
    pub(crate) fn discard(self, ours: &BTreeSet<String>) -> io::Result<()> {
        for entry in fs::read_dir(&self.aside)? {
            let entry = entry?;
            let new = self.directory.join(entry.file_name());
            if !ours.contains(&*entry.file_name().to_string_lossy()) && !new.exists() {
                fs::rename(entry.path(), new)?;
            }
        }
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
            Ok(()) => {
                tracing::warn!("{}: not replaced; what was there before is back", self.directory.display())
            }
            Err(error) => tracing::error!(
                "{}: what was there before is now {}: {error}",
                self.directory.display(),
                self.aside.display()
            ),
        }
    }
}

fn place(directory: &Path) -> PathBuf {
    let mut name = directory.file_name().unwrap_or_default().to_owned();
    name.push(".replaced");
    directory.with_file_name(name)
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

    /// A directory `acts` with some files in it.
    struct World(tempfile::TempDir);

    impl World {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a temporary directory"))
        }

        fn acts(&self) -> PathBuf {
            self.0.path().join("acts")
        }

        fn write(&self, name: &str, text: &str) {
            let made = fs::create_dir_all(self.acts());
            made.and_then(|()| fs::write(self.acts().join(name), text)).expect("writable");
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.acts().join(name)).expect("there")
        }

        fn alone(&self) -> bool {
            fs::read_dir(self.0.path()).expect("readable").count() == 1
        }
    }

    #[test]
    fn the_old_comes_back_unless_the_new_is_whole() {
        let world = World::new();
        world.write("x", "old");
        let aside = Aside::put(&world.acts()).expect("movable");
        world.write("x", "half");
        drop(aside);
        assert_eq!(world.read("x"), "old");
        world.write("notes", "mine");
        let aside = Aside::put(&world.acts()).expect("movable");
        world.write("x", "new");
        aside.discard(&BTreeSet::from(["x".to_owned()])).expect("removable");
        assert_eq!((world.read("x").as_str(), world.read("notes").as_str()), ("new", "mine"));
        assert!(world.alone());
    }

    #[test]
    fn a_killed_replacement_is_ended() {
        for (sealed, left) in [(false, "old"), (true, "new")] {
            let world = World::new();
            world.write("x", "old");
            world.write(manifest::FILE_NAME, "{}");
            // As if killed: nothing of it is dropped.
            std::mem::forget(Aside::put(&world.acts()).expect("movable"));
            world.write("x", "new");
            if sealed {
                world.write(manifest::FILE_NAME, "{}");
            }
            Aside::recover(&world.acts()).expect("recoverable");
            assert_eq!(world.read("x"), left);
            assert!(world.alone() && world.acts().join(manifest::FILE_NAME).exists());
            Aside::recover(&world.acts()).expect("nothing to do");
        }
    }
}
