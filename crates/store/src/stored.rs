//! What a directory of activations holds already: shards that an interrupted harvest finished, or a sealed store of which some
//! vanished.

use std::{
    collections::BTreeSet,
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

use monosema_core::{Digest, HookPoint, Manifest, ManifestError, Stage, manifest::Work};

use crate::{
    StoreError, StoreSchema,
    shard::{self, Shard},
};

/// The shards that need not be made, because they are there and whole.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    shards: BTreeSet<usize>,
    shard_tokens: u64,
    /// What says how the others must come out, if they were there before.
    pub(crate) manifest: Option<Manifest>,
}

impl Stored {
    /// Finds those of `work` in `directory`, and removes what is half of one.
    pub(crate) fn find(
        directory: &Path,
        schema: &StoreSchema,
        shard_tokens: u64,
        work: &Work,
    ) -> Result<Self, StoreError> {
        match Manifest::read_unchecked(directory, Stage::Harvest) {
            Ok(manifest) => Self::of_sealed(directory, manifest, shard_tokens, work),
            Err(ManifestError::Unsealed { .. }) => {
                Self::of_interrupted(directory, schema, shard_tokens, work)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Those that have the lengths that the manifest says.
    fn of_sealed(
        directory: &Path,
        manifest: Manifest,
        shard_tokens: u64,
        work: &Work,
    ) -> Result<Self, StoreError> {
        let damaged = manifest.missing(directory);
        if manifest.work != *work || damaged.is_empty() {
            return Err(StoreError::Sealed { directory: directory.to_owned() });
        }
        let whole = manifest.files.keys().filter(|name| !damaged.contains(*name));
        let shards: BTreeSet<_> = whole.filter_map(|name| shard::number(name)).collect();
        tracing::info!("{}: {} shard(s) are missing, and made anew", directory.display(), damaged.len());
        Ok(Self { shards, shard_tokens, manifest: Some(manifest) })
    }

    /// Those that say that they are of this work, and are full. What is not full may have been the last one: that is known
    /// only at the end, so it is made again.
    fn of_interrupted(
        directory: &Path,
        schema: &StoreSchema,
        shard_tokens: u64,
        work: &Work,
    ) -> Result<Self, StoreError> {
        let (mut shards, mut halves) = (BTreeSet::new(), Vec::new());
        for (number, path) in shard_files(directory).map_err(StoreError::io(directory))? {
            match Shard::open(path.clone()) {
                Ok(shard) if shard.work() != Some(&work.digest().to_string()) => {
                    return Err(StoreError::OtherWork { directory: directory.to_owned() });
                }
                Ok(shard) if shard.schema() == schema && shard.tokens() == shard_tokens => {
                    shards.insert(number);
                }
                Ok(_) | Err(_) => halves.push(path),
            }
        }
        for path in halves {
            fs::remove_file(&path).map_err(StoreError::io(&path))?;
        }
        if !shards.is_empty() {
            tracing::info!("{}: {} shard(s) are there already", directory.display(), shards.len());
        }
        Ok(Self { shards, shard_tokens, manifest: None })
    }

    /// Whether this shard is there.
    pub(crate) fn has(&self, shard: usize) -> bool {
        self.shards.contains(&shard)
    }

    /// Whether all of these rows are there, counted from the first of the harvest on.
    pub fn covers(&self, rows: Range<u64>) -> bool {
        // So many shards have names.
        let shard = |row: u64| (row / self.shard_tokens) as usize;
        rows.is_empty() || (shard(rows.start)..=shard(rows.end - 1)).all(|shard| self.has(shard))
    }

    /// The number of the last shard that is there.
    pub(crate) fn last(&self) -> Option<usize> {
        self.shards.last().copied()
    }

    /// How the shard `name` must come out, if that is known.
    pub(crate) fn expected(&self, name: &str) -> Option<Digest> {
        self.manifest.as_ref().and_then(|manifest| manifest.files.get(name)).map(|file| file.sha256.clone())
    }
}

/// Which works made the shards in a directory that is not sealed, or in those of its hooks: the digests of these, as the shards say, or nothing for one that
/// does not. A file that cannot be read is no shard.
///
/// # Errors
/// A directory that cannot be read.
pub fn makers(directory: &Path) -> Result<BTreeSet<Option<String>>, StoreError> {
    let mut makers = BTreeSet::new();
    for directory in hook_directories(directory).map_err(StoreError::io(directory))? {
        let files = shard_files(&directory).map_err(StoreError::io(&directory))?;
        let shards = files.into_iter().filter_map(|(_, path)| Shard::open(path).ok());
        makers.extend(shards.map(|shard| shard.work().map(str::to_owned)));
    }
    Ok(makers)
}

/// `directory`, and those within it that belong to a hook.
fn hook_directories(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![directory.to_owned()];
    if directory.is_dir() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let of_hook = entry.file_name().to_str().is_some_and(|name| name.parse::<HookPoint>().is_ok());
            if of_hook && entry.file_type()?.is_dir() {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// The files in `directory` that are named like shards, with their numbers.
pub(crate) fn shard_files(directory: &Path) -> io::Result<Vec<(usize, PathBuf)>> {
    let mut files = Vec::new();
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(files),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(shard::number);
        if let (Some(number), true) = (number, entry.file_type()?.is_file()) {
            files.push((number, entry.path()));
        }
    }
    files.sort();
    Ok(files)
}
