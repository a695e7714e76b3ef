//! Adam (Kingma and Ba 2015, algorithm 1) after clipping by the norm of all gradients together.

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    batch::{B, Batch},
    launch::{arg, cubes, units, vector_size},
    units::{UNITS, sum, total},
};
use crate::{
    CLIP_EPSILON, SMALLEST_NORM, Settings,
    extension::{ExtrasOf, StateOf, Values},
};

/// What a step of Adam is made of, as in the CPU's step.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Rule {
    grad_clip: f32,
    beta_first: f32,
    beta_second: f32,
    /// 1 − β, rounded once.
    rest_first: f32,
    rest_second: f32,
    /// 1 / (1 − βᵗ).
    correct_first: f32,
    correct_second: f32,
    lr: f32,
    eps: f32,
}

/// Moves `vectors` vectors of weights. `norm [1]` is that of all gradients. A unit a vector.
#[cube(launch_unchecked)]
fn adam<N: Size>(
    weights: &mut [Vector<f32, N>],
    gradients: &[Vector<f32, N>],
    first: &mut [Vector<f32, N>],
    second: &mut [Vector<f32, N>],
    norm: &[f32],
    vectors: u32,
    rule: Rule,
) {
    let i = ABSOLUTE_POS;
    if i < vectors as usize {
        let factor = (rule.grad_clip / (norm[0] + comptime![CLIP_EPSILON as f32])).min(1.0f32);
        let g = gradients[i] * Vector::new(factor);
        let m = Vector::new(rule.beta_first) * first[i] + Vector::new(rule.rest_first) * g;
        let v = Vector::new(rule.beta_second) * second[i] + Vector::new(rule.rest_second) * g * g;
        first[i] = m;
        second[i] = v;
        let step = Vector::new(rule.lr) * (m * Vector::new(rule.correct_first));
        weights[i] -= step / ((v * Vector::new(rule.correct_second)).sqrt() + Vector::new(rule.eps));
    }
}

/// Divides rows by their norms. A cube a row.
#[cube(launch_unchecked)]
fn to_unit<N: Size>(rows: &mut [Vector<f32, N>], height: u32, width: u32) {
    let row = CUBE_POS as u32;
    if row >= height {
        terminate!();
    }
    let begin = row as usize * width as usize;
    let mut squares = Vector::<f32, N>::new(0.0f32);
    let mut column = UNIT_POS;
    while column < width {
        let values = rows[begin + column as usize];
        squares += values * values;
        column += UNITS;
    }
    let norm = sum(total::<N>(squares)).sqrt().max(SMALLEST_NORM);
    let mut column = UNIT_POS;
    while column < width {
        rows[begin + column as usize] /= Vector::new(norm);
        column += UNITS;
    }
}

impl Batch {
    /// Clips, takes Adam's step in place, sees to the norms of the decoder's rows, and moves the average.
    pub(super) fn adam(
        &self,
        gradients: Values<B>,
        [first, second]: [Values<B>; 2],
        average: Option<Values<B>>,
        norm: &CubeTensor,
    ) -> StateOf<B> {
        let Settings { lr, betas, eps, grad_clip, time, .. } = self.settings;
        let rest = betas.map(|beta| (1.0 - beta) as f32);
        let correct = betas.map(|beta| (1.0 / (1.0 - beta.powi(time))) as f32);
        let tensors = |values: &Values<B>| {
            let Values { w_enc, w_dec, b_enc, b_dec, .. } = values;
            [w_enc, w_dec, b_enc, b_dec].map(CubeTensor::clone)
        };
        let moments = tensors(&first).into_iter().zip(tensors(&second));
        let weights = tensors(&self.parameters).into_iter().zip(tensors(&gradients));
        for ((weights, gradients), (first, second)) in weights.zip(moments) {
            let len = weights.shape().num_elements();
            let vector = vector_size(len);
            let rule = RuleLaunch::new(
                grad_clip as f32,
                betas[0] as f32,
                betas[1] as f32,
                rest[0],
                rest[1],
                correct[0],
                correct[1],
                lr as f32,
                eps as f32,
            );
            unsafe {
                adam::launch_unchecked(
                    &self.client,
                    cubes((len / vector).div_ceil(UNITS as usize)),
                    units(),
                    vector,
                    arg(&weights),
                    arg(&gradients),
                    arg(&first),
                    arg(&second),
                    arg(norm),
                    (len / vector) as u32,
                    rule,
                );
            }
        }
        if self.form.unit_decoder {
            let vector = vector_size(self.d_in);
            unsafe {
                to_unit::launch_unchecked(
                    &self.client,
                    cubes(self.d_sae),
                    units(),
                    vector,
                    arg(&self.parameters.w_dec),
                    self.d_sae as u32,
                    (self.d_in / vector) as u32,
                );
            }
        }
        let parameters = self.with_extras(tensors(&self.parameters));
        let average = match average {
            None => self.with_extras(tensors(&self.parameters)),
            Some(average) => {
                let decay = self.settings.ema_decay;
                let pairs = tensors(&average).into_iter().zip(tensors(&self.parameters));
                let moved = pairs.map(|(average, now)| {
                    let kept = B::float_mul_scalar(average, decay.into());
                    B::float_add(kept, B::float_mul_scalar(now, (1.0 - decay).into()))
                });
                let moved: Vec<CubeTensor> = moved.collect();
                self.with_extras(moved.try_into().expect("one for each of the four"))
            }
        };
        StateOf { parameters, gradients, first, second, average }
    }

    /// With the extras of the parameters, which are none.
    pub(super) fn with_extras(&self, [w_enc, w_dec, b_enc, b_dec]: [CubeTensor; 4]) -> Values<B> {
        let ExtrasOf { first, second, w_skip } = &self.parameters.extras;
        let [first, second, w_skip] = [first, second, w_skip].map(CubeTensor::clone);
        Values { w_enc, w_dec, b_enc, b_dec, extras: ExtrasOf { first, second, w_skip } }
    }
}
