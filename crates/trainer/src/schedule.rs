//! The numbers that change from step to step.

use serde::Serialize;

/// Learning rate and sparsity coefficient over a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Schedule {
    /// Steps of the run.
    pub steps: u64,
    /// Learning rate between warm-up and decay.
    pub lr: f64,
    /// Steps over which the learning rate grows linearly; the first step has lr / `lr_warmup_steps`.
    pub lr_warmup_steps: u64,
    /// Last steps, over which it falls linearly; it would reach 0 in the step after the last.
    pub lr_decay_steps: u64,
    /// Sparsity coefficient λ after its warm-up.
    pub l1: f64,
    /// Steps over which λ grows linearly from 0.
    pub l1_warmup_steps: u64,
}

/// The numbers of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Learning rate.
    pub lr: f64,
    /// Sparsity coefficient λ.
    pub l1: f64,
}

impl Schedule {
    /// The numbers of `step`, counted from 0.
    pub fn at(&self, step: u64) -> Rates {
        // How much of `whole` is `part`, at most all of it; nothing to wait for is all of it.
        let share = |part: u64, whole: u64| if part >= whole { 1.0 } else { part as f64 / whole as f64 };
        let warm = share(step + 1, self.lr_warmup_steps);
        let left = share(self.steps - step.min(self.steps), self.lr_decay_steps);
        Rates { lr: self.lr * warm * left, l1: self.l1 * share(step, self.l1_warmup_steps) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_by_hand() {
        let schedule = Schedule {
            steps: 20,
            lr: 8.0,
            lr_warmup_steps: 2,
            lr_decay_steps: 4,
            l1: 5.0,
            l1_warmup_steps: 5,
        };
        let lr: Vec<_> = (0..20).map(|step| schedule.at(step).lr).collect();
        assert_eq!(lr[..4], [4.0, 8.0, 8.0, 8.0]);
        // 4, 3, 2 and 1 steps are left before these.
        assert_eq!(lr[15..], [8.0, 8.0, 6.0, 4.0, 2.0]);
        let l1: Vec<_> = (0..7).map(|step| schedule.at(step).l1).collect();
        assert_eq!(l1, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.0]);
    }

    #[test]
    fn without_warm_up_or_decay_nothing_changes() {
        let schedule = Schedule {
            steps: 3,
            lr: 0.1,
            lr_warmup_steps: 0,
            lr_decay_steps: 0,
            l1: 2.0,
            l1_warmup_steps: 0,
        };
        assert!((0..3).all(|step| schedule.at(step) == Rates { lr: 0.1, l1: 2.0 }));
    }
}
