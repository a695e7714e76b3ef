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
        for prediction in predictions {
            for (sum, spliced) in self.sums.iter_mut().zip(&prediction.spliced) {
                *sum += spliced.as_ref().map_or(f64::NAN, loss);
            }
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
