//! One training loop for every dictionary.
//!
//! [`TrainPlan::resolve`] checks a [`TrainConfig`] against a store of activations and fills in every derived
//! number; [`train`] then makes a dictionary of it: activation scale, shuffled batches, steps, logs, export. What
//! happens within a step is behind [`step::TrainStep`]; the loop does not know how gradients come about.
//!
//! Architecture invariant: this crate knows no language model, and no architecture by name. An architecture
//! supplies mathematics, never a loop.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
pub mod conformance;
mod error;
mod fit;
mod load;
mod logs;
mod plan;
mod sample;
mod schedule;
pub mod step;
mod tensorboard;
mod train;
mod window;

pub use config::{Numbers, Recipe, TrainConfig, Width};
pub use error::TrainError;
pub use fit::{Fitted, fit};
pub use load::{TrainBatch, load};
pub use logs::{Logs, Record};
pub use plan::{StoreFacts, TrainPlan};
pub use sample::Sample;
pub use schedule::{Rates, Schedule};
pub use train::{TrainSummary, train};
