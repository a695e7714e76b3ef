//! Principal directions of a covariance.

use rayon::prelude::*;

/// Directions that are found at most. A wider covariance is taken to its largest ones first.
pub(crate) const MOST_COMPONENTS: usize = 256;

/// Multiplications by the covariance that take a basis to its largest directions.
const POWERS: usize = 8;

/// Sweeps over all pairs that Jacobi's method takes at most; it converges in six to ten.
const MOST_SWEEPS: usize = 50;

/// The eigenvectors of `covariance [d, d]`, unit rows `[k, d]`, those of the largest eigenvalues first; k = min(d, [`MOST_COMPONENTS`]).
///
/// All of them by Jacobi's method while there are no more than that. Of more, the space of the largest by subspace iteration, and Jacobi's
/// method within it (Rayleigh and Ritz): exact where the spectrum falls, and otherwise close to it.
pub(crate) fn principal_directions(covariance: &[f64], d: usize) -> Vec<f32> {
    let k = d.min(MOST_COMPONENTS);
    if k == d {
        let (_, vectors) = eigenvectors(covariance.to_vec(), d);
        return vectors.into_iter().map(|v| v as f32).collect();
    }
    // The dimensions that vary most, to begin with.
    let mut order: Vec<usize> = (0..d).collect();
    order.sort_by(|&a, &b| covariance[b * d + b].total_cmp(&covariance[a * d + a]));
    let mut basis = vec![0.0; k * d];
    for (row, &dimension) in basis.chunks_exact_mut(d).zip(&order) {
        row[dimension] = 1.0;
    }
    for _ in 0..POWERS {
        basis = times(covariance, d, &basis);
        orthonormalise(&mut basis, d);
    }
    let images = times(covariance, d, &basis);
    let within: Vec<f64> =
        basis.par_chunks_exact(d).flat_map_iter(|a| images.chunks_exact(d).map(move |b| dot(a, b))).collect();
    let (_, rotation) = eigenvectors(within, k);
    let rotated = rotation.par_chunks_exact(k).flat_map_iter(|row| {
        let mut direction = vec![0.0; d];
        for (factor, vector) in row.iter().zip(basis.chunks_exact(d)) {
            direction.iter_mut().zip(vector).for_each(|(sum, v)| *sum += factor * v);
        }
        direction.into_iter().map(|v| v as f32)
    });
    rotated.collect()
}

/// The rows of `vectors [k, d]`, each multiplied by the symmetric `matrix [d, d]`.
fn times(matrix: &[f64], d: usize, vectors: &[f64]) -> Vec<f64> {
    let products = vectors
        .par_chunks_exact(d)
        .flat_map_iter(|vector| matrix.chunks_exact(d).map(|row| dot(row, vector)));
    products.collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Gram and Schmidt, twice, which is enough for rounding. A row that depends on those before it becomes 0.
fn orthonormalise(vectors: &mut [f64], d: usize) {
    for i in 0..vectors.len() / d {
        let (before, rest) = vectors.split_at_mut(i * d);
        let row = &mut rest[..d];
        let length = dot(row, row).sqrt();
        for _ in 0..2 {
            for other in before.chunks_exact(d) {
                let along = dot(other, row);
                row.iter_mut().zip(other).for_each(|(r, o)| *r -= along * o);
            }
        }
        let left = dot(row, row).sqrt();
        let scale = if left > 1e-10 * length { 1.0 / left } else { 0.0 };
        row.iter_mut().for_each(|r| *r *= scale);
    }
}

/// Eigenvalues of the symmetric `matrix [d, d]`, largest first, and their unit eigenvectors as rows: Jacobi's method, cyclic by rows
/// (Golub and Van Loan, Matrix Computations, 8.5).
fn eigenvectors(mut matrix: Vec<f64>, d: usize) -> (Vec<f64>, Vec<f64>) {
    let mut vectors = vec![0.0; d * d];
    (0..d).for_each(|i| vectors[i * d + i] = 1.0);
    let size: f64 = matrix.iter().map(|x| x * x).sum();
    for _ in 0..MOST_SWEEPS {
        let beside: f64 =
            (0..d).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| matrix[i * d + j].powi(2)).sum();
        if beside <= 1e-24 * size {
            break;
        }
        for p in 0..d {
            for q in p + 1..d {
                rotate(&mut matrix, &mut vectors, d, p, q);
            }
        }
    }
    let mut order: Vec<usize> = (0..d).collect();
    order.sort_by(|&a, &b| matrix[b * d + b].total_cmp(&matrix[a * d + a]));
    let values = order.iter().map(|&i| matrix[i * d + i]).collect();
    (values, order.iter().flat_map(|&i| vectors[i * d..(i + 1) * d].to_vec()).collect())
}

/// Turns the plane of p and q so that their entry becomes 0.
fn rotate(matrix: &mut [f64], vectors: &mut [f64], d: usize, p: usize, q: usize) {
    let entry = matrix[p * d + q];
    if entry == 0.0 {
        return;
    }
    let tau = (matrix[q * d + q] - matrix[p * d + p]) / (2.0 * entry);
    let tangent = tau.signum() / (tau.abs() + (1.0 + tau * tau).sqrt());
    let cosine = 1.0 / (1.0 + tangent * tangent).sqrt();
    let sine = tangent * cosine;
    let turn = |a: &mut f64, b: &mut f64| (*a, *b) = (cosine * *a - sine * *b, sine * *a + cosine * *b);
    for row in matrix.chunks_exact_mut(d) {
        let (left, right) = row.split_at_mut(q);
        turn(&mut left[p], &mut right[0]);
    }
    for rows in [matrix, vectors] {
        let (above, below) = rows.split_at_mut(q * d);
        above[p * d..(p + 1) * d].iter_mut().zip(&mut below[..d]).for_each(|(a, b)| turn(a, b));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: &[f32], expected: &[f64]) -> bool {
        // An eigenvector is one up to its sign.
        let sign = if f64::from(found[0]) * expected[0] < 0.0 { -1.0 } else { 1.0 };
        found.iter().zip(expected).all(|(f, e)| (f64::from(*f) * sign - e).abs() < 1e-5)
    }

    #[test]
    fn eigenvectors_by_hand() {
        // (2, 1; 1, 2): 3 along (1, 1), 1 along (1, −1).
        let half = 0.5_f64.sqrt();
        let found = principal_directions(&[2.0, 1.0, 1.0, 2.0], 2);
        assert!(close(&found[..2], &[half, half]) && close(&found[2..], &[half, -half]), "{found:?}");
        let (values, _) = eigenvectors(vec![2.0, 1.0, 0.0, 1.0, 2.0, 0.0, 0.0, 0.0, 7.0], 3);
        assert!(values.iter().zip([7.0, 3.0, 1.0]).all(|(a, b)| (a - b).abs() < 1e-12), "{values:?}");
    }

    #[test]
    fn the_largest_of_many_are_found() {
        // Diagonal but for a turn in the plane of the first and the last dimension.
        let d = MOST_COMPONENTS + 44;
        let mut covariance = vec![0.0; d * d];
        (0..d).for_each(|i| covariance[i * d + i] = 2.0 * 0.98_f64.powi(i as i32));
        let last = d - 1;
        covariance[last * d + last] = 2.0;
        covariance[last] = 1.0;
        covariance[last * d] = 1.0;
        let found = principal_directions(&covariance, d);
        assert_eq!(found.len(), MOST_COMPONENTS * d);
        let mut expected = vec![0.0; d];
        (expected[0], expected[last]) = (0.5_f64.sqrt(), 0.5_f64.sqrt());
        assert!(close(&found[..d], &expected));
        // 2·0.98 along the second dimension comes next.
        let mut second = vec![0.0; d];
        second[1] = 1.0;
        assert!((f64::from(found[d + 1]).abs() - 1.0).abs() < 1e-5);
    }
}
