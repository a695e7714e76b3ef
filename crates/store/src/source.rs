//! What batches are made of: groups of rows, read from disk or made as they are asked for.

use monosema_core::{Ahead, Digest, HookPoint, manifest::Work};

use crate::{BatchPlan, HookColumn, Permutation, RowGroup, StoreError, StoreSchema};

/// Groups of rows, read or made ahead.
pub type RowGroups = Ahead<Result<RowGroup, StoreError>>;

/// Which groups of rows are wanted, in the order in which they are: each number is larger than the one before.
pub type GroupNumbers = Box<dyn Iterator<Item = usize> + Send>;

/// Activations that come in groups of rows, whose sizes and order follow from a [`BatchPlan`] before any is read: a
/// [`Store`](crate::Store), or a language model at work. Groups are numbered from 0 on, through all epochs.
pub trait Activations: Send + Sync {
    /// What users know them by.
    fn name(&self) -> String;

    /// What a row holds.
    fn schema(&self) -> &StoreSchema;

    /// Rows in an epoch.
    fn tokens(&self) -> u64;

    /// What made them, or makes them.
    fn work(&self) -> &Work;

    /// A digest of all that they depend on.
    fn digest(&self) -> Digest;

    /// Checks, as far as that is possible beforehand, that they can be read and are what they were.
    ///
    /// # Errors
    /// What is damaged.
    fn verify(&self) -> Result<(), StoreError>;

    /// How many rows each group of an epoch has. Epochs follow one another until there are the rows that the plan asks for.
    fn group_sizes(&self, plan: &BatchPlan, epoch: u64) -> Vec<usize>;

    /// Reads the groups of these numbers, the vectors of the plan's hooks. Numbers beyond the last group end it.
    fn read(&self, plan: &BatchPlan, numbers: GroupNumbers) -> RowGroups;

    /// The order in which rows lie on disk, where that is a random one: then batches are read in it, and no groups of rows.
    fn permutation(&self) -> Option<Permutation> {
        None
    }

    /// Bytes of memory that reading takes beside batches and the shuffle buffer, roughly.
    fn reading_bytes(&self) -> u64 {
        0
    }

    /// The column of `hook`.
    ///
    /// # Errors
    /// A hook that is not among them.
    fn hook_column(&self, hook: HookPoint) -> Result<HookColumn, StoreError> {
        let hooks = &self.schema().hooks;
        let found = || hooks.iter().map(|h| h.hook.to_string()).collect::<Vec<_>>().join(", ");
        let missing = || StoreError::NoSuchHook { place: self.name(), hook, found: found() };
        hooks.iter().copied().find(|column| column.hook == hook).ok_or_else(missing)
    }
}
