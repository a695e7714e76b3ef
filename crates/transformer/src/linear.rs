//! Affine maps.

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};

/// `y = W x + b`.
#[derive(Module, Debug)]
pub(crate) struct Linear {
    /// `[d_out, d_in]`, as torch's `Linear` has it; products read it transposed without a copy.
    pub(crate) weight: Param<Tensor<2>>,
    /// `[d_out]`.
    pub(crate) bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// `weight` is `[d_out, d_in]` row by row, `bias` `[d_out]`.
    pub(crate) fn new(
        [d_out, d_in]: [usize; 2],
        weight: Vec<f32>,
        bias: Option<Vec<f32>>,
        device: &Device,
    ) -> Self {
        Self {
            weight: parameter([d_out, d_in], weight, device),
            bias: bias.map(|bias| parameter([d_out], bias, device)),
        }
    }

    /// # Shapes
    /// `x`: `[n, d_in]`. Result: `[n, d_out]`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let y = x.matmul(self.weight.val().transpose());
        match &self.bias {
            Some(bias) => y + bias.val().unsqueeze(),
            None => y,
        }
    }

    /// As [`Linear::forward`], over the last dimension of `[batch, seq, d_in]`.
    pub(crate) fn forward_sequence(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, seq, d_in] = x.dims();
        let y = self.forward(x.reshape([batch * seq, d_in]));
        let d_out = y.dims()[1];
        y.reshape([batch, seq, d_out])
    }
}

/// A parameter of the values in `data`, row by row.
pub(crate) fn parameter<const D: usize>(
    shape: [usize; D],
    data: Vec<f32>,
    device: &Device,
) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::from_data(TensorData::new(data, shape), device))
}
