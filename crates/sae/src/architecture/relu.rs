//! The ReLU autoencoder with a decoder-weighted L1 penalty of Anthropic's April 2024 update
//! (<https://transformer-circuits.pub/2024/april-update/index.html#training-saes>):
//!
//! f = ReLU(x·W_enc + b_enc), x̂ = f·W_dec + b_dec,
//! loss = mean over tokens of ‖x − x̂‖² + λ Σᵢ fᵢ‖W_dec,i‖₂.
//!
//! SAELens calls it `standard`.

use burn::{
    module::Module,
    tensor::{Device, Tensor, activation::relu},
};
use monosema_core::Seed;
use monosema_kernels::{Activation, Form, Parameters};
use serde::{Deserialize, Serialize};

use super::{Architecture, Size};
use crate::{Affine, Weights};

/// Norm of every decoder row at the start.
const INITIAL_NORM: f64 = 0.1;

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
    affine: Affine,
}

impl Architecture for Relu {
    type Config = ReluConfig;

    const SAELENS_NAME: &'static str = "standard";

    fn variants() -> Vec<ReluConfig> {
        [false, true].map(|apply_b_dec_to_input| ReluConfig { apply_b_dec_to_input }).into()
    }

    /// Decoder rows of norm 0.1 in random directions, the encoder their transpose, biases 0.
    fn initial_weights(_: &ReluConfig, size: Size, seed: Seed) -> Weights {
        Affine::initial_weights(size, INITIAL_NORM, seed)
    }

    fn from_weights(config: &ReluConfig, weights: Weights, device: &Device) -> Self {
        Self { affine: Affine::from_weights(config.apply_b_dec_to_input, weights, device) }
    }

    fn form(config: &ReluConfig) -> Option<Form> {
        Some(Form {
            activation: Activation::Relu,
            apply_b_dec_to_input: config.apply_b_dec_to_input,
            unit_decoder: Self::KEEPS_UNIT_DECODER,
        })
    }

    fn from_parameters(config: &ReluConfig, parameters: Parameters) -> Self {
        Self { affine: Affine::from_parameters(config.apply_b_dec_to_input, parameters) }
    }

    fn affine(&self) -> &Affine {
        &self.affine
    }

    fn map_affine(self, change: impl FnOnce(Affine) -> Affine) -> Self {
        Self { affine: change(self.affine) }
    }

    fn config(&self) -> ReluConfig {
        ReluConfig { apply_b_dec_to_input: self.affine.apply_b_dec_to_input }
    }

    fn encode(&self, x: Tensor<2>) -> Tensor<2> {
        relu(self.affine.pre_acts(x))
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
        assert_eq!(values(sae.affine.w_enc.val()), values(sae.affine.w_dec.val().transpose()));
    }
}
