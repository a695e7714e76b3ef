//! One training loop for every dictionary.
//!
//! [`TrainPlan::resolve`] checks a [`TrainConfig`] against a store of activations and fills in every derived
//! number; [`train`] then makes a dictionary of it: activation scale, shuffled batches, steps, logs, export. What
//! happens within a step is behind [`step::TrainStep`]; the loop does not know how gradients come about.
//!
//! Architecture invariant: this crate knows no language model, and no architecture by name. An architecture
//! supplies mathematics, never a loop.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod checkpoint;
mod config;
pub mod conformance;
mod error;
mod fit;
mod found;
mod load;
mod logs;
mod member;
mod plan;
mod recipe;
mod report;
mod resample;
mod sample;
mod saver;
mod schedule;
mod seal;
pub mod step;
pub mod sweep;
pub mod sweep_page;
mod tensorboard;
mod train;
mod watch;
mod window;

pub use config::{
    BDecInit, Betas, DecayShape, DecoderNorm, GradClip, LrScaling, Normalize, Numbers, Optimizer, Span,
    TrainConfig, Width,
};
pub use error::TrainError;
pub use found::{Diverged, Found, own_names, tidy};
pub use load::{TrainBatch, load};
pub use logs::{DensityRecord, Logs, Record, SpeedRecord, Training};
pub use plan::{ResampleSteps, StoreFacts, TrainPlan};
pub use recipe::Recipe;
pub use sample::{Estimates, Sample};
pub use schedule::{AnnealingSteps, KWarmup, Rates, Schedule};
pub use train::{Job, Outcome, TrainSummary, train};
pub use window::Density;
