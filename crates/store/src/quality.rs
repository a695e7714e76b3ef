//! How well a store is shuffled: whether batches hold tokens of the same document more often than chance would have it.

use std::{collections::HashMap, sync::Arc, vec};

use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::{
    Activations, BatchPlan, Order, Store, StoreError,
    course::{Course, Pool},
    permutation::begin,
    shard::Shard,
    shuffle::{self, GroupId, take_any},
};

/// Rows in a batch, of a store that has batches enough.
const BATCH_TOKENS: u64 = 4096;

/// Batches looked at, at most.
const BATCHES: u64 = 64;

/// Batches that there should be at least, rather than large ones.
const FEW_BATCHES: u64 = 16;

/// Rows of the shuffle buffer that a store in the order of the text is read through: the default of training.
const BUFFER_TOKENS: usize = 1 << 17;

/// How often two tokens of a batch are of one document.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Quality {
    /// Rows in a batch.
    pub batch_tokens: u64,
    /// Batches looked at: the first ones.
    pub batches: u64,
    /// The share of pairs of one document that chance makes: Σ n_d (n_d − 1) / (N (N − 1)), where document d has n_d of N rows.
    pub chance: f64,
    /// In batches as a training reads them.
    pub as_read: Excess,
    /// In batches of rows that were harvested one after the other.
    pub as_harvested: Excess,
}

/// What there is of something beyond chance.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Excess {
    /// The mean over batches of the share of pairs of one document, relative to chance, less 1: 0 if well shuffled.
    pub excess: f64,
    /// Its standard error, from how batches differ.
    pub standard_error: f64,
}

impl Store {
    /// Measures how well batches are mixed. Reads documents' numbers alone; `None` if no two rows are of one document.
    ///
    /// # Errors
    /// A shard that is damaged.
    pub fn quality(&self) -> Result<Option<Quality>, StoreError> {
        let shards = self.shards();
        let n = self.tokens() as f64;
        let mut documents = HashMap::<u64, u64>::new();
        for id in shuffle::all_groups(shards) {
            for document in shards[id.shard].group_documents(id.group)? {
                *documents.entry(document).or_default() += 1;
            }
        }
        let pairs: f64 = documents.into_values().map(pairs).sum();
        if pairs == 0.0 {
            return Ok(None);
        }
        let chance = pairs / (n * (n - 1.0));
        let batch_tokens = BATCH_TOKENS.min(self.tokens() / FEW_BATCHES).max(2);
        let batches = (self.tokens() / batch_tokens).min(BATCHES);
        // Both fit into memory: they are small.
        let (size, rows) = (batch_tokens as usize, (batches * batch_tokens) as usize);
        let as_read = excess(&self.as_read(size, rows)?, size, chance);
        let as_harvested = excess(&self.as_harvested(rows)?, size, chance);
        Ok(Some(Quality { batch_tokens, batches, chance, as_read, as_harvested }))
    }

    /// The documents of so many rows, in batches of `size`, as a training reads them first.
    fn as_read(&self, size: usize, rows: usize) -> Result<Vec<u64>, StoreError> {
        let seed = self.work().seed;
        if let Some(permutation) = self.permutation() {
            let mut documents = Vec::with_capacity(rows);
            while documents.len() < rows {
                let (mut merge, left) = begin(&permutation, &[], seed, documents.len() as u64)?;
                let n = left.min((rows - documents.len()) as u64) as usize;
                documents.extend(merge.documents(n)?);
            }
            return Ok(documents);
        }
        let plan = BatchPlan {
            hook: self.schema().hooks[0].hook,
            hook_out: None,
            batch_tokens: size,
            buffer_tokens: BUFFER_TOKENS,
            seed,
            tokens: rows as u64,
            delivered: 0,
        };
        let groups = shuffle::order(self.shards(), seed, 0).into_iter();
        let mut pool = Documents { shards: self.shards(), groups, waiting: Vec::new(), drawn: Vec::new() };
        let mut course = Course::start(Arc::new(self.clone()), plan);
        while pool.drawn.len() < rows {
            course.deliver(size, &mut pool)?;
        }
        Ok(pool.drawn)
    }

    /// The documents of the first rows of the harvest. Those of a shard follow one another in the order of their numbers.
    fn as_harvested(&self, rows: usize) -> Result<Vec<u64>, StoreError> {
        let mut documents = Vec::new();
        for shard in self.shards() {
            let first = documents.len();
            for group in 0..shard.row_groups() {
                documents.extend(shard.group_documents(group)?);
            }
            if self.schema().order == Order::Shuffled {
                documents[first..].sort_unstable();
            }
            if documents.len() >= rows {
                break;
            }
        }
        documents.truncate(rows);
        Ok(documents)
    }
}

/// Ordered pairs of different ones of `n`.
fn pairs(n: u64) -> f64 {
    n as f64 * n.saturating_sub(1) as f64
}

/// Of the documents of rows in batches of `size`.
fn excess(documents: &[u64], size: usize, chance: f64) -> Excess {
    let shares: Vec<f64> = documents
        .chunks_exact(size)
        .map(|batch| {
            let mut batch = batch.to_vec();
            batch.sort_unstable();
            let same: f64 = batch.chunk_by(|a, b| a == b).map(|of_one| pairs(of_one.len() as u64)).sum();
            same / pairs(size as u64) / chance
        })
        .collect();
    let n = shares.len() as f64;
    let mean = shares.iter().sum::<f64>() / n;
    let variance = shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    Excess { excess: mean - 1.0, standard_error: (variance / n).sqrt() }
}

/// Rows of which nothing but the documents is known.
struct Documents<'a> {
    shards: &'a [Arc<Shard>],
    groups: vec::IntoIter<GroupId>,
    waiting: Vec<u64>,
    drawn: Vec<u64>,
}

impl Pool for Documents<'_> {
    fn len(&self) -> usize {
        self.waiting.len()
    }

    fn add(&mut self, _: usize) -> Result<(), StoreError> {
        let GroupId { shard, group } = self.groups.next().expect("no more than an epoch is drawn");
        self.waiting.extend(self.shards[shard].group_documents(group)?);
        Ok(())
    }

    fn draw(&mut self, n: usize, rng: &mut ChaCha8Rng) {
        self.drawn.extend((0..n).map(|_| take_any(&mut self.waiting, rng)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excess_by_hand() {
        // Of three pairs in batches of three, one is of one document, then none, then all: a third, 0 and 1 of a chance of 1/2.
        let found = excess(&[1, 1, 2, 3, 4, 5, 6, 6, 6, 7], 3, 0.5);
        let shares = [2.0 / 3.0, 0.0, 2.0];
        let mean = 8.0 / 9.0;
        let variance = shares.iter().map(|s: &f64| (s - mean).powi(2)).sum::<f64>() / 2.0;
        assert!((found.excess - (mean - 1.0)).abs() < 1e-12);
        assert!((found.standard_error - (variance / 3.0).sqrt()).abs() < 1e-12);
    }
}
