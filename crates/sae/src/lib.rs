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
mod aux_k;
#[cfg(test)]
mod conformance;
mod dictionary;
mod error;
pub mod formats;
mod init;
mod largest;
mod loss;
mod normalize;
pub mod same_function;
mod size;
mod weights;

pub use affine::{Affine, Scales};
pub use architecture::{Annealing, Architecture, Sae, SaeConfig};
pub use aux_k::AuxK;
pub use dictionary::{Description, Dictionary, Metadata};
pub use error::SaeError;
pub use init::Init;
pub use loss::{Loss, Now};
pub use normalize::{LAYER_NORM_EPSILON, Normalization};
pub use size::{Output, Size};
pub use weights::Weights;
