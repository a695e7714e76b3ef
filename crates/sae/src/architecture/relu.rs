//! The ReLU autoencoder with a decoder-weighted L1 penalty of Anthropic's April 2024 update
//! (<https://transformer-circuits.pub/2024/april-update/index.html#training-saes>):
//!
//! f = ReLU(x·W_enc + b_enc), x̂ = f·W_dec + b_dec,
//! loss = mean over tokens of ‖x − x̂‖² + λ Σᵢ fᵢ‖W_dec,i‖₂.
//!
//! With decoder rows that keep a norm of 1 it is the plain L1 penalty of Bricken et al. 2023
//! (<https://transformer-circuits.pub/2023/monosemantic-features>): the gradient of a norm points along its row, and that part
//! is taken out. SAELens calls it `standard`.

use burn::tensor::{Tensor, activation::relu};
use monosema_kernels::{Activation, Form, Penalty};
use serde::{Deserialize, Serialize};

use super::Architecture;
use crate::{Affine, Loss, Now, Size, loss::weighted};

/// What can be chosen of [it](self).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReluConfig {
    /// Whether `b_dec` is subtracted from the input before encoding. The April 2024 recipe does not.
    pub apply_b_dec_to_input: bool,
}

impl Architecture for ReluConfig {
    const SAELENS_NAME: Option<&'static str> = Some("standard");

    fn variants() -> Vec<Self> {
        [false, true].map(|apply_b_dec_to_input| Self { apply_b_dec_to_input }).into()
    }

    fn applies_b_dec_to_input(&self) -> bool {
        self.apply_b_dec_to_input
    }

    fn form(&self, _: Size, _: bool) -> Option<Form> {
        Some(Form::new(Activation::Relu, Penalty::L1))
    }

    fn encode(&self, affine: &Affine, x: Tensor<2>) -> Tensor<2> {
        relu(affine.pre_acts(x))
    }

    fn loss(&self, affine: &Affine, x: Tensor<2>, y: Tensor<2>, now: &Now) -> Loss {
        let acts = self.encode(affine, x.clone());
        let penalty = weighted(acts.clone(), affine.decoder_norms());
        Loss::new(y, self.decode(affine, acts.clone(), x), acts).penalised(penalty, now.sparsity)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use monosema_core::Seed;

    use super::*;
    use crate::{Init, Sae, SaeConfig, Weights};

    /// d_in 2, d_sae 3, by hand.
    fn by_hand(apply_b_dec_to_input: bool) -> Sae {
        let mut weights = Weights::default();
        weights.insert("W_enc", vec![1.0, 0.0, -1.0, 0.0, 2.0, 1.0], [2, 3]);
        weights.insert("b_enc", vec![0.5, -1.0, 0.0], [3]);
        weights.insert("W_dec", vec![3.0, 4.0, 0.0, 1.0, 1.0, 0.0], [3, 2]);
        weights.insert("b_dec", vec![1.0, -1.0], [2]);
        let config = SaeConfig::Relu(ReluConfig { apply_b_dec_to_input });
        Sae::from_weights(&config, Size::new(2, 3), weights, &Device::flex())
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
        assert_eq!(values(sae.decode(acts, x.clone())), [6.5, 8.0, 3.0, -1.0]);
        let loss = sae.loss(x.clone(), x, &Now::new(2.0));
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
    fn a_tied_encoder_is_the_decoder_transposed() {
        let begin = |tied| {
            let init = Init { tied, b_dec: vec![1.0; 5], ..Init::new(Seed(1), 0.1) };
            Sae::init(&SaeConfig::default(), Size::new(5, 11), &init, &Device::flex()).affine
        };
        let encoder = |affine: &Affine| values(affine.w_enc.val());
        let decoder = |affine: &Affine| values(affine.w_dec.val().transpose());
        assert_eq!(encoder(&begin(true)), decoder(&begin(true)));
        assert_ne!(encoder(&begin(false)), decoder(&begin(false)));
        assert_eq!(values(begin(true).b_dec.val()), [1.0; 5]);
    }

    #[test]
    fn a_transcoder_gives_another_width_and_may_skip() {
        let size = Size { output: Some(crate::Output { d_out: 1, skip: true }), ..Size::new(2, 3) };
        let mut weights = Weights::default();
        weights.insert("W_enc", vec![1.0, 0.0, -1.0, 0.0, 2.0, 1.0], [2, 3]);
        weights.insert("b_enc", vec![0.5, -1.0, 0.0], [3]);
        weights.insert("W_dec", vec![3.0, 1.0, -1.0], [3, 1]);
        weights.insert("b_dec", vec![1.0], [1]);
        weights.insert("W_skip", vec![10.0, 100.0], [1, 2]);
        let sae = Sae::from_weights(&SaeConfig::default(), size, weights, &Device::flex());
        let x = Tensor::<2>::from_data([[1.0, 2.0]], &Device::flex());
        // acts [1.5, 3, 1]: 4.5 + 3 − 1 + 1, and 10 + 200.
        assert_eq!(values(sae.decode(sae.encode(x.clone()), x)), [217.5]);
    }
}
