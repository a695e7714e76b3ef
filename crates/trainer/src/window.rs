//! What happened since the last line of the logs, summed on the device and read once.

use burn::tensor::{Device, Tensor};

use crate::{TrainPlan, step::StepStats};

/// Sums over steps.
pub(crate) struct Window {
    d_sae: usize,
    device: Device,
    /// Steps since the last reading.
    steps: u64,
    /// Loss, squared error, penalty, gradient norm, variance: sums over those steps, `[5]`.
    sums: Tensor<1>,
    /// Firings since the last reading, `[d_sae]`.
    fired: Tensor<1>,
    /// Steps since each latent last fired, `[d_sae]`.
    silent: Tensor<1>,
    /// A latent is dead after so many steps.
    dead_steps: u64,
    /// Firings in the last `dead_steps` steps of the run, `[d_sae]`.
    fired_at_end: Tensor<1>,
    /// Steps of the run until those begin.
    until_end: u64,
}

/// Means over the steps since the last reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Means {
    pub(crate) loss: f64,
    pub(crate) squared_error: f64,
    pub(crate) penalty: f64,
    pub(crate) grad_norm: f64,
    /// Mean over tokens of ‖x − x̄‖².
    pub(crate) variance: f64,
    /// Firings a step.
    pub(crate) fired: f64,
    /// Share of latents that have been silent for the dead window.
    pub(crate) dead: f64,
}

impl Window {
    pub(crate) fn new(plan: &TrainPlan, device: &Device) -> Self {
        let zeros = |n: usize| Tensor::<1>::zeros([n], device);
        Self {
            d_sae: plan.d_sae,
            device: device.clone(),
            steps: 0,
            sums: zeros(5),
            fired: zeros(plan.d_sae),
            silent: zeros(plan.d_sae),
            dead_steps: plan.dead_window_steps(),
            fired_at_end: zeros(plan.d_sae),
            until_end: plan.steps - plan.dead_window_steps(),
        }
    }

    /// Adds a step; `variance` is the mean over its tokens of ‖x − x̄‖², `[1]`.
    pub(crate) fn add(&mut self, stats: StepStats, variance: Tensor<1>) {
        let StepStats { loss, squared_error, penalty, grad_norm, fired } = stats;
        self.steps += 1;
        let sums = Tensor::cat(vec![loss, squared_error, penalty, grad_norm, variance], 0);
        self.sums = self.sums.clone() + sums;
        self.silent = (self.silent.clone() + 1.0).mask_fill(fired.clone().greater_scalar(0.0), 0.0);
        match self.until_end {
            0 => self.fired_at_end = self.fired_at_end.clone() + fired.clone(),
            _ => self.until_end -= 1,
        }
        self.fired = self.fired.clone() + fired;
    }

    /// Reads the means and begins anew. Waits for the device.
    pub(crate) fn read(&mut self) -> Means {
        let dead = self.silent.clone().greater_equal_scalar(self.dead_steps as f64).float().mean();
        let all = Tensor::cat(vec![self.sums.clone(), self.fired.clone().sum(), dead], 0);
        let all: Vec<f64> = all.into_data().iter::<f64>().collect();
        let of_steps = |i: usize| all[i] / self.steps as f64;
        let means = Means {
            loss: of_steps(0),
            squared_error: of_steps(1),
            penalty: of_steps(2),
            grad_norm: of_steps(3),
            variance: of_steps(4),
            fired: of_steps(5),
            dead: all[6],
        };
        self.steps = 0;
        self.sums = Tensor::zeros([5], &self.device);
        self.fired = Tensor::zeros([self.d_sae], &self.device);
        means
    }

    /// How often each latent fired in the last steps of the run, those of the dead window.
    pub(crate) fn fired_at_end(self) -> Vec<f64> {
        self.fired_at_end.into_data().iter::<f64>().collect()
    }
}
