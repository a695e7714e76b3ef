//! Sums over the same predictions under each of the passes with something spliced in.

use super::{Loss, Prediction, Splice};

/// Of one loss, in f64.
#[derive(Clone, Debug, Default)]
pub(super) struct SplicedSums {
    /// How many predictions.
    predictions: f64,
    sums: [f64; Splice::ALL.len()],
}

impl SplicedSums {
    /// Counts `loss` of each of the `predictions`; what was not asked for is not a number.
    pub(super) fn add(&mut self, predictions: &[Prediction], loss: fn(&Loss) -> f64) {
        self.predictions += predictions.len() as f64;
        for (pass, sum) in self.sums.iter_mut().enumerate() {
            let of = |prediction: &Prediction| prediction.spliced[pass].as_ref().map_or(f64::NAN, loss);
            // In the order in which the untouched model's are summed: equal losses have equal sums.
            *sum += predictions.iter().map(of).sum::<f64>();
        }
    }

    /// Counts what `other` counted, so many times.
    pub(super) fn merge(&mut self, other: &Self, times: u32) {
        let times = f64::from(times);
        self.predictions += times * other.predictions;
        for (sum, theirs) in self.sums.iter_mut().zip(other.sums) {
            *sum += times * theirs;
        }
    }

    /// `sum` for each prediction.
    pub(super) fn each(&self, sum: f64) -> f64 {
        sum / self.predictions
    }

    /// The mean of each [`Splice`], in their order.
    pub(super) fn means(&self) -> [f64; Splice::ALL.len()] {
        self.sums.map(|sum| self.each(sum))
    }
}
