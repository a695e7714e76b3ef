//! Element-wise work on the CPU. burn's flex backend runs element-wise operations on one thread, one pass over
//! memory each; what a forward pass needs between its matrix products is done here in one pass, on all cores.
//!
//! Only inference takes this path: gradients flow through tensor operations alone.

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

/// About how many elements one task handles.
const TASK: usize = 1 << 15;

/// Whether `x` lives in host memory and records no gradient.
pub(crate) fn applies<const D: usize>(x: &Tensor<D>) -> bool {
    let device = x.device();
    device == Device::flex() && !device.is_autodiff()
}

/// Changes every row (last dimension) of `x` in place.
pub(crate) fn map_rows<const D: usize>(x: Tensor<D>, f: impl Fn(&mut [f32]) + Sync) -> Tensor<D> {
    let (device, width) = (x.device(), x.dims()[D - 1]);
    let mut data = x.into_data();
    let values = data.as_mut_slice::<f32>().expect("weights and activations are f32");
    let rows = (TASK / width.max(1)).max(1);
    values.par_chunks_mut(rows * width).for_each(|rows| rows.chunks_exact_mut(width).for_each(&f));
    Tensor::from_data(data, &device)
}

/// One number `f(row)` for every row (last dimension): `[n, width]` to `[n, 1]`.
pub(crate) fn reduce_rows(x: Tensor<2>, f: impl Fn(&[f32]) -> f32 + Send + Sync) -> Tensor<2> {
    let (device, [n, width]) = (x.device(), x.dims());
    let data = x.into_data();
    let values = data.as_slice::<f32>().expect("weights and activations are f32");
    let reduced: Vec<f32> = values.par_chunks_exact(width).map(f).collect();
    Tensor::from_data(TensorData::new(reduced, [n, 1]), &device)
}

/// `log sum exp` of a row.
pub(crate) fn log_sum_exp(row: &[f32]) -> f32 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|&x| f64::from((x - max).exp())).sum();
    max + sum.ln() as f32
}
