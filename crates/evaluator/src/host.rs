//! Tensors to host memory and back.

use burn::tensor::{Device, Tensor, TensorData};

use crate::error::EvalError;

/// The values of `tensor`, row after row. `doing` says in an error what was being computed.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>, doing: &'static str) -> Result<Vec<f32>, EvalError> {
    tensor.try_into_vec_as::<f32>().map_err(|e| EvalError::Device { doing, reason: e.to_string() })
}

/// A tensor of `values`, row after row.
pub(crate) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}
