//! The norms before attention, MLP and output, each in two halves, for TransformerLens's
//! `ln_final.hook_normalized` lies between them.

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};

use crate::host;

/// Either norm.
#[derive(Module, Debug)]
pub(crate) enum Norm {
    Rms(RmsNorm),
    Layer(LayerNorm),
}

impl Norm {
    /// # Shapes
    /// `x` and the result: `[batch, seq, d_model]`.
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Rms(norm) => norm.forward(x),
            Self::Layer(norm) => norm.forward(x),
        }
    }

    /// The norm without its weight and bias.
    pub(crate) fn normalize(&self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Rms(norm) => norm.normalize(x),
            Self::Layer(norm) => norm.normalize(x),
        }
    }

    /// The weight and bias alone.
    pub(crate) fn scale(&self, normalized: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Rms(norm) => norm.scale(normalized),
            Self::Layer(norm) => norm.scale(normalized),
        }
    }

    /// The weight.
    pub(crate) fn weight(&self) -> Tensor<1> {
        match self {
            Self::Rms(norm) => norm.weight.val(),
            Self::Layer(norm) => norm.weight.val(),
        }
    }
}

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
        if host::applies(&x) {
            let weight = host_values(&self.weight);
            return host::map_rows(x, |_, row| {
                let factor = self.factor(row);
                row.iter_mut().zip(&weight).for_each(|(x, w)| *x *= factor * w);
            });
        }
        self.scale(self.normalize(x))
    }

    /// The norm without its weight.
    pub(crate) fn normalize(&self, x: Tensor<3>) -> Tensor<3> {
        if host::applies(&x) {
            return host::map_rows(x, |_, row| {
                let factor = self.factor(row);
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

    #[inline(always)]
    fn factor(&self, row: &[f32]) -> f32 {
        inverse_root_mean_square(row, self.epsilon)
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
        if host::applies(&x) {
            let (weight, bias) = (host_values(&self.weight), host_values(&self.bias));
            return host::map_rows(x, |_, row| {
                let factor = self.center(row);
                row.iter_mut().zip(&weight).zip(&bias).for_each(|((x, w), b)| *x = *x * factor * w + b);
            });
        }
        self.scale(self.normalize(x))
    }

    /// The norm without its weight and bias.
    pub(crate) fn normalize(&self, x: Tensor<3>) -> Tensor<3> {
        if host::applies(&x) {
            return host::map_rows(x, |_, row| {
                let factor = self.center(row);
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

    /// Takes the mean from a row and returns what then gives it unit variance.
    #[inline(always)]
    fn center(&self, row: &mut [f32]) -> f32 {
        let mean = (host::sum(row, |x| x) / row.len() as f64) as f32;
        row.iter_mut().for_each(|x| *x -= mean);
        inverse_root_mean_square(row, self.epsilon)
    }
}

#[inline(always)]
pub(crate) fn inverse_root_mean_square(row: &[f32], epsilon: f64) -> f32 {
    (1.0 / (host::sum(row, |x| x * x) / row.len() as f64 + epsilon).sqrt()) as f32
}

pub(crate) fn host_values(parameter: &Param<Tensor<1>>) -> Vec<f32> {
    parameter.val().into_data().try_to_vec().expect("weights are f32")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::linear::parameter;
    use burn::tensor::{Device, TensorData};

    /// `[3, 4, 0, 0]` has mean square 6.25; `[1, 3]` has mean 2 and variance 1.
    #[test]
    fn by_hand_on_both_paths() {
        for device in [Device::flex(), Device::flex().autodiff()] {
            let vector = |values: &[f32]| parameter([values.len()], values.to_vec(), &device);
            let row = |values: &[f32]| {
                Tensor::<3>::from_data(TensorData::new(values.to_vec(), [1, 1, values.len()]), &device)
            };
            let values = |x: Tensor<3>| x.into_data().iter::<f32>().collect::<Vec<_>>();
            let rms = RmsNorm { weight: vector(&[1.0, 2.0, 1.0, 1.0]), epsilon: 0.0 };
            let x = row(&[3.0, 4.0, 0.0, 0.0]);
            assert_eq!(values(rms.normalize(x.clone())), [1.2, 1.6, 0.0, 0.0]);
            assert_eq!(values(rms.forward(x)), [1.2, 3.2, 0.0, 0.0]);
            let layer = LayerNorm { weight: vector(&[2.0, 3.0]), bias: vector(&[1.0, 1.0]), epsilon: 0.0 };
            assert_eq!(values(layer.normalize(row(&[1.0, 3.0]))), [-1.0, 1.0]);
            assert_eq!(values(layer.forward(row(&[1.0, 3.0]))), [-1.0, 4.0]);
        }
    }
}
