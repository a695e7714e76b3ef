//! One training step, behind a trait: the loop hands in a batch and learns what happened.
//!
//! [`AutodiffStep`] does it with burn's autodiff for every architecture. A step that computes the same gradients
//! in another way (on the active latents alone, say) is another implementation; nothing else changes.

mod autodiff;
mod clip;

use burn::tensor::Tensor;
use monosema_sae::Sae;

pub use self::autodiff::AutodiffStep;
use crate::Rates;

/// What turns a batch into better parameters: loss, gradients, clipping, optimiser.
pub trait TrainStep {
    /// One step on `x [n, d_in]`, activations already scaled, on the plain device that the trainer runs on.
    fn step(&mut self, x: Tensor<2>, rates: Rates) -> StepStats;

    /// The parameters as they are now.
    fn sae(&self) -> &Sae;
}

/// What happened in a step. Everything stays on the device, so that nobody has to wait for it: the loop reads it
/// when it logs. Scalars have shape `[1]`.
#[derive(Clone, Debug)]
pub struct StepStats {
    /// The loss before the step.
    pub loss: Tensor<1>,
    /// Mean over tokens of ‖x − x̂‖².
    pub squared_error: Tensor<1>,
    /// Mean over tokens of the sparsity penalty, before its coefficient.
    pub penalty: Tensor<1>,
    /// Norm of the whole gradient before it was clipped.
    pub grad_norm: Tensor<1>,
    /// On how many tokens of the batch each latent was active, `[d_sae]`.
    pub fired: Tensor<1>,
}
