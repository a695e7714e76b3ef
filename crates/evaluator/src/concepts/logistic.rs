//! Logistic regression with an L2 penalty, as scikit-learn's `LogisticRegression` defines it.

/// Rows of numbers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rows {
    /// Numbers in a row.
    pub(crate) width: usize,
    /// Row after row.
    pub(crate) values: Vec<f64>,
}

impl Rows {
    /// Row after row.
    fn iter(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks_exact(self.width)
    }
}

/// How much each class weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Classes {
    /// Every row 1.
    AsTheyAre,
    /// Both classes the same in sum (scikit-learn's `class_weight="balanced"`).
    Balanced,
}

/// A linear classifier: positive where `weights · x + bias > 0`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Logistic {
    /// One for each number of a row.
    pub(crate) weights: Vec<f64>,
    /// The intercept.
    pub(crate) bias: f64,
}

impl Logistic {
    /// `weights · x + bias`.
    pub(crate) fn score(&self, x: impl IntoIterator<Item = f64>) -> f64 {
        self.bias + self.weights.iter().zip(x).map(|(w, x)| w * x).sum::<f64>()
    }
}

/// Steps that L-BFGS takes at most; scikit-learn's `max_iter` is 100.
const MOST_STEPS: usize = 500;

/// Where the gradient's largest entry, per unit of weight, counts as 0; scikit-learn's `tol` is 1e-4.
const TOLERANCE: f64 = 1e-6;

/// A deviation smaller than this part of the mean is rounding: numbers come from f32.
const SMALLEST_DEVIATION: f64 = 1e-7;

/// How many steps back L-BFGS remembers.
const MEMORY: usize = 10;

/// The weights w and the bias b that minimise ½‖w‖² + Σ sᵢ log(1 + exp(−yᵢ(w·xᵢ + b))): scikit-learn's with C = 1.
///
/// Found by L-BFGS (Liu and Nocedal 1989) in standardised coordinates. Those change how fast it converges and not what it converges to: the penalty
/// is on w as it applies to `rows`, which has one row for each of `positive`.
pub(crate) fn fit(rows: &Rows, positive: &[bool], classes: Classes) -> Logistic {
    let problem = Problem::new(rows, positive, classes);
    let point = minimise(vec![0.0; rows.width + 1], TOLERANCE * problem.weight(), |point, gradient| {
        problem.loss(point, gradient)
    });
    problem.in_original_coordinates(&point)
}

struct Problem {
    /// Standardised.
    rows: Rows,
    mean: Vec<f64>,
    deviation: Vec<f64>,
    /// ±1 and the weight of each row.
    targets: Vec<(f64, f64)>,
}

impl Problem {
    fn new(rows: &Rows, positive: &[bool], classes: Classes) -> Self {
        let n = positive.len() as f64;
        let mut mean = vec![0.0; rows.width];
        for row in rows.iter() {
            mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += x / n);
        }
        let mut deviation = vec![0.0; rows.width];
        for row in rows.iter() {
            let apart = row.iter().zip(&mean).map(|(x, mean)| x - mean);
            deviation.iter_mut().zip(apart).for_each(|(sum, apart)| *sum += apart * apart / n);
        }
        // What never changes says nothing, whatever it is divided by; but by what rounding has made of its deviation it must not be.
        for (deviation, mean) in deviation.iter_mut().zip(&mean) {
            let root = deviation.sqrt();
            *deviation = if root > SMALLEST_DEVIATION * mean.abs() { root } else { 1.0 };
        }
        let standardised = rows.iter().flat_map(|row| {
            row.iter().zip(mean.iter().zip(&deviation)).map(|(x, (mean, deviation))| (x - mean) / deviation)
        });
        let values = standardised.collect();
        let n_positive = positive.iter().filter(|&&positive| positive).count() as f64;
        let weight = |positive: bool| match classes {
            Classes::AsTheyAre => 1.0,
            Classes::Balanced => n / (2.0 * if positive { n_positive } else { n - n_positive }),
        };
        let targets = positive.iter().map(|&p| (if p { 1.0 } else { -1.0 }, weight(p))).collect();
        Self { rows: Rows { width: rows.width, values }, mean, deviation, targets }
    }

    /// Of all rows together.
    fn weight(&self) -> f64 {
        self.targets.iter().map(|(_, weight)| weight).sum()
    }

    /// The loss at `point`, weights of standardised coordinates and then the bias; its gradient is written to `gradient`.
    fn loss(&self, point: &[f64], gradient: &mut [f64]) -> f64 {
        let (weights, bias) = point.split_at(self.rows.width);
        let mut loss = 0.0;
        gradient.fill(0.0);
        let (slopes, slope) = gradient.split_at_mut(self.rows.width);
        for (row, &(target, weight)) in self.rows.iter().zip(&self.targets) {
            let margin = target * (dot(weights, row) + bias[0]);
            // log(1 + exp(−margin)), and 1 / (1 + exp(margin)), without overflow.
            let small = (-margin.abs()).exp();
            loss += weight * (small.ln_1p() + (-margin).max(0.0));
            let miss = if margin > 0.0 { small / (1.0 + small) } else { 1.0 / (1.0 + small) };
            let pull = -target * weight * miss;
            slopes.iter_mut().zip(row).for_each(|(slope, x)| *slope += pull * x);
            slope[0] += pull;
        }
        for ((slope, weight), deviation) in slopes.iter_mut().zip(weights).zip(&self.deviation) {
            let original = weight / deviation;
            loss += 0.5 * original * original;
            *slope += original / deviation;
        }
        loss
    }

    fn in_original_coordinates(&self, point: &[f64]) -> Logistic {
        let weights: Vec<f64> =
            point.iter().zip(&self.deviation).map(|(w, deviation)| w / deviation).collect();
        let bias = point[self.rows.width] - dot(&weights, &self.mean);
        Logistic { weights, bias }
    }
}

/// a · b: four sums side by side, since one alone would wait for every addition.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a_fours, a_rest) = a.as_chunks::<4>();
    let (b_fours, b_rest) = b.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for (a, b) in a_fours.iter().zip(b_fours) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

/// Minimises a convex function from `point` on, until no entry of its gradient is larger than `tolerance`.
fn minimise(
    mut point: Vec<f64>,
    tolerance: f64,
    mut loss: impl FnMut(&[f64], &mut [f64]) -> f64,
) -> Vec<f64> {
    let mut gradient = vec![0.0; point.len()];
    let mut value = loss(&point, &mut gradient);
    let mut steps: Vec<Step> = Vec::new();
    let mut next_gradient = gradient.clone();
    for _ in 0..MOST_STEPS {
        if gradient.iter().all(|g| g.abs() <= tolerance) {
            break;
        }
        let direction = descent(&gradient, &steps);
        let slope = dot(&direction, &gradient);
        let mut length = if steps.is_empty() { 1.0 / dot(&gradient, &gradient).sqrt() } else { 1.0 };
        // Armijo's condition, halving; once rounding is all that is left, there is nothing to gain.
        let (next, next_value) = loop {
            let next: Vec<f64> = point.iter().zip(&direction).map(|(p, d)| p + length * d).collect();
            let next_value = loss(&next, &mut next_gradient);
            if next_value <= value + 1e-4 * length * slope {
                break (next, next_value);
            }
            length *= 0.5;
            if length < 1e-12 {
                return point;
            }
        };
        let moved: Vec<f64> = next.iter().zip(&point).map(|(a, b)| a - b).collect();
        let changed: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
        let curvature = dot(&moved, &changed);
        if curvature > 0.0 {
            if steps.len() == MEMORY {
                steps.remove(0);
            }
            steps.push(Step { moved, changed, curvature });
        }
        (point, value) = (next, next_value);
        std::mem::swap(&mut gradient, &mut next_gradient);
    }
    point
}

/// A step that was taken, and how the gradient changed with it.
struct Step {
    moved: Vec<f64>,
    changed: Vec<f64>,
    curvature: f64,
}

/// Where L-BFGS goes: minus the gradient, times what `steps` tell of the inverse Hessian.
fn descent(gradient: &[f64], steps: &[Step]) -> Vec<f64> {
    let add = |direction: &mut [f64], factor: f64, vector: &[f64]| {
        direction.iter_mut().zip(vector).for_each(|(d, v)| *d += factor * v);
    };
    let mut direction: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut factors = Vec::with_capacity(steps.len());
    for step in steps.iter().rev() {
        let factor = dot(&step.moved, &direction) / step.curvature;
        add(&mut direction, -factor, &step.changed);
        factors.push(factor);
    }
    if let Some(last) = steps.last() {
        let scale = last.curvature / dot(&last.changed, &last.changed);
        direction.iter_mut().for_each(|d| *d *= scale);
    }
    for (step, factor) in steps.iter().zip(factors.into_iter().rev()) {
        let back = dot(&step.changed, &direction) / step.curvature;
        add(&mut direction, factor - back, &step.moved);
    }
    direction
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Largest difference from scikit-learn's coefficients: what is left of either's tolerance.
    const CLOSE: f64 = 1e-4;

    #[test]
    fn one_number_by_hand() {
        // x = −1 and 1, n times each: w = 2n·σ(−w) has no closed form, but its residual must be 0, and b is.
        let rows = Rows { width: 1, values: vec![-1.0, 1.0, -1.0, 1.0] };
        let found = fit(&rows, &[false, true, false, true], Classes::AsTheyAre);
        let residual = found.weights[0] - 4.0 / (1.0 + found.weights[0].exp());
        assert!(residual.abs() < 1e-4 && found.bias.abs() < 1e-6, "{found:?}");
        // A number that never changes gets no weight.
        let rows = Rows { width: 2, values: vec![-1.0, 5.0, 1.0, 5.0, -1.0, 5.0, 1.0, 5.0] };
        let with_constant = fit(&rows, &[false, true, false, true], Classes::AsTheyAre);
        assert!((with_constant.weights[0] - found.weights[0]).abs() < 1e-6);
        assert_eq!(with_constant.weights[1], 0.0);
        // Nor does one of which the mean is not what it always is, but for rounding.
        let third = 6.0 / 17.0;
        let values = (0..600).flat_map(|i| [if i % 2 == 0 { -1.0 } else { 1.0 }, third]).collect();
        let positive: Vec<bool> = (0..600).map(|i| i % 2 == 1).collect();
        let found = fit(&Rows { width: 2, values }, &positive, Classes::AsTheyAre);
        assert!(found.weights[0] > 1.0 && found.weights[1].abs() < 1e-6, "{found:?}");
    }

    /// `tests/fixtures/logistic/export.py` made it with scikit-learn.
    #[test]
    fn coefficients_are_those_of_scikit_learn() {
        let cases: Value =
            serde_json::from_str(include_str!("../../tests/fixtures/logistic/logistic.json")).unwrap();
        let numbers = |value: &Value| -> Vec<f64> {
            value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
        };
        let cases = cases.as_array().unwrap();
        assert!(cases.len() >= 5);
        for case in cases {
            let rows = Rows { width: case["width"].as_u64().unwrap() as usize, values: numbers(&case["x"]) };
            let positive: Vec<bool> = case["y"].as_array().unwrap().iter().map(|y| y == 1).collect();
            let classes = if case["balanced"] == true { Classes::Balanced } else { Classes::AsTheyAre };
            let found = fit(&rows, &positive, classes);
            let expected = numbers(&case["weights"]);
            let scale = expected.iter().fold(1.0, |most: f64, w| most.max(w.abs()));
            for (found, expected) in found.weights.iter().zip(&expected) {
                assert!((found - expected).abs() < CLOSE * scale, "{}: {found} {expected}", case["name"]);
            }
            let bias = case["bias"].as_f64().unwrap();
            assert!(
                (found.bias - bias).abs() < CLOSE * scale.max(bias.abs()),
                "{}: {} {bias}",
                case["name"],
                found.bias
            );
        }
    }
}
