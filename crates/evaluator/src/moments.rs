//! Mean and spread of vectors in one stream.
//!
//! Sums of squares minus squared sums cancel where the mean is large against the spread, which is the
//! rule in a residual stream. Welford's update, and Chan, Golub and LeVeque's merge (1979), do not.

/// Count, mean and summed squared deviation of vectors of one width, in f64.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Moments {
    n: u64,
    mean: Vec<f64>,
    deviation: f64,
}

impl Moments {
    /// Of nothing yet; vectors will have `width` entries.
    pub(crate) fn new(width: usize) -> Self {
        Self { n: 0, mean: vec![0.0; width], deviation: 0.0 }
    }

    /// Counts one vector `[width]`.
    pub(crate) fn add(&mut self, vector: impl IntoIterator<Item = f64>) {
        self.n += 1;
        let n = self.n as f64;
        for (mean, value) in self.mean.iter_mut().zip(vector) {
            let before = value - *mean;
            *mean += before / n;
            self.deviation += before * (value - *mean);
        }
    }

    /// Counts what `other` counted, as if its vectors had been added here so many times.
    pub(crate) fn merge(&mut self, other: &Self, times: u32) {
        let more = u64::from(times) * other.n;
        if more == 0 {
            return;
        }
        let (n, m) = (self.n as f64, more as f64);
        let share = m / (n + m);
        let mut apart_square = 0.0;
        for (mean, &theirs) in self.mean.iter_mut().zip(&other.mean) {
            let apart = theirs - *mean;
            *mean += apart * share;
            apart_square += apart * apart;
        }
        self.deviation += f64::from(times) * other.deviation + apart_square * n * share;
        self.n += more;
    }

    /// Their mean `[width]`.
    pub(crate) fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Σ‖v − v̄‖² over all of them.
    pub(crate) fn deviation(&self) -> f64 {
        self.deviation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_worked_out_by_hand() {
        // (1, 10), (3, 10), (5, 16): mean (3, 12); deviations 4+0+4 and 4+4+16.
        let mut all = Moments::new(2);
        let mut tail = Moments::new(2);
        all.add([1.0, 10.0]);
        tail.add([3.0, 10.0]);
        tail.add([5.0, 16.0]);
        all.merge(&tail, 1);
        assert_eq!(all.n, 3);
        assert!((all.mean()[0] - 3.0).abs() < 1e-14 && (all.mean()[1] - 12.0).abs() < 1e-14);
        assert!((all.deviation() - 32.0).abs() < 1e-12);
    }

    #[test]
    fn a_mean_far_above_the_spread_does_not_cancel() {
        // Values 1e9 ± 1: naive sums of squares in f64 keep no digit of the spread.
        let mut moments = Moments::new(1);
        for i in 0..1000 {
            moments.add([1e9 + if i % 2 == 0 { 1.0 } else { -1.0 }]);
        }
        assert!((moments.deviation() - 1000.0).abs() < 1e-3, "{}", moments.deviation());
    }

    #[test]
    fn merging_nothing_changes_nothing() {
        let mut moments = Moments::new(1);
        moments.add([2.0]);
        let before = moments.clone();
        moments.merge(&Moments::new(1), 1);
        moments.merge(&before, 0);
        assert_eq!(moments, before);
        let mut empty = Moments::new(1);
        empty.merge(&before, 1);
        assert_eq!(empty, before);
    }
}
