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
mod memory;
mod threshold;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

pub use self::{
    extension::{step, supports},
    memory::{Last, Memory, Phases},
    threshold::Threshold,
};

/// The mathematics that a step computes: acts = activation(input·W_enc + b_enc), x̂ = acts·W_dec + b_dec, and
/// loss = mean over tokens of ‖x − x̂‖² + λ Σᵢ actsᵢ‖W_dec,i‖₂.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Form {
    /// What makes activations of pre-activations.
    pub activation: Activation,
    /// Whether the input is x − b_dec, instead of x.
    pub apply_b_dec_to_input: bool,
    /// Whether rows of W_dec keep a norm of 1: what points along them is taken from their gradients, and after the step
    /// they are divided by their norms (Bricken et al. 2023, appendix "Neuron resampling and the constraint").
    pub unit_decoder: bool,
}

/// Which latents are active. The activation of those is their pre-activation, and its gradient passes through them alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Those with positive pre-activations.
    Relu,
    /// Of those, the `k` largest of each token (Gao et al. 2024, section 2.3).
    TopK {
        /// 1 or more.
        k: usize,
    },
    /// Of those, the `k · n` largest of a batch of n tokens (Bussmann et al. 2024).
    BatchTopK {
        /// 1 or more.
        k: usize,
    },
}

/// Added to ‖W_dec,i‖₂² before the root is taken. Keeps the gradient of a norm finite at a row of zeros; too small to
/// change a norm of 1e-11 or more.
pub const NORM_TINY: f32 = 1e-30;

/// Norms below this count as this when rows are divided by them (SAELens does the same).
pub const SMALLEST_NORM: f32 = 1e-8;

/// Added to the norm that is divided by when gradients are clipped, as PyTorch's `clip_grad_norm_` does.
pub const CLIP_EPSILON: f64 = 1e-6;

/// How a step goes on after encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// By matrix products over all latents.
    Dense,
    /// Over the active latents.
    Sparse,
}

impl Path {
    /// From this share of active latents on, products over all of them are faster on the CPU.
    const DENSE: f64 = 0.2;

    /// The faster one on the CPU for this share of active latents.
    pub fn for_share(share: f64) -> Self {
        if share >= Self::DENSE { Self::Dense } else { Self::Sparse }
    }
}

/// How numbers are multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// On the CPU, encoding is in bf16 first where the processor has instructions for that, to find out which latents may be
    /// active, and those again in f32, so that the result is that of f32. All else like `F32`.
    #[default]
    Auto,
    /// In f32; matrix products of GPUs in TF32 where burn finds that faster.
    F32,
    /// In bf16, from f32 and summed in f32, in every matrix product of the step. Not on the CPU.
    Bf16,
}

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

/// What a step is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// λ.
    pub l1: f64,
    /// Learning rate.
    pub lr: f64,
    /// Of Adam.
    pub betas: [f64; 2],
    /// Of Adam.
    pub eps: f64,
    /// The norm that all gradients together are clipped to.
    pub grad_clip: f64,
    /// Steps taken so far, this one included.
    pub time: i32,
    /// How to multiply.
    pub precision: Precision,
    /// Forces a path.
    pub path: Option<Path>,
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
