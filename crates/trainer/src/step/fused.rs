//! The step as one operation over all it does, where there is one for the architecture and the device.

use burn::tensor::{Device, Tensor};
use monosema_kernels::{self as kernels, Form, Memory, Path, Phases, Settings, State};
use monosema_sae::{Sae, SaeConfig};

use super::{StepStats, TrainStep};
use crate::{Rates, TrainPlan};

/// [`kernels::step`].
pub struct FusedStep {
    config: SaeConfig,
    form: Form,
    /// Present between steps; a step takes it and gives it back, and changes it in place.
    state: Option<State>,
    /// Of the next step, but for what the schedule says.
    settings: Settings,
    memory: Memory,
    /// The path of the last step, as far as it is known.
    path: Option<Path>,
}

impl FusedStep {
    /// Begins to train `sae` with the plan's optimiser; `None` if there is no fused step for its architecture or for
    /// `device`.
    pub fn new(sae: Sae, plan: &TrainPlan, device: &Device) -> Option<Self> {
        let config = sae.config();
        let form = config.form().filter(|form| kernels::supports(device, *form))?;
        let settings = Settings {
            l1: 0.0,
            lr: 0.0,
            betas: plan.adam_betas,
            eps: plan.adam_eps,
            grad_clip: plan.grad_clip,
            time: 0,
            precision: plan.precision,
            path: None,
        };
        let state = Some(State::new(sae.affine().to_parameters()));
        Some(Self { config, form, state, settings, memory: Memory::default(), path: None })
    }

    /// Forces the path of every step to come; `None` leaves it to the density.
    pub fn force(&mut self, path: Option<Path>) {
        self.settings.path = path;
    }

    /// Where the time of the last step went.
    pub fn phases(&self) -> Phases {
        self.memory.last().phases
    }
}

impl TrainStep for FusedStep {
    fn step(&mut self, x: Tensor<2>, rates: Rates) -> StepStats {
        let state = self.state.take().expect("it is given back at the end of every step");
        let settings = &mut self.settings;
        settings.time += 1;
        (settings.l1, settings.lr) = (rates.l1, rates.lr);
        let (state, found) = kernels::step(state, x, self.form, *settings, &self.memory);
        self.state = Some(state);
        let last = self.memory.last();
        if let Some(path) = last.path.filter(|path| self.path != Some(*path)) {
            let (time, share) = (settings.time, 100.0 * last.share);
            tracing::info!("train: step {time} takes the {path:?} path, {share:.2} % of latents active");
            self.path = Some(path);
        }
        let number = |i| found.numbers.clone().narrow(0, i, 1);
        let (squared_error, penalty) = (number(0), number(1));
        StepStats {
            loss: squared_error.clone() + penalty.clone() * rates.l1,
            squared_error,
            penalty,
            grad_norm: number(2),
            fired: found.fired,
        }
    }

    fn sae(&self) -> Sae {
        let state = self.state.as_ref().expect("it is given back at the end of every step");
        Sae::from_parameters(&self.config, state.parameters.clone())
    }
}
