//! Manifests: the file written last into a directory, which says that it is whole and how it came to be.
//!
//! A directory without a manifest is an interrupted stage: it can be redone, never read.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::PathBuf,
};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Digest, Files, Seed, digest_bytes};

/// The name of the manifest in every sealed directory.
pub const FILE_NAME: &str = "manifest.json";

/// The version of the manifest's own layout.
pub const SCHEMA: u32 = 2;

/// A stage of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Text and a model become activations.
    Harvest,
    /// Activations become a dictionary.
    Train,
    /// Dictionary, model and held-out text become a report.
    Eval,
}

impl Stage {
    /// In the order in which they run.
    pub const ALL: [Self; 3] = [Self::Harvest, Self::Train, Self::Eval];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Harvest => "harvest",
            Self::Train => "train",
            Self::Eval => "eval",
        })
    }
}

/// What a sealed directory holds and what it was made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA`] of the program that wrote it.
    pub schema: u32,
    /// Version of monosema that wrote it.
    pub monosema: String,
    /// What computed it: `cpu`, `cuda:0`, …. Results depend on it by rounding, so it is no part of the work.
    pub device: String,
    /// What the stage was asked to do.
    #[serde(flatten)]
    pub work: Work,
    /// What came out: tokens, documents, shards, steps, ….
    pub counts: BTreeMap<String, u64>,
    /// Every other file of the directory that counts.
    pub files: BTreeMap<String, FileEntry>,
}

/// All that a stage's result depends on. Two stages of equal work have equal results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// The stage.
    pub stage: Stage,
    /// The stage's resolved plan.
    pub config: Value,
    /// The experiment's seed.
    pub seed: Seed,
    /// The inputs by role: `model`, `text`, `activations`, ….
    pub inputs: BTreeMap<String, Input>,
}

/// What a stage read. Inputs of equal contents are equal, whatever they are called.
#[derive(Clone, Debug, Eq, Serialize, Deserialize)]
pub struct Input {
    /// What the user knows it by: a model's name, files, a directory.
    pub name: String,
    /// Digest of the contents.
    pub sha256: Digest,
    /// What the name stood for, if it was that of a branch elsewhere: `hf:owner/name@COMMIT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<String>,
}

impl Input {
    /// An input whose name says it all.
    pub fn new(name: impl Into<String>, sha256: Digest) -> Self {
        Self { name: name.into(), sha256, resolved: None }
    }
}

impl PartialEq for Input {
    fn eq(&self, other: &Self) -> bool {
        self.sha256 == other.sha256
    }
}

/// A file that a manifest vouches for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Length.
    pub bytes: u64,
    /// Digest of the contents.
    pub sha256: Digest,
}

impl FileEntry {
    /// What is wrong with the file of this name, by its length.
    fn fault(&self, directory: &(impl Files + ?Sized), name: &str, stage: Stage) -> Option<ManifestError> {
        let file = directory.locate(name);
        let reason = match directory.length(name) {
            Ok(length) if length == self.bytes => return None,
            Ok(length) => format!("expected {} bytes, found {length}", self.bytes),
            Err(e) => format!("expected {} bytes, found none: {e}", self.bytes),
        };
        Some(ManifestError::Damaged { file, reason, stage })
    }
}

/// A directory that is not, or not correctly, sealed.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// No manifest: the stage that writes this directory did not finish.
    #[error(
        "{}: no {FILE_NAME}, so this is not a finished {stage} directory; run the {stage} stage (again)",
        directory.display()
    )]
    Unsealed {
        /// The directory.
        directory: PathBuf,
        /// The stage that writes such directories.
        stage: Stage,
    },
    /// The manifest cannot be used.
    #[error("{}: {reason}", file.display())]
    Invalid {
        /// The manifest.
        file: PathBuf,
        /// Expected and found.
        reason: String,
    },
    /// A file that the manifest vouches for is missing or was changed.
    #[error("{}: {reason}; restore it, or {}", file.display(), remedy(*stage))]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Expected and found.
        reason: String,
        /// The stage that wrote it.
        stage: Stage,
    },
    /// The disk failed.
    #[error("{}: cannot be read or written", path.display())]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// What brings back a file that `stage` wrote.
fn remedy(stage: Stage) -> &'static str {
    match stage {
        Stage::Harvest => {
            "remove it and run the harvest stage again, which makes it anew and leaves the others"
        }
        Stage::Train | Stage::Eval => "remove the directory and run its stage again",
    }
}

impl Work {
    /// The work of a stage whose plan is `plan`. `irrelevant` are names of fields, at any depth of it, that the
    /// result does not depend on: estimates, and names of what `inputs` hold by digest. Neither a better estimate
    /// nor the same file under another name may turn what is done into other work.
    pub fn new(
        stage: Stage,
        plan: &impl Serialize,
        irrelevant: &[&str],
        seed: Seed,
        inputs: BTreeMap<String, Input>,
    ) -> Self {
        let mut config = serde_json::to_value(plan).expect("a plan has string keys only");
        remove(&mut config, irrelevant);
        Self { stage, config, seed, inputs }
    }

    /// What differs between `self` and `other`, a line each: `config.train.lr: 0.0001 → 0.0003`.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        compare("", &self.contents(), &other.contents(), &mut lines);
        lines
    }

    /// A digest of all that makes two works equal.
    pub fn digest(&self) -> Digest {
        digest_bytes(self.contents().to_string().as_bytes())
    }

    /// All that makes two works equal.
    fn contents(&self) -> Value {
        let Self { stage, config, seed, inputs } = self;
        let inputs: BTreeMap<_, _> = inputs.iter().map(|(role, input)| (role, &input.sha256)).collect();
        json!({ "stage": stage, "config": config, "seed": seed, "inputs": inputs })
    }
}

fn remove(value: &mut Value, names: &[&str]) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !names.contains(&name.as_str()));
            fields.values_mut().for_each(|value| remove(value, names));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| remove(value, names)),
        _ => {}
    }
}

fn compare(place: &str, a: &Value, b: &Value, lines: &mut Vec<String>) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let place = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
                compare(
                    &place,
                    a.get(key).unwrap_or(&Value::Null),
                    b.get(key).unwrap_or(&Value::Null),
                    lines,
                );
            }
        }
        _ if a == b => {}
        _ => lines.push(format!("{place}: {a} → {b}")),
    }
}

impl Manifest {
    /// What a stage of this program that does `work` on `device` begins with: no counts and no files yet.
    pub fn new(work: Work, device: &str) -> Self {
        Self {
            schema: SCHEMA,
            monosema: env!("CARGO_PKG_VERSION").to_owned(),
            device: device.to_owned(),
            work,
            counts: BTreeMap::new(),
            files: BTreeMap::new(),
        }
    }

    /// Digests `files` (names within `directory`), those aside that it knows already, and writes the manifest there: from here
    /// on the directory counts.
    pub fn seal(
        mut self,
        directory: &(impl Files + ?Sized),
        counts: BTreeMap<String, u64>,
        files: &[String],
    ) -> Result<Self, ManifestError> {
        for name in files {
            if self.files.contains_key(name) {
                continue;
            }
            let io = |source| ManifestError::Io { path: directory.locate(name), source };
            let bytes = directory.length(name).map_err(io)?;
            let sha256 = directory.digest(name).map_err(io)?;
            self.files.insert(name.clone(), FileEntry { bytes, sha256 });
        }
        self.counts = counts;
        self.write(directory)?;
        Ok(self)
    }

    /// Writes the manifest of a directory whose files it knows already.
    pub fn write(&self, directory: &(impl Files + ?Sized)) -> Result<(), ManifestError> {
        let json = serde_json::to_vec_pretty(self).expect("a manifest has string keys only");
        let io = |source| ManifestError::Io { path: directory.locate(FILE_NAME), source };
        directory.write(FILE_NAME, &json).map_err(io)
    }

    /// Reads the manifest of a directory that `stage` wrote, and checks that its files are there, whole in
    /// length. [`Manifest::verify`] checks their digests too.
    pub fn read(directory: &(impl Files + ?Sized), stage: Stage) -> Result<Self, ManifestError> {
        let manifest = Self::read_unchecked(directory, stage)?;
        match manifest.files.iter().find_map(|(name, entry)| entry.fault(directory, name, stage)) {
            Some(fault) => Err(fault),
            None => Ok(manifest),
        }
    }

    /// The names of files that are not there, or not whole in length.
    pub fn missing(&self, directory: &(impl Files + ?Sized)) -> BTreeSet<String> {
        let is_missing =
            |(name, entry): &(&String, &FileEntry)| entry.fault(directory, name, self.work.stage).is_some();
        self.files.iter().filter(is_missing).map(|(name, _)| name.clone()).collect()
    }

    /// Reads the manifest of a directory that `stage` wrote, whatever became of its files.
    pub fn read_unchecked(directory: &(impl Files + ?Sized), stage: Stage) -> Result<Self, ManifestError> {
        let file = directory.locate(FILE_NAME);
        let invalid = |reason: String| ManifestError::Invalid { file: file.clone(), reason };
        let bytes = match directory.read(FILE_NAME) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let directory = file.parent().unwrap_or(&file).to_owned();
                return Err(ManifestError::Unsealed { directory, stage });
            }
            Err(source) => return Err(ManifestError::Io { path: file, source }),
        };
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| invalid(format!("not JSON: {e}")))?;
        match value.get("schema").and_then(Value::as_u64) {
            Some(n) if n == u64::from(SCHEMA) => {}
            found => {
                let found = found.map_or("none".into(), |n| n.to_string());
                return Err(invalid(format!("expected manifest schema {SCHEMA}, found {found}")));
            }
        }
        let manifest: Self =
            serde_json::from_value(value).map_err(|e| invalid(format!("not a manifest: {e}")))?;
        if manifest.work.stage != stage {
            return Err(invalid(format!(
                "expected what `{stage}` writes, found what `{}` wrote",
                manifest.work.stage
            )));
        }
        Ok(manifest)
    }

    /// Reads every file of `directory`, on all cores, and compares its digest.
    pub fn verify(&self, directory: &(impl Files + ?Sized)) -> Result<(), ManifestError> {
        self.files.par_iter().try_for_each(|(name, entry)| {
            let file = directory.locate(name);
            let io = |source| ManifestError::Io { path: file.clone(), source };
            let found = directory.digest(name).map_err(io)?;
            if found == entry.sha256 {
                return Ok(());
            }
            let reason = format!("expected sha256 {}, found {found}", entry.sha256);
            Err(ManifestError::Damaged { file, reason, stage: self.work.stage })
        })
    }

    /// A digest of what the directory holds and of the work that made it, by which later stages name it as their
    /// input. What things are called, and what computed them, is no part of it.
    pub fn digest(&self) -> Digest {
        let contents = json!({ "work": self.work.contents(), "files": self.files });
        digest_bytes(contents.to_string().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn work() -> Work {
        let text = Input::new("abc.txt", crate::digest_bytes(b"abc"));
        let inputs = BTreeMap::from([("text".to_owned(), text)]);
        Work { stage: Stage::Harvest, config: json!({"x": 1}), seed: Seed(7), inputs }
    }

    fn sealed() -> (tempfile::TempDir, Manifest) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.bin"), b"12345").unwrap();
        let counts = BTreeMap::from([("tokens".to_owned(), 5)]);
        let manifest = Manifest::new(work(), "cpu").seal(dir.path(), counts, &["a.bin".to_owned()]).unwrap();
        (dir, manifest)
    }

    #[test]
    fn what_is_sealed_reads_back_and_verifies() {
        let (dir, manifest) = sealed();
        assert_eq!(Manifest::read(dir.path(), Stage::Harvest).unwrap(), manifest);
        manifest.verify(dir.path()).unwrap();
    }

    #[test]
    fn what_is_irrelevant_is_no_part_of_the_work() {
        let plan = json!({"lr": 1, "bytes": 5, "texts": [{"name": "a", "bytes": 7}]});
        let work = Work::new(Stage::Eval, &plan, &["bytes"], Seed(0), BTreeMap::new());
        assert_eq!(work.config, json!({"lr": 1, "texts": [{"name": "a"}]}));
    }

    #[test]
    fn an_input_is_its_contents_not_its_name() {
        let (a, mut b) = (work(), work());
        let text = b.inputs.get_mut("text").unwrap();
        text.name = "copy.txt".into();
        assert!(a == b && a.differences(&b).is_empty());
        b.inputs.get_mut("text").unwrap().sha256 = crate::digest_bytes(b"abd");
        assert!(a != b);
        assert!(a.differences(&b)[0].starts_with("inputs.text: "), "{:?}", a.differences(&b));
    }

    #[test]
    fn a_directory_is_its_contents_whatever_made_it() {
        let (dir, manifest) = sealed();
        let mut other = manifest.clone();
        other.device = "cuda:0".into();
        other.monosema = "9.9.9".into();
        other.work.inputs.get_mut("text").unwrap().name = "copy.txt".into();
        assert_eq!(other.digest(), manifest.digest());
        assert_eq!(Manifest::read(dir.path(), Stage::Harvest).unwrap().digest(), manifest.digest());
        other.files.get_mut("a.bin").unwrap().sha256 = crate::digest_bytes(b"other");
        assert_ne!(other.digest(), manifest.digest());
        let mut other = manifest.clone();
        other.work.seed = Seed(8);
        assert_ne!(other.digest(), manifest.digest());
    }

    #[test]
    fn differences_name_the_key() {
        let (mut a, mut b) = (work(), work());
        assert!(a.differences(&b).is_empty());
        a.config = json!({"train": {"lr": 1, "steps": 5}});
        b.config = json!({"train": {"lr": 2, "steps": 5}, "x": 0});
        assert_eq!(a.differences(&b), ["config.train.lr: 1 → 2", "config.x: null → 0"]);
    }

    #[test]
    fn unsealed_foreign_truncated_and_changed_directories_are_told_apart() {
        let (dir, manifest) = sealed();
        let foreign = Manifest::read(dir.path(), Stage::Train).unwrap_err();
        assert!(matches!(foreign, ManifestError::Invalid { .. }), "{foreign}");

        fs::write(dir.path().join("a.bin"), b"1234x").unwrap();
        assert!(matches!(manifest.verify(dir.path()), Err(ManifestError::Damaged { .. })));

        fs::write(dir.path().join("a.bin"), b"1234").unwrap();
        let truncated = Manifest::read(dir.path(), Stage::Harvest).unwrap_err().to_string();
        assert!(truncated.contains("expected 5 bytes, found 4"), "{truncated}");

        fs::remove_file(dir.path().join(FILE_NAME)).unwrap();
        let unsealed = Manifest::read(dir.path(), Stage::Harvest).unwrap_err();
        assert!(matches!(unsealed, ManifestError::Unsealed { .. }), "{unsealed}");
    }
}
