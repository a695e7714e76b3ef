//! The k-sparse autoencoder of Gao et al. 2024, "Scaling and evaluating sparse autoencoders"
//! (<https://arxiv.org/abs/2406.04093>), section 2.3:
//!
//! f = TopK(ReLU((x − b_dec)·W_enc + b_enc)), x̂ = f·W_dec + b_dec, loss = mean over tokens of ‖x − x̂‖²,
//!
//! with decoder rows that keep a norm of 1. The auxiliary loss for dead latents is not here yet.
//!
//! SAELens calls it `topk`.

use std::num::NonZeroUsize;

use burn::{
    module::Module,
    tensor::{Device, Tensor, activation::relu},
};
use monosema_core::Seed;
use monosema_kernels::{Activation, Form, Parameters};
use serde::{Deserialize, Serialize};

use super::{Architecture, Size};
use crate::{Affine, Weights, largest};

/// What can be chosen of a [`TopK`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopKConfig {
    /// Latents that may be active on a token.
    pub k: NonZeroUsize,
    /// Whether `b_dec` is subtracted from the input before encoding.
    #[serde(default = "yes")]
    pub apply_b_dec_to_input: bool,
    /// Whether activations are multiplied by the norms of their decoder rows before the largest are chosen, and
    /// divided by them again when decoding (SAELens). It makes no difference while the norms are 1, as they are here.
    #[serde(default)]
    pub rescale_acts_by_decoder_norm: bool,
}

fn yes() -> bool {
    true
}

impl Default for TopKConfig {
    fn default() -> Self {
        let k = NonZeroUsize::new(32).expect("32 is not 0");
        Self { k, apply_b_dec_to_input: true, rescale_acts_by_decoder_norm: false }
    }
}

/// See the [module](self).
#[derive(Module, Debug)]
pub struct TopK {
    affine: Affine,
    k: usize,
    rescale_acts_by_decoder_norm: bool,
}

impl Architecture for TopK {
    type Config = TopKConfig;

    const SAELENS_NAME: &'static str = "topk";

    const PENALISED: bool = false;

    const KEEPS_UNIT_DECODER: bool = true;

    fn variants() -> Vec<TopKConfig> {
        let of = |k, apply_b_dec_to_input, rescale_acts_by_decoder_norm| TopKConfig {
            k: NonZeroUsize::new(k).expect("one or more"),
            apply_b_dec_to_input,
            rescale_acts_by_decoder_norm,
        };
        vec![of(3, true, false), of(1, false, false), of(4, true, true)]
    }

    /// Decoder rows of norm 1 in random directions, the encoder their transpose, biases 0.
    fn initial_weights(_: &TopKConfig, size: Size, seed: Seed) -> Weights {
        Affine::initial_weights(size, 1.0, seed)
    }

    fn from_weights(config: &TopKConfig, weights: Weights, device: &Device) -> Self {
        Self::new(config, Affine::from_weights(config.apply_b_dec_to_input, weights, device))
    }

    fn check(config: &TopKConfig, size: Size) -> Result<(), (String, String)> {
        if config.k.get() <= size.d_sae {
            return Ok(());
        }
        Err((format!("k of at most {}, the number of latents", size.d_sae), format!("k = {}", config.k)))
    }

    fn form(config: &TopKConfig) -> Option<Form> {
        // The norms by which activations may be multiplied and divided are 1.
        Some(Form {
            activation: Activation::TopK { k: config.k.get() },
            apply_b_dec_to_input: config.apply_b_dec_to_input,
            unit_decoder: Self::KEEPS_UNIT_DECODER,
        })
    }

    fn from_parameters(config: &TopKConfig, parameters: Parameters) -> Self {
        Self::new(config, Affine::from_parameters(config.apply_b_dec_to_input, parameters))
    }

    fn affine(&self) -> &Affine {
        &self.affine
    }

    fn map_affine(self, change: impl FnOnce(Affine) -> Affine) -> Self {
        Self { affine: change(self.affine), ..self }
    }

    fn config(&self) -> TopKConfig {
        TopKConfig {
            k: NonZeroUsize::new(self.k).expect("the configuration's was not 0"),
            apply_b_dec_to_input: self.affine.apply_b_dec_to_input,
            rescale_acts_by_decoder_norm: self.rescale_acts_by_decoder_norm,
        }
    }

    fn encode(&self, x: Tensor<2>) -> Tensor<2> {
        let acts = relu(self.affine.pre_acts(x));
        let acts = if self.rescale_acts_by_decoder_norm {
            acts * self.affine.decoder_norms().transpose()
        } else {
            acts
        };
        let among_largest = largest::of_rows(acts.clone(), self.k);
        acts * among_largest
    }

    fn decode(&self, acts: Tensor<2>) -> Tensor<2> {
        let acts = if self.rescale_acts_by_decoder_norm {
            acts / self.affine.decoder_norms().transpose()
        } else {
            acts
        };
        self.affine.decode(acts)
    }
}

impl TopK {
    fn new(config: &TopKConfig, affine: Affine) -> Self {
        let TopKConfig { k, rescale_acts_by_decoder_norm, .. } = *config;
        Self { affine, k: k.get(), rescale_acts_by_decoder_norm }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_into_vec().unwrap()
    }

    /// d_in 2, d_sae 3, k 1, by hand.
    fn by_hand(rescale_acts_by_decoder_norm: bool) -> TopK {
        let mut weights = Weights::default();
        weights.insert("W_enc", vec![1.0, 0.0, -1.0, 0.0, 2.0, 1.0], [2, 3]);
        weights.insert("b_enc", vec![0.5, -1.0, 0.0], [3]);
        weights.insert("W_dec", vec![3.0, 4.0, 0.0, 1.0, 1.0, 0.0], [3, 2]);
        weights.insert("b_dec", vec![1.0, -1.0], [2]);
        let k = NonZeroUsize::new(1).unwrap();
        let config = TopKConfig { k, apply_b_dec_to_input: false, rescale_acts_by_decoder_norm };
        TopK::from_weights(&config, weights, &Device::flex())
    }

    #[test]
    fn the_largest_positive_one_is_active() {
        let x = Tensor::<2>::from_data([[1.0, 2.0], [-2.0, 0.0], [0.0, -1.0]], &Device::flex());
        // Pre-activations [1.5, 3, 1], [-1.5, -1, 2] and [0.5, -3, -1].
        let acts = by_hand(false).encode(x.clone());
        assert_eq!(values(acts.clone()), [0.0, 3.0, 0.0, 0.0, 0.0, 2.0, 0.5, 0.0, 0.0]);
        // 3·(0,1) + (1,-1), 2·(1,0) + (1,-1), 0.5·(3,4) + (1,-1).
        assert_eq!(values(by_hand(false).decode(acts)), [1.0, 2.0, 3.0, -1.0, 2.5, 1.0]);
        // Decoder rows of norms 5, 1, 1: 1.5 · 5 is more than 3.
        let acts = by_hand(true).encode(x);
        assert_eq!(values(acts.clone()), [7.5, 0.0, 0.0, 0.0, 0.0, 2.0, 2.5, 0.0, 0.0]);
        assert_eq!(values(by_hand(true).decode(acts)), [5.5, 5.0, 3.0, -1.0, 2.5, 1.0]);
    }
}
