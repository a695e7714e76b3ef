//! k-sparse probing: logistic regression on the few units that differ most between the classes.
//!
//! Gurnee et al. 2023 (arXiv 2305.01610); units are ranked by the difference of their means, as there and in SAEBench's
//! `get_top_k_mean_diff_mask`.

use super::{Classes, Detection, Logistic, Rows, fit};

/// Values of many units on samples (tokens or documents), most of them 0.
#[derive(Clone, Debug, Default)]
pub(crate) struct Activity {
    /// How many units there are.
    pub(crate) n_units: usize,
    /// Where each sample's entries end.
    ends: Vec<usize>,
    entries: Vec<(u32, f32)>,
}

impl Activity {
    /// Of no samples yet.
    pub(crate) fn new(n_units: usize) -> Self {
        Self { n_units, ..Self::default() }
    }

    /// Adds a sample: units and their values.
    pub(crate) fn push(&mut self, entries: impl IntoIterator<Item = (u32, f32)>) {
        self.entries.extend(entries);
        self.ends.push(self.entries.len());
    }

    /// How many samples there are.
    pub(crate) fn n(&self) -> usize {
        self.ends.len()
    }

    /// Entries of a sample on average.
    pub(crate) fn mean_entries(&self) -> f64 {
        self.entries.len() as f64 / self.n().max(1) as f64
    }

    /// The units that are not 0 on a sample, and their values.
    pub(crate) fn of(&self, sample: usize) -> &[(u32, f32)] {
        let start = sample.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.entries[start..self.ends[sample]]
    }

    /// For every unit its samples, unit after unit: where each unit's begin and end, and (value, sample).
    pub(crate) fn by_unit(&self) -> (Vec<usize>, Vec<(f32, u32)>) {
        let mut starts = vec![0; self.n_units + 1];
        self.entries.iter().for_each(|&(unit, _)| starts[unit as usize + 1] += 1);
        (0..self.n_units).for_each(|unit| starts[unit + 1] += starts[unit]);
        let mut place = starts.clone();
        let mut entries = vec![(0.0, 0); self.entries.len()];
        for sample in 0..self.n() {
            for &(unit, value) in self.of(sample) {
                entries[place[unit as usize]] = (value, sample as u32);
                place[unit as usize] += 1;
            }
        }
        (starts, entries)
    }

    /// The values of `units` on `samples`.
    pub(crate) fn rows(&self, samples: &[usize], units: &[u32]) -> Rows {
        let mut values = vec![0.0; samples.len() * units.len()];
        for (row, &sample) in values.chunks_exact_mut(units.len()).zip(samples) {
            for &(unit, value) in self.of(sample) {
                if let Some(column) = units.iter().position(|&wanted| wanted == unit) {
                    row[column] = f64::from(value);
                }
            }
        }
        Rows { width: units.len(), values }
    }
}

/// Mean over the positive samples less mean over the others, of every unit.
pub(crate) fn mean_differences(activity: &Activity, samples: &[usize], positive: &[bool]) -> Vec<f64> {
    let n_positive = positive.iter().filter(|&&positive| positive).count() as f64;
    let n_negative = samples.len() as f64 - n_positive;
    let mut differences = vec![0.0; activity.n_units];
    for (&sample, &positive) in samples.iter().zip(positive) {
        let share = if positive { 1.0 / n_positive } else { -1.0 / n_negative };
        for &(unit, value) in activity.of(sample) {
            differences[unit as usize] += share * f64::from(value);
        }
    }
    differences
}

/// A probe on a few units.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct KSparse {
    /// Which.
    pub(crate) units: Vec<u32>,
    /// The probe on their values.
    pub(crate) probe: Logistic,
}

impl KSparse {
    /// Fits a probe on the `k` units of the largest `ranks`.
    pub(crate) fn fit(
        activity: &Activity,
        samples: &[usize],
        positive: &[bool],
        ranks: &[f64],
        k: usize,
        classes: Classes,
    ) -> Self {
        let units = largest(ranks, k);
        let probe = fit(&activity.rows(samples, &units), positive, classes);
        Self { units, probe }
    }

    /// The score of each of `samples`; positive ones are detected.
    pub(crate) fn scores(&self, activity: &Activity, samples: &[usize]) -> Vec<f64> {
        let rows = activity.rows(samples, &self.units);
        rows.values.chunks_exact(rows.width).map(|row| self.probe.score(row.iter().copied())).collect()
    }
}

/// The units of the `k` largest ranks, the first of equal ones.
fn largest(ranks: &[f64], k: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..ranks.len() as u32).collect();
    let k = k.min(order.len());
    let by_rank = |a: &u32, b: &u32| ranks[*b as usize].total_cmp(&ranks[*a as usize]).then(a.cmp(b));
    if k < order.len() {
        order.select_nth_unstable_by(k, by_rank);
        order.truncate(k);
    }
    order.sort_unstable_by(by_rank);
    order
}

/// By how much F1 must grow for another latent to count as a split; SAEBench's `f1_jump_threshold`.
const F1_JUMP: f64 = 0.03;

/// Latents that a class may be split over; SAEBench's `max_k_value`.
const MOST_LATENTS: usize = 10;

/// The latents that stand for a class: k grows from 1 while F1 grows by more than 0.03 (feature splitting; Chanin et
/// al. 2024, arXiv 2409.14507, section 4; SAEBench's `add_feature_splits_to_metrics_df`).
///
/// `samples` and `positive` are of the fit half, on which F1 is looked at too: what is counted and what is absorbed is then looked for on the other.
pub(crate) fn split(activity: &Activity, samples: &[usize], positive: &[bool]) -> KSparse {
    let ranks = mean_differences(activity, samples, positive);
    let mut best: Option<(f64, KSparse)> = None;
    for k in 1..=MOST_LATENTS.min(activity.n_units) {
        let probe = KSparse::fit(activity, samples, positive, &ranks, k, Classes::Balanced);
        let detected = probe.scores(activity, samples).into_iter().map(|score| score > 0.0);
        let f1 = Detection::of(detected.zip(positive.iter().copied())).f1;
        if best.as_ref().is_some_and(|(best, _)| f1 <= best + F1_JUMP) {
            break;
        }
        best = Some((f1, probe));
    }
    best.expect("a dictionary has latents").1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 40 samples, every fourth positive; unit 2 is on on the positives, 1 on half of all, 0 never.
    fn activity() -> (Activity, Vec<usize>, Vec<bool>) {
        let mut activity = Activity::new(4);
        for sample in 0..40_usize {
            let entries = [(1, (sample % 2) as f32), (2, if sample.is_multiple_of(4) { 2.0 } else { 0.0 })];
            activity.push(entries.into_iter().filter(|&(_, value)| value > 0.0));
        }
        (activity, (0..40).collect(), (0..40_usize).map(|sample| sample.is_multiple_of(4)).collect())
    }

    #[test]
    fn means_differ_by_hand() {
        let (activity, samples, positive) = activity();
        // Unit 1: 0 of the 10 positives, 20 of the 30 others.
        let expected = [0.0, -2.0 / 3.0, 2.0, 0.0];
        let found = mean_differences(&activity, &samples, &positive);
        assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-12), "{found:?}");
        assert_eq!(largest(&found, 3), [2, 0, 3]);
        assert_eq!(largest(&found, 9), [2, 0, 3, 1]);
        let (starts, entries) = activity.by_unit();
        assert_eq!((starts.as_slice(), entries[20]), (&[0, 0, 20, 30, 30][..], (2.0, 0)));
        assert_eq!(activity.rows(&[0, 1], &[2, 1]).values, [2.0, 0.0, 0.0, 1.0]);
        assert!((activity.mean_entries() - 0.75).abs() < 1e-12);
    }

    #[test]
    fn one_latent_is_enough_for_what_it_tells() {
        let (activity, samples, positive) = activity();
        assert_eq!(split(&activity, &samples, &positive).units, [2]);
    }

    #[test]
    fn a_split_class_takes_as_many_latents_as_it_has() {
        // Positives are dealt out to units 0, 1 and 2; unit 3 is noise.
        let mut activity = Activity::new(4);
        let positive: Vec<bool> = (0..120).map(|sample| sample % 4 == 0).collect();
        for (sample, &positive) in positive.iter().enumerate() {
            let own = positive.then_some(((sample / 4 % 3) as u32, 1.0));
            activity.push(own.into_iter().chain((sample % 5 == 0).then_some((3, 1.0))));
        }
        let samples: Vec<usize> = (0..120).collect();
        let mut units = split(&activity, &samples, &positive).units;
        units.sort_unstable();
        assert_eq!(units, [0, 1, 2]);
    }
}
