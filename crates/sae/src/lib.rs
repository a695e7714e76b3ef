//! Sparse autoencoders: architectures, losses, initialisation, file formats.
//!
//! A [`Sae`] is one module for training and for inference. Trained, it is exported into a [`Dictionary`]:
//! frozen, with unit decoder rows and the activation scale folded in, so that it takes activations as the
//! model makes them. A dictionary is a directory on disk ([`mod@formats`]).
//!
//! A new architecture is one file in `architecture/` and one line in `architectures!`; a new format one file
//! in `formats/` and one line in `formats!`.
//!
//! Architecture invariant: this crate knows no optimiser, no schedule, no Arrow and no language model.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod affine;
pub mod architecture;
#[cfg(test)]
mod conformance;
mod dictionary;
mod error;
pub mod formats;
mod largest;
mod weights;

pub use affine::Affine;
pub use architecture::{Architecture, Loss, Sae, SaeConfig, Size};
pub use dictionary::{Description, Dictionary, Metadata};
pub use error::SaeError;
pub use weights::Weights;
