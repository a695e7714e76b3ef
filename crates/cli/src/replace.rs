//! Replacing what a directory holds: the new is made beside the old, and takes its place once it is sealed. Until then nothing of
//! the old is touched, and what was killed on the way is ended or goes on.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use monosema_core::{AtomicFile, HookPoint, Manifest, Stage, manifest};
use monosema_store::{Part, makers, shard_number};
use monosema_trainer::{Found, own_names};

/// Where what is to replace `directory` is made.
pub(crate) fn beside(directory: &Path) -> PathBuf {
    sibling(directory, ".replacement")
}

/// Ends what was being done to `directory` when it was killed: a replacement that is whole takes its place, one that nothing can
/// go on from is removed. Returns whether something was replaced.
pub(crate) fn recover(directory: &Path, stage: Stage) -> io::Result<bool> {
    let (new, old) = (beside(directory), old(directory));
    if old.exists() && !directory.exists() {
        // Killed between the two renamings.
        fs::rename(if is_sealed(&new) { &new } else { &old }, directory)?;
    }
    if old.exists() && is_sealed(directory) {
        fs::remove_dir_all(&old)?;
    }
    if is_sealed(&new) {
        put_in_place(directory, stage)?;
        return Ok(true);
    }
    let goes_on = match stage {
        Stage::Train => Found::dictionary(&new) != Found::Nothing,
        // What cannot be read is kept: nobody knows what it is.
        Stage::Harvest => makers(&new).map_or(true, |makers| !makers.is_empty()),
        Stage::Eval => false,
    };
    if new.exists() && !goes_on {
        fs::remove_dir_all(&new)?;
    }
    Ok(false)
}

/// Lets the sealed replacement take the place of `directory`. Files there that are somebody else's move with it.
fn put_in_place(directory: &Path, stage: Stage) -> io::Result<()> {
    let (new, old) = (beside(directory), old(directory));
    if directory.exists() {
        let ours = ours(directory, stage);
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let (name, place) = (entry.file_name(), new.join(entry.file_name()));
            let name = name.to_string_lossy();
            if !ours.contains(&*name) && !AtomicFile::is_leftover(&name) && !place.exists() {
                fs::rename(entry.path(), place)?;
            }
        }
        fs::rename(directory, &old)?;
    }
    fs::rename(&new, directory)?;
    match fs::remove_dir_all(&old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What `directory` holds that is a stage's, by first names. What cannot be told apart is replaced as a whole.
fn ours(directory: &Path, stage: Stage) -> BTreeSet<String> {
    let trained = own_names().filter(|_| stage == Stage::Train).map(str::to_owned);
    if let Ok(manifest) = Manifest::read(directory, stage) {
        let files = manifest.files.keys().filter_map(|name| name.split('/').next()).map(str::to_owned);
        return files.chain([manifest::FILE_NAME.to_owned()]).chain(trained).collect();
    }
    if stage == Stage::Train && !matches!(Found::dictionary(directory), Found::Foreign(_)) {
        return trained.collect();
    }
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let of_hook = |name: &String| name.parse::<HookPoint>().is_ok();
    let harvested =
        |name: &String| shard_number(name).is_some() || Part::of_directory(name).is_some() || of_hook(name);
    names.filter(|name| stage != Stage::Harvest || harvested(name)).collect()
}

fn is_sealed(directory: &Path) -> bool {
    directory.join(manifest::FILE_NAME).exists()
}

/// Where the old is between the two renamings.
fn old(directory: &Path) -> PathBuf {
    sibling(directory, ".replaced")
}

fn sibling(directory: &Path, suffix: &str) -> PathBuf {
    let mut name = directory.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    directory.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use monosema_core::{Seed, manifest::Work};

    use super::*;

    /// A run's directory with `dictionary` in it.
    struct World(tempfile::TempDir);

    impl World {
        /// With a sealed dictionary, whose file `x` says so, and somebody's notes.
        fn new() -> Self {
            let world = Self(tempfile::tempdir().expect("a temporary directory"));
            world.seal(&world.dictionary(), "old");
            world.write(&world.dictionary(), "notes", "mine");
            world
        }

        fn dictionary(&self) -> PathBuf {
            self.0.path().join("dictionary")
        }

        fn write(&self, directory: &Path, name: &str, text: &str) {
            let path = directory.join(name);
            let made = fs::create_dir_all(path.parent().expect("in a directory"));
            made.and_then(|()| fs::write(path, text)).expect("writable");
        }

        fn seal(&self, directory: &Path, x: &str) {
            self.write(directory, "x", x);
            let config = serde_json::Value::Null;
            let work = Work { stage: Stage::Train, config, seed: Seed(0), inputs: BTreeMap::new() };
            let sealed = Manifest::new(work, "cpu").seal(directory, BTreeMap::new(), &["x".to_owned()]);
            sealed.expect("writable");
        }

        fn recover(&self) -> bool {
            recover(&self.dictionary(), Stage::Train).expect("recoverable")
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.dictionary().join(name)).expect("there")
        }

        fn names(&self, directory: &Path) -> Vec<String> {
            let entries = fs::read_dir(directory).expect("readable");
            let mut names: Vec<_> =
                entries.map(|e| e.expect("readable").file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        }
    }

    #[test]
    fn the_new_takes_the_place_of_the_old_once_it_is_sealed() {
        let world = World::new();
        let new = beside(&world.dictionary());
        // What a training left that was killed after it was sealed, or when it was written.
        world.write(&world.dictionary(), "checkpoints/step-1.safetensors", "");
        world.write(&world.dictionary(), ".unfinished-1.tmp", "");
        world.write(&new, "x", "half");
        assert!(!world.recover());
        assert_eq!(world.read("x"), "old");
        assert!(!new.exists(), "nothing can go on from it");
        world.seal(&new, "new");
        assert!(world.recover());
        assert_eq!((world.read("x").as_str(), world.read("notes").as_str()), ("new", "mine"));
        assert_eq!(world.names(&world.dictionary()), ["manifest.json", "notes", "x"]);
        assert_eq!(world.names(world.0.path()), ["dictionary"]);
        assert!(!world.recover(), "nothing is left to do");
    }

    #[test]
    fn a_kill_anywhere_in_between_is_recovered_from() {
        for renamed in [1, 2] {
            let world = World::new();
            let new = beside(&world.dictionary());
            world.seal(&new, "new");
            fs::rename(world.dictionary(), old(&world.dictionary())).expect("movable");
            if renamed == 2 {
                fs::rename(&new, world.dictionary()).expect("movable");
            }
            world.recover();
            assert_eq!(world.read("x"), "new");
            assert_eq!(world.names(world.0.path()), ["dictionary"]);
        }
        let world = World::new();
        fs::rename(world.dictionary(), old(&world.dictionary())).expect("movable");
        world.recover();
        assert_eq!(world.read("x"), "old", "the new is gone, whoever took it");
    }
}
