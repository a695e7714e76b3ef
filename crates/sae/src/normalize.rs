//! What is done to every activation by itself before it is encoded, and undone after decoding.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Added to a standard deviation that is divided by; SAELens's.
pub const LAYER_NORM_EPSILON: f32 = 1e-5;

/// What is done to every activation by itself. Names are those of `normalize_activations` in a SAELens `cfg.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalization {
    /// Nothing.
    #[default]
    None,
    /// x → (x − mean) / (standard deviation + 1e-5), over its dimensions, the deviation with d − 1; x̂ the other way.
    LayerNorm,
    /// x → x·√d_in / ‖x‖₂; x̂ the other way. Dictionaries of other tools have it; none is trained with it here.
    ConstantNormRescale,
}

/// Added to a norm that is divided by, so that 0 stays 0.
const NORM_TINY: f32 = 1e-30;

/// What normalisation took from activations, `[n, 1]` each.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    mean: Option<Tensor<2>>,
    factor: Tensor<2>,
}

impl Normalization {
    /// As SAELens calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::LayerNorm => "layer_norm",
            Self::ConstantNormRescale => "constant_norm_rescale",
        }
    }

    /// The one that SAELens calls so.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::None, Self::LayerNorm, Self::ConstantNormRescale].into_iter().find(|one| one.name() == name)
    }

    /// `x [n, d_in]` normalised, and what was taken.
    pub(crate) fn apply(self, x: Tensor<2>) -> (Tensor<2>, Option<Taken>) {
        let width = x.dims()[1];
        match self {
            Self::None => (x, None),
            Self::LayerNorm => {
                let mean = x.clone().mean_dim(1);
                let centred = x - mean.clone();
                let variance = centred.clone().square().sum_dim(1).div_scalar(width.max(2) as f64 - 1.0);
                let deviation = variance.sqrt();
                let x = centred / deviation.clone().add_scalar(LAYER_NORM_EPSILON);
                (x, Some(Taken { mean: Some(mean), factor: deviation }))
            }
            Self::ConstantNormRescale => {
                let norm = x.clone().square().sum_dim(1).sqrt();
                let factor = norm.div_scalar((width as f64).sqrt()).add_scalar(NORM_TINY);
                (x / factor.clone(), Some(Taken { mean: None, factor }))
            }
        }
    }
}

impl Taken {
    /// Gives it back to `x_hat [n, d_in]`.
    pub(crate) fn give_back(self, x_hat: Tensor<2>) -> Tensor<2> {
        let x_hat = x_hat * self.factor;
        match self.mean {
            Some(mean) => x_hat + mean,
            None => x_hat,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn layer_norm_by_hand() {
        let x = Tensor::<2>::from_data([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0]], &Device::flex());
        let (normalised, taken) = Normalization::LayerNorm.apply(x.clone());
        // Mean 3, deviations −2, −1, 3: their squares are 14, half of which is 7.
        let found: Vec<f32> = normalised.clone().into_data().try_into_vec().unwrap();
        for (found, expected) in found.iter().zip([-2.0, -1.0, 3.0, 0.0, 0.0, 0.0]) {
            assert!((found - expected / (7.0_f32.sqrt() + 1e-5)).abs() < 1e-6, "{found}");
        }
        let back: Vec<f32> = taken.unwrap().give_back(normalised).into_data().try_into_vec().unwrap();
        let x: Vec<f32> = x.into_data().try_into_vec().unwrap();
        assert!(back.iter().zip(x).all(|(a, b)| (a - b).abs() < 1e-4), "{back:?}");
    }

    #[test]
    fn a_constant_norm_by_hand() {
        let x = Tensor::<2>::from_data([[3.0, 4.0], [0.0, 0.0]], &Device::flex());
        let (normalised, taken) = Normalization::ConstantNormRescale.apply(x);
        // ‖(3, 4)‖ = 5 becomes √2.
        let found: Vec<f32> = normalised.clone().into_data().try_into_vec().unwrap();
        for (found, expected) in found.iter().zip([3.0, 4.0, 0.0, 0.0]) {
            assert!((found - expected * 2.0_f32.sqrt() / 5.0).abs() < 1e-6, "{found}");
        }
        let back: Vec<f32> = taken.unwrap().give_back(normalised).into_data().try_into_vec().unwrap();
        assert!(back.iter().zip([3.0, 4.0, 0.0, 0.0]).all(|(a, b)| (a - b).abs() < 1e-5), "{back:?}");
    }
}
