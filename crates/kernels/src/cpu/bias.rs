//! Sums of rows: the gradient of the decoder's bias, which every token changes, and every latent where it is subtracted from the
//! input.

use std::borrow::Cow;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{step::TOKENS, through::Block, values::Values, vectors::add};

/// Σ weightsᵢ · rowsᵢ.
pub(super) fn weighted_sum(rows: &[f32], weights: &[f32], width: usize) -> Vec<f32> {
    Arch::new().dispatch(WeightedSum { rows, weights, width })
}

/// Σ of rows, in parts of [`TOKENS`].
pub(super) fn sum_of_rows(rows: &[f32], width: usize) -> Vec<f32> {
    let tasks = rows.par_chunks(TOKENS * width);
    let parts: Vec<Vec<f32>> =
        tasks.map(|rows| weighted_sum(rows, &vec![1.0; rows.len() / width], width)).collect();
    weighted_sum(&parts.concat(), &vec![1.0; parts.len()], width)
}

/// Gradient of the decoder's bias; Σ of its squares. `scales` are those of magnitudes, where a gate has a bias of its own.
pub(super) fn of_b_dec(
    blocks: &[Block],
    parameters: &Values<&mut [f32]>,
    gradients: &mut Values<&mut [f32]>,
    of_input: bool,
    scales: Option<&[f32]>,
) -> f64 {
    let width = parameters.b_dec.len();
    let mut parts: Vec<Vec<f32>> = blocks
        .par_iter()
        .map(|block| {
            let errors = block.errors_of(0);
            weighted_sum(errors, &vec![1.0; errors.len() / width], width)
        })
        .collect();
    let mut weights = vec![1.0; parts.len()];
    if of_input {
        let pulls = pulls(gradients, scales);
        let tasks = parameters.w_enc.par_chunks(TOKENS * width).zip(pulls.par_chunks(TOKENS));
        parts.par_extend(tasks.map(|(rows, pulls)| weighted_sum(rows, pulls, width)));
        weights.resize(parts.len(), -1.0);
    }
    let sum = weighted_sum(&parts.concat(), &weights, width);
    gradients.b_dec.copy_from_slice(&sum);
    sum.iter().map(|gradient| f64::from(*gradient).powi(2)).sum()
}

/// Gradients of input·W_enc, summed over tokens: that of its bias, or of both of its biases.
fn pulls<'a>(gradients: &'a Values<&mut [f32]>, scales: Option<&[f32]>) -> Cow<'a, [f32]> {
    match scales {
        None => Cow::Borrowed(&*gradients.b_enc),
        Some(scales) => {
            let magnitudes = gradients.more[1].iter().zip(scales).map(|(pull, scale)| pull * scale);
            Cow::Owned(gradients.b_enc.iter().zip(magnitudes).map(|(gate, other)| gate + other).collect())
        }
    }
}

struct WeightedSum<'a> {
    rows: &'a [f32],
    weights: &'a [f32],
    width: usize,
}

impl WithSimd for WeightedSum<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Vec<f32> {
        let mut sum = vec![0.0; self.width];
        for (row, weight) in self.rows.chunks_exact(self.width).zip(self.weights) {
            add(&mut sum, *weight, row);
        }
        sum
    }
}
