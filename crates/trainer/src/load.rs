//! Batches on their way to the step: scaled and measured as they are decoded, moved to the device ahead of it.

use std::{iter, sync::Arc};

use burn::tensor::{Device, Tensor, TensorData};
use monosema_core::Ahead;
use monosema_sae::{LAYER_NORM_EPSILON, Normalization};
use monosema_store::{Activations, Batch, Batches, StoreError, shuffled};
use pulp::{Arch, Simd, WithSimd};

use crate::{Estimates, Sample, TrainPlan};

/// Batches on the device that wait for the step. (Behind them, some of the reader's wait on the host.)
const WAITING: usize = 1;

/// Partial sums of a sum, so many that none has to wait for the last addition to it.
const LANES: usize = 32;

/// A batch, ready for a step.
#[derive(Clone, Debug)]
pub struct TrainBatch {
    /// Activations, scaled, `[n, d_in]`, on the device.
    pub x: Tensor<2>,
    /// What is to come out of a transcoder, scaled, `[n, d_out]`; of an autoencoder it is x.
    pub y: Option<Tensor<2>>,
    /// Mean over its tokens of ‖y − ȳ‖², both scaled.
    pub variance: f64,
}

/// The batches of `plan` after so many steps, shuffled, normalised, scaled as `sample` says and moved to `device` (plain,
/// without autodiff) on threads of their own, so that a step finds the next one there. They depend on the activations and the
/// plan alone.
///
/// # Errors
/// What is wrong with the activations or the plan comes as an item, the last one.
pub fn load(
    plan: &TrainPlan,
    sample: &Sample,
    steps_done: u64,
    activations: &Arc<dyn Activations>,
    device: &Device,
) -> Ahead<Result<TrainBatch, StoreError>> {
    let delivered = steps_done * plan.batch_tokens as u64;
    let prepare = preparation(plan.normalization(), sample);
    let batches = shuffled(activations.clone(), plan.batches(plan.tokens, delivered), prepare);
    let device = device.clone();
    Ahead::new(WAITING, batches.map(move |batch| Ok(upload(batch?, &device))))
}

/// The tokens of `plan`'s sample, normalised one by one if it says so.
pub(crate) fn sampled(plan: &TrainPlan, activations: &Arc<dyn Activations>) -> Batches {
    let normalization = plan.normalization();
    shuffled(activations.clone(), plan.batches(plan.scale_tokens, 0), move |x, _| {
        normalize(normalization, x);
        0.0
    })
}

fn upload(batch: Batch, device: &Device) -> TrainBatch {
    let Batch { x, y, n, width, width_out, sum, .. } = batch;
    let tensor = |values, width| {
        let mut data = TensorData::new(values, [n, width]);
        // To pinned memory, where that helps.
        device.staging(iter::once(&mut data));
        Tensor::from_data(data, device)
    };
    let y = (width_out > 0).then(|| tensor(y, width_out));
    TrainBatch { x: tensor(x, width), y, variance: sum / n as f64 }
}

/// Normalises and scales the vectors of a token and returns ‖y − ȳ‖² of what y is then, or x without a y.
fn preparation(
    normalization: Normalization,
    sample: &Sample,
) -> impl FnMut(&mut [f32], &mut [f32]) -> f64 + Send + use<> {
    let scaled = |estimates: &Estimates| -> (f32, Vec<f64>) {
        (estimates.scale as f32, estimates.mean.iter().map(|mean| mean * estimates.scale).collect())
    };
    let (scale, mean) = scaled(&sample.input);
    let output = sample.output.as_ref().map(scaled);
    let arch = Arch::new();
    move |x, y| {
        normalize(normalization, x);
        let of_x = arch.dispatch(Scale { x, scale, mean: &mean });
        match &output {
            Some((scale, mean)) => arch.dispatch(Scale { x: y, scale: *scale, mean }),
            None => of_x,
        }
    }
}

/// As a dictionary does it.
fn normalize(normalization: Normalization, x: &mut [f32]) {
    match normalization {
        Normalization::None => {}
        Normalization::ConstantNormRescale => {
            let square: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
            if square > 0.0 {
                let factor = (x.len() as f64 / square).sqrt();
                x.iter_mut().for_each(|x| *x = (f64::from(*x) * factor) as f32);
            }
        }
        Normalization::LayerNorm => {
            let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / x.len() as f64;
            let square: f64 = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
            let deviation = (square / (x.len().max(2) - 1) as f64).sqrt();
            let factor = 1.0 / (deviation + f64::from(LAYER_NORM_EPSILON));
            x.iter_mut().for_each(|x| *x = ((f64::from(*x) - mean) * factor) as f32);
        }
    }
}

/// What is done to one vector. Not a closure, which would be too long to be inlined where there are wide vectors.
struct Scale<'a> {
    x: &'a mut [f32],
    scale: f32,
    mean: &'a [f64],
}

impl WithSimd for Scale<'_> {
    type Output = f64;

    /// The sum has the same order whatever the machine's vectors.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let (x, x_rest) = self.x.as_chunks_mut::<LANES>();
        let (mean, mean_rest) = self.mean.as_chunks::<LANES>();
        let square = |x: &mut f32, mean: f64| {
            *x *= self.scale;
            let distance = f64::from(*x) - mean;
            distance * distance
        };
        let mut sums = [0.0; LANES];
        for (x, mean) in x.iter_mut().zip(mean) {
            for lane in 0..LANES {
                sums[lane] += square(&mut x[lane], mean[lane]);
            }
        }
        let rest: f64 = x_rest.iter_mut().zip(mean_rest).map(|(x, &mean)| square(x, mean)).sum();
        sums.iter().sum::<f64>() + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimates(scale: f64, mean: Vec<f64>) -> Estimates {
        Estimates { mean_norm: 1.0, largest_norm: 1.0, scale, zero_fvu: 1.0, mean }
    }

    fn sample(input: Estimates, output: Option<Estimates>) -> Sample {
        Sample { tokens: 1, input, output, b_dec: Vec::new() }
    }

    fn scaling(input: Estimates) -> impl FnMut(&mut [f32]) -> f64 {
        let mut prepare = preparation(Normalization::None, &sample(input, None));
        move |x| prepare(x, &mut [])
    }

    #[test]
    fn scale_and_variance_by_hand() {
        let mut visit = scaling(estimates(2.0, vec![1.5, 3.0]));
        let mut x = [1.0, 2.0];
        // Scaled by 2 it is (2, 4), which is (1, 2) away from the mean (3, 6).
        assert_eq!((visit(&mut x), x), (5.0, [2.0, 4.0]));
        assert_eq!((visit(&mut x), x), (1.0 + 4.0, [4.0, 8.0]));
    }

    #[test]
    fn of_a_transcoder_the_variance_is_that_of_what_comes_out() {
        let sample = sample(estimates(2.0, vec![0.0, 0.0]), Some(estimates(3.0, vec![1.0])));
        let (mut x, mut y) = ([1.0, 2.0], [5.0]);
        assert_eq!(preparation(Normalization::None, &sample)(&mut x, &mut y), 144.0);
        assert_eq!((x, y), ([2.0, 4.0], [15.0]));
    }

    #[test]
    fn normalising_is_what_a_dictionary_does() {
        let mut x = [1.0, 2.0, 6.0];
        normalize(Normalization::LayerNorm, &mut x);
        let expected = [-2.0, -1.0, 3.0].map(|v: f32| v / (7.0_f32.sqrt() + LAYER_NORM_EPSILON));
        assert!(x.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{x:?}");
    }

    #[test]
    fn every_number_of_a_vector_counts() {
        for width in [1, 31, 32, 33, 64, 75] {
            let mean: Vec<f64> = (0..width).map(|i| i as f64 / 4.0).collect();
            let values: Vec<f32> = (0..width).map(|i| (i * i % 11) as f32).collect();
            let mut x = values.clone();
            let measured = scaling(estimates(0.5, mean.clone()))(&mut x);
            assert!(x.iter().zip(&values).all(|(x, value)| *x == 0.5 * value), "{x:?}");
            // Quarters and their squares are exact.
            let expected: f64 =
                values.iter().zip(&mean).map(|(&v, m)| (0.5 * f64::from(v) - 0.5 * m).powi(2)).sum();
            assert_eq!(measured, expected, "width {width}");
        }
    }

    #[test]
    fn a_batch_becomes_a_tensor_and_a_mean() {
        let batch =
            Batch { x: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], n: 2, width: 3, sum: 7.0, ..Batch::default() };
        let TrainBatch { x, variance, .. } = upload(batch, &Device::flex());
        assert_eq!((x.dims(), variance), ([2, 3], 3.5));
        assert_eq!(x.into_data().try_to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }
}
