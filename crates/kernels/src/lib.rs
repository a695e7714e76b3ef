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

use burn::tensor::{Device, Tensor};

pub use self::{
    extension::{step, supports},
    form::{Activation, Aux, Form, Penalty},
    memory::{Last, Memory, Phases},
    settings::{CLIP_EPSILON, NO_SPREAD, NORM_TINY, Optimiser, Path, Precision, SMALLEST_NORM, Settings},
    threshold::Threshold,
};

/// The parameters of a dictionary, or a number for each of them.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// W_enc transposed, so that what belongs to a latent lies together: `[d_sae, d_in]`.
    pub w_enc: Tensor<2>,
    /// `[d_sae, d_out]`.
    pub w_dec: Tensor<2>,
    /// `[d_sae]`.
    pub b_enc: Tensor<1>,
    /// `[d_out]`.
    pub b_dec: Tensor<1>,
    /// What only some forms have.
    pub extras: Extras,
}

/// Parameters that only some forms have; a single number in place of what a form has not.
#[derive(Clone, Debug)]
pub struct Extras {
    /// θ or log θ of [`Activation::JumpRelu`], r_mag of [`Activation::Gated`], `[d_sae]`.
    pub first: Tensor<1>,
    /// b_mag of [`Activation::Gated`], `[d_sae]`.
    pub second: Tensor<1>,
    /// `[d_in, d_out]`, with a skip connection.
    pub w_skip: Tensor<2>,
}

impl Extras {
    /// None of them.
    pub fn none(device: &Device) -> Self {
        let zero = || Tensor::zeros([1], device);
        Self { first: zero(), second: zero(), w_skip: Tensor::zeros([1, 1], device) }
    }
}

impl Parameters {
    /// 0 for each of them.
    pub fn zeros_like(&self) -> Self {
        let Self { w_enc, w_dec, b_enc, b_dec, extras: Extras { first, second, w_skip } } = self;
        Self {
            w_enc: w_enc.zeros_like(),
            w_dec: w_dec.zeros_like(),
            b_enc: b_enc.zeros_like(),
            b_dec: b_dec.zeros_like(),
            extras: Extras {
                first: first.zeros_like(),
                second: second.zeros_like(),
                w_skip: w_skip.zeros_like(),
            },
        }
    }
}

/// What a step changes.
#[derive(Clone, Debug)]
pub struct State {
    /// The dictionary.
    pub parameters: Parameters,
    /// Their gradients in the last step, before clipping.
    pub gradients: Parameters,
    /// The optimiser's first moments.
    pub first: Parameters,
    /// The optimiser's second moments.
    pub second: Parameters,
    /// The moving average of the parameters, if there is one.
    pub average: Option<Parameters>,
}

impl State {
    /// Before the first step, without a moving average.
    pub fn new(parameters: Parameters) -> Self {
        let zeros = || parameters.zeros_like();
        Self { gradients: zeros(), first: zeros(), second: zeros(), average: None, parameters }
    }
}

/// What a step learns from.
#[derive(Clone, Debug)]
pub struct Examples {
    /// `[n, d_in]`.
    pub x: Tensor<2>,
    /// What is to come out, `[n, d_out]`; `None` if it is x.
    pub y: Option<Tensor<2>>,
    /// 1 for every dead latent and 0 for others, `[d_sae]`; `None` if none is, or nobody asks.
    pub dead: Option<Tensor<1>>,
}

impl From<Tensor<2>> for Examples {
    /// Of an autoencoder of which no latent is dead.
    fn from(x: Tensor<2>) -> Self {
        Self { x, y: None, dead: None }
    }
}

/// Whether this processor has instructions for what [`Precision::Auto`] speaks of.
pub fn screens() -> bool {
    cpu::screens()
}

/// What a step found. Means are over tokens, before the step.
#[derive(Clone, Debug)]
pub struct Found {
    /// Mean of ‖y − x̂‖², `[1]`.
    pub squared_error: Tensor<1>,
    /// The same summed over prefixes, which is what the loss holds, `[1]`.
    pub reconstruction: Tensor<1>,
    /// The penalty before its coefficient, `[1]`.
    pub penalty: Tensor<1>,
    /// What else the loss holds, `[1]`.
    pub aux: Tensor<1>,
    /// The gradients' norm before clipping, `[1]`.
    pub grad_norm: Tensor<1>,
    /// On how many tokens each latent was active, `[d_sae]`.
    pub fired: Tensor<1>,
}
