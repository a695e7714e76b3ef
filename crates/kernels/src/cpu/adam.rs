//! Adam (Kingma and Ba 2015, algorithm 1) after clipping by the norm of all gradients together.

use pulp::{Simd, WithSimd};

use super::vectors::dot;
use crate::SMALLEST_NORM;

/// What a step of Adam is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rule {
    /// What gradients are multiplied by first: clipping.
    pub(super) factor: f32,
    pub(super) betas: [f32; 2],
    /// 1 − β, rounded once: in single precision, 1 − 0.999 is off by 5e-5 of itself.
    pub(super) rest: [f32; 2],
    /// 1 / (1 − βᵗ).
    pub(super) correct: [f32; 2],
    pub(super) lr: f32,
    pub(super) eps: f32,
}

/// A stretch of numbers, their gradients and their moments.
pub(super) struct Update<'a> {
    pub(super) rule: Rule,
    pub(super) weights: &'a mut [f32],
    pub(super) gradients: &'a [f32],
    pub(super) first: &'a mut [f32],
    pub(super) second: &'a mut [f32],
    /// If these are rows that must have a norm of 1, how wide they are.
    pub(super) unit_rows: Option<usize>,
}

impl WithSimd for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Rule { factor, betas, rest, correct, lr, eps } = self.rule;
        let moments = self.first.iter_mut().zip(self.second);
        for ((w, g), (m, v)) in self.weights.iter_mut().zip(self.gradients).zip(moments) {
            let g = g * factor;
            *m = betas[0] * *m + rest[0] * g;
            *v = betas[1] * *v + rest[1] * g * g;
            *w -= lr * (*m * correct[0]) / ((*v * correct[1]).sqrt() + eps);
        }
        if let Some(width) = self.unit_rows {
            for row in self.weights.chunks_exact_mut(width) {
                let norm = dot(simd, row, row).sqrt().max(SMALLEST_NORM);
                row.iter_mut().for_each(|w| *w /= norm);
            }
        }
    }
}
