//! A seeded order of row groups, and a buffer from which rows are drawn at random.

use std::sync::Arc;

use monosema_core::Seed;
use rand::{Rng, seq::SliceRandom};

use crate::{
    row_group::{RowGroup, Token},
    shard::Shard,
};

/// A row group of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupId {
    pub(crate) shard: usize,
    pub(crate) group: usize,
}

/// Every row group, in the order of harvesting.
pub(crate) fn all_groups(shards: &[Arc<Shard>]) -> Vec<GroupId> {
    let groups =
        |(shard, s): (usize, &Arc<Shard>)| (0..s.row_groups()).map(move |group| GroupId { shard, group });
    shards.iter().enumerate().flat_map(groups).collect()
}

/// Every row group, in the order of an epoch. Each epoch has its own stream of randomness.
pub(crate) fn order(shards: &[Arc<Shard>], seed: Seed, epoch: u64) -> Vec<GroupId> {
    let mut groups = all_groups(shards);
    groups.shuffle(&mut seed.stream(&format!("store: row groups of epoch {epoch}")));
    groups
}

/// Rows waiting to be drawn. A row is copied to a slot and stays there, its vectors in the store's dtype (half the memory
/// for 16 bits); what is shuffled is the slots' numbers, which fit into the cache.
pub(crate) struct Buffer {
    /// The slots of the rows that wait.
    waiting: Vec<u32>,
    free: Vec<u32>,
    tokens: Vec<Token>,
    /// The vectors of each row, that of the first hook and that of the second.
    vectors: Vec<u8>,
    row_bytes: [usize; 2],
}

impl Buffer {
    /// Room for `capacity` rows of so many bytes of each hook.
    pub(crate) fn with_capacity(capacity: usize, row_bytes: [usize; 2]) -> Self {
        Self {
            waiting: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            tokens: Vec::with_capacity(capacity),
            vectors: Vec::with_capacity(capacity * row_bytes.iter().sum::<usize>()),
            row_bytes,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Room for `n` rows, all of which wait, to be [put](Buffer::put) there.
    pub(crate) fn make_room(&mut self, n: usize) {
        self.waiting = (0..u32::try_from(n).expect(NO_MEMORY)).collect();
        self.tokens = vec![Token::default(); n];
        self.vectors = vec![0; n * self.row_bytes.iter().sum::<usize>()];
    }

    pub(crate) fn push(&mut self, rows: &RowGroup) {
        let row_bytes: usize = self.row_bytes.iter().sum();
        for (&token, vectors) in rows.tokens.iter().zip(rows.rows()) {
            let slot = self.free.pop().unwrap_or_else(|| {
                self.tokens.push(token);
                self.vectors.resize(self.vectors.len() + row_bytes, 0);
                u32::try_from(self.tokens.len() - 1).expect(NO_MEMORY)
            });
            self.put(slot, token, vectors);
            self.waiting.push(slot);
        }
    }

    /// Copies a row to a slot.
    pub(crate) fn put(&mut self, slot: u32, token: Token, vectors: [&[u8]; 2]) {
        let [first, second] = self.row_bytes;
        self.tokens[slot as usize] = token;
        let row = &mut self.vectors[slot as usize * (first + second)..][..first + second];
        row[..first].copy_from_slice(vectors[0]);
        row[first..].copy_from_slice(vectors[1]);
    }

    /// Takes `n` rows, each any of those that are left with equal probability. There must be so many.
    pub(crate) fn draw(&mut self, n: usize, rng: &mut impl Rng) -> Drawn<'_> {
        let before = self.free.len();
        for _ in 0..n {
            self.free.push(take_any(&mut self.waiting, rng));
        }
        Drawn { buffer: self, slots: &self.free[before..] }
    }
}

const NO_MEMORY: &str = "no memory holds 2³² vectors";

/// Takes any of `all`, which are not empty, each with the same probability.
pub(crate) fn take_any<T>(all: &mut Vec<T>, rng: &mut impl Rng) -> T {
    // Through u64, so that the stream is the same on every machine.
    let i = rng.random_range(0..all.len() as u64) as usize;
    all.swap_remove(i)
}

/// Rows that were drawn.
pub(crate) struct Drawn<'a> {
    buffer: &'a Buffer,
    slots: &'a [u32],
}

impl<'a> Drawn<'a> {
    /// Each with its vectors.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (Token, [&'a [u8]; 2])> + use<'a> {
        let Self { buffer, slots } = *self;
        let [first, second] = buffer.row_bytes;
        slots.iter().map(move |&slot| {
            let start = slot as usize * (first + second);
            let (one, other) = buffer.vectors[start..start + first + second].split_at(first);
            (buffer.tokens[slot as usize], [one, other])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row_group::Vectors;

    /// Rows of two bytes, which are the token's number and 255 less it, in two pages.
    fn rows(numbers: std::ops::Range<u8>) -> RowGroup {
        let token =
            |i: u8| Token { id: i.into(), position: u32::from(i) + 200, document: u64::from(i) + 100 };
        let page = |numbers: &[u8]| numbers.iter().flat_map(|&i| [i, 255 - i]).collect::<Vec<_>>().into();
        let tokens = numbers.clone().map(token).collect();
        let numbers: Vec<_> = numbers.collect();
        let (first, second) = numbers.split_at(numbers.len() / 3);
        let vectors = Vectors { pages: vec![page(first), page(second)], row_bytes: 2 };
        RowGroup { tokens, vectors: [vectors, Vectors::default()] }
    }

    #[test]
    fn every_row_is_drawn_once_with_its_own_vector() {
        let mut buffer = Buffer::with_capacity(50, [2, 0]);
        let mut rng = Seed(1).stream("test");
        let mut ids = Vec::new();
        // Slots are used again, and there are more rows than was thought.
        for (pushed, drawn) in [(0..40, 30), (40..80, 20), (80..120, 70)] {
            buffer.push(&rows(pushed));
            let drawn = buffer.draw(drawn, &mut rng);
            for (token, vector) in drawn.rows() {
                let i = token.id as u8;
                assert_eq!((token.position, token.document), (u32::from(i) + 200, u64::from(i) + 100));
                assert_eq!(vector, [&[i, 255 - i][..], &[]]);
                ids.push(i);
            }
        }
        assert_eq!(buffer.len(), 0);
        assert!(!ids.is_sorted());
        ids.sort_unstable();
        assert_eq!(ids, (0..120).collect::<Vec<_>>());
    }

    #[test]
    fn the_first_draw_is_uniform() {
        // 20,000 draws among 10 rows: 2000 ± 5 standard deviations of 42.
        let mut counts = [0; 10];
        let mut rng = Seed(2).stream("test");
        for _ in 0..20_000 {
            let mut buffer = Buffer::with_capacity(10, [2, 0]);
            buffer.push(&rows(0..10));
            let first = buffer.draw(1, &mut rng).rows().next().unwrap().0;
            counts[first.id as usize] += 1;
        }
        assert!(counts.iter().all(|count| (1790..2210).contains(count)), "{counts:?}");
    }
}
