//! What a step is told: rates, the optimiser, how to go about it.

use serde::{Deserialize, Serialize};

/// Added to ‖W_dec,i‖₂² before the root is taken. Keeps the gradient of a norm finite at a row of zeros; too small to
/// change a norm of 1e-11 or more.
pub const NORM_TINY: f32 = 1e-30;

/// Norms below this count as this when rows are divided by them (SAELens does the same).
pub const SMALLEST_NORM: f32 = 1e-8;

/// Errors whose spread is less than this part of their squares are all the same, to the rounding of f32: AuxK has nothing to explain.
pub const NO_SPREAD: f64 = 1e-12;

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

/// How parameters move along their gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Optimiser {
    /// Adam (Kingma and Ba 2015, algorithm 1).
    #[default]
    Adam,
    /// By `lr`, against the sign of the first moment, m = β₁m + (1 − β₁)g (Bernstein et al. 2018, "Signum"). Second moments are
    /// left alone, and may be empty.
    Signum,
}

/// What a step is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// λ, whatever the penalty.
    pub l1: f64,
    /// p of [`Penalty::Power`](crate::Penalty::Power).
    pub p: f64,
    /// Learning rate.
    pub lr: f64,
    /// What moves the parameters.
    pub optimiser: Optimiser,
    /// Of Adam; the first of Signum too.
    pub betas: [f64; 2],
    /// Of Adam.
    pub eps: f64,
    /// Every parameter is multiplied by 1 − lr · this before it moves (Loshchilov and Hutter 2019).
    pub weight_decay: f64,
    /// How much of the parameters' moving average a step leaves of it, where there is one.
    pub ema_decay: f64,
    /// The norm that all gradients together are clipped to; may be infinite.
    pub grad_clip: f64,
    /// Steps taken so far, this one included.
    pub time: i32,
    /// How to multiply.
    pub precision: Precision,
    /// Forces a path, if the form has it.
    pub path: Option<Path>,
}

impl Default for Settings {
    /// Adam with the usual constants and no penalty, decay or clipping; the first step, which does not move.
    fn default() -> Self {
        Self {
            l1: 0.0,
            p: 1.0,
            lr: 0.0,
            optimiser: Optimiser::Adam,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.0,
            ema_decay: 0.0,
            grad_clip: f64::INFINITY,
            time: 1,
            precision: Precision::Auto,
            path: None,
        }
    }
}
