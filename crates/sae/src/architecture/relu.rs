//! The ReLU autoencoder with a decoder-weighted L1 penalty of Anthropic's April 2024 update
//! (<https://transformer-circuits.pub/2024/april-update/index.html#training-saes>):
//!
//! f = ReLU(x·W_enc + b_enc), x̂ = f·W_dec + b_dec,
//! loss = mean over tokens of ‖x − x̂‖² + λ Σᵢ fᵢ‖W_dec,i‖₂.
//!
//! SAELens calls it `standard`.

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, activation::relu},
};
use monosema_core::Seed;
use serde::{Deserialize, Serialize};

use super::{Architecture, Loss, Size, SparseForm};
use crate::weights::{Weights, random_directions};

/// Norm of every decoder row at the start.
const INITIAL_NORM: f64 = 0.1;

/// Norms below this count as this when rows are divided by them (SAELens does the same).
const SMALLEST_NORM: f32 = 1e-8;

/// What can be chosen of a [`Relu`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReluConfig {
    /// Whether `b_dec` is subtracted from the input before encoding. The April 2024 recipe does not.
    pub apply_b_dec_to_input: bool,
}

/// See the [module](self).
#[derive(Module, Debug)]
pub struct Relu {
    /// `[d_in, d_sae]`.
    pub w_enc: Param<Tensor<2>>,
    /// `[d_sae]`.
    pub b_enc: Param<Tensor<1>>,
    /// `[d_sae, d_in]`.
    pub w_dec: Param<Tensor<2>>,
    /// `[d_in]`.
    pub b_dec: Param<Tensor<1>>,
    /// [`ReluConfig::apply_b_dec_to_input`].
    pub apply_b_dec_to_input: bool,
}

impl Relu {
    /// ‖W_dec,i‖₂ of every row, `[d_sae, 1]`.
    fn decoder_norms(&self) -> Tensor<2> {
        (self.w_dec.val().square().sum_dim(1) + SparseForm::TINY).sqrt()
    }
}

impl Architecture for Relu {
    type Config = ReluConfig;

    const SAELENS_NAME: &'static str = "standard";

    fn variants() -> Vec<ReluConfig> {
        [false, true].map(|apply_b_dec_to_input| ReluConfig { apply_b_dec_to_input }).into()
    }

    fn shapes(Size { d_in, d_sae }: Size) -> Vec<(&'static str, Vec<usize>)> {
        vec![
            ("W_enc", vec![d_in, d_sae]),
            ("b_enc", vec![d_sae]),
            ("W_dec", vec![d_sae, d_in]),
            ("b_dec", vec![d_in]),
        ]
    }

    /// Decoder rows of norm 0.1 in random directions, the encoder their transpose, biases 0.
    fn initial_weights(_: &ReluConfig, Size { d_in, d_sae }: Size, seed: Seed) -> Weights {
        let w_dec = random_directions(seed, d_sae, d_in, INITIAL_NORM);
        let w_enc = (0..d_in * d_sae).map(|i| w_dec[(i % d_sae) * d_in + i / d_sae]).collect();
        let mut weights = Weights::default();
        weights.insert("W_enc", w_enc, [d_in, d_sae]);
        weights.insert("b_enc", vec![0.0; d_sae], [d_sae]);
        weights.insert("W_dec", w_dec, [d_sae, d_in]);
        weights.insert("b_dec", vec![0.0; d_in], [d_in]);
        weights
    }

    fn from_weights(config: &ReluConfig, mut weights: Weights, device: &Device) -> Self {
        Self {
            w_enc: weights.take("W_enc", device),
            b_enc: weights.take("b_enc", device),
            w_dec: weights.take("W_dec", device),
            b_dec: weights.take("b_dec", device),
            apply_b_dec_to_input: config.apply_b_dec_to_input,
        }
    }

    fn to_weights(&self) -> Weights {
        let mut weights = Weights::default();
        weights.insert_param("W_enc", &self.w_enc);
        weights.insert_param("b_enc", &self.b_enc);
        weights.insert_param("W_dec", &self.w_dec);
        weights.insert_param("b_dec", &self.b_dec);
        weights
    }

    fn sparse_form(config: &ReluConfig) -> Option<SparseForm> {
        Some(SparseForm { apply_b_dec_to_input: config.apply_b_dec_to_input })
    }

    fn config(&self) -> ReluConfig {
        ReluConfig { apply_b_dec_to_input: self.apply_b_dec_to_input }
    }

    fn size(&self) -> Size {
        let [d_in, d_sae] = self.w_enc.dims();
        Size { d_in, d_sae }
    }

    fn encode(&self, x: Tensor<2>) -> Tensor<2> {
        let x = if self.apply_b_dec_to_input { x - self.b_dec.val().unsqueeze() } else { x };
        relu(x.matmul(self.w_enc.val()) + self.b_enc.val().unsqueeze())
    }

    fn decode(&self, acts: Tensor<2>) -> Tensor<2> {
        acts.matmul(self.w_dec.val()) + self.b_dec.val().unsqueeze()
    }

    fn loss(&self, x: Tensor<2>, sparsity: f64) -> Loss {
        let acts = self.encode(x.clone());
        let x_hat = self.decode(acts.clone());
        let squared_error = (x_hat - x).square().sum_dim(1).mean();
        // A product with a column of norms reads the [n, d_sae] activations once and writes [n, 1].
        let penalty = acts.clone().matmul(self.decoder_norms()).mean();
        let total = squared_error.clone() + penalty.clone().mul_scalar(sparsity);
        Loss { total, squared_error, penalty, acts }
    }

    fn fold_scale(self, scale: f64) -> Self {
        Self {
            w_enc: self.w_enc.map(|w| w.mul_scalar(scale)),
            w_dec: self.w_dec.map(|w| w.div_scalar(scale)),
            b_dec: self.b_dec.map(|b| b.div_scalar(scale)),
            ..self
        }
    }

    fn unit_decoder(self) -> Self {
        let norms = self.decoder_norms().clamp_min(SMALLEST_NORM);
        Self {
            w_enc: self.w_enc.map(|w| w * norms.clone().transpose()),
            b_enc: self.b_enc.map(|b| b * norms.clone().squeeze_dim(1)),
            w_dec: self.w_dec.map(|w| w / norms),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// d_in 2, d_sae 3, by hand.
    fn by_hand(apply_b_dec_to_input: bool) -> Relu {
        let mut weights = Weights::default();
        weights.insert("W_enc", vec![1.0, 0.0, -1.0, 0.0, 2.0, 1.0], [2, 3]);
        weights.insert("b_enc", vec![0.5, -1.0, 0.0], [3]);
        weights.insert("W_dec", vec![3.0, 4.0, 0.0, 1.0, 1.0, 0.0], [3, 2]);
        weights.insert("b_dec", vec![1.0, -1.0], [2]);
        Relu::from_weights(&ReluConfig { apply_b_dec_to_input }, weights, &Device::flex())
    }

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_into_vec().unwrap()
    }

    #[test]
    fn encode_decode_and_loss_by_hand() {
        let sae = by_hand(false);
        let x = Tensor::<2>::from_data([[1.0, 2.0], [-2.0, 0.0]], &Device::flex());
        // x·W_enc + b_enc = [1.5, 3, 1] and [-1.5, -1, 2].
        let acts = sae.encode(x.clone());
        assert_eq!(values(acts.clone()), [1.5, 3.0, 1.0, 0.0, 0.0, 2.0]);
        // 1.5·(3,4) + 3·(0,1) + 1·(1,0) + (1,-1) = (6.5, 8); 2·(1,0) + (1,-1) = (3,-1).
        assert_eq!(values(sae.decode(acts)), [6.5, 8.0, 3.0, -1.0]);
        let loss = sae.loss(x, 2.0);
        // Errors (5.5, 6) and (5, -1): 66.25 and 26. Norms 5, 1, 1: penalties 11.5 and 2.
        assert_eq!(values(loss.squared_error), [46.125]);
        assert_eq!(values(loss.penalty), [6.75]);
        assert_eq!(values(loss.total), [59.625]);
    }

    #[test]
    fn b_dec_is_subtracted_only_where_asked() {
        let x = Tensor::<2>::from_data([[1.0, 2.0]], &Device::flex());
        // (x − b_dec)·W_enc + b_enc = (0, 3)·W_enc + b_enc = [0.5, 5, 3].
        assert_eq!(values(by_hand(true).encode(x)), [0.5, 5.0, 3.0]);
    }

    #[test]
    fn initial_encoder_is_the_decoder_transposed() {
        let size = Size { d_in: 5, d_sae: 11 };
        let weights = Relu::initial_weights(&ReluConfig::default(), size, Seed(1));
        let sae = Relu::from_weights(&ReluConfig::default(), weights, &Device::flex());
        assert_eq!(values(sae.w_enc.val()), values(sae.w_dec.val().transpose()));
    }
}
