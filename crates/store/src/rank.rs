//! Where each shard of a shuffled store stands when so many rows of all have been read: found in their keys alone.

use std::sync::Arc;

use crate::{StoreError, shard::Shard};

/// One past the largest key.
const END: u128 = 1 << 64;

/// Where a merge starts.
pub(crate) struct Start {
    /// The first row of each shard that is not before.
    pub(crate) rows: Vec<u64>,
    /// Rows to pass by then: those of equal keys, if chance made some.
    pub(crate) skip: u64,
}

/// Where the row of this rank, from 0, is among those of all shards.
///
/// Keys are looked for between which there are so many rows, by guessing: keys are spread evenly, so that a guess misses
/// by the square root of what it is about, and the groups of rows in which it falls are soon the same ones.
pub(crate) fn start_at(shards: &[Arc<Shard>], rank: u64) -> Result<Start, StoreError> {
    if rank == 0 {
        return Ok(Start { rows: vec![0; shards.len()], skip: 0 });
    }
    let mut ranks = shards.iter().map(Ranks::of).collect::<Result<Vec<_>, _>>()?;
    let mut below = |key: u128| -> Result<Vec<u64>, StoreError> {
        ranks.iter_mut().map(|ranks| ranks.below(key)).collect()
    };
    let total: u64 = shards.iter().map(|shard| shard.tokens()).sum();
    // No more than `rank` rows are below the one, and more than that below the other.
    let (mut low, mut high) = ((0, 0), (END, total));
    for round in 0.. {
        let width = high.0 - low.0;
        if low.1 == rank || width == 1 {
            break;
        }
        // Every third time in the middle, so that it ends however keys are spread.
        let guess = match round % 3 {
            2 => width / 2,
            _ => (width as f64 * (rank - low.1) as f64 / (high.1 - low.1) as f64) as u128,
        };
        let key = low.0 + guess.clamp(1, width - 1);
        let found = below(key)?.iter().sum();
        if found <= rank {
            low = (key, found);
        } else {
            high = (key, found);
        }
    }
    Ok(Start { rows: below(low.0)?, skip: rank - low.1 })
}

/// Counts the rows of a shard by their keys.
struct Ranks {
    shard: Arc<Shard>,
    /// The least and the largest key of each group that has rows, with how many come before it.
    groups: Vec<Group>,
    /// The keys of the group that was looked into last.
    known: Option<(usize, Vec<u64>)>,
}

struct Group {
    number: usize,
    least: u64,
    most: u64,
    before: u64,
}

impl Ranks {
    fn of(shard: &Arc<Shard>) -> Result<Self, StoreError> {
        let (mut groups, mut before) = (Vec::new(), 0);
        for number in 0..shard.row_groups() {
            let rows = shard.group_tokens(number) as u64;
            if rows > 0 {
                let (least, most) = shard.keys(number)?;
                groups.push(Group { number, least, most, before });
            }
            before += rows;
        }
        if !groups.is_sorted_by(|one, next| one.most <= next.least) {
            return Err(StoreError::damaged(shard.path(), "its row groups are not sorted by `order`"));
        }
        Ok(Self { shard: shard.clone(), groups, known: None })
    }

    /// How many rows have keys below `key`.
    fn below(&mut self, key: u128) -> Result<u64, StoreError> {
        let next = self.groups.partition_point(|group| u128::from(group.most) < key);
        let Some(group) = self.groups.get(next) else { return Ok(self.shard.tokens()) };
        if u128::from(group.least) >= key {
            return Ok(group.before);
        }
        let keys = match self.known.take() {
            Some((number, keys)) if number == group.number => keys,
            _ => self.shard.group_keys(group.number)?,
        };
        let found = keys.partition_point(|&other| u128::from(other) < key) as u64;
        self.known = Some((group.number, keys));
        Ok(group.before + found)
    }
}
