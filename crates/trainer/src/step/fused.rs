//! The step as one operation over all it does, where there is one for the architecture and the device.

use burn::tensor::{Device, Tensor};
use monosema_kernels::{
    self as kernels, Activation, Examples, Form, Found, Last, Memory, Parameters, Path, Phases, Settings,
    State,
};
use monosema_sae::{Now, Sae, SaeConfig, Size, Weights};

use super::{StepState, StepStats, TrainStep};
use crate::{Rates, TrainBatch, TrainPlan};

/// Under which names a state has what the step remembers.
const TIME: &str = "time";
const SHARE: &str = "share";
const AUX_SHARE: &str = "aux_share";
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
    ema_decay: f64,
    memory: Memory,
    /// The path of the last step, as far as it is known.
    path: Option<Path>,
}

impl FusedStep {
    /// Begins to train `sae` with the plan's optimiser; `None` if there is no fused step for the plan or for `device`.
    pub fn new(sae: Sae, plan: &TrainPlan, device: &Device) -> Option<Self> {
        let (form, settings) = (plan.form()?, Settings { time: 0, ..plan.settings() });
        if !kernels::supports(device, &form, &settings) {
            return None;
        }
        let parameters = sae.to_parameters();
        let average = (plan.ema_decay > 0.0).then(|| parameters.clone());
        let state = Some(State { average, ..State::new(parameters) });
        let (config, size, device) = (sae.config(), sae.size(), device.clone());
        let (memory, ema_decay) = (Memory::default(), plan.ema_decay);
        Some(Self { config, size, form, device, state, settings, ema_decay, memory, path: None })
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

    /// The penalty with the exponent to come. It is asked for in few steps: a loss of its own is little.
    fn next_penalty(&self, batch: &TrainBatch, rates: Rates) -> Option<Tensor<1>> {
        rates.next_p?;
        let (x, now) = (batch.x.clone(), Now { p: rates.p, next_p: rates.next_p, ..Now::new(0.0) });
        let y = batch.y.clone().unwrap_or_else(|| x.clone());
        self.sae().loss(x, y, &now).next_penalty
    }

    /// Parameters, or a number for each, as a module.
    fn as_sae(&self, parameters: &Parameters) -> Sae {
        Sae::from_parameters(&self.config, self.size, parameters.clone())
    }
}

impl TrainStep for FusedStep {
    fn step(&mut self, batch: &TrainBatch, rates: Rates, dead: Option<Tensor<1>>) -> StepStats {
        let next_penalty = self.next_penalty(batch, rates);
        if let (Some(k), Activation::TopK { k: of_form } | Activation::BatchTopK { k: of_form }) =
            (rates.k.or(self.config.k()), &mut self.form.activation)
        {
            *of_form = k;
        }
        let state = self.state.take().expect("it is given back at the end of every step");
        let settings = &mut self.settings;
        settings.time += 1;
        (settings.l1, settings.p, settings.lr) = (rates.sparsity, rates.p, rates.lr);
        // Corrected for its beginning, as Adam's moments are: after t steps all of them weigh 1 − decayᵗ.
        let new = (1.0 - self.ema_decay) / (1.0 - self.ema_decay.powi(settings.time));
        settings.ema_decay = 1.0 - new;
        let examples = Examples { x: batch.x.clone(), y: batch.y.clone(), dead };
        let (state, found) = kernels::step(state, examples, &self.form, *settings, &self.memory);
        self.state = Some(state);
        let last = self.memory.last();
        if let Some(path) = last.path.filter(|path| self.path != Some(*path)) {
            let (time, share) = (settings.time, 100.0 * last.share);
            tracing::info!("train: step {time} takes the {path:?} path, {share:.2} % of latents active");
            self.path = Some(path);
        }
        let Found { squared_error, reconstruction, penalty, aux, grad_norm, fired } = found;
        // Those of inner prefixes among it.
        let rest = reconstruction.clone() - squared_error.clone() + aux.clone();
        let smallest = self.config.chooses_in_batch().then(|| Tensor::from_data([last.floor], &self.device));
        StepStats {
            loss: reconstruction + penalty.clone() * rates.sparsity + aux,
            squared_error,
            penalty,
            grad_norm,
            fired,
            rest: Some(rest),
            smallest,
            next_penalty,
        }
    }

    fn sae(&self) -> Sae {
        self.as_sae(&self.now().parameters)
    }

    fn averaged(&self) -> Sae {
        let State { parameters, average, .. } = self.now();
        self.as_sae(average.as_ref().unwrap_or(parameters))
    }

    fn state(&self) -> StepState {
        let State { parameters, first, second, average, .. } = self.now();
        let Last { share, aux_share, floor, most, .. } = self.memory.last();
        let weights = |values: &Parameters| self.as_sae(values).to_weights();
        let numbers = [
            (TIME, f64::from(self.settings.time)),
            (SHARE, share),
            (AUX_SHARE, aux_share),
            (FLOOR, f64::from(floor)),
            (MOST, most as f64),
        ];
        StepState {
            parameters: weights(parameters),
            moments: [weights(first), weights(second)],
            average: average.as_ref().map(weights),
            numbers: numbers.map(|(name, number)| (name.to_owned(), number)).into(),
        }
    }

    fn restore(&mut self, state: StepState) {
        let StepState { parameters, moments, average, numbers } = state;
        let values = |weights: Weights| {
            Sae::from_weights(&self.config, self.size, weights, &self.device).to_parameters()
        };
        let [first, second] = moments.map(values);
        let average = average.map(values);
        self.state = Some(State { first, second, average, ..State::new(values(parameters)) });
        self.settings.time = numbers[TIME] as i32;
        // What a step remembers is a rounding of what the next one computes. The autodiff step remembers nothing: of its state
        // this one goes on as at the beginning.
        let remembered = |name| numbers.get(name).copied();
        self.memory = match (remembered(SHARE), remembered(AUX_SHARE), remembered(FLOOR), remembered(MOST)) {
            (Some(share), Some(aux_share), Some(floor), Some(most)) => {
                let (floor, most, path) = (floor as f32, most as usize, self.path);
                Memory::from(Last { share, aux_share, floor, most, path, ..Last::default() })
            }
            _ => Memory::default(),
        };
    }
}
