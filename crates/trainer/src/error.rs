//! What can go wrong in training.

use std::{io, path::PathBuf};

use monosema_core::ManifestError;
use monosema_sae::SaeError;
use monosema_store::StoreError;

/// A training that cannot start, go on or end.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A key of the `[train]` section cannot be used as it is.
    #[error("[train] {key}: expected {expected}, found {found}")]
    Config {
        /// The key.
        key: &'static str,
        /// What it may be, and what to do.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The activations are not those that the plan was made for.
    #[error("{place}: expected {expected}, found {found}; plan again from what is there")]
    OtherActivations {
        /// Where they are.
        place: String,
        /// As planned.
        expected: String,
        /// As it is.
        found: String,
    },
    /// The directory holds a finished dictionary already.
    #[error("{}: holds a finished dictionary; remove it or write elsewhere", directory.display())]
    Sealed {
        /// The directory.
        directory: PathBuf,
    },
    /// A batch is not what was asked for.
    #[error("batch {step}: expected {expected}, found {found}")]
    Batch {
        /// Which batch, from 0.
        step: u64,
        /// What was asked for.
        expected: String,
        /// What came.
        found: String,
    },
    /// Activations that no dictionary can be trained on.
    #[error(
        "the activations cannot be trained on: {reason}; harvest them again (in f32 or bf16 if they were stored as \
         f16, whose largest value is 65,504)"
    )]
    BadActivations {
        /// What is wrong with them.
        reason: String,
    },
    /// The loss is infinite or not a number, or has exploded.
    #[error(
        "training diverged: after step {step} the {what} is {value}. Try a tenth of the learning rate (now {lr:e}), a \
         learning-rate warm-up ([train] lr_warmup = {{ fraction = 0.05 }}), or larger batches; `monosema inspect` on the model \
         shows whether massive activations are among the inputs ([context] skip_first drops those at the start){}",
        kept(last_good.as_ref())
    )]
    Diverged {
        /// The last step before it was seen, from 0.
        step: u64,
        /// Which number.
        what: &'static str,
        /// The number.
        value: f64,
        /// The learning rate at that step.
        lr: f64,
        /// Where the dictionary of the last checkpoint is, if there was one.
        last_good: Option<PathBuf>,
    },
    /// The directory holds an interrupted training of other work.
    #[error(
        "{}: an interrupted training of other work is there; choose another --out, or replace it with --overwrite\nbegun with \
         (there → wanted):{}",
        directory.display(), differences.iter().map(|line| format!("\n  {line}")).collect::<String>()
    )]
    OtherWork {
        /// The directory.
        directory: PathBuf,
        /// What differs, a line each.
        differences: Vec<String>,
    },
    /// The parameters at the end are no dictionary.
    #[error(
        "training diverged: tensor `{tensor}` of the dictionary holds {value} at index {index}, so it is not saved. \
         Try a tenth of the learning rate (now {lr:e}), or a learning-rate warm-up ([train] lr_warmup = {{ fraction = 0.05 }}){}",
        kept(last_good.as_ref())
    )]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// Which of its values, counted row by row.
        index: usize,
        /// The value.
        value: f32,
        /// The learning rate, without warm-up and decay.
        lr: f64,
        /// Where the dictionary of the last checkpoint is, if there was one.
        last_good: Option<PathBuf>,
    },
    /// The same training diverged before, and would again.
    #[error(
        "{error}\n{}: it was not trained again, for it would come to the same; to do so nevertheless, use --overwrite",
        directory.display()
    )]
    DivergedBefore {
        /// The directory, which says so.
        directory: PathBuf,
        /// What it said.
        error: String,
    },
    /// What is in the directory is not a training's.
    #[error("{}: {reason}; choose another --out, or replace it with --overwrite", directory.display())]
    Foreign {
        /// The directory.
        directory: PathBuf,
        /// What is there.
        reason: String,
    },
    /// Another training that shares the pass over the activations could not go on.
    #[error("{}: broken off together with {}; run it again to go on", directory.display(), with.display())]
    BrokenOff {
        /// The directory.
        directory: PathBuf,
        /// That of the other.
        with: PathBuf,
    },
    /// The activations cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The dictionary cannot be written.
    #[error(transparent)]
    Sae(#[from] SaeError),
    /// The dictionary cannot be sealed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The disk failed.
    #[error("{}: cannot be read or written", path.display())]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl TrainError {
    /// Whether the training itself went wrong, not what is around it: trained again, it would come to the same.
    pub fn is_divergence(&self) -> bool {
        matches!(self, Self::Diverged { .. } | Self::NotFinite { .. } | Self::DivergedBefore { .. })
    }
}

/// Where what was good before it diverged is.
fn kept(last_good: Option<&PathBuf>) -> String {
    last_good.map_or(String::new(), |place| {
        format!("; the dictionary of the last checkpoint before is in {}", place.display())
    })
}

/// `map_err(io(path))`.
pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> TrainError {
    let path = path.into();
    |source| TrainError::Io { path, source }
}
