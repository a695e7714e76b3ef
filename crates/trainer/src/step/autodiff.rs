//! The step that works for every architecture: burn's autodiff, over a batch at once or in parts.

use burn::{
    module::Module,
    optim::{GradientsAccumulator, GradientsParams},
    tensor::Tensor,
};
use monosema_sae::{Now, Sae, Weights};

use super::{StepState, StepStats, TrainStep, clip::clip_norm, optimiser::Optimiser, unit_decoder};
use crate::{
    Rates, TrainBatch, TrainPlan,
    config::{DecoderNorm, GradClip},
};

/// Under which name a state has the number of steps.
const TIME: &str = "time";

/// Autodiff, global clipping, the plan's optimiser.
pub struct AutodiffStep {
    /// Present between steps; the optimiser takes it and gives it back.
    sae: Option<Sae>,
    optimiser: Optimiser,
    grad_clip: GradClip,
    unit_decoder: bool,
    micro_batch_tokens: usize,
}

impl AutodiffStep {
    /// Begins to train `sae`, which must be on an autodiff device, with the plan's optimiser.
    pub fn new(sae: Sae, plan: &TrainPlan) -> Self {
        Self {
            optimiser: Optimiser::new(&sae, plan),
            sae: Some(sae),
            grad_clip: plan.grad_clip,
            unit_decoder: plan.decoder == DecoderNorm::Unit,
            micro_batch_tokens: plan.micro_batch_tokens,
        }
    }

    fn now(&self) -> &Sae {
        self.sae.as_ref().expect("it is given back at the end of every step")
    }
}

/// Gradients and figures of the parts of a batch so far.
struct Parts {
    gradients: GradientsAccumulator<Sae>,
    stats: Option<StepStats>,
}

impl Parts {
    /// Adds those of some tokens, which are `share` of the batch.
    fn add(&mut self, sae: &Sae, x: Tensor<2>, y: Option<Tensor<2>>, now: &Now, share: f64) {
        let x = x.autodiff();
        let y = y.map_or_else(|| x.clone(), Tensor::autodiff);
        let loss = sae.loss(x, y, now);
        let fired = count_active(loss.acts.inner());
        let of_batch = |value: Tensor<1>| if share < 1.0 { value.mul_scalar(share) } else { value };
        let total = of_batch(loss.total);
        let plain = |value: Tensor<1>| of_batch(if value.is_autodiff() { value.inner() } else { value });
        let stats = StepStats {
            loss: total.clone().inner(),
            squared_error: plain(loss.squared_error),
            penalty: plain(loss.penalty),
            grad_norm: fired.zeros_like(),
            fired,
            rest: loss.rest.map(plain),
            smallest: loss.smallest.map(plain),
            next_penalty: loss.next_penalty.map(plain),
        };
        self.gradients.accumulate(sae, GradientsParams::from_grads(total.backward(), sae));
        self.stats = Some(match self.stats.take() {
            Some(before) => sum(before, stats),
            None => stats,
        });
    }
}

impl TrainStep for AutodiffStep {
    fn step(&mut self, batch: &TrainBatch, rates: Rates, dead: Option<Tensor<1>>) -> StepStats {
        let sae = self.sae.take().expect("it is given back at the end of every step");
        let Rates { sparsity, p, next_p, k, .. } = rates;
        let now = Now { sparsity, p, next_p, k, dead: dead.map(Tensor::autodiff) };
        let n = batch.x.dims()[0];
        let mut parts = Parts { gradients: GradientsAccumulator::new(), stats: None };
        for start in (0..n).step_by(self.micro_batch_tokens) {
            let rows = (n - start).min(self.micro_batch_tokens);
            let part = |tensor: &Tensor<2>| tensor.clone().narrow(0, start, rows);
            parts.add(&sae, part(&batch.x), batch.y.as_ref().map(part), &now, rows as f64 / n as f64);
        }
        let mut gradients = parts.gradients.grads();
        if self.unit_decoder {
            unit_decoder::project(&sae, &mut gradients);
        }
        let grad_norm = clip_norm(&sae, &mut gradients, self.grad_clip);
        let sae = self.optimiser.step(sae, &mut gradients, rates.lr).constrained();
        let sae = if self.unit_decoder { unit_decoder::normalise(sae) } else { sae };
        self.optimiser.average(&sae);
        self.sae = Some(sae);
        let stats = parts.stats.expect("a batch has a token");
        StepStats { grad_norm, ..stats }
    }

    fn sae(&self) -> Sae {
        self.now().clone()
    }

    fn averaged(&self) -> Sae {
        self.optimiser.averaged(self.sae())
    }

    fn state(&self) -> StepState {
        let sae = self.now().valid();
        StepState {
            parameters: sae.to_weights(),
            moments: self.optimiser.moments(&sae).map(|moments| moments.to_weights()),
            average: self.optimiser.has_average().then(|| self.optimiser.averaged(sae).to_weights()),
            numbers: [(TIME.to_owned(), f64::from(self.optimiser.time))].into(),
        }
    }

    fn restore(&mut self, state: StepState) {
        let StepState { parameters, moments, average, numbers } = state;
        let before = self.now();
        let (config, size) = (before.config(), before.size());
        let device = before.affine().w_enc.val().device();
        let plain = device.clone().inner();
        let sae = |weights: Weights| Sae::from_weights(&config, size, weights, &plain);
        self.optimiser.restore(moments.map(sae), average.map(sae), numbers[TIME] as i32);
        self.sae = Some(Sae::from_weights(&config, size, parameters, &device));
    }
}

/// The figures of two parts of a batch together.
fn sum(a: StepStats, b: StepStats) -> StepStats {
    let both = |a: Option<Tensor<1>>, b: Option<Tensor<1>>| a.zip(b).map(|(a, b)| a + b);
    StepStats {
        loss: a.loss + b.loss,
        squared_error: a.squared_error + b.squared_error,
        penalty: a.penalty + b.penalty,
        grad_norm: a.grad_norm,
        fired: a.fired + b.fired,
        rest: both(a.rest, b.rest),
        smallest: both(a.smallest, b.smallest),
        next_penalty: both(a.next_penalty, b.next_penalty),
    }
}

/// `acts [n, d_sae]`, none negative → on how many tokens each latent is active, `[d_sae]`.
fn count_active(acts: Tensor<2>) -> Tensor<1> {
    acts.greater_scalar(0.0).float().sum_dim(0).squeeze_dim(0)
}
