//! The k-sparse autoencoder of Gao et al. 2024, "Scaling and evaluating sparse autoencoders"
//! (<https://arxiv.org/abs/2406.04093>), section 2.3:
//!
//! f = TopK(ReLU((x − b_dec)·W_enc + b_enc)), x̂ = f·W_dec + b_dec, loss = mean over tokens of ‖x − x̂‖² + AuxK.
//!
//! SAELens calls it `topk`.

use std::num::NonZeroUsize;

use burn::tensor::{Tensor, activation::relu};
use monosema_kernels::{Activation, Form, Penalty, SMALLEST_NORM};
use serde::{Deserialize, Serialize};

use super::{Architecture, Sae};
use crate::{Affine, AuxK, Loss, Now, Size, largest};

/// What can be chosen of [it](self).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopKConfig {
    /// Latents that may be active on a token.
    pub k: NonZeroUsize,
    /// Whether `b_dec` is subtracted from the input before encoding.
    #[serde(default = "yes")]
    pub apply_b_dec_to_input: bool,
    /// Whether activations are multiplied by the norms of their decoder rows before the largest are chosen, and
    /// divided by them again when decoding (SAELens). It makes no difference while the norms are 1.
    #[serde(default)]
    pub rescale_acts_by_decoder_norm: bool,
    /// The term for dead latents.
    #[serde(default)]
    pub aux: AuxK,
}

impl Default for TopKConfig {
    fn default() -> Self {
        let k = NonZeroUsize::new(32).expect("32 is not 0");
        Self { k, apply_b_dec_to_input: true, rescale_acts_by_decoder_norm: false, aux: AuxK::default() }
    }
}

pub(super) fn yes() -> bool {
    true
}

impl Architecture for TopKConfig {
    const SAELENS_NAME: Option<&'static str> = Some("topk");

    const ONLY_IN_TRAINING: &'static [&'static str] = &["aux"];

    const PENALISED: bool = false;

    fn variants() -> Vec<Self> {
        let of = |k, apply_b_dec_to_input, rescale_acts_by_decoder_norm, aux| Self {
            k: NonZeroUsize::new(k).expect("one or more"),
            apply_b_dec_to_input,
            rescale_acts_by_decoder_norm,
            aux,
        };
        let aux = AuxK { coefficient: 0.5, k: Some(2) };
        vec![of(3, true, false, aux), of(1, false, false, AuxK::OFF), of(4, true, true, AuxK::OFF)]
    }

    fn applies_b_dec_to_input(&self) -> bool {
        self.apply_b_dec_to_input
    }

    fn k(&self) -> Option<usize> {
        Some(self.k.get())
    }

    fn aux(&self) -> AuxK {
        self.aux
    }

    fn form(&self, _: Size, unit_decoder: bool) -> Option<Form> {
        // Where they differ, norms by which activations are multiplied and divided must be 1.
        let rescaled = self.rescale_acts_by_decoder_norm && !unit_decoder;
        (!rescaled).then(|| Form::new(Activation::TopK { k: self.k.get() }, Penalty::None))
    }

    fn encode(&self, affine: &Affine, x: Tensor<2>) -> Tensor<2> {
        let acts = self.positive(affine, x);
        let among_largest = largest::of_rows(acts.clone(), self.k.get());
        acts * among_largest
    }

    fn decode(&self, affine: &Affine, acts: Tensor<2>, x: Tensor<2>) -> Tensor<2> {
        let acts =
            if self.rescale_acts_by_decoder_norm { acts / affine.decoder_norms().transpose() } else { acts };
        affine.decode(acts, x)
    }

    fn loss(&self, affine: &Affine, x: Tensor<2>, y: Tensor<2>, now: &Now) -> Loss {
        let positive = self.positive(affine, x.clone());
        let among_largest = largest::of_rows(positive.clone(), now.k.unwrap_or(self.k.get()));
        let acts = positive.clone() * among_largest;
        let x_hat = self.decode(affine, acts.clone(), x);
        let aux = self.aux.term(affine, now, positive, [y.clone(), x_hat.clone()]);
        aux.into_iter().fold(Loss::new(y, x_hat, acts), Loss::plus)
    }

    fn frozen(&self, affine: Affine, _: Option<f32>) -> Sae {
        Sae::new(Self { aux: AuxK::default(), ..self.clone() }, affine)
    }

    /// Activations that grow by different factors are chosen differently, unless they are multiplied by the norms anyway. So
    /// they grow alike: rows that have one norm then have norm 1.
    fn final_factors(&self, affine: &Affine) -> Tensor<2> {
        let norms = affine.decoder_norms().clamp_min(SMALLEST_NORM);
        if self.rescale_acts_by_decoder_norm {
            return norms;
        }
        let ones = norms.ones_like();
        ones * norms.mean_dim(0)
    }
}

impl TopKConfig {
    /// Activations before the largest are chosen.
    fn positive(&self, affine: &Affine, x: Tensor<2>) -> Tensor<2> {
        let acts = relu(affine.pre_acts(x));
        if self.rescale_acts_by_decoder_norm { acts * affine.decoder_norms().transpose() } else { acts }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::Weights;

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_into_vec().unwrap()
    }

    /// d_in 2, d_sae 3, k 1, by hand.
    fn by_hand(rescale_acts_by_decoder_norm: bool, aux: AuxK) -> Sae {
        let mut weights = Weights::default();
        weights.insert("W_enc", vec![1.0, 0.0, -1.0, 0.0, 2.0, 1.0], [2, 3]);
        weights.insert("b_enc", vec![0.5, -1.0, 0.0], [3]);
        weights.insert("W_dec", vec![3.0, 4.0, 0.0, 1.0, 1.0, 0.0], [3, 2]);
        weights.insert("b_dec", vec![1.0, -1.0], [2]);
        let k = NonZeroUsize::new(1).unwrap();
        let config = TopKConfig { k, apply_b_dec_to_input: false, rescale_acts_by_decoder_norm, aux };
        Sae::from_weights(&config.into(), Size::new(2, 3), weights, &Device::flex())
    }

    #[test]
    fn the_largest_positive_one_is_active() {
        let x = Tensor::<2>::from_data([[1.0, 2.0], [-2.0, 0.0], [0.0, -1.0]], &Device::flex());
        // Pre-activations [1.5, 3, 1], [-1.5, -1, 2] and [0.5, -3, -1].
        let sae = by_hand(false, AuxK::OFF);
        let acts = sae.encode(x.clone());
        assert_eq!(values(acts.clone()), [0.0, 3.0, 0.0, 0.0, 0.0, 2.0, 0.5, 0.0, 0.0]);
        // 3·(0,1) + (1,-1), 2·(1,0) + (1,-1), 0.5·(3,4) + (1,-1).
        assert_eq!(values(sae.decode(acts, x.clone())), [1.0, 2.0, 3.0, -1.0, 2.5, 1.0]);
        // Decoder rows of norms 5, 1, 1: 1.5 · 5 is more than 3.
        let sae = by_hand(true, AuxK::OFF);
        let acts = sae.encode(x.clone());
        assert_eq!(values(acts.clone()), [7.5, 0.0, 0.0, 0.0, 0.0, 2.0, 2.5, 0.0, 0.0]);
        assert_eq!(values(sae.decode(acts, x)), [5.5, 5.0, 3.0, -1.0, 2.5, 1.0]);
    }

    #[test]
    fn dead_latents_explain_the_rest() {
        let sae = by_hand(false, AuxK { coefficient: 0.5, k: Some(1) });
        let x = Tensor::<2>::from_data([[1.0, 2.0], [-2.0, 0.0]], &Device::flex());
        let rest = |dead: [f32; 3]| {
            let dead = Some(Tensor::from_data(dead, &Device::flex()));
            let loss = sae.loss(x.clone(), x.clone(), &Now { dead, ..Now::new(0.0) });
            loss.rest.unwrap().into_scalar::<f32>()
        };
        // Errors (1,2) − (1,2) = (0,0) and (−2,0) − (3,−1) = (−5,1); their mean (−2.5, 0.5): spread 2·6.5 = 13.
        // Dead are the first and the third: 1.5·(3,4) on the first token, 2·(1,0) on the second.
        // Left over: (4.5,6) and (7,−1): 56.25 + 50.
        assert!((rest([1.0, 0.0, 1.0]) - 0.5 * 106.25 / 13.0).abs() < 1e-6);
        assert_eq!(rest([0.0; 3]), 0.0);
        assert!(sae.loss(x.clone(), x, &Now::new(0.0)).rest.is_none());
    }
}
