//! Can what holds be read off units that hardly ever fire wrongly?
//!
//! The board reconstruction of Karvonen et al. 2024 (arXiv 2408.00113, section 3.3): a unit speaks for every class for which "its value is above t
//! times its largest" is right in at least 95 % of cases, and all that is spoken for at a token is taken to hold there. There t ∈ {0, 0.1, …, 0.9} and the units'
//! classes are found on one set of games, and the F1 of each board of another set is averaged, for the best t. Here t too is chosen on the fit half, and F1 is that of
//! all pairs of a token and a class together: tokens of which nothing holds have no F1 of their own.

use rayon::prelude::*;

use super::{Column, Detection, Labels};

/// What a unit must be right in to speak for a class.
const LEAST_PRECISION: f64 = 0.95;

/// Thresholds, in tenths of a unit's largest value.
const TENTHS: usize = 10;

/// What is spoken for, as units are added.
pub(crate) struct Reconstruction<'a> {
    labels: &'a Labels,
    /// For each token and class, the thresholds with a unit that speaks for it, a bit each.
    spoken: Vec<u16>,
}

impl<'a> Reconstruction<'a> {
    /// By no unit yet.
    pub(crate) fn new(labels: &'a Labels) -> Self {
        Self { labels, spoken: vec![0; labels.n() * labels.classes().len()] }
    }

    /// Lets units speak.
    pub(crate) fn add(&mut self, columns: &[Column]) {
        let n_classes = self.labels.classes().len();
        let spoken: Vec<_> = columns.par_iter().map(|column| speaks_for(column, self.labels)).collect();
        for (column, Speaker { largest, classes }) in columns.iter().zip(spoken) {
            if classes.iter().all(Vec::is_empty) {
                continue;
            }
            for &(value, token) in column.entries.iter().take_while(|(value, _)| *value > 0.0) {
                let of_token = &mut self.spoken[token as usize * n_classes..][..n_classes];
                for (tenth, classes) in
                    classes.iter().enumerate().take_while(|(t, _)| passes(value, *t, largest))
                {
                    classes.iter().for_each(|&class| of_token[class as usize] |= 1 << tenth);
                }
            }
        }
    }

    /// F1 of what was spoken for on the held-out half, over pairs of a token and one of `classes`, at the threshold that is best on the fit half.
    pub(crate) fn f1(&self, classes: &[usize]) -> f64 {
        let n_classes = self.labels.classes().len();
        let mut judged = vec![false; n_classes];
        classes.iter().for_each(|&class| judged[class] = true);
        let at = |tenth: usize, held_out: bool| {
            let (mut right, mut detected) = (0, 0);
            for token in self.labels.tokens(held_out) {
                let said = |&class: &usize| self.says(token, class, tenth);
                detected += classes.iter().filter(|class| said(class)).count();
                let holds = self.labels.of(token).iter().map(|&class| class as usize);
                right += holds.filter(|class| judged[*class] && said(class)).count();
            }
            let half = self.labels.half(held_out);
            let positives = classes.iter().map(|&class| half.positives(class)).sum();
            Detection::new(right, detected, positives).f1
        };
        let fitted: Vec<f64> = (0..TENTHS).into_par_iter().map(|tenth| at(tenth, false)).collect();
        let best = (0..TENTHS).rev().max_by(|&a, &b| fitted[a].total_cmp(&fitted[b])).unwrap_or(0);
        at(best, true)
    }

    fn says(&self, token: usize, class: usize, tenth: usize) -> bool {
        self.spoken[token * self.labels.classes().len() + class] & (1 << tenth) != 0
    }
}

/// Whether a value is above so many tenths of the largest.
fn passes(value: f32, tenth: usize, largest: f32) -> bool {
    f64::from(value) > f64::from(largest) * tenth as f64 / TENTHS as f64
}

struct Speaker {
    /// The unit's largest value on the fit half.
    largest: f32,
    /// At each threshold, the classes that it speaks for.
    classes: [Vec<u32>; TENTHS],
}

fn speaks_for(column: &Column, labels: &Labels) -> Speaker {
    let mut fitted =
        column.entries.iter().filter(|(_, token)| !labels.is_held_out(*token as usize)).peekable();
    let largest = fitted.peek().map_or(0.0, |(value, _)| *value);
    let mut classes: [Vec<u32>; TENTHS] = Default::default();
    let mut counts = vec![0_usize; labels.classes().len()];
    let mut seen = 0;
    // From the highest threshold down: each lets in what the one before did, and more.
    for tenth in (0..TENTHS).rev() {
        while let Some((_, token)) =
            fitted.next_if(|(value, _)| *value > 0.0 && passes(*value, tenth, largest))
        {
            seen += 1;
            labels.of(*token as usize).iter().for_each(|&class| counts[class as usize] += 1);
        }
        let precise = |&count: &usize| seen > 0 && count as f64 >= LEAST_PRECISION * seen as f64;
        classes[tenth] =
            (0..).zip(&counts).filter(|(_, count)| precise(count)).map(|(class, _)| class).collect();
    }
    Speaker { largest, classes }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 80 tokens of class `token % 4`, named a to d; the halves in stretches of eight.
    fn labels() -> Labels {
        let mut labels = Labels::default();
        for token in 0..80 {
            let class = labels.number("f", ["a", "b", "c", "d"][token % 4]);
            labels.push(&[class], token / 8 % 2 == 1);
        }
        labels
    }

    fn unit(value: impl Fn(u32) -> f32) -> Column {
        Column::sparse((0..80).map(|token| (value(token), token)))
    }

    #[test]
    fn precise_units_speak_and_others_do_not() {
        let labels = labels();
        let mut reconstruction = Reconstruction::new(&labels);
        // a from 0.6 of its largest on, below that anything; b always; c and d never apart.
        reconstruction.add(&[
            unit(|token| if token % 4 == 0 { 1.0 } else { 0.5 }),
            unit(|token| f32::from(u8::from(token % 4 == 1))),
            unit(|token| f32::from(u8::from(token % 4 > 1))),
        ]);
        assert!(
            reconstruction.says(0, 0, 5) && !reconstruction.says(0, 0, 4) && !reconstruction.says(1, 0, 9)
        );
        assert!(reconstruction.says(1, 1, 0) && !reconstruction.says(2, 2, 9));
        // Half of the pairs that hold are spoken for, and none wrongly: 2·20 / (20 + 40).
        assert!((reconstruction.f1(&[0, 1, 2, 3]) - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(reconstruction.f1(&[0, 1]), 1.0);
        assert_eq!(Reconstruction::new(&labels).f1(&[0]), 0.0);
    }
}
