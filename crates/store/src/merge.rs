//! All rows of a shuffled store in their order: the merge of its shards, each of which is sorted.
//!
//! Keys are looked at some thousand rows ahead, those of all shards sorted together; then each shard's rows are copied to
//! where they belong, one after the other as they lie in the file.

use std::sync::Arc;

use crate::{
    HookColumn, StoreError,
    rank::{Start, start_at},
    row_group::Token,
    shard::{BEGUN, Shard},
    values::Values,
};

/// Rows whose order is found at once, about.
const SORTED_ROWS: usize = 4096;

/// The same of each shard, where there are many: to look at one costs as much as a few rows.
const SHARD_ROWS: usize = 4;

/// The rows of all shards from some row on.
pub(crate) struct Merge {
    cursors: Vec<Cursor>,
    /// The rows that come next, as far as their order is known.
    known: Vec<Row>,
    /// How many of these were delivered.
    taken: usize,
    /// Rows that are not known yet.
    left: u64,
    /// The largest key, as far as it is stated.
    most: u64,
    /// Cursors that have something to deliver.
    asked: Vec<usize>,
}

/// A row whose vectors nobody has looked at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    by: SortKey,
    cursor: u32,
}

/// What rows are sorted by: their keys; and, if two have the same by chance, where they stood.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct SortKey {
    key: u64,
    document: u64,
    position: u32,
}

impl Merge {
    /// From the row of this rank on, of which there are more. Nothing that comes before is read, but for keys.
    pub(crate) fn start(
        shards: &[Arc<Shard>],
        columns: &[HookColumn],
        rank: u64,
    ) -> Result<Self, StoreError> {
        let Start { rows, skip } = start_at(shards, rank)?;
        let (cursors, known, asked) = (Vec::new(), Vec::new(), Vec::new());
        let mut merge = Self { cursors, known, taken: 0, left: 0, most: 0, asked };
        for (i, (shard, &row)) in shards.iter().zip(&rows).enumerate() {
            if i.is_multiple_of(BEGUN) {
                let some = shards.iter().zip(&rows).skip(i).take(BEGUN);
                some.into_iter().try_for_each(|(shard, &row)| shard.begin(row as usize))?;
            }
            if row < shard.tokens() {
                // A shard's rows fit into memory, where they were sorted.
                merge.cursors.push(Cursor::open(shard, columns, row as usize)?);
                merge.left += shard.tokens() - row;
                let last = (0..shard.row_groups()).rfind(|&group| shard.group_tokens(group) > 0);
                let stated = last.and_then(|group| shard.stated_keys(group));
                merge.most = merge.most.max(stated.map_or(u64::MAX, |(_, most)| most));
            }
        }
        merge.deliver(skip as usize, |_, _, _| {})?;
        Ok(merge)
    }

    /// Hands over the next `n` rows, of which there are as many, in any order: the number of each among them, its token, and the
    /// bytes of its vectors.
    pub(crate) fn deliver(
        &mut self,
        n: usize,
        mut take: impl FnMut(usize, Token, [&[u8]; 2]),
    ) -> Result<(), StoreError> {
        self.know(n)?;
        let rows = &self.known[self.taken..self.taken + n];
        for (i, row) in rows.iter().enumerate() {
            let wanted = &mut self.cursors[row.cursor as usize].wanted;
            if wanted.is_empty() {
                self.asked.push(row.cursor as usize);
            }
            wanted.push(i);
        }
        for cursor in self.asked.drain(..) {
            self.cursors[cursor].deliver(rows, &mut take)?;
        }
        self.taken += n;
        Ok(())
    }

    /// The documents of the next `n` rows, of which there are as many.
    pub(crate) fn documents(&mut self, n: usize) -> Result<impl Iterator<Item = u64>, StoreError> {
        self.know(n)?;
        Ok(self.known[self.taken..self.taken + n].iter().map(|row| row.by.document))
    }

    /// Finds the order of the next `n` rows at least.
    fn know(&mut self, n: usize) -> Result<(), StoreError> {
        if self.known.len() - self.taken >= n {
            return Ok(());
        }
        self.known.drain(..self.taken);
        self.taken = 0;
        while self.known.len() < n {
            assert!(self.left > 0, "so many rows are left");
            let mut least = u64::MAX;
            for cursor in &mut self.cursors {
                least = least.min(cursor.next_key()?.unwrap_or(u64::MAX));
            }
            // Keys are spread evenly. Were they not, this would take longer, or hold more rows at once.
            let wanted = (n - self.known.len()).max(SORTED_ROWS).max(SHARD_ROWS * self.cursors.len()) as u64;
            let most = if least > self.most { u64::MAX } else { self.most };
            let share = u128::from(most - least) * u128::from(wanted.min(self.left)) / u128::from(self.left);
            let last = least + share as u64;
            let sorted = self.known.len();
            for (i, cursor) in self.cursors.iter_mut().enumerate() {
                cursor.know(last, i as u32, &mut self.known)?;
            }
            let found = &mut self.known[sorted..];
            self.left -= found.len() as u64;
            // Stable, because that is quick with what consists of sorted pieces; by one number, because that has no branches.
            found.sort_by_key(|row| row.by.key);
            if !found.is_sorted() {
                found.sort();
            }
        }
        Ok(())
    }
}

const UNSORTED: &str = "its rows are not sorted by `order` (and, of the same, by `document` and `position`)";

/// The rows of one shard, from front to back.
struct Cursor {
    shard: Arc<Shard>,
    /// Of the rows that are not known yet.
    order: Values,
    documents: Values,
    positions: Values,
    /// How many these are.
    left: u64,
    /// What the last one before them is sorted by.
    before: SortKey,
    /// Of the rows that were not delivered yet.
    token_ids: Values,
    /// Of each hook that is read.
    vectors: Vec<Values>,
    /// Which of the rows that all shards deliver next are its own.
    wanted: Vec<usize>,
}

impl Cursor {
    fn open(shard: &Arc<Shard>, columns: &[HookColumn], row: usize) -> Result<Self, StoreError> {
        let from = |column| Values::from_row(shard.clone(), column, row);
        Ok(Self {
            order: from(shard.order()?)?,
            documents: from(shard.documents()?)?,
            positions: from(shard.positions()?)?,
            left: shard.tokens() - row as u64,
            before: SortKey::default(),
            token_ids: from(shard.token_ids()?)?,
            vectors: columns
                .iter()
                .map(|&column| {
                    let shard = shard.sibling(column).unwrap_or(shard);
                    Values::from_row(shard.clone(), shard.vectors(column)?, row)
                })
                .collect::<Result<_, StoreError>>()?,
            wanted: Vec::new(),
            shard: shard.clone(),
        })
    }

    /// The key of the first row that is not known yet.
    fn next_key(&mut self) -> Result<Option<u64>, StoreError> {
        if self.left == 0 {
            return Ok(None);
        }
        Ok(self.order.stretch()?.first_chunk().map(|&key| u64::from_le_bytes(key)))
    }

    /// Appends the rows up to the key `last` to `known`.
    fn know(&mut self, last: u64, cursor: u32, known: &mut Vec<Row>) -> Result<(), StoreError> {
        while self.left > 0 {
            let (keys, documents) =
                (self.order.stretch()?.as_chunks().0, self.documents.stretch()?.as_chunks().0);
            let positions = self.positions.stretch()?.as_chunks().0;
            let together = keys.len().min(documents.len()).min(positions.len());
            let mut passed = 0;
            for ((&key, &document), &position) in keys.iter().zip(documents).zip(positions) {
                let key = u64::from_le_bytes(key);
                if key > last {
                    break;
                }
                let (document, position) = (u64::from_le_bytes(document), u32::from_le_bytes(position));
                let by = SortKey { key, document, position };
                if by < self.before {
                    return Err(StoreError::damaged(self.shard.path(), UNSORTED));
                }
                self.before = by;
                known.push(Row { by, cursor });
                passed += 1;
            }
            let columns = [&mut self.order, &mut self.documents, &mut self.positions];
            columns.into_iter().for_each(|values| values.pass(passed));
            self.left -= passed as u64;
            if passed < together {
                break;
            }
        }
        Ok(())
    }

    /// Hands over what is wanted of `rows`, each with its number among them.
    fn deliver(
        &mut self,
        rows: &[Row],
        take: &mut impl FnMut(usize, Token, [&[u8]; 2]),
    ) -> Result<(), StoreError> {
        let mut wanted = &self.wanted[..];
        while !wanted.is_empty() {
            let ids = self.token_ids.stretch()?.as_chunks().0;
            let mut together = ids.len().min(wanted.len());
            let mut vectors = [(&[][..], 0); 2];
            for (values, vectors) in self.vectors.iter_mut().zip(&mut vectors) {
                let bytes = values.value_bytes();
                *vectors = (values.stretch()?, bytes);
                together = together.min(vectors.0.len() / bytes);
            }
            let (now, later) = wanted.split_at(together);
            for (at, (&i, &id)) in now.iter().zip(ids).enumerate() {
                let SortKey { document, position, .. } = rows[i].by;
                let token = Token { id: u32::from_le_bytes(id), position, document };
                take(i, token, vectors.map(|(pages, bytes)| &pages[at * bytes..(at + 1) * bytes]));
            }
            self.token_ids.pass(together);
            self.vectors.iter_mut().for_each(|values| values.pass(together));
            wanted = later;
        }
        self.wanted.clear();
        Ok(())
    }
}
