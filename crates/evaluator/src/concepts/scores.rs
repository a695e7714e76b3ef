//! How well one unit tells classes: F1 at a threshold, AUROC, monosemanticity.

use super::{Column, Labels};

/// What a unit comes to for one class on one half.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Score {
    /// The largest F1 = 2·TP / (2·TP + FP + FN) of `value >= threshold`, over the thresholds that leave something out.
    pub(crate) f1: f64,
    /// The threshold that has it: the middle between the least value let in and the largest left out; infinite if no token of the class is above rest.
    pub(crate) threshold: f32,
    /// The chance that a token of the class has a larger value than one that is not of it, ties counting half; `None` if the half lacks one kind.
    pub(crate) auroc: Option<f64>,
}

/// The [`Score`] of `column` for every class, in one sweep down its values.
///
/// F1 only grows where a token of the class comes in, so that it is looked at there alone: a sweep costs as many steps as the
/// tokens have classes. Not to leave anything out is no detection; at rest a unit says nothing, so tokens at rest are never let in.
pub(crate) fn scores(column: &Column, labels: &Labels, held_out: bool) -> Vec<Score> {
    let half = labels.half(held_out);
    let n_classes = labels.classes().len();
    let mut counts = vec![0_usize; n_classes];
    let mut ranks = vec![0.0; n_classes];
    let mut best = vec![(0.0, f32::INFINITY); n_classes];
    let entries = column.entries.iter().filter(|(_, token)| labels.is_held_out(*token as usize) == held_out);
    let entries: Vec<(f32, u32)> = entries.copied().collect();
    let mut seen = 0;
    for group in entries.chunk_by(|a, b| a.0 == b.0) {
        // Equal values share the middle one of their ranks.
        let rank = seen as f64 + (group.len() as f64 + 1.0) / 2.0;
        let members = || group.iter().flat_map(|&(_, token)| labels.of(token as usize));
        for &class in members() {
            counts[class as usize] += 1;
            ranks[class as usize] += rank;
        }
        seen += group.len();
        if seen == half.n {
            break;
        }
        // What comes next, or rest.
        let (value, next) = (group[0].0, entries.get(seen).map_or(0.0, |&(next, _)| next));
        let middle = next + 0.5 * (value - next);
        // Of neighbouring numbers there is none between.
        let threshold = if middle > next { middle } else { value };
        for &class in members() {
            let class = class as usize;
            let f1 = 2.0 * counts[class] as f64 / (seen + half.positives(class)) as f64;
            if f1 > best[class].0 {
                best[class] = (f1, threshold);
            }
        }
    }
    let resting = seen as f64 + ((half.n - seen) as f64 + 1.0) / 2.0;
    (0..n_classes)
        .map(|class| {
            let (positives, negatives) = (half.positives(class), half.negatives(class));
            let ranks = ranks[class] + (positives - counts[class]) as f64 * resting;
            Score {
                f1: best[class].0,
                threshold: best[class].1,
                auroc: from_ranks(ranks, positives, negatives),
            }
        })
        .collect()
}

/// From the sum of the ranks of the positives among all, the largest value having rank 1 (Mann and Whitney's U).
fn from_ranks(ranks: f64, positives: usize, negatives: usize) -> Option<f64> {
    let (p, n) = (positives as f64, negatives as f64);
    (positives > 0 && negatives > 0).then(|| (p * n + p * (p + 1.0) / 2.0 - ranks) / (p * n))
}

/// The AUROC of `scores`: exact, ties counted half. `None` if one kind is missing.
pub(crate) fn auroc(scores: &[f64], positive: &[bool]) -> Option<f64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let (mut seen, mut ranks) = (0.0, 0.0);
    for group in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let rank = seen + (group.len() as f64 + 1.0) / 2.0;
        ranks += rank * group.iter().filter(|&&i| positive[i]).count() as f64;
        seen += group.len() as f64;
    }
    let positives = positive.iter().filter(|&&positive| positive).count();
    from_ranks(ranks, positives, scores.len() - positives)
}

/// What a yes-or-no detection comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Detection {
    /// TP / (TP + FP); 0 if nothing is detected.
    pub(crate) precision: f64,
    /// TP / (TP + FN); 0 if there is nothing to detect.
    pub(crate) recall: f64,
    /// 2·TP / (2·TP + FP + FN).
    pub(crate) f1: f64,
}

impl Detection {
    /// Of so many detected, of which so many rightly, among so many positives.
    pub(crate) fn new(right: usize, detected: usize, positives: usize) -> Self {
        let ratio = |a: usize, b: usize| if b == 0 { 0.0 } else { a as f64 / b as f64 };
        Self {
            precision: ratio(right, detected),
            recall: ratio(right, positives),
            f1: ratio(2 * right, detected + positives),
        }
    }

    /// Of pairs of detected and positive.
    pub(crate) fn of(pairs: impl IntoIterator<Item = (bool, bool)>) -> Self {
        let (mut right, mut detected, mut positives) = (0, 0, 0);
        for (is_detected, positive) in pairs {
            right += usize::from(is_detected && positive);
            detected += usize::from(is_detected);
            positives += usize::from(positive);
        }
        Self::new(right, detected, positives)
    }

    /// Of `class` by `value >= threshold` on one half.
    pub(crate) fn at(column: &Column, threshold: f32, labels: &Labels, class: usize, held_out: bool) -> Self {
        let (mut right, mut detected) = (0, 0);
        for &(value, token) in &column.entries {
            if value < threshold {
                break;
            }
            let token = token as usize;
            if labels.is_held_out(token) == held_out {
                detected += 1;
                right += usize::from(labels.is(token, class));
            }
        }
        Self::new(right, detected, labels.half(held_out).positives(class))
    }
}

/// The monosemanticity score of a unit with respect to a factor, on one half.
///
/// MS = Σ_{t<u} ã_t ã_u s(t, u) / Σ_{t<u} ã_t ã_u (Pach et al. 2025, arXiv 2504.02821, eq. 5 to 8: the mean
/// similarity of pairs of inputs, weighted by how strongly both activate the unit, ã scaled from its smallest value to its largest). There
/// s is the cosine of two embeddings by another model; here, where the truth is known, it is 1 for two tokens with the same value of the
/// factor and 0 for two with different ones, and tokens at which the factor has none are left out. So MS is the chance that two tokens, drawn as
/// strongly as they activate the unit, agree in the factor. (MS does not change with the scale of ã.) `None` if no two activate it.
pub(crate) fn monosemanticity(
    column: &Column,
    labels: &Labels,
    factor: usize,
    held_out: bool,
) -> Option<f64> {
    // Something is at rest, or else all are listed and the last one is the least.
    let least = if column.entries.len() < labels.n() { 0.0 } else { column.entries.last()?.0 };
    let n_classes = labels.classes().len();
    let (mut sums, mut squares) = (vec![0.0; n_classes], vec![0.0; n_classes]);
    for &(value, token) in &column.entries {
        let token = token as usize;
        if labels.is_held_out(token) == held_out {
            let a = f64::from(value) - f64::from(least);
            for &class in labels.of(token) {
                sums[class as usize] += a;
                squares[class as usize] += a * a;
            }
        }
    }
    pairs_of(labels, factor, &sums, &squares)
}

/// What [`monosemanticity`] is of a unit that activates alike on all tokens: the chance that two tokens agree in the factor.
pub(crate) fn same_value(labels: &Labels, factor: usize, held_out: bool) -> Option<f64> {
    let half = labels.half(held_out);
    let counts: Vec<f64> = (0..labels.classes().len()).map(|class| half.positives(class) as f64).collect();
    pairs_of(labels, factor, &counts, &counts)
}

/// Σ over pairs of one value / Σ over all pairs, from sums and sums of squares by class.
fn pairs_of(labels: &Labels, factor: usize, sums: &[f64], squares: &[f64]) -> Option<f64> {
    let of_factor = labels.classes().iter().enumerate().filter(|(_, class)| class.factor == factor);
    let (mut same, mut sum, mut square) = (0.0, 0.0, 0.0);
    for (class, _) in of_factor {
        same += sums[class].powi(2) - squares[class];
        sum += sums[class];
        square += squares[class];
    }
    let all = sum.powi(2) - square;
    // A single active token leaves nothing but rounding.
    (all > 1e-12 * square).then(|| (same / all).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens of values of one factor, by name; all in one half.
    fn labels(values: &[&str]) -> Labels {
        let mut labels = Labels::default();
        for &value in values {
            let class = (!value.is_empty()).then(|| labels.number("f", value));
            labels.push(class.as_slice(), false);
        }
        labels
    }

    #[test]
    fn f1_and_auroc_by_hand() {
        let labels = labels(&["a", "a", "b", "", "b", "a"]);
        // 3: a | 2: b, a (tied) | 0: a, none, b.
        let column = Column::sparse([(3.0, 0), (2.0, 2), (2.0, 5)]);
        let found = scores(&column, &labels, false);
        // a: {0}: F1 2/4; {0, 2, 5}: 4/6.
        assert!((found[0].f1 - 2.0 / 3.0).abs() < 1e-15 && found[0].threshold == 1.0, "{found:?}");
        // Pairs of an a and another: 0 beats all 3; 5 ties with 2, beats 2; 1 loses to 2, ties with 2: 3 + 2.5 + 1 of 9.
        assert!((found[0].auroc.unwrap() - 6.5 / 9.0).abs() < 1e-15, "{found:?}");
        // b: {0, 2, 5}: 2/5.
        assert!((found[1].f1 - 0.4).abs() < 1e-15);
        let detection = Detection::at(&column, 2.0, &labels, 0, false);
        assert_eq!(detection, Detection { precision: 2.0 / 3.0, recall: 2.0 / 3.0, f1: 2.0 / 3.0 });
        let dense: Vec<f64> = vec![3.0, 0.0, 2.0, 0.0, 0.0, 2.0];
        let a = [true, true, false, false, false, true];
        assert!((auroc(&dense, &a).unwrap() - 6.5 / 9.0).abs() < 1e-15);
        assert_eq!(auroc(&dense, &[true; 6]), None);
    }

    #[test]
    fn what_detects_everything_detects_nothing() {
        let labels = labels(&["a", "b"]);
        let found = scores(&Column::dense([1.0, 1.0]), &labels, false);
        assert_eq!((found[0].f1, found[0].threshold, found[0].auroc), (0.0, f32::INFINITY, Some(0.5)));
        let silent = scores(&Column::default(), &labels, false);
        assert_eq!((silent[0].f1, silent[0].auroc), (0.0, Some(0.5)));
    }

    #[test]
    fn the_other_half_is_not_seen() {
        let mut labels = Labels::default();
        let a = labels.number("f", "a");
        for (classes, held_out) in [(&[a][..], false), (&[], false), (&[], true), (&[a], true)] {
            labels.push(classes, held_out);
        }
        let column = Column::sparse([(1.0, 0), (1.0, 2)]);
        assert_eq!(scores(&column, &labels, false)[0].auroc, Some(1.0));
        assert_eq!(scores(&column, &labels, true)[0].auroc, Some(0.0));
        assert_eq!(Detection::at(&column, 1.0, &labels, 0, true).f1, 0.0);
    }

    #[test]
    fn monosemanticity_by_hand() {
        let labels = labels(&["a", "a", "b", "", "b"]);
        // ã = 2, 1, 1, (5 where the factor has no value), 0: pairs aa 2, ab 2 + 1, bb 0.
        let column = Column::sparse([(2.0, 0), (1.0, 1), (1.0, 2), (5.0, 3)]);
        assert!((monosemanticity(&column, &labels, 0, false).unwrap() - 2.0 / 5.0).abs() < 1e-15);
        let scaled = Column::sparse([(6.0, 0), (3.0, 1), (3.0, 2), (15.0, 3)]);
        assert!((monosemanticity(&scaled, &labels, 0, false).unwrap() - 2.0 / 5.0).abs() < 1e-6);
        // A value on every token is measured from the least.
        let dense = Column::dense([-7.0, -8.0, -8.0, -4.0, -9.0]);
        assert!((monosemanticity(&dense, &labels, 0, false).unwrap() - 2.0 / 5.0).abs() < 1e-15);
        assert_eq!(monosemanticity(&Column::sparse([(1.0, 0)]), &labels, 0, false), None);
        // Pairs of 4: 2 of 6 agree.
        assert!((same_value(&labels, 0, false).unwrap() - 1.0 / 3.0).abs() < 1e-15);
    }
}
