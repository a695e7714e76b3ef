//! Loops over slices that the compiler turns into the vectors of whoever calls them, and sums whose order is fixed.

use pulp::Simd;

/// Vectors of partial sums: an addition takes as long as several that do not wait for it.
const ABREAST_SUMS: usize = 4;

/// Rows that one pass adds up.
pub(super) const ABREAST: usize = 4;

/// `sum += factor · row`.
#[inline(always)]
pub(super) fn add(sum: &mut [f32], factor: f32, row: &[f32]) {
    sum.iter_mut().zip(row).for_each(|(sum, value)| *sum = factor.mul_add(*value, *sum));
}

/// `sum += Σ factorsᵢ · rowsᵢ`: the sum is read and written once.
#[inline(always)]
pub(super) fn add_rows(sum: &mut [f32], factors: [f32; ABREAST], rows: [&[f32]; ABREAST]) {
    let [a, b, c, d] = rows;
    for ((((sum, a), b), c), d) in sum.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        let first = factors[0].mul_add(*a, *sum);
        let second = factors[1].mul_add(*b, first);
        let third = factors[2].mul_add(*c, second);
        *sum = factors[3].mul_add(*d, third);
    }
}

/// Σ aᵢ bᵢ.
#[inline(always)]
pub(super) fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (S::as_simd_f32s(a), S::as_simd_f32s(b));
    let mut sums = [simd.splat_f32s(0.0); ABREAST_SUMS];
    let ((a_fours, a_ones), (b_fours, b_ones)) =
        (a.as_chunks::<ABREAST_SUMS>(), b.as_chunks::<ABREAST_SUMS>());
    for (a, b) in a_fours.iter().zip(b_fours) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum = simd.mul_add_e_f32s(*a, *b, *sum);
        }
    }
    for (sum, (a, b)) in sums.iter_mut().zip(a_ones.iter().zip(b_ones)) {
        *sum = simd.mul_add_e_f32s(*a, *b, *sum);
    }
    let rest = simd.mul_f32s(simd.partial_load_f32s(a_rest), simd.partial_load_f32s(b_rest));
    let halves = [simd.add_f32s(sums[0], sums[1]), simd.add_f32s(sums[2], sums[3])];
    simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(halves[0], halves[1]), rest))
}

/// Σ aᵢ², in double precision from every few hundred on.
#[inline(always)]
pub(super) fn squares<S: Simd>(simd: S, values: &[f32]) -> f64 {
    let mut sum = 0.0;
    for values in values.chunks(512) {
        sum += f64::from(dot(simd, values, values));
    }
    sum
}

#[cfg(test)]
mod tests {
    use pulp::{Arch, Scalar, WithSimd};

    use super::*;

    struct Sums<'a>(&'a [f32]);

    impl WithSimd for Sums<'_> {
        type Output = (f32, f64);

        fn with_simd<S: Simd>(self, simd: S) -> (f32, f64) {
            (dot(simd, self.0, self.0), squares(simd, self.0))
        }
    }

    #[test]
    fn sums_reach_the_last_number() {
        let values: Vec<f32> = (0..600).map(|i| (i % 7) as f32).collect();
        for n in [0, 1, 15, 16, 17, 63, 64, 65, 255, 256, 600] {
            let expected: f32 = values[..n].iter().map(|v| v * v).sum();
            for found in [Arch::new().dispatch(Sums(&values[..n])), Sums(&values[..n]).with_simd(Scalar)] {
                assert_eq!(found, (expected, f64::from(expected)));
            }
        }
    }

    #[test]
    fn rows_add_up() {
        let mut sum = [1.0, 2.0];
        add_rows(&mut sum, [1.0, 2.0, 3.0, 4.0], [&[1.0, 0.0], &[0.0, 1.0], &[1.0, 1.0], &[2.0, 0.0]]);
        assert_eq!(sum, [13.0, 7.0]);
        add(&mut sum, -1.0, &[3.0, 7.0]);
        assert_eq!(sum, [10.0, 0.0]);
    }
}
