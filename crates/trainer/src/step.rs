//! One training step, behind a trait: the loop hands in a batch and learns what happened.
//!
//! [`AutodiffStep`] does it with burn's autodiff, for every architecture on every device. [`FusedStep`] computes the
//! same as one operation, where it can.

mod autodiff;
mod clip;
mod fused;
mod unit_decoder;

use burn::tensor::{Device, Tensor};
use monosema_core::Seed;
use monosema_sae::Sae;
use serde::{Deserialize, Serialize};

pub use monosema_kernels::{Path, Precision};

pub use self::{autodiff::AutodiffStep, fused::FusedStep};
use crate::{Rates, TrainPlan};

/// Which step trains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// [`FusedStep`] where architecture and device allow it, [`AutodiffStep`] elsewhere. They differ by rounding.
    #[default]
    Auto,
    /// [`AutodiffStep`].
    Autodiff,
}

/// The step that `plan` asks for on `device` (plain, without autodiff), with weights drawn from `seed`; and what it is
/// called.
pub fn begin(plan: &TrainPlan, seed: Seed, device: &Device) -> (Box<dyn TrainStep>, &'static str) {
    let init = |device: &Device| Sae::init(&plan.architecture, plan.size(), seed, device);
    if plan.is_fused(device)
        && let Some(step) = FusedStep::new(init(device), plan, device)
    {
        return (Box::new(step), "fused");
    }
    (Box::new(AutodiffStep::new(init(&device.clone().autodiff()), plan)), "autodiff")
}

/// What turns a batch into better parameters: loss, gradients, clipping, optimiser.
pub trait TrainStep {
    /// One step on `x [n, d_in]`, activations already scaled, on the plain device that the trainer runs on.
    fn step(&mut self, x: Tensor<2>, rates: Rates) -> StepStats;

    /// The parameters as they are now.
    fn sae(&self) -> Sae;
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
