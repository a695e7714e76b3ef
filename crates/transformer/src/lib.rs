//! Frozen decoder-only language models on burn that expose hook points.
//!
//! [`Checkpoint::open`] reads the headers of a Hugging Face directory or of a GGUF file and
//! [`Checkpoint::load`] its weights, all or nothing. The [`LanguageModel`] runs over a batch of tokens while a
//! [`Tap`] looks at, or replaces, the residual stream and what is written to it: harvesting, splicing and
//! ablating are all that one act.
//!
//! Architecture invariant: this crate knows no dictionaries, no activation store and no corpus. A family of
//! models ([`families`]) supplies its mathematics; the order of execution and the hooks are one driver's.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod activation;
mod attention;
mod checkpoint;
mod embedding;
mod error;
pub mod families;
mod formats;
mod host;
mod linear;
mod loss;
mod model;
mod norm;
mod pass;
mod positions;
mod random;
mod rotary;
mod tap;
mod weights;

pub use activation::Activation;
pub use checkpoint::Checkpoint;
pub use error::ModelError;
pub use families::{Family, gpt2, llama};
pub use loss::{for_each_logit_chunk, logit_chunk_rows, next_token_losses, token_losses};
pub use model::{LanguageModel, ModelInfo};
pub use rotary::RopeScaling;
pub use tap::{Capture, NoTap, Replace, Tap};
