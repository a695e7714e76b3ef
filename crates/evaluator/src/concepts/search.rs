//! The best unit for each class: chosen on the fit half, judged on the held-out half.

use std::collections::HashMap;

use rayon::prelude::*;

use super::{
    Column, Detection, Labels, monosemanticity,
    reconstruction::Reconstruction,
    scores::{Score, scores},
};
use crate::error::EvalError;

/// Values that the columns of one call may hold.
const BLOCK_VALUES: usize = 1 << 22;

/// Units to choose from.
pub(crate) trait Units {
    /// How many there are.
    fn count(&self) -> usize;

    /// Their values on all tokens.
    fn columns(&self, units: &[usize]) -> Result<Vec<Column>, EvalError>;
}

/// The best unit for a class: by F1, and, possibly another one, by AUROC.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    /// The class.
    pub(crate) class: usize,
    /// The unit with the largest F1 on the fit half, the first of several.
    pub(crate) unit: usize,
    /// The threshold that has it there.
    pub(crate) threshold: f32,
    /// That F1.
    pub(crate) fit_f1: f64,
    /// What unit and threshold come to on the held-out half.
    pub(crate) held_out: Detection,
    /// How selective the unit is among values of the class's factor, on the held-out half.
    pub(crate) monosemanticity: Option<f64>,
    /// The unit with the largest AUROC on the fit half.
    pub(crate) auroc_unit: usize,
    /// Its AUROC on the held-out half.
    pub(crate) auroc: f64,
}

/// Finds the best of `units` for each of `classes`, which must have tokens of both kinds in both halves; and how much all of them together
/// [reconstruct](Reconstruction).
pub(crate) fn search(
    units: &dyn Units,
    labels: &Labels,
    classes: &[usize],
) -> Result<(Vec<Found>, f64), EvalError> {
    let none = Score { f1: -1.0, threshold: f32::INFINITY, auroc: Some(-1.0) };
    let mut by_f1 = vec![(none, 0); classes.len()];
    let mut by_auroc = by_f1.clone();
    let all: Vec<usize> = (0..units.count()).collect();
    let mut reconstruction = Reconstruction::new(labels);
    for block in all.chunks(block(labels)) {
        let columns = units.columns(block)?;
        reconstruction.add(&columns);
        let found: Vec<Vec<Score>> = columns.par_iter().map(|column| scores(column, labels, false)).collect();
        for (&unit, scores) in block.iter().zip(&found) {
            for (i, &class) in classes.iter().enumerate() {
                let score = scores[class];
                if score.f1 > by_f1[i].0.f1 {
                    by_f1[i] = (score, unit);
                }
                if score.auroc > by_auroc[i].0.auroc {
                    by_auroc[i] = (score, unit);
                }
            }
        }
    }
    let mut chosen: Vec<usize> = by_f1.iter().chain(&by_auroc).map(|(_, unit)| *unit).collect();
    chosen.sort_unstable();
    chosen.dedup();
    let mut aurocs = HashMap::new();
    let mut judged = HashMap::new();
    for block in chosen.chunks(block(labels)) {
        for (&unit, column) in block.iter().zip(units.columns(block)?) {
            let of_unit = scores(&column, labels, true);
            for (i, &class) in classes.iter().enumerate() {
                if by_auroc[i].1 == unit {
                    let auroc = of_unit[class].auroc;
                    aurocs.insert(class, auroc.expect("classes have tokens of both kinds in both halves"));
                }
                let (score, chosen) = by_f1[i];
                if chosen == unit {
                    let held_out = Detection::at(&column, score.threshold, labels, class, true);
                    let factor = labels.classes()[class].factor;
                    judged.insert(class, (held_out, monosemanticity(&column, labels, factor, true)));
                }
            }
        }
    }
    let found =
        classes.iter().zip(by_f1.iter().zip(&by_auroc)).map(|(&class, ((score, unit), (_, auroc_unit)))| {
            let (held_out, monosemanticity) = judged[&class];
            Found {
                class,
                unit: *unit,
                threshold: score.threshold,
                fit_f1: score.f1,
                held_out,
                monosemanticity,
                auroc_unit: *auroc_unit,
                auroc: aurocs[&class],
            }
        });
    Ok((found.collect(), reconstruction.f1(classes)))
}

/// How many columns may be held at once.
fn block(labels: &Labels) -> usize {
    (BLOCK_VALUES / labels.n().max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Planted(Vec<Column>);

    impl Units for Planted {
        fn count(&self) -> usize {
            self.0.len()
        }

        fn columns(&self, units: &[usize]) -> Result<Vec<Column>, EvalError> {
            Ok(units.iter().map(|&unit| self.0[unit].clone()).collect())
        }
    }

    /// Tokens 0 to 59 of classes 0, 1, 2 in turn; the halves in stretches of ten.
    fn labels() -> Labels {
        let mut labels = Labels::default();
        for token in 0..60 {
            let class = labels.number("f", &format!("v{}", token % 3));
            labels.push(&[class], token / 10 % 2 == 1);
        }
        labels
    }

    fn firing(fires: impl Fn(u32) -> bool) -> Column {
        Column::sparse((0..60).filter(|&token| fires(token)).map(|token| (1.0 + (token % 7) as f32, token)))
    }

    #[test]
    fn a_planted_unit_is_found_and_perfect() {
        let units = Planted(vec![
            firing(|t| t % 2 == 0),
            firing(|t| t % 3 == 2),
            firing(|t| t % 3 == 0),
            firing(|t| t % 3 == 1),
            firing(|t| t % 3 == 1),
        ]);
        let (found, reconstruction) = search(&units, &labels(), &[0, 1, 2]).unwrap();
        assert_eq!(reconstruction, 1.0);
        assert_eq!(found.iter().map(|found| found.unit).collect::<Vec<_>>(), [2, 3, 1]);
        for found in found {
            assert_eq!((found.fit_f1, found.held_out.f1, found.auroc), (1.0, 1.0, 1.0));
            assert_eq!((found.unit, found.monosemanticity), (found.auroc_unit, Some(1.0)));
        }
    }

    #[test]
    fn what_is_chosen_by_chance_is_not_believed() {
        // Of 2,000 random units the best looks good where it was chosen, and is like any other where it was not.
        let mut state = 1_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 16
        };
        let mut units = Vec::new();
        for _ in 0..2000 {
            let draws: Vec<bool> = (0..60).map(|_| random() % 3 == 0).collect();
            units.push(firing(|t| draws[t as usize]));
        }
        let (found, _) = search(&Planted(units), &labels(), &[0, 1, 2]).unwrap();
        let mean = |of: fn(&Found) -> f64| found.iter().map(of).sum::<f64>() / 3.0;
        assert!(mean(|found| found.fit_f1) > 0.7, "{found:?}");
        assert!(mean(|found| found.held_out.f1) < 0.55, "{found:?}");
        assert!(mean(|found| (found.auroc - 0.5).abs()) < 0.25, "{found:?}");
    }
}
