//! All rows of a shuffled store in their order: the merge of its shards, each of which is sorted.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
    sync::Arc,
};

use crate::{
    HookColumn, StoreError,
    rank::{Start, start_at},
    row_group::Token,
    shard::{BEGUN, Shard},
    values::Values,
};

/// What decides which of two rows comes first: its key; and, of two that have the same by chance, where it stood.
type Place = (u64, u64, u32);

/// The rows of all shards from some row on. There is always a current one until the last is passed.
pub(crate) struct Merge {
    cursors: Vec<Cursor>,
    /// The current row of each cursor that has one, the first of all on top.
    heap: BinaryHeap<Reverse<(Place, usize)>>,
}

impl Merge {
    /// From the row of this rank on, of which there are more. Nothing that comes before is read, but for keys.
    pub(crate) fn start(
        shards: &[Arc<Shard>],
        columns: &[HookColumn],
        rank: u64,
    ) -> Result<Self, StoreError> {
        let Start { rows, skip } = start_at(shards, rank)?;
        let (mut cursors, mut heap) = (Vec::new(), BinaryHeap::new());
        for (i, (shard, &row)) in shards.iter().zip(&rows).enumerate() {
            if i.is_multiple_of(BEGUN) {
                let some = shards.iter().zip(&rows).skip(i).take(BEGUN);
                some.into_iter().try_for_each(|(shard, &row)| shard.begin(row as usize))?;
            }
            if row < shard.tokens() {
                // A shard's rows fit into memory, where they were sorted.
                let cursor = Cursor::open(shard, columns, row as usize)?;
                heap.push(Reverse((cursor.place(), cursors.len())));
                cursors.push(cursor);
            }
        }
        let mut merge = Self { cursors, heap };
        for _ in 0..skip {
            merge.advance()?;
        }
        Ok(merge)
    }

    /// The current row; `None` after the last.
    pub(crate) fn row(&self) -> Option<&Cursor> {
        self.heap.peek().map(|Reverse((_, cursor))| &self.cursors[*cursor])
    }

    /// Goes on to the next row.
    pub(crate) fn advance(&mut self) -> Result<(), StoreError> {
        let Some(mut top) = self.heap.peek_mut() else { return Ok(()) };
        let Reverse((place, cursor)) = &mut *top;
        let cursor = &mut self.cursors[*cursor];
        if cursor.advance()? {
            *place = cursor.place();
            // It comes when all others that are smaller have come: nobody could guess when, and by then it is there.
            cursor.prefetch();
        } else {
            PeekMut::pop(top);
        }
        Ok(())
    }
}

/// The rows of one shard, from front to back.
pub(crate) struct Cursor {
    shard: Arc<Shard>,
    order: Values,
    documents: Values,
    positions: Values,
    token_ids: Values,
    /// Of each hook that is read.
    vectors: Vec<Values>,
    /// Rows that follow on the current one.
    left: u64,
}

impl Cursor {
    fn open(shard: &Arc<Shard>, columns: &[HookColumn], row: usize) -> Result<Self, StoreError> {
        let from = |column| Values::from_row(shard.clone(), column, row);
        Ok(Self {
            order: from(shard.order()?)?,
            documents: from(shard.documents()?)?,
            positions: from(shard.positions()?)?,
            token_ids: from(shard.token_ids()?)?,
            vectors: columns
                .iter()
                .map(|&column| {
                    let shard = shard.sibling(column).unwrap_or(shard);
                    Values::from_row(shard.clone(), shard.vectors(column)?, row)
                })
                .collect::<Result<_, StoreError>>()?,
            left: shard.tokens() - row as u64 - 1,
            shard: shard.clone(),
        })
    }

    /// Returns whether there is another row.
    fn advance(&mut self) -> Result<bool, StoreError> {
        if self.left == 0 {
            return Ok(false);
        }
        self.left -= 1;
        let before = self.key();
        let columns = [&mut self.order, &mut self.documents, &mut self.positions, &mut self.token_ids];
        for values in columns.into_iter().chain(&mut self.vectors) {
            values.advance()?;
        }
        if self.key() < before {
            return Err(StoreError::damaged(self.shard.path(), "its rows are not sorted by `order`"));
        }
        Ok(true)
    }

    fn prefetch(&self) {
        self.vectors.iter().chain([&self.token_ids]).for_each(Values::prefetch);
    }

    fn key(&self) -> u64 {
        long(self.order.get())
    }

    fn place(&self) -> Place {
        (self.key(), long(self.documents.get()), int(self.positions.get()))
    }

    pub(crate) fn token(&self) -> Token {
        Token {
            id: int(self.token_ids.get()),
            position: int(self.positions.get()),
            document: long(self.documents.get()),
        }
    }

    /// The vector of hook `index` of those that are read; nothing beyond.
    pub(crate) fn vector(&self, index: usize) -> &[u8] {
        self.vectors.get(index).map_or(&[], Values::get)
    }
}

fn long(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("a value of the column has 8 bytes"))
}

fn int(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("a value of the column has 4 bytes"))
}
