//! What happened since the last line of the logs, gathered on the device and read seldom.
//!
//! The device counts in f32, which holds whole numbers up to 2²⁴: a latent that fired more often than that would
//! stop counting. So firings go to the host, which counts in u64, before there can be so many. Means are summed
//! there too, in f64.

use burn::tensor::{Device, Tensor};

use crate::{TrainPlan, step::StepStats};

/// f32 counts exactly up to here.
pub(crate) const EXACT: u64 = 1 << f32::MANTISSA_DIGITS;

/// Steps whose means wait on the device at most: they are a few numbers each.
const STEPS_WAITING: usize = 256;

/// Sums over steps.
pub(crate) struct Window {
    d_sae: usize,
    batch_tokens: u64,
    device: Device,
    /// [`MEANS`] figures of each step that the host has not seen: loss, squared error, penalty, gradient norm, rest.
    waiting: Vec<Tensor<1>>,
    /// Firings in those steps, `[d_sae]`.
    fired: Tensor<1>,
    /// What the host has seen since the last reading.
    seen: Seen,
    /// Steps since each latent last fired, `[d_sae]`. In f32 it stands still at 2²⁴, which is dead all the same.
    silent: Tensor<1>,
    /// A latent is dead after so many steps.
    dead_steps: u64,
    /// Firings in the last `dead_steps` steps of the run, `[d_sae]`.
    fired_at_end: Vec<u64>,
    /// Steps of the run until those begin.
    until_end: u64,
}

/// Figures of a step that are means over tokens.
const MEANS: usize = 5;

/// How often each latent fired since the last reading, and what the means add up to.
struct Seen {
    steps: u64,
    sums: [f64; MEANS],
    variance: f64,
    fired: Vec<u64>,
}

impl Seen {
    fn nothing(d_sae: usize) -> Self {
        Self { steps: 0, sums: [0.0; MEANS], variance: 0.0, fired: vec![0; d_sae] }
    }
}

/// Bins of a density histogram: latents that never fired, then by the logarithm of how often.
pub(crate) const BINS: usize = 25;

/// Bins for a factor of ten.
pub(crate) const BINS_A_DECADE: u32 = 4;

/// How many latents are in each bin: never active, on less than 10^(1/4 − 6) of the tokens, and on up to a quarter of a power
/// of ten more each.
pub type Density = [u64; BINS];

/// The bin of a share of the tokens.
fn bin(fired: u64, tokens: u64) -> usize {
    if fired == 0 {
        return 0;
    }
    let log = (fired as f64 / tokens as f64).log10();
    (BINS as f64 + (log * f64::from(BINS_A_DECADE)).floor()).clamp(1.0, (BINS - 1) as f64) as usize
}

/// Means over the steps since the last reading.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Means {
    pub(crate) loss: f64,
    pub(crate) squared_error: f64,
    pub(crate) penalty: f64,
    pub(crate) grad_norm: f64,
    pub(crate) rest: f64,
    /// Mean over tokens of ‖x − x̄‖².
    pub(crate) variance: f64,
    /// Firings a step.
    pub(crate) fired: f64,
    /// Share of latents that have been silent for the dead window.
    pub(crate) dead: f64,
    /// How often latents fired.
    pub(crate) density: Density,
}

/// What a window takes with it from one reading to the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct WindowState {
    /// Steps since each latent last fired.
    pub(crate) silent: Vec<f32>,
    /// Firings in those of the last steps of the run that were taken.
    pub(crate) fired_at_end: Vec<u64>,
}

impl Window {
    pub(crate) fn new(plan: &TrainPlan, device: &Device) -> Self {
        let zeros = || Tensor::<1>::zeros([plan.size.d_sae], device);
        Self {
            d_sae: plan.size.d_sae,
            batch_tokens: plan.batch_tokens as u64,
            device: device.clone(),
            waiting: Vec::new(),
            fired: zeros(),
            seen: Seen::nothing(plan.size.d_sae),
            silent: zeros(),
            dead_steps: plan.dead_window_steps(),
            fired_at_end: vec![0; plan.size.d_sae],
            until_end: plan.steps - plan.dead_window_steps(),
        }
    }

    /// Adds a step; `variance` is the mean over its tokens of ‖x − x̄‖².
    pub(crate) fn add(&mut self, stats: StepStats, variance: f64) {
        let waiting = self.waiting.len();
        // A latent fires at most once a token.
        if waiting == STEPS_WAITING || (waiting as u64 + 1) * self.batch_tokens > EXACT {
            self.drain();
        }
        let StepStats { loss, squared_error, penalty, grad_norm, fired, rest, .. } = stats;
        let rest = rest.unwrap_or_else(|| loss.zeros_like());
        self.waiting.push(Tensor::cat(vec![loss, squared_error, penalty, grad_norm, rest], 0));
        self.seen.variance += variance;
        self.silent = (self.silent.clone() + 1.0).mask_fill(fired.clone().greater_scalar(0.0), 0.0);
        self.fired = self.fired.clone() + fired;
        if self.until_end == 1 {
            // What fired up to here is not part of the end.
            self.drain();
        }
        self.until_end = self.until_end.saturating_sub(1);
    }

    /// 1 for every latent that has been silent for the dead window, `[d_sae]`.
    pub(crate) fn dead(&self) -> Tensor<1> {
        self.silent.clone().greater_equal_scalar(self.dead_steps.min(EXACT) as f64).float()
    }

    /// 1 for every latent that has been silent for so many steps, on the host.
    pub(crate) fn silent_for(&self, steps: u64) -> Vec<bool> {
        let silent = self.silent.to_data();
        silent.iter::<f64>().map(|silent| silent >= steps as f64).collect()
    }

    /// Counts these latents as alive from now on.
    pub(crate) fn revive(&mut self, latents: &[bool]) {
        let silent = self.silent.to_data();
        let silent =
            silent.iter::<f32>().zip(latents).map(|(silent, &revived)| if revived { 0.0 } else { silent });
        let silent: Vec<f32> = silent.collect();
        self.silent = Tensor::from_data(&silent[..], &self.device);
    }

    /// Reads the means and begins anew. Waits for the device.
    pub(crate) fn read(&mut self) -> Means {
        self.drain();
        let seen = std::mem::replace(&mut self.seen, Seen::nothing(self.d_sae));
        let Seen { steps, sums, variance, fired } = seen;
        let [loss, squared_error, penalty, grad_norm, rest] = sums.map(|sum| sum / steps as f64);
        let variance = variance / steps as f64;
        let mut density = [0; BINS];
        fired.iter().for_each(|&fired| density[bin(fired, steps * self.batch_tokens)] += 1);
        let fired = fired.iter().sum::<u64>() as f64 / steps as f64;
        let dead = f64::from(self.dead().mean().into_scalar::<f32>());
        Means { loss, squared_error, penalty, grad_norm, rest, variance, fired, dead, density }
    }

    /// What the steps to come depend on, right after a reading.
    pub(crate) fn state(&self) -> WindowState {
        let silent = self.silent.to_data().iter::<f32>().collect();
        WindowState { silent, fired_at_end: self.fired_at_end.clone() }
    }

    /// Takes up from there, after so many steps.
    pub(crate) fn restore(&mut self, state: WindowState, steps_done: u64) {
        self.silent = Tensor::from_data(&state.silent[..], &self.device);
        self.fired_at_end = state.fired_at_end;
        self.until_end = self.until_end.saturating_sub(steps_done);
    }

    /// How often each latent fired in the last steps of the run, those of the dead window.
    pub(crate) fn fired_at_end(&mut self) -> &[u64] {
        self.drain();
        &self.fired_at_end
    }

    /// Moves what waits on the device to the host.
    fn drain(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        self.seen.steps += self.waiting.len() as u64;
        let means = Tensor::cat(std::mem::take(&mut self.waiting), 0).into_data();
        for (i, mean) in means.iter::<f64>().enumerate() {
            self.seen.sums[i % MEANS] += mean;
        }
        let fired = std::mem::replace(&mut self.fired, Tensor::zeros([self.d_sae], &self.device));
        let counts = self.seen.fired.iter_mut().zip(&mut self.fired_at_end);
        for (n, (seen, at_end)) in fired.into_data().iter::<f64>().zip(counts) {
            // A whole number, see above.
            let n = n as u64;
            *seen += n;
            if self.until_end == 0 {
                *at_end += n;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use monosema_core::{BlockHook, HookPoint, Seed};
    use monosema_store::HookColumn;

    use super::*;
    use crate::{StoreFacts, TrainConfig, Width};

    const BATCH: usize = 1 << 23;

    /// Of `steps` steps on batches of 2²³ tokens, half of them in the dead window.
    fn window(steps: u64) -> Window {
        let hooks = vec![HookColumn { hook: HookPoint::block(0, BlockHook::ResidPost), width: 2 }];
        let config = TrainConfig {
            width: Width::Latents(3),
            batch_tokens: Some(BATCH),
            shuffle_buffer_tokens: Some(BATCH),
            dead_after_tokens: Some(1 << 62),
            ..TrainConfig::default()
        };
        let facts = StoreFacts { hooks, tokens: steps * BATCH as u64, ..StoreFacts::default() };
        Window::new(&TrainPlan::resolve(&config, &facts, Seed(0)).unwrap(), &Device::flex())
    }

    fn add(window: &mut Window, loss: f32, fired: [f32; 3]) {
        let scalar = |value: f32| Tensor::<1>::from_data([value], &Device::flex());
        let stats = StepStats {
            loss: scalar(loss),
            squared_error: scalar(0.0),
            penalty: scalar(0.0),
            grad_norm: scalar(0.0),
            fired: Tensor::from_data(fired, &Device::flex()),
            rest: None,
            smallest: None,
            next_penalty: None,
        };
        window.add(stats, 1.0);
    }

    #[test]
    fn firings_are_counted_beyond_what_f32_holds() {
        // An odd number of times 2²³ - 1 is odd and above 2²⁴: in f32 it would be rounded.
        let often = BATCH as u64 - 1;
        let mut window = window(14);
        for _ in 0..14 {
            add(&mut window, 1.0, [often as f32, 1.0, 0.0]);
        }
        let means = window.read();
        assert_eq!(means.fired, (often + 1) as f64);
        assert_eq!(means.dead, f64::from(1.0_f32 / 3.0));
        assert_eq!(window.fired_at_end(), [7 * often, 7, 0]);
    }

    #[test]
    fn means_are_summed_in_f64_however_many_steps_there_are() {
        // In f32, 2²⁴ + 1 is 2²⁴.
        let mut window = window(1000);
        add(&mut window, 16_777_216.0, [0.0; 3]);
        for _ in 1..600 {
            add(&mut window, 1.0, [0.0; 3]);
        }
        assert_eq!(window.read().loss, (16_777_216.0 + 599.0) / 600.0);
        // Each reading begins anew.
        add(&mut window, 3.0, [0.0; 3]);
        assert_eq!(window.read().loss, 3.0);
    }

    #[test]
    fn densities_are_counted_by_their_logarithm() {
        // 10⁻⁶ and less is the first bin that counts, 1 the last.
        let bins = [(0, 0), (1, 1), (5, 3), (10, 5), (999_999, 24), (1_000_000, 24)];
        for (fired, expected) in bins {
            assert_eq!(bin(fired, 1_000_000), expected, "{fired} of a million");
        }
        assert_eq!(bin(1, 100_000_000), 1);
    }
}
