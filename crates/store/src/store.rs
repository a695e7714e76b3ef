//! A finished store: found whole when opened, then read as batches.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use monosema_core::{Ahead, Digest, HookPoint, Manifest, ManifestError, Stage, manifest::Work};
use monosema_remote::RemoteFile;

use crate::{
    Activations, BatchPlan, Batches, GroupNumbers, Order, Part, Permutation, RowGroups, StoreError,
    StoreSchema,
    batches::{self, Columns},
    part::parts,
    place::Place,
    shard::{self, Shard},
    shard_file::PAGE_BYTES,
    shuffle::{self, GroupId},
};

/// Row groups that wait to be shuffled.
const GROUPS_AHEAD: usize = 2;

/// A sealed directory of activations.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
    manifest: Manifest,
    schema: StoreSchema,
    shards: Arc<Vec<Arc<Shard>>>,
    tokens: u64,
}

impl Store {
    /// Opens a store: reads its manifest and the footer of every shard. [`Store::verify`] reads the rest.
    ///
    /// # Errors
    /// A directory that no harvest finished, or that holds parts of one; a shard that is missing, of the wrong length, damaged,
    /// or not like the others.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let at = Place::at(directory)?;
        let manifest = Manifest::read(&at, Stage::Harvest).map_err(|error| unjoined(directory, error))?;
        let mut names: Vec<_> = manifest.files.keys().filter_map(|name| Some((place(name)?, name))).collect();
        names.sort();
        let opened = Shard::open_all(&at, &names.iter().map(|(_, name)| *name).collect::<Vec<_>>())?;
        let wrong = |file: PathBuf, reason: String| StoreError::WrongShard { file, reason };
        // A part's work is the whole's but for the part, so it is the same within a directory.
        let mut makers = BTreeMap::new();
        for (((part, _), _), shard) in names.iter().zip(&opened) {
            let Some(work) = shard.work() else { continue };
            let whole = part.is_none().then(|| manifest.work.digest().to_string());
            if *makers.entry(*part).or_insert(whole.unwrap_or_else(|| work.to_owned())) != work {
                let reason = "another harvest made it than the others here (two at once, into one place?); remove them and \
                              harvest again";
                return Err(wrong(shard.path().to_owned(), reason.into()));
            }
        }
        let mut opened = names.iter().map(|(place, _)| place).zip(opened).peekable();
        let mut shards = Vec::new();
        // Files of one place hold hooks of the same rows.
        while let Some((place, first)) = opened.next() {
            let siblings = std::iter::from_fn(|| opened.next_if(|(other, _)| *other == place));
            let siblings = siblings.map(|(_, shard)| shard).collect();
            shards.push(Arc::new(first.with(siblings)?));
        }
        let manifest_file = || directory.join(monosema_core::manifest::FILE_NAME);
        let Some(first) = shards.first() else {
            return Err(wrong(manifest_file(), "expected shards of activations, found none".into()));
        };
        let of = |shard: &Shard| StoreSchema { hooks: shard.all_hooks(), ..shard.schema().clone() };
        let schema = of(first);
        for shard in &shards {
            if of(shard) != schema || !shard.is_alike() {
                let reason =
                    format!("its hooks, dtype, layout or order are not those of {}", first.path().display());
                return Err(wrong(shard.path().to_owned(), reason));
            }
        }
        let tokens = shards.iter().map(|shard| shard.tokens()).sum();
        match manifest.counts.get("tokens") {
            Some(&expected) if expected == tokens => {}
            expected => {
                let expected = expected.map_or("a count of tokens".into(), |n| format!("{n} tokens"));
                return Err(wrong(
                    manifest_file(),
                    format!("expected {expected}, found {tokens} in the shards"),
                ));
            }
        }
        Ok(Self { directory: directory.to_owned(), manifest, schema, shards: Arc::new(shards), tokens })
    }

    /// How the store came to be.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub(crate) fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// Where the store is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Shuffled batches: see [`shuffled`](crate::shuffled).
    pub fn batches(&self, plan: BatchPlan) -> Batches {
        batches::visited(Arc::new(self.clone()), plan, None)
    }

    /// All tokens once, as they lie in the shards, one shard after the other: that is the order of the text, unless the store is
    /// shuffled. The last batch may be short. Read ahead on a thread of its own. The first error ends the stream.
    pub fn sequential(&self, hook: HookPoint, batch_tokens: usize) -> Batches {
        let column =
            self.hook_column(hook).and_then(|column| batches::check_batch(batch_tokens).map(|()| column));
        match column {
            Ok(column) => {
                let columns = Ok(Columns { first: column, second: None });
                let groups = self.read_groups(columns, shuffle::all_groups(&self.shards).into_iter());
                batches::sequential(groups, column, self.schema.dtype, batch_tokens)
            }
            Err(error) => Batches::failed(error),
        }
    }

    fn read_groups(
        &self,
        columns: Result<Columns, StoreError>,
        groups: impl Iterator<Item = GroupId> + Send + 'static,
    ) -> RowGroups {
        let shards = self.shards.clone();
        match columns {
            Ok(columns) => {
                Ahead::new(GROUPS_AHEAD, groups.map(move |id| shards[id.shard].read(id.group, columns)))
            }
            Err(error) => Ahead::once(Err(error)),
        }
    }
}

/// Where a file of a store belongs, if it is a shard: its part, and its number. (By name, shard-100000 would come before
/// shard-99999.) Where hooks have directories of their own, several files have the same place.
fn place(name: &str) -> Option<(Option<Part>, usize)> {
    let mut directories: Vec<_> = name.split('/').collect();
    let number = shard::number(directories.pop()?)?;
    let part = directories.first().and_then(|name| Part::of_directory(name));
    let hooks = &directories[usize::from(part.is_some())..];
    let known = hooks.len() <= 1 && hooks.iter().all(|name| name.parse::<HookPoint>().is_ok());
    known.then_some((part, number))
}

/// Where there is no manifest, there may be parts of a harvest.
fn unjoined(directory: &Path, error: ManifestError) -> StoreError {
    if matches!(error, ManifestError::Unsealed { .. })
        && let Ok(found) = parts(directory)
        && let Some(part) = found.first()
    {
        let directory = directory.to_owned();
        return StoreError::Unjoined { directory, found: found.len() as u64, of: part.of() };
    }
    error.into()
}

impl Activations for Store {
    fn name(&self) -> String {
        self.directory.display().to_string()
    }

    fn schema(&self) -> &StoreSchema {
        &self.schema
    }

    fn tokens(&self) -> u64 {
        self.tokens
    }

    fn work(&self) -> &Work {
        &self.manifest.work
    }

    fn digest(&self) -> Digest {
        self.manifest.digest()
    }

    /// Reads every shard and compares its digest with the manifest's; of a store elsewhere, whose bytes are paid for, lengths alone
    /// were compared, when it was opened.
    fn verify(&self) -> Result<(), StoreError> {
        if Place::is_elsewhere(&self.directory) {
            Ok(())
        } else {
            Ok(self.manifest.verify(&self.directory)?)
        }
    }

    fn permutation(&self) -> Option<Permutation> {
        let shuffled = self.schema.order == Order::Shuffled;
        shuffled.then(|| Permutation { shards: self.shards.clone(), dtype: self.schema.dtype })
    }

    /// Of what is not taken from the map, every shard holds some pages: fetched, decompressed or decoded.
    fn reading_bytes(&self) -> u64 {
        let n = self.shards.len() as u64;
        let plain = self.shards.iter().all(|shard| shard.is_plain());
        let decoding = if plain { 0 } else { self.schema.decoding_bytes(n) };
        let elsewhere = self.shards.first().is_some_and(|shard| shard.is_elsewhere());
        // The current page of each hook, and what is fetched ahead.
        let pages = self.schema.hooks.len() as u64 + RemoteFile::STRETCHES;
        decoding + if elsewhere { n * pages * PAGE_BYTES as u64 } else { 0 }
    }

    fn group_sizes(&self, plan: &BatchPlan, epoch: u64) -> Vec<usize> {
        let order = shuffle::order(&self.shards, plan.seed, epoch);
        order.into_iter().map(|id| self.shards[id.shard].group_tokens(id.group)).collect()
    }

    fn read(&self, plan: &BatchPlan, numbers: GroupNumbers) -> RowGroups {
        let (shards, seed) = (self.shards.clone(), plan.seed);
        let of_epoch = shuffle::all_groups(&shards).len();
        let mut known = None;
        let ids = numbers.map(move |number| {
            let epoch = (number / of_epoch) as u64;
            let (_, order) = match known.take() {
                Some((of, order)) if of == epoch => known.insert((epoch, order)),
                _ => known.insert((epoch, shuffle::order(&shards, seed, epoch))),
            };
            order[number % of_epoch]
        });
        self.read_groups(Columns::of(self, plan), ids)
    }
}
