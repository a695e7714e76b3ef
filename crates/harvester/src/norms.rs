//! Leaving out tokens of huge norm.
//!
//! Some models (Qwen's, for instance) carry massive activations at places that nobody can tell beforehand. The rule is
//! dictionary_learning's (`max_activation_norm_multiple` of its `ActivationBuffer`): of a batch those are left out whose norm
//! is above a multiple of the batch's median norm, as PyTorch's `median` takes it: of an even number the lower one of the two
//! in the middle.

use crate::rows::Vectors;

pub(crate) struct NormFilter {
    multiple: f64,
}

impl NormFilter {
    /// Of a finite multiple above 1, so that at any one hook more than half of all tokens stay.
    pub(crate) fn new(multiple: f64) -> Self {
        Self { multiple }
    }

    /// Keeps of `places` those whose vector is within the limit at every hook. `index` says where it lies in `hooks`.
    ///
    /// The median is that of `places`, in f64. Where it is 0 a hook leaves nothing out; and what is not finite stays, to be
    /// refused by name when it is stored.
    pub(crate) fn retain<'a, T>(
        &self,
        hooks: impl Iterator<Item = Vectors<'a>>,
        places: &mut Vec<T>,
        index: impl Fn(&T) -> usize,
    ) {
        let mut stays = vec![true; places.len()];
        for vectors in hooks {
            let norms: Vec<f64> = places.iter().map(|place| norm(vectors.get(index(place)))).collect();
            let limit = self.multiple * median(norms.clone());
            for (stays, norm) in stays.iter_mut().zip(norms) {
                *stays &= limit == 0.0 || !norm.is_finite() || norm <= limit;
            }
        }
        let mut stays = stays.into_iter();
        places.retain(|_| stays.next().unwrap_or(true));
    }
}

fn norm(x: &[f32]) -> f64 {
    x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

/// 0 of nothing.
fn median(mut norms: Vec<f64>) -> f64 {
    let Some(middle) = norms.len().checked_sub(1).map(|last| last / 2) else { return 0.0 };
    *norms.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the vectors stay.
    fn stay(multiple: f64, hooks: &[&[f32]], n: usize) -> Vec<usize> {
        let vectors = hooks.iter().map(|values| Vectors { values, n });
        let mut places: Vec<usize> = (0..n).collect();
        NormFilter::new(multiple).retain(vectors, &mut places, |&place| place);
        places
    }

    #[test]
    fn what_is_above_a_multiple_of_the_median_is_left_out() {
        // Norms 5, 1, 10, 2, 50: the median is 5.
        let x = [3.0, 4.0, 1.0, 0.0, 6.0, -8.0, 0.0, 2.0, 30.0, 40.0];
        assert_eq!(stay(2.0, &[&x], 5), [0, 1, 2, 3]);
        assert_eq!(stay(1.9, &[&x], 5), [0, 1, 3]);
        assert_eq!(stay(10.0, &[&x], 5), [0, 1, 2, 3, 4]);
        // Of four the lower one in the middle: 2 of 1, 2, 5, 10.
        assert_eq!(stay(2.4, &[&x[..8]], 4), [1, 3]);
    }

    #[test]
    fn one_hook_is_enough_and_each_has_its_own_scale() {
        let (a, b) = ([1.0, 1.0, 1.0, 20.0, 1.0], [100.0, 3000.0, 100.0, 100.0, 100.0]);
        assert_eq!(stay(10.0, &[&a, &b], 5), [0, 2, 4]);
    }

    #[test]
    fn zeros_and_what_is_not_finite() {
        assert_eq!(stay(10.0, &[&[0.0, 0.0, 0.0, 7.0]], 4), [0, 1, 2, 3]);
        assert_eq!(stay(10.0, &[&[1.0, f32::NAN, 1.0, f32::INFINITY, 11.0, 1.0]], 6), [0, 1, 2, 3, 5]);
        assert_eq!(stay(10.0, &[&[]], 0), [0; 0]);
        // Far beyond the squares that f32 holds.
        assert_eq!(stay(10.0, &[&[1e30, 2e30, 3e31]], 3), [0, 1]);
    }
}
