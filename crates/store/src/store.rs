//! A finished store: found whole when opened, then read as batches.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use monosema_core::{HookPoint, Manifest, Stage};

use crate::{
    BatchPlan, Batches, HookColumn, StoreError, StoreSchema,
    batches::{self, Columns},
    shard::{self, Shard},
};

/// A sealed directory of activations.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
    manifest: Manifest,
    schema: StoreSchema,
    shards: Arc<Vec<Shard>>,
    tokens: u64,
}

impl Store {
    /// Opens a store: reads its manifest and the footer of every shard. [`Store::verify`] reads the rest.
    ///
    /// # Errors
    /// A directory that no harvest finished; a shard that is missing, of the wrong length, damaged, or not like
    /// the others.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let manifest = Manifest::read(directory, Stage::Harvest)?;
        // By number: by name, shard-100000 would come before shard-99999.
        let names: BTreeMap<usize, &String> =
            manifest.files.keys().filter_map(|name| Some((shard::number(name)?, name))).collect();
        let shards: Vec<Shard> = names
            .values()
            .map(|name| Shard::open(directory.join(name)))
            .collect::<Result<_, StoreError>>()?;
        let wrong = |file: PathBuf, reason: String| StoreError::WrongShard { file, reason };
        let manifest_file = || directory.join(monosema_core::manifest::FILE_NAME);
        let Some(first) = shards.first() else {
            return Err(wrong(manifest_file(), "expected shards of activations, found none".into()));
        };
        let schema = first.schema().clone();
        for shard in &shards {
            if *shard.schema() != schema {
                let reason =
                    format!("its hooks, dtype or layout are not those of {}", first.path().display());
                return Err(wrong(shard.path().to_owned(), reason));
            }
        }
        let tokens = shards.iter().map(Shard::tokens).sum();
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

    /// What is stored.
    pub fn schema(&self) -> &StoreSchema {
        &self.schema
    }

    /// How many tokens.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// How the store came to be.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where the store is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Reads every shard and compares its digest with the manifest's.
    pub fn verify(&self) -> Result<(), StoreError> {
        Ok(self.manifest.verify(&self.directory)?)
    }

    /// The column of `hook`.
    ///
    /// # Errors
    /// A hook that the store does not hold.
    pub fn hook_column(&self, hook: HookPoint) -> Result<HookColumn, StoreError> {
        let found = || self.schema.hooks.iter().map(|h| h.hook.to_string()).collect::<Vec<_>>().join(", ");
        let missing = || StoreError::NoSuchHook { directory: self.directory.clone(), hook, found: found() };
        self.schema.find(hook).map(|(_, column)| column).ok_or_else(missing)
    }

    /// Shuffled batches, read ahead on threads of their own.
    ///
    /// Row groups come in seeded order into a buffer, and rows are drawn from it at random; every token comes
    /// exactly once an epoch. The batches depend on the store and the plan alone. Every batch holds
    /// `batch_tokens` rows, but for the last where `plan.tokens` is no multiple. The first error, a plan that
    /// cannot work among them, ends the stream.
    pub fn batches(&self, plan: BatchPlan) -> Batches {
        self.visited_batches(plan, |_, _| 0.0)
    }

    /// [`Store::batches`], with each token's vectors, that of the hook `[width]` and that of the other `[width_out]`, handed to
    /// `visit` as soon as they are decoded and still in the cache, to be changed or measured, on a thread behind the stream and in the stream's order. [`Batch::sum`] adds up
    /// what `visit` returns.
    ///
    /// [`Batch::sum`]: crate::Batch::sum
    pub fn visited_batches(
        &self,
        plan: BatchPlan,
        visit: impl FnMut(&mut [f32], &mut [f32]) -> f64 + Send + 'static,
    ) -> Batches {
        match self.columns(&plan) {
            Ok(columns) => batches::shuffled(self.shards.clone(), columns, plan, Box::new(visit)),
            Err(error) => Batches::failed(error),
        }
    }

    fn columns(&self, plan: &BatchPlan) -> Result<Columns, StoreError> {
        plan.check(self.tokens)?;
        let second = plan.hook_out.map(|hook| self.hook_column(hook)).transpose()?;
        Ok(Columns { first: self.hook_column(plan.hook)?, second })
    }

    /// All tokens once, in the order in which they were harvested; the last batch may be short. Read ahead on
    /// a thread of its own. The first error ends the stream.
    pub fn sequential(&self, hook: HookPoint, batch_tokens: usize) -> Batches {
        let column =
            self.hook_column(hook).and_then(|column| batches::check_batch(batch_tokens).map(|()| column));
        match column {
            Ok(column) => batches::sequential(self.shards.clone(), column, batch_tokens),
            Err(error) => Batches::failed(error),
        }
    }
}
