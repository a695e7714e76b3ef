//! The norms before attention, MLP and output, each in two halves, for TransformerLens's
//! `ln_final.hook_normalized` lies between them.

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};

use crate::host;

/// Root mean square normalisation (Zhang and Sennrich, 2019, arXiv:1910.07467): `w * x / rms(x)`.
#[derive(Module, Debug)]
pub(crate) struct RmsNorm {
    /// `[d_model]`.
    pub(crate) weight: Param<Tensor<1>>,
    pub(crate) epsilon: f64,
}

impl RmsNorm {
    /// # Shapes
    /// `x` and the result: `[batch, seq, d_model]`.
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.scale(self.normalize(x))
    }

    /// The norm without its weight.
    pub(crate) fn normalize(&self, x: Tensor<3>) -> Tensor<3> {
        if host::applies(&x) {
            return host::map_rows(x, |row| {
                let mean = mean_square(row);
                let factor = (1.0 / (mean + self.epsilon).sqrt()) as f32;
                row.iter_mut().for_each(|x| *x *= factor);
            });
        }
        let rms = (x.clone().square().mean_dim(2) + self.epsilon).sqrt();
        x / rms
    }

    /// The weight alone.
    pub(crate) fn scale(&self, normalized: Tensor<3>) -> Tensor<3> {
        normalized * self.weight.val().unsqueeze()
    }
}

/// Layer normalisation (Ba et al., 2016, arXiv:1607.06450): `w * (x - mean) / std + b`.
#[derive(Module, Debug)]
pub(crate) struct LayerNorm {
    /// `[d_model]`.
    pub(crate) weight: Param<Tensor<1>>,
    /// `[d_model]`.
    pub(crate) bias: Param<Tensor<1>>,
    pub(crate) epsilon: f64,
}

impl LayerNorm {
    /// # Shapes
    /// `x` and the result: `[batch, seq, d_model]`.
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.scale(self.normalize(x))
    }

    /// The norm without its weight and bias.
    pub(crate) fn normalize(&self, x: Tensor<3>) -> Tensor<3> {
        if host::applies(&x) {
            return host::map_rows(x, |row| {
                let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / row.len() as f64;
                row.iter_mut().for_each(|x| *x -= mean as f32);
                let factor = (1.0 / (mean_square(row) + self.epsilon).sqrt()) as f32;
                row.iter_mut().for_each(|x| *x *= factor);
            });
        }
        let x = x.clone() - x.mean_dim(2);
        let std = (x.clone().square().mean_dim(2) + self.epsilon).sqrt();
        x / std
    }

    /// The weight and bias alone.
    pub(crate) fn scale(&self, normalized: Tensor<3>) -> Tensor<3> {
        normalized * self.weight.val().unsqueeze() + self.bias.val().unsqueeze()
    }
}

fn mean_square(row: &[f32]) -> f64 {
    row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / row.len() as f64
}
