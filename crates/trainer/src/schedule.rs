//! The numbers that change from step to step.

use std::f64::consts::PI;

use serde::Serialize;

use crate::config::DecayShape;

/// Steps before the penalty's exponent changes in which the penalty to come is measured: dictionary_learning's.
pub(crate) const MEASURED: u64 = 10;

/// Learning rate, sparsity coefficient and what else changes over a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Schedule {
    /// Steps of the run.
    pub steps: u64,
    /// Learning rate between warm-up and decay.
    pub lr: f64,
    /// Steps over which the learning rate grows linearly; the first step has lr / `lr_warmup_steps`.
    pub lr_warmup_steps: u64,
    /// Last steps, over which it falls; it would reach its end in the step after the last.
    pub lr_decay_steps: u64,
    /// How it falls.
    pub lr_decay_shape: DecayShape,
    /// What it falls to, as a fraction of `lr`.
    pub lr_end: f64,
    /// Sparsity coefficient λ after its warm-up.
    pub sparsity: f64,
    /// Steps over which λ grows linearly from 0.
    pub sparsity_warmup_steps: u64,
    /// How k falls, where latents are chosen by number and that changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k: Option<KWarmup>,
    /// How the penalty's exponent falls, where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annealing: Option<AnnealingSteps>,
}

/// k that falls linearly.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct KWarmup {
    /// At first.
    pub from: usize,
    /// Afterwards.
    pub to: usize,
    /// After so many steps.
    pub steps: u64,
}

/// An exponent that falls in steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AnnealingSteps {
    /// At first.
    pub p_start: f64,
    /// At the end.
    pub p_end: f64,
    /// The step from which on it falls: the first change is a part of the way later.
    pub start: u64,
    /// The step after which it changes for the last time. If that is the last one of all, its end is never used.
    pub end: u64,
    /// How often it changes.
    pub changes: u32,
}

/// The numbers of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Learning rate.
    pub lr: f64,
    /// Sparsity coefficient λ.
    pub sparsity: f64,
    /// How many latents may be active, if not as many as the architecture says.
    pub k: Option<usize>,
    /// Exponent of the penalty, where it has one.
    pub p: f64,
    /// The next one, while the penalty is to be measured with it too.
    pub next_p: Option<f64>,
    /// Whether that is the exponent from the next step on.
    pub p_changes: bool,
}

impl Rates {
    /// With these, and nothing else that changes.
    pub fn new(lr: f64, sparsity: f64) -> Self {
        Self { lr, sparsity, k: None, p: 1.0, next_p: None, p_changes: false }
    }
}

impl Schedule {
    /// The numbers of `step`, counted from 0.
    pub fn at(&self, step: u64) -> Rates {
        // How much of `whole` is `part`, at most all of it; nothing to wait for is all of it.
        let share = |part: u64, whole: u64| if part >= whole { 1.0 } else { part as f64 / whole as f64 };
        let warm = share(step + 1, self.lr_warmup_steps);
        let left = share(self.steps - step.min(self.steps), self.lr_decay_steps);
        let left = match self.lr_decay_shape {
            DecayShape::Linear => left,
            DecayShape::Cosine => (1.0 - (PI * left).cos()) / 2.0,
        };
        let rates = Rates::new(
            self.lr * warm * (self.lr_end + (1.0 - self.lr_end) * left),
            self.sparsity * share(step, self.sparsity_warmup_steps),
        );
        let k = self.k.filter(|k| step < k.steps).map(|KWarmup { from, to, steps }| {
            to + ((from - to) as f64 * (1.0 - share(step, steps))).round() as usize
        });
        let rates = Rates { k, ..rates };
        self.annealing.map_or(rates, |annealing| annealing.at(step, rates))
    }
}

impl AnnealingSteps {
    /// The step after which the exponent changes for the `j`-th time, from 1: changes are evenly spaced, as dictionary_learning's
    /// `PAnnealTrainer` has them, whose first of `n_sparsity_updates` changes nothing.
    fn change(&self, j: u64) -> u64 {
        self.start + (self.end - self.start) * j / u64::from(self.changes)
    }

    fn at(&self, step: u64, rates: Rates) -> Rates {
        let changes = u64::from(self.changes);
        // As many as come before this step: see `change`.
        let [since, span] = [step.saturating_sub(self.start), self.end - self.start].map(u128::from);
        let done = (since * u128::from(changes)).div_ceil(span).saturating_sub(1).min(changes.into()) as u64;
        let p = |j: u64| self.p_start + (self.p_end - self.p_start) * j as f64 / changes as f64;
        let next = (done < changes).then(|| self.change(done + 1));
        let measured = next.is_some_and(|next| step + MEASURED > next);
        Rates { p: p(done), next_p: measured.then(|| p(done + 1)), p_changes: next == Some(step), ..rates }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(steps: u64) -> Schedule {
        Schedule {
            steps,
            lr: 8.0,
            lr_warmup_steps: 0,
            lr_decay_steps: 0,
            lr_decay_shape: DecayShape::Linear,
            lr_end: 0.0,
            sparsity: 5.0,
            sparsity_warmup_steps: 0,
            k: None,
            annealing: None,
        }
    }

    #[test]
    fn values_by_hand() {
        let warm =
            Schedule { lr_warmup_steps: 2, lr_decay_steps: 4, sparsity_warmup_steps: 5, ..schedule(20) };
        let lr = |schedule: &Schedule| (0..20).map(|step| schedule.at(step).lr).collect::<Vec<_>>();
        assert_eq!(lr(&warm)[..4], [4.0, 8.0, 8.0, 8.0]);
        // 4, 3, 2 and 1 steps are left before these.
        assert_eq!(lr(&warm)[15..], [8.0, 8.0, 6.0, 4.0, 2.0]);
        assert_eq!(lr(&Schedule { lr_end: 0.5, ..warm })[15..], [8.0, 8.0, 7.0, 6.0, 5.0]);
        // Half a wave: the middle is the middle.
        let cosine = lr(&Schedule { lr_decay_shape: DecayShape::Cosine, ..warm });
        assert!((cosine[18] - 4.0).abs() < 1e-12 && cosine[17] > 6.0 && cosine[19] < 2.0, "{cosine:?}");
        let sparsity: Vec<_> = (0..7).map(|step| warm.at(step).sparsity).collect();
        assert_eq!(sparsity, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.0]);
    }

    #[test]
    fn without_warm_up_or_decay_nothing_changes() {
        assert!((0..3).all(|step| schedule(3).at(step) == Rates::new(8.0, 5.0)));
    }

    #[test]
    fn k_falls_to_its_number() {
        let schedule = Schedule { k: Some(KWarmup { from: 12, to: 4, steps: 4 }), ..schedule(10) };
        let k: Vec<_> = (0..6).map(|step| schedule.at(step).k).collect();
        assert_eq!(k, [Some(12), Some(10), Some(8), Some(6), None, None]);
    }

    #[test]
    fn the_exponent_falls_in_steps_that_are_announced() {
        let annealing = AnnealingSteps { p_start: 1.0, p_end: 0.5, start: 20, end: 60, changes: 2 };
        let schedule = Schedule { annealing: Some(annealing), ..schedule(100) };
        let at = |step| {
            let Rates { p, next_p, p_changes, .. } = schedule.at(step);
            (p, next_p, p_changes)
        };
        assert_eq!(at(0), (1.0, None, false));
        assert_eq!(at(30), (1.0, None, false));
        assert_eq!(at(31), (1.0, Some(0.75), false));
        assert_eq!(at(40), (1.0, Some(0.75), true));
        assert_eq!(at(41), (0.75, None, false));
        assert_eq!(at(60), (0.75, Some(0.5), true));
        assert_eq!(at(61), (0.5, None, false));
        assert_eq!(at(99), (0.5, None, false));
    }

    #[test]
    fn the_exponent_changes_when_the_peer_changes_it() {
        // torch.linspace(40, 1000, 10, dtype=int) and torch.linspace(1, 0.2, 10), of dictionary_learning.
        let annealing = AnnealingSteps { p_start: 1.0, p_end: 0.2, start: 40, end: 1000, changes: 9 };
        let schedule = Schedule { annealing: Some(annealing), ..schedule(1000) };
        let updates = [40, 146, 253, 360, 466, 573, 680, 786, 893, 1000];
        for step in 0..1000 {
            let passed = updates.iter().filter(|&&update| update < step).count().saturating_sub(1);
            let expected = 1.0 - 0.8 * passed as f64 / 9.0;
            let found = schedule.at(step);
            assert!((found.p - expected).abs() < 1e-12, "step {step}: {} instead of {expected}", found.p);
            assert_eq!(found.p_changes, updates[1..].contains(&step), "step {step}");
        }
    }
}
