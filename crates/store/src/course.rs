//! In which order rows are delivered: known from the sizes of the row groups and the seed alone, so that it can be taken up
//! anywhere without reading what came before.

use std::{collections::BTreeMap, iter::Peekable, sync::Arc, vec};

use monosema_core::Seed;
use rand_chacha::ChaCha8Rng;

use crate::{
    BatchPlan, StoreError,
    batches::Columns,
    shard::Shard,
    shuffle::{self, Buffer, GroupId, take_any},
};

/// What rows are drawn from.
pub(crate) trait Pool {
    /// Rows that wait.
    fn len(&self) -> usize;

    /// Adds the rows of the next row group, so many.
    fn add(&mut self, rows: usize) -> Result<(), StoreError>;

    /// Draws `n` rows, each any of those that wait with equal probability.
    fn draw(&mut self, n: usize, rng: &mut ChaCha8Rng);
}

/// When row groups are added to the pool, and when rows are drawn from it.
pub(crate) struct Course {
    shards: Arc<Vec<Shard>>,
    batch_tokens: usize,
    buffer_tokens: usize,
    seed: Seed,
    epoch: u64,
    /// The row groups of this epoch that are not in the pool yet.
    waiting: Peekable<vec::IntoIter<GroupId>>,
    rng: ChaCha8Rng,
    added: usize,
}

/// The beginning, and all row groups in the order in which they will be added, epoch after epoch.
pub(crate) fn start(
    shards: &Arc<Vec<Shard>>,
    plan: &BatchPlan,
) -> (Course, impl Iterator<Item = GroupId> + Send + use<>) {
    let (for_reader, seed) = (shards.clone(), plan.seed);
    let groups = (0..).flat_map(move |epoch| shuffle::order(&for_reader, seed, epoch));
    let course = Course {
        shards: shards.clone(),
        batch_tokens: plan.batch_tokens,
        buffer_tokens: plan.buffer_tokens,
        seed,
        epoch: 0,
        waiting: shuffle::order(shards, seed, 0).into_iter().peekable(),
        rng: draws(seed, 0),
        added: 0,
    };
    (course, groups)
}

impl Course {
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

    /// Row groups that have been added.
    pub(crate) fn added(&self) -> usize {
        self.added
    }

    /// Goes on to where so many rows have been delivered. Returns which rows wait there, in their order.
    pub(crate) fn after(mut self, delivered: u64) -> (Self, Vec<Origin>) {
        let mut origins = Origins::default();
        let mut left = delivered;
        while left > 0 {
            // Batch by batch, as they were delivered: how many rows are still wanted decides when some are added.
            let n = left.min(self.batch_tokens as u64);
            self.deliver(n as usize, &mut origins).expect("nothing is read");
            left -= n;
        }
        (self, origins.waiting)
    }

    fn next_epoch(&mut self) {
        self.epoch += 1;
        self.waiting = shuffle::order(&self.shards, self.seed, self.epoch).into_iter().peekable();
        self.rng = draws(self.seed, self.epoch);
    }

    /// Adds row groups of this epoch, as long as they fit or fewer than `wanted` rows wait.
    fn fill(&mut self, wanted: usize, pool: &mut impl Pool) -> Result<(), StoreError> {
        while let Some(next) = self.waiting.peek() {
            let rows = self.shards[next.shard].group_tokens(next.group);
            if pool.len() >= wanted && pool.len() + rows > self.buffer_tokens {
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// Which of the row groups that were added, from 0.
    group: usize,
    row: u32,
}

/// Rows that are known by where they come from alone.
#[derive(Default)]
struct Origins {
    waiting: Vec<Origin>,
    added: usize,
}

impl Pool for Origins {
    fn len(&self) -> usize {
        self.waiting.len()
    }

    fn add(&mut self, rows: usize) -> Result<(), StoreError> {
        let group = self.added;
        let rows = u32::try_from(rows).expect("a row group fits into memory");
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

/// Reads the rows that wait, which are few of those that were added, into `buffer`.
pub(crate) fn restore(
    shards: &[Shard],
    columns: Columns,
    seed: Seed,
    origins: &[Origin],
    buffer: &mut Buffer,
) -> Result<(), StoreError> {
    if origins.is_empty() {
        return Ok(());
    }
    let mut by_group = BTreeMap::<usize, Vec<(u32, u32)>>::new();
    for (slot, origin) in (0..).zip(origins) {
        by_group.entry(origin.group).or_default().push((origin.row, slot));
    }
    buffer.make_room(origins.len());
    let of_epoch = shuffle::all_groups(shards).len();
    let mut order = (u64::MAX, Vec::new());
    for (group, mut rows) in by_group {
        let epoch = (group / of_epoch) as u64;
        if order.0 != epoch {
            order = (epoch, shuffle::order(shards, seed, epoch));
        }
        let id = order.1[group % of_epoch];
        let read = shards[id.shard].read(id.group, columns)?;
        rows.sort_unstable();
        let mut wanted = rows.into_iter().peekable();
        for (row, (token, vectors)) in (0..).zip(read.tokens.iter().zip(read.rows())) {
            if let Some((_, slot)) = wanted.next_if(|(next, _)| *next == row) {
                buffer.put(slot, *token, vectors);
            }
        }
    }
    Ok(())
}
