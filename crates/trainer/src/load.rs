//! Batches on their way to the step: scaled and measured as they are decoded, moved to the device ahead of it.

use std::iter;

use burn::tensor::{Device, Tensor, TensorData};
use monosema_core::Ahead;
use monosema_store::{Batch, Store, StoreError};
use pulp::{Arch, Simd, WithSimd};

use crate::{Sample, TrainPlan};

/// Batches on the device that wait for the step. (Behind them, the store has some of its own on the host.)
const WAITING: usize = 1;

/// Partial sums of a sum, so many that none has to wait for the last addition to it.
const LANES: usize = 32;

/// A batch, ready for a step.
#[derive(Clone, Debug)]
pub struct TrainBatch {
    /// Activations, scaled, `[n, d_in]`, on the device.
    pub x: Tensor<2>,
    /// Mean over its tokens of ‖x − x̄‖², both scaled.
    pub variance: f64,
}

/// The batches of `plan` from `store`, shuffled, scaled as `sample` says and moved to `device` (plain, without autodiff)
/// on threads of their own, so that a step finds the next one there. They depend on the store and the plan alone.
///
/// # Errors
/// What is wrong with the store or the plan comes as an item, the last one.
pub fn load(
    plan: &TrainPlan,
    sample: &Sample,
    store: &Store,
    device: &Device,
) -> Ahead<Result<TrainBatch, StoreError>> {
    let batches = store.visited_batches(plan.batches(plan.tokens), scaling(sample));
    let device = device.clone();
    Ahead::new(WAITING, batches.map(move |batch| Ok(upload(batch?, &device))))
}

fn upload(batch: Batch, device: &Device) -> TrainBatch {
    let Batch { x, n, width, sum, .. } = batch;
    let mut x = TensorData::new(x, [n, width]);
    // To pinned memory, where that helps.
    device.staging(iter::once(&mut x));
    TrainBatch { x: Tensor::from_data(x, device), variance: sum / n as f64 }
}

/// Scales a vector and returns ‖x − x̄‖² of what it is then.
fn scaling(sample: &Sample) -> impl FnMut(&mut [f32]) -> f64 + Send + 'static {
    let scale = sample.scale as f32;
    let mean: Vec<f64> = sample.mean.iter().map(|mean| mean * sample.scale).collect();
    let arch = Arch::new();
    move |x| arch.dispatch(Scale { x, scale, mean: &mean })
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

    fn sample(scale: f64, mean: Vec<f64>) -> Sample {
        Sample { tokens: 1, mean_norm: 1.0, largest_norm: 1.0, scale, mean }
    }

    #[test]
    fn scale_and_variance_by_hand() {
        let mut visit = scaling(&sample(2.0, vec![1.5, 3.0]));
        let mut x = [1.0, 2.0];
        // Scaled by 2 it is (2, 4), which is (1, 2) away from the mean (3, 6).
        assert_eq!((visit(&mut x), x), (5.0, [2.0, 4.0]));
        assert_eq!((visit(&mut x), x), (1.0 + 4.0, [4.0, 8.0]));
    }

    #[test]
    fn every_number_of_a_vector_counts() {
        for width in [1, 31, 32, 33, 64, 75] {
            let mean: Vec<f64> = (0..width).map(|i| i as f64 / 4.0).collect();
            let values: Vec<f32> = (0..width).map(|i| (i * i % 11) as f32).collect();
            let mut x = values.clone();
            let measured = scaling(&sample(0.5, mean.clone()))(&mut x);
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
        let TrainBatch { x, variance } = upload(batch, &Device::flex());
        assert_eq!((x.dims(), variance), ([2, 3], 3.5));
        assert_eq!(x.into_data().try_to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }
}
