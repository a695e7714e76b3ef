//! A seeded order of row groups, and a buffer from which rows are drawn at random.

use monosema_core::Seed;
use rand::{Rng, seq::SliceRandom};

use crate::{
    Batch, VectorDtype,
    shard::{RawRows, Shard},
};

/// A row group of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupId {
    pub(crate) shard: usize,
    pub(crate) group: usize,
}

/// Every row group, in the order of harvesting.
pub(crate) fn all_groups(shards: &[Shard]) -> Vec<GroupId> {
    let groups = |(shard, s): (usize, &Shard)| (0..s.row_groups()).map(move |group| GroupId { shard, group });
    shards.iter().enumerate().flat_map(groups).collect()
}

/// Every row group, in the order of an epoch. Each epoch has its own stream of randomness.
pub(crate) fn order(shards: &[Shard], seed: Seed, epoch: u64) -> Vec<GroupId> {
    let mut groups = all_groups(shards);
    groups.shuffle(&mut seed.stream(&format!("store: row groups of epoch {epoch}")));
    groups
}

/// Rows waiting to be drawn. The vectors lie in one block, in the store's dtype: half the memory for 16 bits.
pub(crate) struct Buffer {
    rows: RawRows,
    row_bytes: usize,
    dtype: VectorDtype,
}

impl Buffer {
    /// Room for `capacity` rows of `width` numbers.
    pub(crate) fn with_capacity(capacity: usize, width: usize, dtype: VectorDtype) -> Self {
        let row_bytes = width * dtype.bytes();
        let rows = RawRows {
            token_ids: Vec::with_capacity(capacity),
            documents: Vec::with_capacity(capacity),
            positions: Vec::with_capacity(capacity),
            vectors: Vec::with_capacity(capacity * row_bytes),
        };
        Self { rows, row_bytes, dtype }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.token_ids.len()
    }

    pub(crate) fn push(&mut self, rows: &RawRows) {
        self.rows.token_ids.extend_from_slice(&rows.token_ids);
        self.rows.documents.extend_from_slice(&rows.documents);
        self.rows.positions.extend_from_slice(&rows.positions);
        self.rows.vectors.extend_from_slice(&rows.vectors);
    }

    /// Moves a row, any with equal probability, to `batch`. There must be one. The last row takes its place.
    pub(crate) fn draw(&mut self, rng: &mut impl Rng, batch: &mut Batch) {
        // Through u64, so that the stream is the same on every machine.
        let i = rng.random_range(0..self.len() as u64) as usize;
        let Self { rows, row_bytes, dtype } = self;
        let id = rows.token_ids.swap_remove(i);
        let document = rows.documents.swap_remove(i);
        let position = rows.positions.swap_remove(i);
        let place = i * *row_bytes..(i + 1) * *row_bytes;
        batch.push(&[id], &[document], &[position], &rows.vectors[place.clone()], *dtype);
        let last = rows.vectors.len() - *row_bytes;
        rows.vectors.copy_within(last.., place.start);
        rows.vectors.truncate(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_drawn_once_with_its_own_vector() {
        let mut buffer = Buffer::with_capacity(50, 2, VectorDtype::F32);
        let mut rows = RawRows::default();
        for i in 0..50_u32 {
            rows.token_ids.push(i);
            rows.documents.push(u64::from(i) + 100);
            rows.positions.push(i + 200);
            VectorDtype::F32.encode(&[i as f32, -(i as f32)], &mut rows.vectors);
        }
        buffer.push(&rows);
        let mut batch = Batch::with_capacity(50, 2);
        let mut rng = Seed(1).stream("test");
        while buffer.len() > 0 {
            buffer.draw(&mut rng, &mut batch);
        }
        for (row, &id) in batch.token_ids.iter().enumerate() {
            assert_eq!((batch.documents[row], batch.positions[row]), (u64::from(id) + 100, id + 200));
            assert_eq!(batch.x[2 * row..2 * row + 2], [id as f32, -(id as f32)]);
        }
        assert!(!batch.token_ids.is_sorted());
        batch.token_ids.sort_unstable();
        assert_eq!(batch.token_ids, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn the_first_draw_is_uniform() {
        // 20,000 draws among 10 rows: 2000 ± 5 standard deviations of 42.
        let mut counts = [0; 10];
        let mut rng = Seed(2).stream("test");
        for _ in 0..20_000 {
            let mut buffer = Buffer::with_capacity(10, 1, VectorDtype::F32);
            let ids: Vec<u32> = (0..10).collect();
            let documents = vec![0; 10];
            buffer.push(&RawRows { token_ids: ids.clone(), documents, positions: ids, vectors: vec![0; 40] });
            let mut batch = Batch::with_capacity(1, 1);
            buffer.draw(&mut rng, &mut batch);
            counts[batch.token_ids[0] as usize] += 1;
        }
        assert!(counts.iter().all(|count| (1790..2210).contains(count)), "{counts:?}");
    }
}
