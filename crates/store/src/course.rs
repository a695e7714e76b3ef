//! In which order rows are delivered: known from the sizes of their groups and the seed alone, so that it can be taken up
//! anywhere without reading what came before.

use std::{iter::Peekable, sync::Arc, vec};

use monosema_core::Seed;
use rand_chacha::ChaCha8Rng;

use crate::{
    Activations, BatchPlan, RowGroups, StoreError,
    shuffle::{Buffer, take_any},
};

/// What rows are drawn from.
pub(crate) trait Pool {
    /// Rows that wait.
    fn len(&self) -> usize;

    /// Adds the rows of the next group, so many.
    fn add(&mut self, rows: usize) -> Result<(), StoreError>;

    /// Draws `n` rows, each any of those that wait with equal probability.
    fn draw(&mut self, n: usize, rng: &mut ChaCha8Rng);
}

/// When groups of rows are added to the pool, and when rows are drawn from it.
pub(crate) struct Course {
    activations: Arc<dyn Activations>,
    plan: BatchPlan,
    epoch: u64,
    /// Rows of each group of this epoch that is not in the pool yet.
    waiting: Peekable<vec::IntoIter<usize>>,
    rng: ChaCha8Rng,
    added: usize,
}

impl Course {
    /// The beginning.
    pub(crate) fn start(activations: Arc<dyn Activations>, plan: BatchPlan) -> Self {
        let waiting = activations.group_sizes(&plan, 0).into_iter().peekable();
        Self { activations, plan, epoch: 0, waiting, rng: draws(plan.seed, 0), added: 0 }
    }

    /// Delivers `n` rows.
    pub(crate) fn deliver(&mut self, n: usize, pool: &mut impl Pool) -> Result<(), StoreError> {
        let mut left = n;
        while left > 0 {
            self.fill(left, pool)?;
            if pool.len() == 0 {
                self.next_epoch();
            }
            let drawn = pool.len().min(left);
            pool.draw(drawn, &mut self.rng);
            left -= drawn;
        }
        Ok(())
    }

    /// Groups that have been added.
    pub(crate) fn added(&self) -> usize {
        self.added
    }

    /// Goes on to where so many rows have been delivered. Returns which rows wait there, in their order.
    pub(crate) fn after(mut self, delivered: u64) -> (Self, Origins) {
        let mut origins = Origins::default();
        let mut left = delivered;
        while left > 0 {
            // Batch by batch, as they were delivered: how many rows are still wanted decides when some are added.
            let n = left.min(self.plan.batch_tokens as u64);
            self.deliver(n as usize, &mut origins).expect("nothing is read");
            left -= n;
        }
        (self, origins)
    }

    fn next_epoch(&mut self) {
        self.epoch += 1;
        self.waiting = self.activations.group_sizes(&self.plan, self.epoch).into_iter().peekable();
        self.rng = draws(self.plan.seed, self.epoch);
    }

    /// Adds groups of this epoch, as long as they fit or fewer than `wanted` rows wait.
    fn fill(&mut self, wanted: usize, pool: &mut impl Pool) -> Result<(), StoreError> {
        while let Some(&rows) = self.waiting.peek() {
            if pool.len() >= wanted && pool.len() + rows > self.plan.buffer_tokens {
                break;
            }
            self.waiting.next();
            self.added += 1;
            pool.add(rows)?;
        }
        Ok(())
    }
}

/// What decides the draws of an epoch.
fn draws(seed: Seed, epoch: u64) -> ChaCha8Rng {
    seed.stream(&format!("store: draws of epoch {epoch}"))
}

/// Where a row comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Origin {
    /// The number of its group.
    group: usize,
    row: u32,
}

/// Rows that are known by where they come from alone.
#[derive(Default)]
pub(crate) struct Origins {
    waiting: Vec<Origin>,
    added: usize,
}

impl Pool for Origins {
    fn len(&self) -> usize {
        self.waiting.len()
    }

    fn add(&mut self, rows: usize) -> Result<(), StoreError> {
        let group = self.added;
        let rows = u32::try_from(rows).expect("a group of rows fits into memory");
        self.waiting.extend((0..rows).map(|row| Origin { group, row }));
        self.added += 1;
        Ok(())
    }

    fn draw(&mut self, n: usize, rng: &mut ChaCha8Rng) {
        for _ in 0..n {
            take_any(&mut self.waiting, rng);
        }
    }
}

impl Origins {
    /// The groups of which rows wait, which are few of those that were added; each once, in order.
    pub(crate) fn groups(&self) -> impl Iterator<Item = usize> + Send + use<> {
        let mut groups: Vec<_> = self.waiting.iter().map(|origin| origin.group).collect();
        groups.sort_unstable();
        groups.dedup();
        groups.into_iter()
    }

    /// Takes the rows that wait from `groups`, where theirs are next, and puts them into `buffer`.
    pub(crate) fn restore(&self, groups: &mut RowGroups, buffer: &mut Buffer) -> Result<(), StoreError> {
        let mut slots: Vec<(Origin, u32)> = self.waiting.iter().copied().zip(0..).collect();
        slots.sort_unstable();
        buffer.make_room(slots.len());
        for slots in slots.chunk_by(|(one, _), (other, _)| one.group == other.group) {
            let group = groups.next().expect("a group that was there before")?;
            let mut wanted = slots.iter().peekable();
            for (row, (token, vectors)) in (0..).zip(group.tokens.iter().zip(group.rows())) {
                if let Some((_, slot)) = wanted.next_if(|(next, _)| next.row == row) {
                    buffer.put(*slot, *token, vectors);
                }
            }
        }
        Ok(())
    }
}
