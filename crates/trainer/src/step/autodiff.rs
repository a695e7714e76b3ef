//! The step that works for every architecture: burn's autodiff and burn's Adam.

use burn::{
    optim::{AdamConfig, GradientsParams, ModuleOptimizer},
    tensor::Tensor,
};
use monosema_sae::Sae;

use super::{StepStats, TrainStep, clip::clip_norm, unit_decoder};
use crate::{Rates, TrainPlan};

/// Autodiff, global clipping, Adam.
pub struct AutodiffStep {
    /// Present between steps; the optimiser takes it and gives it back.
    sae: Option<Sae>,
    optimiser: ModuleOptimizer,
    grad_clip: f64,
    keeps_unit_decoder: bool,
}

impl AutodiffStep {
    /// Begins to train `sae`, which must be on an autodiff device, with the plan's optimiser.
    pub fn new(sae: Sae, plan: &TrainPlan) -> Self {
        let [beta_1, beta_2] = plan.adam_betas;
        let adam = AdamConfig::new()
            .with_beta_1(beta_1 as f32)
            .with_beta_2(beta_2 as f32)
            .with_epsilon(plan.adam_eps as f32);
        let keeps_unit_decoder = sae.config().keeps_unit_decoder();
        Self { sae: Some(sae), optimiser: adam.init(), grad_clip: plan.grad_clip, keeps_unit_decoder }
    }
}

impl TrainStep for AutodiffStep {
    fn step(&mut self, x: Tensor<2>, rates: Rates) -> StepStats {
        let sae = self.sae.take().expect("it is given back at the end of every step");
        let loss = sae.loss(x.autodiff(), rates.l1);
        let fired = count_active(loss.acts.inner());
        let (total, squared_error, penalty) = (loss.total, loss.squared_error.inner(), loss.penalty.inner());
        let mut gradients = GradientsParams::from_grads(total.backward(), &sae);
        if self.keeps_unit_decoder {
            unit_decoder::project(&sae, &mut gradients);
        }
        let grad_norm = clip_norm(&sae, &mut gradients, self.grad_clip);
        let sae = self.optimiser.step(rates.lr, sae, gradients);
        self.sae = Some(if self.keeps_unit_decoder { unit_decoder::normalise(sae) } else { sae });
        StepStats { loss: total.inner(), squared_error, penalty, grad_norm, fired }
    }

    fn sae(&self) -> Sae {
        self.sae.clone().expect("it is given back at the end of every step")
    }
}

/// `acts [n, d_sae]`, none negative → on how many tokens each latent is active, `[d_sae]`.
fn count_active(acts: Tensor<2>) -> Tensor<1> {
    acts.greater_scalar(0.0).float().sum_dim(0).squeeze_dim(0)
}
