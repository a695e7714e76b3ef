//! One training step, behind a trait: the loop hands in a batch and learns what happened.
//!
//! [`AutodiffStep`] does it with burn's autodiff, for every architecture on every device. [`FusedStep`] computes the
//! same as one operation, where it can.

mod autodiff;
mod clip;
mod fused;
mod optimiser;
mod unit_decoder;

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use monosema_sae::{Sae, Weights};
use serde::{Deserialize, Serialize};

pub use monosema_kernels::{Path, Precision};

pub use self::{autodiff::AutodiffStep, fused::FusedStep};
use crate::{Rates, TrainBatch, TrainPlan};

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

/// The step that `plan` asks for on `device` (plain, without autodiff), and what it is called. `b_dec` is what b_dec begins
/// with; nothing for zeros.
pub fn begin(plan: &TrainPlan, b_dec: Vec<f32>, device: &Device) -> (Box<dyn TrainStep>, &'static str) {
    let init = plan.init(b_dec);
    let sae = |device: &Device| Sae::init(&plan.architecture, plan.size, &init, device);
    if plan.is_fused(device)
        && let Some(step) = FusedStep::new(sae(device), plan, device)
    {
        return (Box::new(step), "fused");
    }
    (Box::new(AutodiffStep::new(sae(&device.clone().autodiff()), plan)), "autodiff")
}

/// What turns a batch into better parameters: loss, gradients, clipping, optimiser.
pub trait TrainStep {
    /// One step on a batch, which lies on the plain device that the trainer runs on. `dead [d_sae]` has 1 for every dead
    /// latent, for losses that heed them.
    fn step(&mut self, batch: &TrainBatch, rates: Rates, dead: Option<Tensor<1>>) -> StepStats;

    /// The parameters as they are now.
    fn sae(&self) -> Sae;

    /// Their moving average, where there is one.
    fn averaged(&self) -> Sae {
        self.sae()
    }

    /// All that the steps to come depend on, on the host.
    fn state(&self) -> StepState;

    /// Takes up from there. The state must be of the same plan.
    fn restore(&mut self, state: StepState);
}

/// What a step takes with it to the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepState {
    /// The parameters.
    pub parameters: Weights,
    /// Of each parameter, its optimiser's first and second moment, under its name.
    pub moments: [Weights; 2],
    /// Their moving average, where there is one.
    pub average: Option<Weights>,
    /// What else there is, by name.
    pub numbers: BTreeMap<String, f64>,
}

/// What happened in a step. Everything stays on the device, so that nobody has to wait for it: the loop reads it
/// when it logs. Scalars have shape `[1]`.
#[derive(Clone, Debug)]
pub struct StepStats {
    /// The loss before the step.
    pub loss: Tensor<1>,
    /// Mean over tokens of ‖y − x̂‖².
    pub squared_error: Tensor<1>,
    /// Mean over tokens of the sparsity penalty, before its coefficient.
    pub penalty: Tensor<1>,
    /// Norm of the whole gradient before it was clipped.
    pub grad_norm: Tensor<1>,
    /// On how many tokens of the batch each latent was active, `[d_sae]`.
    pub fired: Tensor<1>,
    /// What else the loss holds, if it can.
    pub rest: Option<Tensor<1>>,
    /// The smallest activation, where the largest of a batch are chosen.
    pub smallest: Option<Tensor<1>>,
    /// The penalty with the exponent to come.
    pub next_penalty: Option<Tensor<1>>,
}
