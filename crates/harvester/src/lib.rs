//! Text to residual-stream activations in shards.
//!
//! [`HarvestPlan::resolve`] checks a [`HarvestConfig`] against the model and the text; [`harvest`] runs the model
//! over the text and writes what passes the plan's hooks into a store, sealed at the end; a [`Stream`] hands it to a training
//! instead.
//!
//! Architecture invariant: this crate knows no dictionaries. What is harvested depends on the model, the text and
//! the plan alone; the seed decides in which order rows lie on disk, and nothing else.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod counts;
mod error;
mod forward;
mod harvest;
mod norms;
mod plan;
mod rows;
mod running;
mod stream;
mod windows;
mod writers;

pub use config::HarvestConfig;
pub use counts::Counts;
pub use error::HarvestError;
pub use harvest::{HarvestSummary, harvest};
pub use plan::HarvestPlan;
pub use stream::Stream;
