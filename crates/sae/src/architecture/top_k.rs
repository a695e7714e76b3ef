//! The k-sparse autoencoder of Gao et al. 2024, "Scaling and evaluating sparse autoencoders"
//! (<https://arxiv.org/abs/2406.04093>), section 2.3:
//!
//! f = TopK(ReLU((x − b_dec)·W_enc + b_enc)), x̂ = f·W_dec + b_dec, loss = mean over tokens of ‖x − x̂‖² + AuxK.
//!
//! SAELens calls it `topk`.

use std::num::NonZeroUsize;

use burn::{
    module::Module,
    tensor::{Device, Tensor, activation::relu},
};
use monosema_kernels::{Activation, Form, Parameters, Penalty, SMALLEST_NORM};
use serde::{Deserialize, Serialize};

use super::{Architecture, Sae};
use crate::{Affine, Loss, Now, Size, Weights, aux_k::AuxK, largest};

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

/// What TopK and its kin ask of a size.
pub(super) fn check(k: NonZeroUsize, aux: AuxK, size: Size) -> Result<(), (String, String)> {
    if k.get() > size.d_sae {
        return Err((format!("k of at most {}, the number of latents", size.d_sae), format!("k = {k}")));
    }
    aux.check()
}

/// The form of TopK and its kin: nothing but AuxK is added to the error.
pub(super) fn form(
    activation: Activation,
    [apply_b_dec_to_input, unit_decoder]: [bool; 2],
    aux: AuxK,
    size: Size,
) -> Form {
    let form = Form::new(activation, Penalty::None);
    Form { apply_b_dec_to_input, unit_decoder, skip: size.skips(), aux: aux.form(size.d_in), ..form }
}

/// See the [module](self).
#[derive(Module, Debug)]
pub struct TopK {
    affine: Affine,
    #[module(skip)]
    config: TopKConfig,
}

impl Architecture for TopK {
    type Config = TopKConfig;

    const SAELENS_NAME: Option<&'static str> = Some("topk");

    const ONLY_IN_TRAINING: &'static [&'static str] = &["aux"];

    const PENALISED: bool = false;

    fn variants() -> Vec<TopKConfig> {
        let of = |k, apply_b_dec_to_input, rescale_acts_by_decoder_norm, aux| TopKConfig {
            k: NonZeroUsize::new(k).expect("one or more"),
            apply_b_dec_to_input,
            rescale_acts_by_decoder_norm,
            aux,
        };
        let aux = AuxK { coefficient: 0.5, k: Some(2) };
        vec![of(3, true, false, aux), of(1, false, false, AuxK::OFF), of(4, true, true, AuxK::OFF)]
    }

    fn from_weights(config: &TopKConfig, size: Size, mut weights: Weights, device: &Device) -> Self {
        let affine = Affine::from_weights(config.apply_b_dec_to_input, size, &mut weights, device);
        Self { affine, config: config.clone() }
    }

    fn applies_b_dec_to_input(config: &TopKConfig) -> bool {
        config.apply_b_dec_to_input
    }

    fn check(config: &TopKConfig, size: Size) -> Result<(), (String, String)> {
        check(config.k, config.aux, size)
    }

    fn target_l0(config: &TopKConfig) -> Option<f64> {
        Some(config.k.get() as f64)
    }

    fn k(config: &TopKConfig) -> Option<usize> {
        Some(config.k.get())
    }

    fn heeds_dead(config: &TopKConfig) -> bool {
        config.aux.coefficient > 0.0
    }

    fn form(config: &TopKConfig, size: Size, unit_decoder: bool) -> Option<Form> {
        // Where they differ, norms by which activations are multiplied and divided must be 1.
        let rescaled = config.rescale_acts_by_decoder_norm && !unit_decoder;
        let activation = Activation::TopK { k: config.k.get() };
        let flags = [config.apply_b_dec_to_input, unit_decoder];
        (!rescaled).then(|| form(activation, flags, config.aux, size))
    }

    fn from_parameters(config: &TopKConfig, size: Size, parameters: Parameters) -> Self {
        let affine = Affine::from_parameters(config.apply_b_dec_to_input, size, parameters);
        Self { affine, config: config.clone() }
    }

    fn affine(&self) -> &Affine {
        &self.affine
    }

    fn map_affine(self, change: impl FnOnce(Affine) -> Affine) -> Self {
        Self { affine: change(self.affine), ..self }
    }

    fn config(&self) -> TopKConfig {
        self.config.clone()
    }

    fn encode(&self, x: Tensor<2>) -> Tensor<2> {
        let acts = self.positive(x);
        let among_largest = largest::of_rows(acts.clone(), self.config.k.get());
        acts * among_largest
    }

    fn decode(&self, acts: Tensor<2>, x: Tensor<2>) -> Tensor<2> {
        let acts = if self.config.rescale_acts_by_decoder_norm {
            acts / self.affine.decoder_norms().transpose()
        } else {
            acts
        };
        self.affine.decode(acts, x)
    }

    fn loss(&self, x: Tensor<2>, y: Tensor<2>, now: &Now) -> Loss {
        let positive = self.positive(x.clone());
        let among_largest = largest::of_rows(positive.clone(), now.k.unwrap_or(self.config.k.get()));
        let acts = positive.clone() * among_largest;
        let x_hat = self.decode(acts.clone(), x);
        let aux = self.config.aux.term(&self.affine, now, positive, [y.clone(), x_hat.clone()]);
        aux.into_iter().fold(Loss::new(y, x_hat, acts), Loss::plus)
    }

    fn frozen(self, _: Option<f32>) -> Sae {
        let config = TopKConfig { aux: AuxK::default(), ..self.config };
        Self { config, ..self }.into()
    }

    /// Activations that grow by different factors are chosen differently, unless they are multiplied by the norms anyway. So
    /// they grow alike: rows that have one norm then have norm 1.
    fn final_factors(&self) -> Tensor<2> {
        let norms = self.affine.decoder_norms().clamp_min(SMALLEST_NORM);
        if self.config.rescale_acts_by_decoder_norm {
            return norms;
        }
        let ones = norms.ones_like();
        ones * norms.mean_dim(0)
    }
}

impl TopK {
    /// Activations before the largest are chosen.
    fn positive(&self, x: Tensor<2>) -> Tensor<2> {
        let acts = relu(self.affine.pre_acts(x));
        if self.config.rescale_acts_by_decoder_norm {
            acts * self.affine.decoder_norms().transpose()
        } else {
            acts
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_into_vec().unwrap()
    }

    /// d_in 2, d_sae 3, k 1, by hand.
    fn by_hand(rescale_acts_by_decoder_norm: bool, aux: AuxK) -> TopK {
        let mut weights = Weights::default();
        weights.insert("W_enc", vec![1.0, 0.0, -1.0, 0.0, 2.0, 1.0], [2, 3]);
        weights.insert("b_enc", vec![0.5, -1.0, 0.0], [3]);
        weights.insert("W_dec", vec![3.0, 4.0, 0.0, 1.0, 1.0, 0.0], [3, 2]);
        weights.insert("b_dec", vec![1.0, -1.0], [2]);
        let k = NonZeroUsize::new(1).unwrap();
        let config = TopKConfig { k, apply_b_dec_to_input: false, rescale_acts_by_decoder_norm, aux };
        TopK::from_weights(&config, Size::new(2, 3), weights, &Device::flex())
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
