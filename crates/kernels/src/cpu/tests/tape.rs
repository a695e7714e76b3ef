//! Derivatives of what is computed number by number, in f64: what the step is held against.

use std::iter::once;

/// A number on a tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number(usize);

/// Numbers in the order in which they were computed.
#[derive(Default)]
pub(super) struct Tape {
    values: Vec<f64>,
    /// Those of number `i` end at `ends[i]`.
    ends: Vec<usize>,
    /// What a number was computed from, and its derivative by that.
    edges: Vec<(Number, f64)>,
}

impl Tape {
    /// Depends on nothing.
    pub(super) fn leaf(&mut self, value: f64) -> Number {
        self.number(value, [])
    }

    pub(super) fn leaves(&mut self, values: &[f32]) -> Vec<Number> {
        values.iter().map(|value| self.leaf(f64::from(*value))).collect()
    }

    /// With derivatives that may be what is said and not what they are.
    pub(super) fn number(
        &mut self,
        value: f64,
        derivatives: impl IntoIterator<Item = (Number, f64)>,
    ) -> Number {
        self.values.push(value);
        self.edges.extend(derivatives);
        self.ends.push(self.edges.len());
        Number(self.values.len() - 1)
    }

    pub(super) fn value(&self, number: Number) -> f64 {
        self.values[number.0]
    }

    /// The same number, which passes no gradient on.
    pub(super) fn stop(&mut self, number: Number) -> Number {
        self.leaf(self.value(number))
    }

    /// Σ coefficients · numbers + constant.
    pub(super) fn sum(&mut self, terms: &[(Number, f64)], constant: f64) -> Number {
        let value = terms.iter().map(|(number, factor)| factor * self.value(*number)).sum::<f64>();
        self.number(value + constant, terms.iter().copied())
    }

    /// Σ aᵢ bᵢ.
    pub(super) fn dot(&mut self, a: &[Number], b: &[Number]) -> Number {
        let pairs: Vec<_> = a.iter().zip(b).map(|(a, b)| (*a, *b, self.value(*a), self.value(*b))).collect();
        let value = pairs.iter().map(|(.., a, b)| a * b).sum();
        self.number(value, pairs.iter().flat_map(|(a, b, a_value, b_value)| [(*a, *b_value), (*b, *a_value)]))
    }

    pub(super) fn times(&mut self, a: Number, b: Number) -> Number {
        self.dot(&[a], &[b])
    }

    /// A function, given its value and derivative.
    pub(super) fn map(&mut self, x: Number, f: impl Fn(f64) -> (f64, f64)) -> Number {
        let (value, derivative) = f(self.value(x));
        self.number(value, once((x, derivative)))
    }

    /// Derivatives of `of` by every number.
    pub(super) fn gradients(&self, of: Number) -> Vec<f64> {
        let mut gradients = vec![0.0; self.values.len()];
        gradients[of.0] = 1.0;
        for i in (1..=of.0).rev() {
            let gradient = gradients[i];
            for (from, derivative) in &self.edges[self.ends[i - 1]..self.ends[i]] {
                gradients[from.0] += gradient * derivative;
            }
        }
        gradients
    }
}

pub(super) fn of(gradients: &[f64], numbers: &[Number]) -> Vec<f64> {
    numbers.iter().map(|number| gradients[number.0]).collect()
}

#[test]
fn derivatives_are_those_of_the_chain_rule() {
    let mut tape = Tape::default();
    let numbers = tape.leaves(&[2.0, 3.0, -1.0]);
    let product = tape.times(numbers[0], numbers[1]);
    let sum = tape.sum(&[(product, 2.0), (numbers[0], -1.0)], 5.0);
    let exp = tape.map(numbers[2], |x| (x.exp(), x.exp()));
    let all = tape.dot(&[sum, exp], &[numbers[0], exp]);
    // (2ab − a + 5)a + exp(c)²
    assert!((tape.value(all) - (30.0 + (-2.0_f64).exp())).abs() < 1e-12);
    let found = of(&tape.gradients(all), &numbers);
    for (found, expected) in found.iter().zip([4.0 * 6.0 - 4.0 + 5.0, 8.0, 2.0 * (-2.0_f64).exp()]) {
        assert!((found - expected).abs() < 1e-12, "{found} {expected}");
    }
}
