//! Batches of activations, read and decoded ahead of whoever uses them.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use monosema_core::{HookPoint, Seed};

use crate::{
    HookColumn, StoreError, VectorDtype,
    shard::{RawRows, Shard},
    shuffle::{self, Buffer, GroupId},
};

/// Row groups read ahead.
const GROUPS_AHEAD: usize = 4;

/// Batches made ahead.
const BATCHES_AHEAD: usize = 2;

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
}

impl Batch {
    pub(crate) fn with_capacity(n: usize, width: usize) -> Self {
        Self {
            x: Vec::with_capacity(n * width),
            n: 0,
            width,
            token_ids: Vec::with_capacity(n),
            documents: Vec::with_capacity(n),
            positions: Vec::with_capacity(n),
        }
    }

    /// Appends rows, whose vectors are `bytes` of `dtype`.
    pub(crate) fn push(
        &mut self,
        ids: &[u32],
        documents: &[u64],
        positions: &[u32],
        bytes: &[u8],
        dtype: VectorDtype,
    ) {
        self.token_ids.extend_from_slice(ids);
        self.documents.extend_from_slice(documents);
        self.positions.extend_from_slice(positions);
        let start = self.x.len();
        self.x.resize(start + ids.len() * self.width, 0.0);
        dtype.decode(bytes, &mut self.x[start..]);
        self.n += ids.len();
    }
}

/// A stream of batches. Dropping it stops the threads behind it.
pub struct Batches {
    receiver: Option<Receiver<Result<Batch, StoreError>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Batches {
    /// A stream of nothing but `error`.
    pub(crate) fn failed(error: StoreError) -> Self {
        let (sender, receiver) = sync_channel(1);
        sender.send(Err(error)).expect("the receiver is right here");
        Self { receiver: Some(receiver), threads: Vec::new() }
    }

    /// Ends the threads; a panic in one of them goes on here.
    fn join(&mut self) {
        // A thread that waits for room in a channel sees that nobody listens, and ends.
        self.receiver = None;
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join()
                && !thread::panicking()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.receiver.as_ref()?.recv();
        if !matches!(next, Ok(Ok(_))) {
            self.join();
        }
        next.ok()
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.join();
    }
}

/// Reads the row groups `order` names, and hands them on until one fails or nobody listens.
fn read_groups(
    shards: &[Shard],
    column: HookColumn,
    order: impl Iterator<Item = GroupId>,
    sender: &SyncSender<Result<RawRows, StoreError>>,
) {
    for id in order {
        let rows = shards[id.shard].read(id.group, column);
        let failed = rows.is_err();
        if sender.send(rows).is_err() || failed {
            return;
        }
    }
}

pub(crate) fn sequential(shards: Arc<Vec<Shard>>, column: HookColumn, batch_tokens: usize) -> Batches {
    let (groups, from_reader) = sync_channel(GROUPS_AHEAD);
    let (batches, receiver) = sync_channel(BATCHES_AHEAD);
    let dtype = shards[0].schema().dtype;
    let row_bytes = column.width * dtype.bytes();
    let reader = thread::spawn(move || {
        read_groups(&shards, column, shuffle::all_groups(&shards).into_iter(), &groups);
    });
    let cutter = thread::spawn(move || {
        let mut batch = Batch::with_capacity(batch_tokens, column.width);
        for rows in from_reader {
            let rows = match rows {
                Ok(rows) => rows,
                Err(error) => return drop(batches.send(Err(error))),
            };
            let n = rows.token_ids.len();
            let mut done = 0;
            while done < n {
                let part = done..(done + batch_tokens - batch.n).min(n);
                let bytes = &rows.vectors[part.start * row_bytes..part.end * row_bytes];
                let (ids, documents) = (&rows.token_ids[part.clone()], &rows.documents[part.clone()]);
                batch.push(ids, documents, &rows.positions[part.clone()], bytes, dtype);
                done = part.end;
                if batch.n == batch_tokens {
                    let full =
                        std::mem::replace(&mut batch, Batch::with_capacity(batch_tokens, column.width));
                    if batches.send(Ok(full)).is_err() {
                        return;
                    }
                }
            }
        }
        if batch.n > 0 {
            // Nobody listening is no error.
            let _ = batches.send(Ok(batch));
        }
    });
    Batches { receiver: Some(receiver), threads: vec![cutter, reader] }
}

pub(crate) fn shuffled(shards: Arc<Vec<Shard>>, column: HookColumn, plan: BatchPlan) -> Batches {
    let (groups, from_reader) = sync_channel(GROUPS_AHEAD);
    let (batches, receiver) = sync_channel(BATCHES_AHEAD);
    let for_reader = shards.clone();
    let reader = thread::spawn(move || {
        let order = (0..).flat_map(|epoch| shuffle::order(&for_reader, plan.seed, epoch));
        read_groups(&for_reader, column, order, &groups);
    });
    let mixer = thread::spawn(move || {
        if let Err(error) = mix(&shards, column, plan, &from_reader, &batches) {
            // Nobody listening is no error.
            let _ = batches.send(Err(error));
        }
    });
    Batches { receiver: Some(receiver), threads: vec![mixer, reader] }
}

/// Draws batches from a buffer that is refilled from `groups`, until all is delivered or nobody listens.
fn mix(
    shards: &[Shard],
    column: HookColumn,
    plan: BatchPlan,
    groups: &Receiver<Result<RawRows, StoreError>>,
    batches: &SyncSender<Result<Batch, StoreError>>,
) -> Result<(), StoreError> {
    let group_tokens = |id: &GroupId| shards[id.shard].group_tokens(id.group);
    let largest = shuffle::all_groups(shards).iter().map(group_tokens).max().unwrap_or(0);
    let available: u64 = shards.iter().map(Shard::tokens).sum();
    let capacity = plan.buffer_tokens.max(plan.batch_tokens + largest);
    let capacity = capacity.min(usize::try_from(available).unwrap_or(usize::MAX));
    let mut buffer = Buffer::with_capacity(capacity, column.width, shards[0].schema().dtype);
    let batch_of = |left: u64| Batch::with_capacity(rows_in(plan.batch_tokens, left), column.width);
    let mut left = plan.tokens;
    let mut batch = batch_of(left);
    for epoch in 0.. {
        let mut rng = plan.seed.stream(&format!("store: draws of epoch {epoch}"));
        let mut waiting = shuffle::order(shards, plan.seed, epoch).into_iter().peekable();
        loop {
            if left == 0 {
                return Ok(());
            }
            let wanted = rows_in(plan.batch_tokens, left) - batch.n;
            while let Some(next) = waiting.peek() {
                if buffer.len() >= wanted && buffer.len() + group_tokens(next) > plan.buffer_tokens {
                    break;
                }
                waiting.next();
                match groups.recv() {
                    Ok(rows) => buffer.push(&rows?),
                    // The reader ended without an error to pass on: it panicked, and `join` will say so.
                    Err(_) => return Ok(()),
                }
            }
            if buffer.len() == 0 {
                break;
            }
            for _ in 0..wanted.min(buffer.len()) {
                buffer.draw(&mut rng, &mut batch);
            }
            if batch.n == rows_in(plan.batch_tokens, left) {
                left -= batch.n as u64;
                let full = std::mem::replace(&mut batch, batch_of(left));
                if batches.send(Ok(full)).is_err() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Rows of a batch when `left` are to be delivered.
fn rows_in(batch_tokens: usize, left: u64) -> usize {
    usize::try_from(left).map_or(batch_tokens, |left| left.min(batch_tokens))
}
