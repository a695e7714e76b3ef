//! The training step of a sparse autoencoder as one operation: encode, select, decode, the error, every gradient,
//! clipping, Adam. Exact: what autodiff computes, to rounding.
//!
//! On the CPU, and on every device that CubeCL compiles for.
//!
//! Of the five matrix products of a dense step only encoding has to be dense. Few latents are active on a token, and
//! only they take part in what follows. While many are (the first steps of a training), products over all of them are
//! faster; [`Path`] is the choice.
//!
//! It does not know architectures, configurations, files or schedules: [`Form`] says what it needs to know of them.

mod cpu;
#[cfg(feature = "cube")]
mod cube;
pub mod extension;
mod form;
mod memory;
mod settings;
mod threshold;

use burn::tensor::Tensor;

pub use self::{
    extension::{step, supports},
    form::{Activation, Aux, Form, Penalty},
    memory::{Last, Memory, Phases},
    settings::{CLIP_EPSILON, NORM_TINY, Optimiser, Path, Precision, SMALLEST_NORM, Settings},
    threshold::Threshold,
};

/// The parameters of a dictionary, or a number for each of them.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// W_enc transposed, so that what belongs to a latent lies together: `[d_sae, d_in]`.
    pub w_enc: Tensor<2>,
    /// `[d_sae, d_in]`.
    pub w_dec: Tensor<2>,
    /// `[d_sae]`.
    pub b_enc: Tensor<1>,
    /// `[d_in]`.
    pub b_dec: Tensor<1>,
}

/// What a step changes.
#[derive(Clone, Debug)]
pub struct State {
    /// The dictionary.
    pub parameters: Parameters,
    /// Their gradients in the last step, before clipping.
    pub gradients: Parameters,
    /// Adam's first moments.
    pub first: Parameters,
    /// Adam's second moments.
    pub second: Parameters,
}

impl State {
    /// Before the first step.
    pub fn new(parameters: Parameters) -> Self {
        let zeros = || {
            let Parameters { w_enc, w_dec, b_enc, b_dec } = &parameters;
            Parameters {
                w_enc: w_enc.zeros_like(),
                w_dec: w_dec.zeros_like(),
                b_enc: b_enc.zeros_like(),
                b_dec: b_dec.zeros_like(),
            }
        };
        Self { gradients: zeros(), first: zeros(), second: zeros(), parameters }
    }
}

/// Whether this processor has instructions for what [`Precision::Auto`] speaks of.
pub fn screens() -> bool {
    cpu::screens()
}

/// What a step found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Mean over tokens of ‖x − x̂‖² before the step, of the penalty before its coefficient, and the gradients' norm before
    /// clipping, `[3]`.
    pub numbers: Tensor<1>,
    /// On how many tokens each latent was active, `[d_sae]`.
    pub fired: Tensor<1>,
}
