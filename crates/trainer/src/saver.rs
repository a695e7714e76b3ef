//! When checkpoints are written: on a thread of their own, at most so often that they take a fiftieth of the time.

use std::{
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{TrainError, member::Member};

/// The time between two checkpoints is so many times what one takes, at least.
const COST: u32 = 50;

/// Writes checkpoints.
pub(crate) struct Saver {
    /// Time between two of them; none for one after every line of the logs.
    every: Option<Duration>,
    last: Instant,
    /// What the last one took, of all members together.
    cost: Duration,
    writing: Option<JoinHandle<Result<Duration, TrainError>>>,
}

impl Saver {
    /// One that writes every so many seconds, or if that is 0 whenever it is asked to.
    pub(crate) fn new(seconds: u64) -> Self {
        let every = (seconds > 0).then(|| Duration::from_secs(seconds));
        Self { every, last: Instant::now(), cost: Duration::ZERO, writing: None }
    }

    /// Writes checkpoints of all `members` if it is time to; right after a line of the logs.
    pub(crate) fn after_log(&mut self, members: &[Member], done: u64) -> Result<(), TrainError> {
        let wait = self.every.map(|every| every.max(self.cost * COST));
        if wait.is_some_and(|wait| self.last.elapsed() < wait) {
            return Ok(());
        }
        self.finish();
        let began = Instant::now();
        let copied: Vec<_> = members
            .iter()
            .map(|m| Ok((m.checkpoint(done)?, m.out.clone())))
            .collect::<Result<_, TrainError>>()?;
        let copying = began.elapsed();
        self.writing = Some(thread::spawn(move || {
            let began = Instant::now();
            for (checkpoint, out) in copied.into_iter().filter(|(checkpoint, _)| checkpoint.is_finite()) {
                checkpoint.save(&out)?;
            }
            Ok(copying + began.elapsed())
        }));
        self.last = Instant::now();
        Ok(())
    }

    /// Waits until what is being written is there.
    pub(crate) fn finish(&mut self) {
        match self.writing.take().map(JoinHandle::join) {
            None => {}
            Some(Ok(Ok(cost))) => self.cost = cost,
            Some(Ok(Err(error))) => {
                tracing::warn!(
                    "train: goes on without a new checkpoint, which could not be written: {error:#}"
                );
            }
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}
