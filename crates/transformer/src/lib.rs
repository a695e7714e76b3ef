//! Frozen decoder-only language models on burn that expose hook points.
//!
//! [`Checkpoint::open`] reads the headers of a Hugging Face directory or of a GGUF file and
//! [`Checkpoint::load`] its weights, all or nothing. The [`LanguageModel`] runs over a batch of tokens while a
//! [`Tap`] looks at, or replaces, the residual stream and what is written to it: harvesting, splicing and
//! ablating are all that one act.
//!
//! Architecture invariant: this crate knows no dictionaries, no activation store and no corpus. A family of
//! models ([`families`]) says which parts its models are put together from; the parts (`blocks`), the order of
//! execution and the hooks (`pass`) are the same for all.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod alike;
mod blocks;
mod checkpoint;
mod error;
pub mod families;
mod formats;
mod host;
mod info;
mod loss;
mod model;
mod pass;
mod precision;
mod tap;
mod weights;

pub use blocks::{Activation, RopeScaling};
pub use checkpoint::Checkpoint;
pub use error::ModelError;
pub use families::{Family, llama};
pub use formats::GGUF_SPLITS;
pub use info::{BlockInfo, ModelInfo};
pub use loss::{Loss, Tiles, losses, next_token_losses};
pub use model::{LanguageModel, Paused};
pub use precision::Precision;
pub use tap::{Capture, NoTap, Replace, Tap};
