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
    /// When the last one was there.
    last: Instant,
    /// What it took, of all members together.
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
        if let Some(every) = self.every {
            // Nobody waits for the disk.
            if self.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
                return Ok(());
            }
            self.finish();
            if self.last.elapsed() < every.max(self.cost * COST) {
                return Ok(());
            }
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
        Ok(())
    }

    /// Waits until what is being written is there.
    pub(crate) fn finish(&mut self) {
        match self.writing.take().map(JoinHandle::join) {
            None => {}
            Some(Ok(Ok(cost))) => (self.cost, self.last) = (cost, Instant::now()),
            Some(Ok(Err(error))) => {
                self.last = Instant::now();
                tracing::warn!(
                    "train: goes on without a new checkpoint, which could not be written: {error:#}"
                );
            }
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}
