//! One matrix product on one thread, through the kernels that burn's CPU backend uses.

/// `c = a·b`, or `c += a·b` if `accumulate`.
///
/// # Shapes
/// `shape` is `[m, k, n]`: `c [m, n]` row by row, `a [m, k]` and `b [k, n]` with the strides (rows, columns) beside them.
///
/// # Panics
/// If a slice is shorter than its shape and strides say.
pub(super) fn product(
    c: &mut [f32],
    [m, k, n]: [usize; 3],
    (a, [a_row, a_column]): (&[f32], [usize; 2]),
    (b, [b_row, b_column]): (&[f32], [usize; 2]),
    accumulate: bool,
) {
    if m * n == 0 || k == 0 {
        return;
    }
    let last =
        |rows: usize, row: usize, columns: usize, column: usize| (rows - 1) * row + (columns - 1) * column;
    assert!(
        last(m, n, n, 1) < c.len()
            && last(m, a_row, k, a_column) < a.len()
            && last(k, b_row, n, b_column) < b.len()
    );
    // SAFETY: the assertion above keeps every element within its slice.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            accumulate,
            a.as_ptr(),
            a_column as isize,
            a_row as isize,
            b.as_ptr(),
            b_column as isize,
            b_row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strides_transpose_and_sums_accumulate() {
        // [[1, 2, 3], [4, 5, 6]] · [[1, 0], [0, 1], [1, 1]] = [[4, 5], [10, 11]]
        let (a, b) = ([1., 2., 3., 4., 5., 6.], [1., 0., 0., 1., 1., 1.]);
        let mut c = [0.0; 4];
        product(&mut c, [2, 3, 2], (&a, [3, 1]), (&b, [2, 1]), false);
        assert_eq!(c, [4., 5., 10., 11.]);
        product(&mut c, [2, 3, 2], (&a, [3, 1]), (&b, [2, 1]), true);
        assert_eq!(c, [8., 10., 20., 22.]);
        // aᵀ as stored: [[1, 3, 5], [2, 4, 6]] · b = [[6, 8], [8, 10]]
        product(&mut c, [2, 3, 2], (&a, [1, 2]), (&b, [2, 1]), false);
        assert_eq!(c, [6., 8., 8., 10.]);
    }
}
