//! Batches of activations, read and decoded ahead of whoever uses them.

use std::{
    iter::{self, Peekable},
    sync::Arc,
    vec,
};

use monosema_core::{Ahead, HookPoint, Seed};
use rand_chacha::ChaCha8Rng;

use crate::{
    HookColumn, StoreError, VectorDtype,
    shard::{RawRows, Shard, Token},
    shuffle::{self, Buffer, GroupId},
};

/// Row groups that wait to be shuffled.
const GROUPS_AHEAD: usize = 2;

/// Batches that wait to be taken.
const BATCHES_AHEAD: usize = 2;

/// What is done to each vector once it is decoded.
pub(crate) type Visit = Box<dyn FnMut(&mut [f32]) -> f64 + Send>;

/// Shuffled batches to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    /// The hook whose vectors to read.
    pub hook: HookPoint,
    /// Rows in a batch.
    pub batch_tokens: usize,
    /// Rows to draw from: the more, the better the shuffle. Held in memory in the store's dtype.
    pub buffer_tokens: usize,
    /// Decides the order.
    pub seed: Seed,
    /// Rows to deliver altogether, over as many epochs as that takes.
    pub tokens: u64,
}

impl BatchPlan {
    pub(crate) fn check(&self, available: u64) -> Result<(), StoreError> {
        let bad = |reason: String| Err(StoreError::BadPlan { reason });
        check_batch(self.batch_tokens)?;
        if self.buffer_tokens < self.batch_tokens {
            return bad(format!(
                "expected a buffer of at least one batch of {} tokens, found {}",
                self.batch_tokens, self.buffer_tokens
            ));
        }
        if self.tokens == 0 {
            return bad("expected at least 1 token to deliver, found 0".into());
        }
        if available == 0 {
            return bad("expected tokens, found an empty store".into());
        }
        Ok(())
    }
}

pub(crate) fn check_batch(batch_tokens: usize) -> Result<(), StoreError> {
    if batch_tokens == 0 {
        return Err(StoreError::BadPlan { reason: "expected batches of at least 1 token, found 0".into() });
    }
    Ok(())
}

/// Some tokens and their vectors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The vectors `[n, width]`, row after row.
    pub x: Vec<f32>,
    /// Rows.
    pub n: usize,
    /// Numbers in a row.
    pub width: usize,
    /// Token ids `[n]`.
    pub token_ids: Vec<u32>,
    /// Document numbers `[n]`.
    pub documents: Vec<u64>,
    /// Positions in their context windows `[n]`.
    pub positions: Vec<u32>,
    /// The sum of what the visitor of [`Store::visited_batches`](crate::Store::visited_batches) returned.
    pub sum: f64,
}

impl Batch {
    fn with_capacity(n: usize, width: usize) -> Self {
        Self {
            x: Vec::with_capacity(n * width),
            n: 0,
            width,
            token_ids: Vec::with_capacity(n),
            documents: Vec::with_capacity(n),
            positions: Vec::with_capacity(n),
            sum: 0.0,
        }
    }

    /// Appends tokens and as many vectors.
    fn extend<'a>(
        &mut self,
        tokens: impl Iterator<Item = Token>,
        vectors: impl Iterator<Item = &'a [u8]>,
        dtype: VectorDtype,
        mut visit: impl FnMut(&mut [f32]) -> f64,
    ) {
        for Token { id, position, document } in tokens {
            self.token_ids.push(id);
            self.positions.push(position);
            self.documents.push(document);
            self.n += 1;
        }
        for vector in vectors {
            let start = self.x.len();
            self.x.resize(start + self.width, 0.0);
            let x = &mut self.x[start..];
            dtype.decode(vector, x);
            self.sum += visit(x);
        }
    }
}

/// A stream of batches. Dropping it stops the threads behind it.
pub struct Batches(Ahead<Result<Batch, StoreError>>);

impl Batches {
    /// A stream of nothing but `error`.
    pub(crate) fn failed(error: StoreError) -> Self {
        Self(Ahead::new(1, iter::once(Err(error))))
    }

    /// Makes batches until there is none, or an error.
    fn made_by(mut make: impl FnMut() -> Result<Option<Batch>, StoreError> + Send + 'static) -> Self {
        let mut failed = false;
        Self(Ahead::new(
            BATCHES_AHEAD,
            iter::from_fn(move || {
                if failed {
                    return None;
                }
                let made = make().transpose();
                failed = matches!(made, Some(Err(_)));
                made
            }),
        ))
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

/// Row groups, read ahead.
type Groups = Ahead<Result<RawRows, StoreError>>;

fn read(
    shards: Arc<Vec<Shard>>,
    column: HookColumn,
    order: impl Iterator<Item = GroupId> + Send + 'static,
) -> Groups {
    Ahead::new(GROUPS_AHEAD, order.map(move |id| shards[id.shard].read(id.group, column)))
}

pub(crate) fn sequential(shards: Arc<Vec<Shard>>, column: HookColumn, batch_tokens: usize) -> Batches {
    let dtype = shards[0].schema().dtype;
    let row_bytes = column.width * dtype.bytes();
    let order = shuffle::all_groups(&shards).into_iter();
    let mut groups = read(shards, column, order);
    let (mut rows, mut taken) = (RawRows::default(), 0);
    Batches::made_by(move || {
        let mut batch = Batch::with_capacity(batch_tokens, column.width);
        while batch.n < batch_tokens {
            let n = (batch_tokens - batch.n).min(rows.tokens.len() - taken);
            let tokens = rows.tokens[taken..taken + n].iter().copied();
            batch.extend(tokens, rows.vectors(row_bytes).skip(taken).take(n), dtype, |_| 0.0);
            taken += n;
            if taken == rows.tokens.len() {
                match groups.next() {
                    Some(next) => (rows, taken) = (next?, 0),
                    None => break,
                }
            }
        }
        Ok((batch.n > 0).then_some(batch))
    })
}

pub(crate) fn shuffled(
    shards: Arc<Vec<Shard>>,
    column: HookColumn,
    plan: BatchPlan,
    visit: Visit,
) -> Batches {
    let mut mixer = Mixer::new(shards, column, plan, visit);
    Batches::made_by(move || mixer.next_batch())
}

/// Draws batches from a buffer that is refilled with row groups, epoch after epoch.
struct Mixer {
    shards: Arc<Vec<Shard>>,
    column: HookColumn,
    plan: BatchPlan,
    visit: Visit,
    groups: Groups,
    buffer: Buffer,
    epoch: u64,
    /// The row groups of this epoch that are not in the buffer yet.
    waiting: Peekable<vec::IntoIter<GroupId>>,
    rng: ChaCha8Rng,
    /// Tokens still to deliver.
    left: u64,
}

impl Mixer {
    fn new(shards: Arc<Vec<Shard>>, column: HookColumn, plan: BatchPlan, visit: Visit) -> Self {
        let group_tokens = |id: &GroupId| shards[id.shard].group_tokens(id.group);
        let largest = shuffle::all_groups(&shards).iter().map(group_tokens).max().unwrap_or(0);
        let available: u64 = shards.iter().map(Shard::tokens).sum();
        let capacity = plan.buffer_tokens.max(plan.batch_tokens + largest);
        let capacity = capacity.min(usize::try_from(available).unwrap_or(usize::MAX));
        let buffer = Buffer::with_capacity(capacity, column.width * shards[0].schema().dtype.bytes());
        let for_reader = shards.clone();
        let order = (0..).flat_map(move |epoch| shuffle::order(&for_reader, plan.seed, epoch));
        let groups = read(shards.clone(), column, order);
        let waiting = shuffle::order(&shards, plan.seed, 0).into_iter().peekable();
        let rng = draws(plan.seed, 0);
        Self { shards, column, plan, visit, groups, buffer, epoch: 0, waiting, rng, left: plan.tokens }
    }

    fn next_batch(&mut self) -> Result<Option<Batch>, StoreError> {
        let n = usize::try_from(self.left)
            .map_or(self.plan.batch_tokens, |left| left.min(self.plan.batch_tokens));
        if n == 0 {
            return Ok(None);
        }
        let mut batch = Batch::with_capacity(n, self.column.width);
        let dtype = self.shards[0].schema().dtype;
        while batch.n < n {
            self.fill(n - batch.n)?;
            if self.buffer.len() == 0 {
                self.next_epoch();
            }
            let drawn = self.buffer.draw(self.buffer.len().min(n - batch.n), &mut self.rng);
            batch.extend(drawn.tokens(), drawn.vectors(), dtype, &mut self.visit);
        }
        self.left -= n as u64;
        Ok(Some(batch))
    }

    fn next_epoch(&mut self) {
        self.epoch += 1;
        self.waiting = shuffle::order(&self.shards, self.plan.seed, self.epoch).into_iter().peekable();
        self.rng = draws(self.plan.seed, self.epoch);
    }

    /// Puts row groups of this epoch into the buffer, as long as they fit or it holds fewer than `wanted` rows.
    fn fill(&mut self, wanted: usize) -> Result<(), StoreError> {
        let Self { shards, plan, groups, buffer, waiting, .. } = self;
        let tokens = |next: &GroupId| shards[next.shard].group_tokens(next.group);
        while let Some(next) = waiting.peek()
            && (buffer.len() < wanted || buffer.len() + tokens(next) <= plan.buffer_tokens)
        {
            waiting.next();
            buffer.push(&groups.next().expect("there is always another epoch")?);
        }
        Ok(())
    }
}

/// What decides the draws of an epoch.
fn draws(seed: Seed, epoch: u64) -> ChaCha8Rng {
    seed.stream(&format!("store: draws of epoch {epoch}"))
}
