//! What a dictionary's directory holds already, decided in one place, by headers and names alone: finished, interrupted,
//! diverged, somebody else's, or nothing.

use std::{fs, path::Path};

use monosema_core::{AtomicFile, Manifest, ManifestError, Stage, manifest, manifest::Work};
use monosema_sae::{Description, formats::Format};
use serde::{Deserialize, Serialize};

use crate::{TrainError, checkpoint, error::io, logs};

/// Where the dictionary of the last good checkpoint goes if a training diverges, within the dictionary's directory.
pub(crate) const LAST_GOOD: &str = "last-good";

/// What says that a training diverged, within the dictionary's directory: [`Diverged`].
const DIVERGED: &str = "diverged.json";

/// What a directory holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Nothing, or what was left by a stage that was interrupted before there was anything to go on from.
    Nothing,
    /// A finished stage: its work.
    Finished(Work),
    /// A training that was interrupted and can go on: its work, and after which steps it has checkpoints, the newest first.
    Interrupted(Work, Vec<u64>),
    /// A training that diverged, and would again.
    Diverged(Diverged),
    /// A dictionary of monosema's that lost its manifest: nobody knows whether it is whole.
    Unsealed,
    /// What cannot be used or is somebody else's, in words.
    Foreign(String),
}

/// A training that diverged: what it was to be, and what it said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diverged {
    /// What it was to be.
    pub work: Work,
    /// Its last words.
    pub error: String,
}

impl Found {
    /// In the directory of a dictionary.
    pub fn dictionary(directory: &Path) -> Self {
        let found = Self::sealed(directory, Stage::Train);
        if found != Self::Nothing {
            return found;
        }
        if let Some(diverged) = Diverged::read(directory) {
            return Self::Diverged(diverged);
        }
        if let Some((work, steps)) = checkpoint::interrupted(directory) {
            return Self::Interrupted(work, steps);
        }
        if Format::of(directory).is_err() && !directory.join("cfg.json").exists() {
            return Self::Nothing;
        }
        match Description::read(directory) {
            Ok(dictionary) if !dictionary.metadata.facts.is_empty() => Self::Unsealed,
            _ => Self::Foreign("a dictionary that monosema did not train is there".into()),
        }
    }

    /// In the directory of a stage that leaves nothing to go on from.
    pub fn sealed(directory: &Path, stage: Stage) -> Self {
        if directory.exists() && !directory.is_dir() {
            return Self::Foreign("expected a directory, found a file".into());
        }
        match Manifest::read(directory, stage) {
            Ok(manifest) => Self::Finished(manifest.work),
            Err(ManifestError::Unsealed { .. }) => Self::Nothing,
            Err(error) => Self::Foreign(format!("what is there cannot be used: {error}")),
        }
    }

    /// Whose results they are, if that is known.
    pub fn work(&self) -> Option<&Work> {
        match self {
            Self::Finished(work) | Self::Interrupted(work, _) | Self::Diverged(Diverged { work, .. }) => {
                Some(work)
            }
            Self::Nothing | Self::Unsealed | Self::Foreign(_) => None,
        }
    }
}

impl Diverged {
    /// What is said in the directory of a dictionary.
    pub fn read(directory: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(directory.join(DIVERGED)).ok()?).ok()
    }

    /// Says it there.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), TrainError> {
        let path = directory.join(DIVERGED);
        let json = serde_json::to_vec_pretty(self).expect("works have string keys only");
        AtomicFile::write(&path, &json).map_err(io(&path))
    }
}

/// Directories that a training makes within its own.
const DIRECTORIES: [&str; 3] = [logs::DIRECTORY, checkpoint::DIRECTORY, LAST_GOOD];

/// Files that it writes there.
fn files() -> impl Iterator<Item = &'static str> {
    let others = ["sparsity.safetensors", manifest::FILE_NAME, DIVERGED];
    Format::SaeLens.files().iter().copied().chain(others)
}

/// What a training leaves in its directory, by first names. Everything else there is somebody else's.
pub fn own_names() -> impl Iterator<Item = &'static str> {
    files().chain(DIRECTORIES)
}

/// Removes what a killed training may have left in the directory of a finished or diverged one: checkpoints, unfinished files.
///
/// # Errors
/// A disk that fails.
pub fn tidy(directory: &Path) -> Result<(), TrainError> {
    sweep(directory)?;
    checkpoint::remove(directory)
}

/// Removes files that were being written when a training was killed.
pub(crate) fn sweep(directory: &Path) -> Result<(), TrainError> {
    for place in
        [directory.to_owned(), directory.join(logs::DIRECTORY), directory.join(checkpoint::DIRECTORY)]
    {
        if place.is_dir() {
            AtomicFile::sweep(&place).map_err(io(&place))?;
        }
    }
    Ok(())
}

/// Makes `directory` an empty place to train in: what a training left goes, anything else stays.
pub(crate) fn clear(directory: &Path) -> Result<(), TrainError> {
    fs::create_dir_all(directory).map_err(io(directory))?;
    tidy(directory)?;
    let logs = [logs::METRICS, logs::DENSITY, logs::SPEED, logs::EVENTS, logs::REPORT];
    for path in files().chain(logs).map(|name| directory.join(name)) {
        unless_missing(fs::remove_file(&path)).map_err(io(path))?;
    }
    let last_good = directory.join(LAST_GOOD);
    unless_missing(fs::remove_dir_all(&last_good)).map_err(io(last_good))
}

/// Nothing to remove is as good as removed.
pub(crate) fn unless_missing(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use monosema_core::Seed;
    use serde_json::json;

    use super::*;

    fn work(lr: f64) -> Work {
        Work { stage: Stage::Train, config: json!({ "lr": lr }), seed: Seed(0), inputs: BTreeMap::new() }
    }

    #[test]
    fn what_is_there_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("dictionary");
        assert_eq!(Found::dictionary(&directory), Found::Nothing);
        fs::write(&directory, "").unwrap();
        assert!(matches!(Found::dictionary(&directory), Found::Foreign(why) if why.contains("found a file")));
        fs::remove_file(&directory).unwrap();
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("notes.txt"), "mine").unwrap();
        assert_eq!(Found::dictionary(&directory), Found::Nothing);
        fs::write(directory.join("cfg.json"), "{}").unwrap();
        assert!(
            matches!(Found::dictionary(&directory), Found::Foreign(why) if why.contains("did not train"))
        );
        // Whoever diverged left no dictionary; what it says counts before everything but a manifest.
        let diverged = Diverged { work: work(1.0), error: "NaN".into() };
        diverged.write(&directory).unwrap();
        assert_eq!(Found::dictionary(&directory), Found::Diverged(diverged));
        Manifest::new(work(2.0), "cpu").seal(&directory, BTreeMap::new(), &[]).unwrap();
        let found = Found::dictionary(&directory);
        assert_eq!((&found, found.work()), (&Found::Finished(work(2.0)), Some(&work(2.0))));
        fs::write(directory.join(manifest::FILE_NAME), "{").unwrap();
        assert!(matches!(Found::dictionary(&directory), Found::Foreign(why) if why.contains("not JSON")));
    }

    #[test]
    fn clearing_leaves_what_is_somebody_elses() {
        let dir = tempfile::tempdir().unwrap();
        for name in files() {
            fs::write(dir.path().join(name), "").unwrap();
        }
        for directory in DIRECTORIES {
            fs::create_dir(dir.path().join(directory)).unwrap();
            fs::write(dir.path().join(directory).join(".unfinished-1.tmp"), "").unwrap();
        }
        fs::write(dir.path().join(logs::METRICS), "").unwrap();
        for mine in ["notes.txt", "logs/notes.txt"] {
            fs::write(dir.path().join(mine), "").unwrap();
        }
        clear(dir.path()).unwrap();
        let names = |path: &Path| {
            let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = entries.collect();
            names.sort();
            names
        };
        assert_eq!(names(dir.path()), ["logs", "notes.txt"]);
        assert_eq!(names(&dir.path().join("logs")), ["notes.txt"]);
    }
}
