//! The step as one operation over all it does, where there is one for the architecture and the device.

use burn::tensor::{Device, Tensor};
use monosema_kernels::{self as kernels, Form, Last, Memory, Parameters, Path, Phases, Settings, State};
use monosema_sae::{Sae, SaeConfig, Size, Weights};

use super::{StepState, StepStats, TrainStep};
use crate::{Rates, TrainBatch, TrainPlan};

/// Under which names a state has what the step remembers.
const TIME: &str = "time";
const SHARE: &str = "share";
const FLOOR: &str = "floor";
const MOST: &str = "most";

/// [`kernels::step`].
pub struct FusedStep {
    config: SaeConfig,
    size: Size,
    form: Form,
    device: Device,
    /// Present between steps; a step takes it and gives it back, and changes it in place.
    state: Option<State>,
    /// Of the next step, but for what the schedule says.
    settings: Settings,
    memory: Memory,
    /// The path of the last step, as far as it is known.
    path: Option<Path>,
}

impl FusedStep {
    /// Begins to train `sae` with the plan's optimiser; `None` if there is no fused step for the plan or for `device`.
    pub fn new(sae: Sae, plan: &TrainPlan, device: &Device) -> Option<Self> {
        let form = plan.form().filter(|form| kernels::supports(device, *form))?;
        let settings = Settings {
            l1: 0.0,
            lr: 0.0,
            betas: plan.adam_betas.0,
            eps: plan.adam_eps,
            grad_clip: plan.grad_clip.limit(),
            time: 0,
            precision: plan.precision,
            path: None,
        };
        let state = Some(State::new(sae.to_parameters()));
        let (config, size, device) = (sae.config(), sae.size(), device.clone());
        Some(Self { config, size, form, device, state, settings, memory: Memory::default(), path: None })
    }

    /// Forces the path of every step to come; `None` leaves it to the density.
    pub fn force(&mut self, path: Option<Path>) {
        self.settings.path = path;
    }

    /// Where the time of the last step went.
    pub fn phases(&self) -> Phases {
        self.memory.last().phases
    }

    fn now(&self) -> &State {
        self.state.as_ref().expect("it is given back at the end of every step")
    }

    /// Parameters, or a number for each, as a module.
    fn as_sae(&self, parameters: &Parameters) -> Sae {
        Sae::from_parameters(&self.config, self.size, parameters.clone())
    }
}

impl TrainStep for FusedStep {
    fn step(&mut self, batch: &TrainBatch, rates: Rates, _: Option<Tensor<1>>) -> StepStats {
        let state = self.state.take().expect("it is given back at the end of every step");
        let settings = &mut self.settings;
        settings.time += 1;
        (settings.l1, settings.lr) = (rates.sparsity, rates.lr);
        let (state, found) = kernels::step(state, batch.x.clone(), self.form, *settings, &self.memory);
        self.state = Some(state);
        let last = self.memory.last();
        if let Some(path) = last.path.filter(|path| self.path != Some(*path)) {
            let (time, share) = (settings.time, 100.0 * last.share);
            tracing::info!("train: step {time} takes the {path:?} path, {share:.2} % of latents active");
            self.path = Some(path);
        }
        let number = |i| found.numbers.clone().narrow(0, i, 1);
        let (squared_error, penalty) = (number(0), number(1));
        let smallest = self.config.chooses_in_batch().then(|| Tensor::from_data([last.floor], &self.device));
        StepStats {
            loss: squared_error.clone() + penalty.clone() * rates.sparsity,
            squared_error,
            penalty,
            grad_norm: number(2),
            fired: found.fired,
            rest: None,
            smallest,
            next_penalty: None,
        }
    }

    fn sae(&self) -> Sae {
        self.as_sae(&self.now().parameters)
    }

    fn state(&self) -> StepState {
        let State { parameters, first, second, .. } = self.now();
        let Last { share, floor, most, .. } = self.memory.last();
        let weights = |values: &Parameters| self.as_sae(values).to_weights();
        let numbers = [
            (TIME, f64::from(self.settings.time)),
            (SHARE, share),
            (FLOOR, f64::from(floor)),
            (MOST, most as f64),
        ];
        StepState {
            parameters: weights(parameters),
            moments: [weights(first), weights(second)],
            average: None,
            numbers: numbers.map(|(name, number)| (name.to_owned(), number)).into(),
        }
    }

    fn restore(&mut self, state: StepState) {
        let StepState { parameters, moments, numbers, .. } = state;
        let values = |weights: Weights| {
            Sae::from_weights(&self.config, self.size, weights, &self.device).to_parameters()
        };
        let [first, second] = moments.map(values);
        self.state = Some(State { first, second, ..State::new(values(parameters)) });
        self.settings.time = numbers[TIME] as i32;
        // What a step remembers is a rounding of what the next one computes.
        let (share, floor, most) = (numbers[SHARE], numbers[FLOOR] as f32, numbers[MOST] as usize);
        self.memory = Memory::from(Last { share, floor, most, path: self.path, ..Last::default() });
    }
}
