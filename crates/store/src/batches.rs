//! Batches of activations, read and decoded ahead of whoever uses them.

use std::{iter, sync::Arc};

use monosema_core::{Ahead, HookPoint, Seed};
use rand_chacha::ChaCha8Rng;

use crate::{
    Activations, HookColumn, RowGroup, RowGroups, StoreError, VectorDtype,
    course::{Course, Pool},
    filling::{Filling, Visit},
    permutation::Circle,
    shuffle::Buffer,
};

/// Batches that wait to be taken.
const BATCHES_AHEAD: usize = 2;

/// The hooks that are read: one or two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Columns {
    pub(crate) first: HookColumn,
    pub(crate) second: Option<HookColumn>,
}

impl Columns {
    /// Those of a plan, from their place.
    pub(crate) fn of(activations: &dyn Activations, plan: &BatchPlan) -> Result<Self, StoreError> {
        let second = plan.hook_out.map(|hook| activations.hook_column(hook)).transpose()?;
        Ok(Self { first: activations.hook_column(plan.hook)?, second })
    }

    /// Numbers of each in a row.
    pub(crate) fn widths(self) -> [usize; 2] {
        [self.first.width, self.second.map_or(0, |column| column.width)]
    }
}

/// Shuffled batches to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    /// The hook whose vectors to read.
    pub hook: HookPoint,
    /// Another one, whose vectors of the same tokens to read too.
    pub hook_out: Option<HookPoint>,
    /// Rows in a batch.
    pub batch_tokens: usize,
    /// Rows to draw from: the more, the better the shuffle. Held in memory in the store's dtype. What is shuffled on disk has
    /// no need of it.
    pub buffer_tokens: usize,
    /// Decides the order.
    pub seed: Seed,
    /// Rows to deliver altogether, over as many epochs as that takes.
    pub tokens: u64,
    /// Of these, how many were delivered before, in whole batches: what follows on them comes, the same as ever.
    pub delivered: u64,
}

impl BatchPlan {
    fn check(&self, available: u64) -> Result<(), StoreError> {
        let bad = |reason: String| Err(StoreError::BadPlan { reason });
        check_batch(self.batch_tokens)?;
        if self.buffer_tokens < self.batch_tokens {
            return bad(format!(
                "expected a buffer of at least one batch of {} tokens, found {}",
                self.batch_tokens, self.buffer_tokens
            ));
        }
        if self.delivered > self.tokens || !self.delivered.is_multiple_of(self.batch_tokens as u64) {
            let expected = format!("whole batches of {}, at most {} tokens,", self.batch_tokens, self.tokens);
            return bad(format!("expected {expected} to be delivered already, found {}", self.delivered));
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
    /// Those of the other hook, `[n, width_out]`.
    pub y: Vec<f32>,
    /// Rows.
    pub n: usize,
    /// Numbers in a row.
    pub width: usize,
    /// Numbers in a row of the other hook; 0 without one.
    pub width_out: usize,
    /// Token ids `[n]`.
    pub token_ids: Vec<u32>,
    /// Document numbers `[n]`.
    pub documents: Vec<u64>,
    /// Positions in their context windows `[n]`.
    pub positions: Vec<u32>,
    /// The sum of what the visitor of [`shuffled`] returned.
    pub sum: f64,
}

/// A stream of batches. Dropping it stops the threads behind it.
pub struct Batches(Ahead<Result<Batch, StoreError>>);

impl Batches {
    /// A stream of nothing but `error`.
    pub(crate) fn failed(error: StoreError) -> Self {
        Self(Ahead::once(Err(error)))
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

/// All rows of `groups`, in their order.
pub(crate) fn sequential(
    mut groups: RowGroups,
    column: HookColumn,
    dtype: VectorDtype,
    batch_tokens: usize,
) -> Batches {
    let columns = Columns { first: column, second: None };
    let (mut rows, mut taken) = (RowGroup::default(), 0);
    Batches::made_by(move || {
        let mut batch = Filling::new(batch_tokens, columns, dtype);
        while batch.rows() < batch_tokens {
            let left = batch_tokens - batch.rows();
            for (&token, vectors) in rows.tokens.iter().zip(rows.rows()).skip(taken).take(left) {
                batch.put(batch.rows(), token, vectors, &mut None);
                taken += 1;
            }
            if taken == rows.tokens.len() {
                match groups.next() {
                    Some(next) => (rows, taken) = (next?, 0),
                    None => break,
                }
            }
        }
        Ok((batch.rows() > 0).then(|| batch.finish()))
    })
}

/// Shuffled batches, made ahead on threads of their own, with each token's vectors, that of the hook `[width]` and that of the
/// other `[width_out]`, handed to `visit` as soon as they are decoded and still in the cache, to be changed or measured, on a
/// thread behind the stream, batch by batch and the tokens of one in any order. [`Batch::sum`] adds up what `visit` returns, in
/// the order of the tokens.
///
/// What is [shuffled on disk](Activations::permutation) comes in its order, each epoch from another row on. Otherwise groups of
/// rows come in a random order into a buffer, and rows are drawn from it at random. Every row of an epoch comes exactly once.
/// The batches depend on the activations and the plan alone. Every batch holds `batch_tokens` rows, but for
/// the last where `plan.tokens` is no multiple. The first error, a plan that cannot work among them, ends the stream.
pub fn shuffled(
    activations: Arc<dyn Activations>,
    plan: BatchPlan,
    visit: impl FnMut(&mut [f32], &mut [f32]) -> f64 + Send + 'static,
) -> Batches {
    visited(activations, plan, Some(Box::new(visit)))
}

/// The same, of which nothing may be done to the vectors.
pub(crate) fn visited(activations: Arc<dyn Activations>, plan: BatchPlan, visit: Visit) -> Batches {
    let checked = plan.check(activations.tokens()).and_then(|()| Columns::of(&*activations, &plan));
    let columns = match checked {
        Ok(columns) => columns,
        Err(error) => return Batches::failed(error),
    };
    // Where it begins may have to be read first: that is done over there too.
    let mut mixer = None;
    let mut parts = Some((activations, visit));
    Batches::made_by(move || {
        if let Some((activations, visit)) = parts.take() {
            mixer = Some(match activations.permutation() {
                Some(rows) => Mixer::Circle(Box::new(Circle::new(rows, columns, plan, visit)?)),
                None => Mixer::Pool(Box::new(Buffered::new(activations, columns, plan, visit)?)),
            });
        }
        match &mut mixer {
            Some(Mixer::Circle(circle)) => circle.next_batch(),
            Some(Mixer::Pool(buffered)) => buffered.next_batch(),
            None => Ok(None),
        }
    })
}

/// Where batches come from.
enum Mixer {
    Circle(Box<Circle>),
    Pool(Box<Buffered>),
}

/// Draws batches from a buffer that is refilled with groups of rows, epoch after epoch.
struct Buffered {
    plan: BatchPlan,
    course: Course,
    rows: Pending,
    /// Tokens still to deliver.
    left: u64,
}

impl Buffered {
    fn new(
        activations: Arc<dyn Activations>,
        columns: Columns,
        plan: BatchPlan,
        visit: Visit,
    ) -> Result<Self, StoreError> {
        let sizes = activations.group_sizes(&plan, 0);
        let largest = sizes.iter().copied().max().unwrap_or(0);
        let capacity = plan.buffer_tokens.max(plan.batch_tokens + largest);
        let capacity = capacity.min(sizes.iter().sum());
        let dtype = activations.schema().dtype;
        let row_bytes = columns.widths().map(|width| width * dtype.bytes());
        let mut buffer = Buffer::with_capacity(capacity, row_bytes);

        let (course, waiting) = Course::start(activations.clone(), plan).after(plan.delivered);
        // Of what came before, what waits; then all that comes.
        let numbers = waiting.groups().chain(course.added()..);
        let mut groups = activations.read(&plan, Box::new(numbers));
        waiting.restore(&mut groups, &mut buffer)?;
        let batch = Filling::new(0, columns, dtype);
        let rows = Pending { buffer, groups, batch, visit };
        Ok(Self { plan, course, rows, left: plan.tokens - plan.delivered })
    }

    fn next_batch(&mut self) -> Result<Option<Batch>, StoreError> {
        let most = self.plan.batch_tokens;
        let n = usize::try_from(self.left).map_or(most, |left| left.min(most));
        if n == 0 {
            return Ok(None);
        }
        self.rows.batch = self.rows.batch.another(n);
        self.course.deliver(n, &mut self.rows)?;
        self.left -= n as u64;
        Ok(Some(self.rows.batch.finish()))
    }
}

/// The rows that the course is about: they go from their groups through the buffer to a batch.
struct Pending {
    buffer: Buffer,
    groups: RowGroups,
    batch: Filling,
    visit: Visit,
}

impl Pool for Pending {
    fn len(&self) -> usize {
        self.buffer.len()
    }

    fn add(&mut self, _: usize) -> Result<(), StoreError> {
        self.buffer.push(&self.groups.next().expect("all groups of all epochs come")?);
        Ok(())
    }

    fn draw(&mut self, n: usize, rng: &mut ChaCha8Rng) {
        let drawn = self.buffer.draw(n, rng);
        for (token, vectors) in drawn.rows() {
            self.batch.put(self.batch.rows(), token, vectors, &mut self.visit);
        }
    }
}
