//! The skip connection of a transcoder: a dense matrix from its input to its output.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    dense::Sums,
    pack,
    tile::{Along, COLUMNS, ROWS},
    tiles::{self, Extent},
    vectors::squares,
};

/// Rows of the matrix that one task of its gradient works on.
const INPUTS: usize = 64;

/// W_skip in the order in which tiles read it.
pub(super) struct Skip {
    d_in: usize,
    d_out: usize,
    /// `[d_out / COLUMNS, d_in]`.
    columns: Vec<Along>,
}

impl Skip {
    /// Packs `w_skip [d_in, d_out]`.
    pub(super) fn new(w_skip: &[f32], d_out: usize) -> Self {
        Self { d_in: w_skip.len() / d_out, d_out, columns: pack::along_columns(&[w_skip], d_out) }
    }

    /// Adds x·W_skip to `x_hat [n, d_out]`.
    #[inline(always)]
    pub(super) fn add<S: Simd>(&self, simd: S, x: &[f32], x_hat: &mut [f32]) {
        let across = pack::across(x, self.d_in);
        let groups = x.len().div_ceil(self.d_in * ROWS);
        let extent = Extent { groups, panels: self.d_out.div_ceil(COLUMNS), terms: self.d_in };
        let (along, terms, width) = (&self.columns[..], self.d_in, self.d_out);
        tiles::for_each(simd, extent, &mut Sums { across, along, terms, width, sums: x_hat });
    }
}

/// Puts Σ xᵀ·error over tokens in `gradient [d_in, d_out]`; Σ of its squares. `errors` are packed, `[d_out / COLUMNS, n]`.
pub(super) fn gradient(x: &[f32], errors: &[Along], d_out: usize, gradient: &mut [f32]) -> f64 {
    let d_in = gradient.len() / d_out;
    let tasks = gradient.par_chunks_mut(INPUTS * d_out).zip((0..d_in).into_par_iter().step_by(INPUTS));
    let squares: Vec<f64> = tasks
        .map(|(rows, first)| Arch::new().dispatch(Gradient { x, errors, d_in, d_out, first, rows }))
        .collect();
    squares.iter().sum()
}

/// Some rows, from `first` on.
struct Gradient<'a, 'b> {
    x: &'a [f32],
    errors: &'a [Along],
    d_in: usize,
    d_out: usize,
    first: usize,
    rows: &'b mut [f32],
}

impl WithSimd for Gradient<'_, '_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let Self { x, errors, d_in, d_out, first, rows } = self;
        let (n, inputs) = (x.len() / d_in, rows.len() / d_out);
        let groups = inputs.div_ceil(ROWS);
        let mut across = vec![[0.0; ROWS]; groups * n];
        for (token, x) in x.chunks_exact(d_in).enumerate() {
            for (group, x) in x[first..first + inputs].chunks(ROWS).enumerate() {
                across[group * n + token][..x.len()].copy_from_slice(x);
            }
        }
        rows.fill(0.0);
        let extent = Extent { groups, panels: d_out.div_ceil(COLUMNS), terms: n };
        tiles::for_each(
            simd,
            extent,
            &mut Sums { across, along: errors, terms: n, width: d_out, sums: &mut *rows },
        );
        squares(simd, rows)
    }
}
