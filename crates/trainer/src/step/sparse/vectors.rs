//! Loops over slices that the compiler turns into the vectors of whoever calls them, and sums whose order is fixed.

use rayon::prelude::*;

/// Partial sums of a sum: as many as the widest vectors hold.
const LANES: usize = 16;

/// `sum += factor · row`.
#[inline(always)]
pub(super) fn add(sum: &mut [f32], factor: f32, row: &[f32]) {
    sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += factor * value);
}

/// Σ aᵢ bᵢ.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    sums.iter().sum::<f32>() + rest
}

/// Σ aᵢ², in double precision from every few hundred on.
#[inline(always)]
pub(super) fn squares(values: &[f32]) -> f64 {
    values.chunks(256).map(|values| f64::from(dot(values, values))).sum()
}

/// Each row of `x` minus `row`.
pub(super) fn minus(x: &[f32], row: &[f32]) -> Vec<f32> {
    let rows = x.par_chunks(row.len());
    rows.flat_map_iter(|x| x.iter().zip(row).map(|(x, subtracted)| x - subtracted)).collect()
}

/// `[rows, columns]` to `[columns, rows]`.
pub(super) fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let column = |column: usize| (0..rows).map(move |row| values[row * columns + column]);
    (0..columns).into_par_iter().flat_map_iter(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_reach_the_last_number() {
        let values: Vec<f32> = (0..600).map(|i| (i % 7) as f32).collect();
        for n in [0, 1, 15, 16, 17, 255, 256, 600] {
            let expected: f32 = values[..n].iter().map(|v| v * v).sum();
            assert_eq!(dot(&values[..n], &values[..n]), expected);
            assert_eq!(squares(&values[..n]), f64::from(expected));
        }
    }

    #[test]
    fn rows_become_columns() {
        assert_eq!(transposed(&[1., 2., 3., 4., 5., 6.], 2, 3), [1., 4., 2., 5., 3., 6.]);
        assert_eq!(minus(&[1., 2., 3., 4.], &[1., 1.]), [0., 1., 2., 3.]);
    }
}
