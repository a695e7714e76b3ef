//! How parameters move: Adam (Kingma and Ba 2015, algorithm 1) or by the sign of its first moment, after clipping by the norm of all
//! gradients together; and what follows from that.

use pulp::{Simd, WithSimd};

use super::vectors::dot;
use crate::{CLIP_EPSILON, Optimiser, SMALLEST_NORM, Settings};

/// What a step is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rule {
    optimiser: Optimiser,
    /// What gradients are multiplied by first: clipping.
    factor: f32,
    /// What weights are multiplied by first: decay.
    keep: f32,
    betas: [f32; 2],
    /// 1 − β, rounded once: in single precision, 1 − 0.999 is off by 5e-5 of itself.
    rest: [f32; 2],
    /// 1 / (1 − βᵗ).
    correct: [f32; 2],
    lr: f32,
    eps: f32,
    /// How much of itself the moving average keeps, and how much of the weights it takes.
    average: [f32; 2],
}

impl Rule {
    /// For gradients of this norm.
    pub(super) fn new(settings: &Settings, grad_norm: f64) -> Self {
        let Settings { lr, betas, eps, weight_decay, ema_decay, grad_clip, time, .. } = *settings;
        Self {
            optimiser: settings.optimiser,
            factor: (grad_clip / (grad_norm + CLIP_EPSILON)).min(1.0) as f32,
            keep: (1.0 - lr * weight_decay) as f32,
            betas: betas.map(|beta| beta as f32),
            rest: betas.map(|beta| (1.0 - beta) as f32),
            correct: betas.map(|beta| (1.0 / (1.0 - beta.powi(time))) as f32),
            lr: lr as f32,
            eps: eps as f32,
            average: [ema_decay as f32, (1.0 - ema_decay) as f32],
        }
    }
}

/// What becomes of weights that have moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Nothing,
    /// They are rows of this width, which get a norm of 1.
    UnitRows(usize),
    /// Negative ones become 0.
    NotNegative,
}

/// A stretch of numbers, their gradients and their moments.
pub(super) struct Update<'a> {
    pub(super) rule: Rule,
    pub(super) weights: &'a mut [f32],
    pub(super) gradients: &'a [f32],
    pub(super) first: &'a mut [f32],
    /// May be empty if the optimiser has none.
    pub(super) second: &'a mut [f32],
    pub(super) then: Then,
    /// Their moving average, if there is one.
    pub(super) ema: Option<&'a mut [f32]>,
}

impl WithSimd for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { rule, weights, gradients, first, second, then, ema } = self;
        match rule.optimiser {
            Optimiser::Adam => adam(rule, weights, gradients, first, second),
            Optimiser::Signum => signum(rule, weights, gradients, first),
        }
        match then {
            Then::Nothing => {}
            Then::NotNegative => weights.iter_mut().filter(|w| **w < 0.0).for_each(|w| *w = 0.0),
            Then::UnitRows(width) => {
                for row in weights.chunks_exact_mut(width) {
                    let norm = dot(simd, row, row).sqrt().max(SMALLEST_NORM);
                    row.iter_mut().for_each(|w| *w /= norm);
                }
            }
        }
        if let Some(ema) = ema {
            let [keep, take] = rule.average;
            ema.iter_mut().zip(weights).for_each(|(mean, w)| *mean = keep * *mean + take * *w);
        }
    }
}

#[inline(always)]
fn adam(rule: Rule, weights: &mut [f32], gradients: &[f32], first: &mut [f32], second: &mut [f32]) {
    let Rule { factor, keep, betas, rest, correct, lr, eps, .. } = rule;
    for ((w, g), (m, v)) in weights.iter_mut().zip(gradients).zip(first.iter_mut().zip(second)) {
        let g = g * factor;
        *m = betas[0] * *m + rest[0] * g;
        *v = betas[1] * *v + rest[1] * g * g;
        *w = *w * keep - lr * (*m * correct[0]) / ((*v * correct[1]).sqrt() + eps);
    }
}

#[inline(always)]
fn signum(rule: Rule, weights: &mut [f32], gradients: &[f32], first: &mut [f32]) {
    let Rule { factor, keep, betas, rest, lr, .. } = rule;
    for ((w, g), m) in weights.iter_mut().zip(gradients).zip(first) {
        *m = betas[0] * *m + rest[0] * (g * factor);
        // Not `signum`, which is 1 for 0. What is no number stays that.
        let sign = if *m > 0.0 {
            1.0
        } else if *m < 0.0 {
            -1.0
        } else {
            *m
        };
        *w = *w * keep - lr * sign;
    }
}
