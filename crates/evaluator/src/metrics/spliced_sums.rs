//! Sums over the same predictions under each of the passes with something spliced in.

use super::{Predictions, Spliced};

/// Of one loss, in f64.
#[derive(Clone, Debug, Default)]
pub(super) struct SplicedSums {
    /// How many predictions.
    pub(super) predictions: u64,
    /// With the reconstruction.
    pub(super) sae: f64,
    /// With zero.
    pub(super) zero: f64,
    /// With the mean activation.
    pub(super) mean: f64,
}

impl SplicedSums {
    /// Counts `loss` of each of the `predictions`.
    pub(super) fn add(&mut self, predictions: &Predictions, loss: fn(&Spliced) -> &[f64]) {
        let sum = |spliced| loss(spliced).iter().sum::<f64>();
        self.predictions += predictions.clean.len() as u64;
        self.sae += sum(&predictions.sae);
        self.zero += sum(&predictions.zero);
        self.mean += sum(&predictions.mean);
    }

    /// Counts what `other` counted.
    pub(super) fn merge(&mut self, other: &Self) {
        self.predictions += other.predictions;
        self.sae += other.sae;
        self.zero += other.zero;
        self.mean += other.mean;
    }
}
