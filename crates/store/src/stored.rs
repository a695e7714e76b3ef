//! What a directory of activations holds already: shards that an interrupted harvest finished, or a sealed store of which some
//! vanished.

use std::{collections::BTreeSet, ops::Range, path::Path};

use monosema_core::{Digest, HookPoint, Manifest, ManifestError, Stage, manifest::Work};

use crate::{
    StoreError, StoreSchema,
    place::Place,
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
        place: &Place,
        schema: &StoreSchema,
        shard_tokens: u64,
        work: &Work,
    ) -> Result<Self, StoreError> {
        match Manifest::read_unchecked(place, Stage::Harvest) {
            Ok(manifest) => Self::of_sealed(place, manifest, shard_tokens, work),
            Err(ManifestError::Unsealed { .. }) => Self::of_interrupted(place, schema, shard_tokens, work),
            Err(error) => Err(error.into()),
        }
    }

    /// Those that have the lengths that the manifest says.
    fn of_sealed(
        place: &Place,
        manifest: Manifest,
        shard_tokens: u64,
        work: &Work,
    ) -> Result<Self, StoreError> {
        let damaged = manifest.missing(place);
        let directory = place.path();
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
        place: &Place,
        schema: &StoreSchema,
        shard_tokens: u64,
        work: &Work,
    ) -> Result<Self, StoreError> {
        let directory = place.path();
        let (mut shards, mut halves) = (BTreeSet::new(), Vec::new());
        for (number, name) in shard_files(place)? {
            let shard = match Shard::open(place, &name) {
                // A harvest leaves whole shards or none: what is no shard was cut short by the disk, or is anybody's.
                Err(StoreError::Damaged { .. }) if !Place::is_elsewhere(directory) => {
                    let kept = place.set_aside(&name)?;
                    tracing::warn!("{name} cannot be read; it is kept as {}, and made anew", kept.display());
                    continue;
                }
                shard => shard?,
            };
            if shard.work() != Some(&work.digest().to_string()) {
                return Err(StoreError::OtherWork { directory: directory.to_owned() });
            }
            if shard.schema() == schema && shard.tokens() == shard_tokens {
                shards.insert(number);
            } else {
                halves.push(name);
            }
        }
        for name in halves {
            place.remove(&name)?;
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
/// does not. What is named like a shard and is none does not count.
///
/// # Errors
/// A directory that cannot be read, or a shard in it.
pub fn makers(directory: &Path) -> Result<BTreeSet<Option<String>>, StoreError> {
    let whole = Place::at(directory)?;
    let mut makers = BTreeSet::new();
    for place in hook_places(whole)? {
        for (_, name) in shard_files(&place)? {
            match Shard::open(&place, &name) {
                Ok(shard) => _ = makers.insert(shard.work().map(str::to_owned)),
                Err(StoreError::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(makers)
}

/// `place`, and those within it that belong to a hook.
fn hook_places(place: Place) -> Result<Vec<Place>, StoreError> {
    let names = place.names()?.places.into_iter();
    let of_hooks = names.filter(|name| name.parse::<HookPoint>().is_ok());
    let mut found: Vec<_> = of_hooks.map(|name| place.within(&name)).collect();
    found.insert(0, place);
    Ok(found)
}

/// The files in `place` that are named like shards, with their numbers.
fn shard_files(place: &Place) -> Result<Vec<(usize, String)>, StoreError> {
    let files = place.names()?.files.into_iter();
    let mut shards: Vec<_> = files.filter_map(|name| Some((shard::number(&name)?, name))).collect();
    shards.sort();
    Ok(shards)
}
