//! Rows of a store that is shuffled on disk, epoch after epoch.

use std::{fmt, sync::Arc};

use monosema_core::Seed;
use rand::Rng;

use crate::{
    Batch, BatchPlan, HookColumn, StoreError, VectorDtype,
    batches::Columns,
    filling::{Filling, Visit},
    merge::Merge,
    shard::Shard,
};

/// A random order in which rows lie on disk, so that who reads them has nothing to shuffle.
#[derive(Clone)]
pub struct Permutation {
    pub(crate) shards: Arc<Vec<Arc<Shard>>>,
    pub(crate) dtype: VectorDtype,
}

impl fmt::Debug for Permutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permutation").field("shards", &self.shards.len()).finish_non_exhaustive()
    }
}

/// Batches of rows in that order. Every epoch delivers each row once, and begins at another one: the order is a circle.
pub(crate) struct Circle {
    rows: Permutation,
    columns: Columns,
    hooks: Vec<HookColumn>,
    plan: BatchPlan,
    visit: Visit,
    /// Rows to deliver altogether, and delivered.
    delivered: u64,
    merge: Merge,
    /// Rows that are left before the merge is to begin anew: at the circle's first row, or where the next epoch begins.
    left: u64,
}

impl Circle {
    pub(crate) fn new(
        rows: Permutation,
        columns: Columns,
        plan: BatchPlan,
        visit: Visit,
    ) -> Result<Self, StoreError> {
        let hooks: Vec<_> = [Some(columns.first), columns.second].into_iter().flatten().collect();
        let (merge, left) = begin(&rows, &hooks, plan.seed, plan.delivered)?;
        Ok(Self { rows, columns, hooks, plan, visit, delivered: plan.delivered, merge, left })
    }

    pub(crate) fn next_batch(&mut self) -> Result<Option<Batch>, StoreError> {
        let most = self.plan.batch_tokens;
        let n = usize::try_from(self.plan.tokens - self.delivered).map_or(most, |left| left.min(most));
        if n == 0 {
            return Ok(None);
        }
        let mut batch = Filling::new(n, self.columns, self.rows.dtype);
        while batch.rows() < n {
            if self.left == 0 {
                (self.merge, self.left) = begin(&self.rows, &self.hooks, self.plan.seed, self.delivered)?;
            }
            let first = batch.rows();
            let rows = self.left.min((n - first) as u64) as usize;
            self.merge.deliver(rows, |i, token, vectors| {
                batch.put(first + i, token, vectors, &mut self.visit);
            })?;
            self.left -= rows as u64;
            self.delivered += rows as u64;
        }
        Ok(Some(batch.finish()))
    }
}

/// What follows on so many rows, and how many of it come one after the other.
pub(crate) fn begin(
    rows: &Permutation,
    hooks: &[HookColumn],
    seed: Seed,
    delivered: u64,
) -> Result<(Merge, u64), StoreError> {
    let all: u64 = rows.shards.iter().map(|shard| shard.tokens()).sum();
    let (epoch, done) = (delivered / all, delivered % all);
    let first = seed.stream(&format!("store: first row of epoch {epoch}")).random_range(0..all);
    // Not as a sum, which could be too large.
    let (rank, left) = match all - first {
        to_the_end if done < to_the_end => (first + done, to_the_end - done),
        to_the_end => (done - to_the_end, all - done),
    };
    Ok((Merge::start(&rows.shards, hooks, rank)?, left))
}
