//! The autoencoder in which a batch, not each token, has so many active latents: BatchTopK of Bussmann et al. 2024
//! (<https://arxiv.org/abs/2412.06410>):
//!
//! f = the k·n largest of ReLU((x − b_dec)·W_enc + b_enc) over n tokens, x̂ = f·W_dec + b_dec,
//! loss = mean over tokens of ‖x − x̂‖² + AuxK.
//!
//! Trained, it is a [JumpReLU](super::jump_relu) whose threshold is the mean of the smallest activations that late batches kept: what is
//! active on a token then no longer depends on others. SAELens does the same.

use std::num::NonZeroUsize;

use burn::tensor::{Tensor, activation::relu};
use monosema_kernels::{Activation, Form, Penalty};
use serde::{Deserialize, Serialize};

use super::{Architecture, Sae, jump_relu::JumpReluConfig, top_k};
use crate::{Affine, AuxK, Loss, Now, Size, largest};

/// What can be chosen of [it](self).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchTopKConfig {
    /// Latents that are active on a token, on average over a batch.
    pub k: NonZeroUsize,
    /// Whether `b_dec` is subtracted from the input before encoding.
    #[serde(default = "top_k::yes")]
    pub apply_b_dec_to_input: bool,
    /// The term for dead latents.
    #[serde(default)]
    pub aux: AuxK,
}

impl Architecture for BatchTopKConfig {
    const SAELENS_NAME: Option<&'static str> = None;

    const PENALISED: bool = false;

    const CHOOSES_IN_BATCH: bool = true;

    fn variants() -> Vec<Self> {
        let of = |k, apply_b_dec_to_input, aux| Self {
            k: NonZeroUsize::new(k).expect("one or more"),
            apply_b_dec_to_input,
            aux,
        };
        vec![of(3, true, AuxK::default()), of(1, false, AuxK::OFF)]
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

    fn form(&self, _: Size, _: bool) -> Option<Form> {
        Some(Form::new(Activation::BatchTopK { k: self.k.get() }, Penalty::None))
    }

    fn encode(&self, affine: &Affine, x: Tensor<2>) -> Tensor<2> {
        keep(relu(affine.pre_acts(x)), self.k.get())
    }

    fn loss(&self, affine: &Affine, x: Tensor<2>, y: Tensor<2>, now: &Now) -> Loss {
        let positive = relu(affine.pre_acts(x.clone()));
        let k = now.k.unwrap_or(self.k.get());
        let acts = keep(positive.clone(), k);
        let x_hat = self.decode(affine, acts.clone(), x);
        let smallest = Some(smallest(acts.clone(), k));
        let aux = self.aux.term(affine, now, positive, [y.clone(), x_hat.clone()]);
        let loss = Loss { smallest, ..Loss::new(y, x_hat, acts) };
        aux.into_iter().fold(loss, Loss::plus)
    }

    fn frozen(&self, affine: Affine, threshold: Option<f32>) -> Sae {
        with_threshold(affine, threshold)
    }
}

/// A JumpReLU dictionary that has the same threshold for all latents: 0 where none is known.
pub(super) fn with_threshold(affine: Affine, threshold: Option<f32>) -> Sae {
    let theta = affine.b_enc.val().zeros_like().add_scalar(threshold.unwrap_or(0.0));
    JumpReluConfig::dictionary(affine, theta)
}

/// `acts [n, d_sae]`, of which the `k · n` largest are kept and the others become 0.
pub(super) fn keep(acts: Tensor<2>, k: usize) -> Tensor<2> {
    let n = acts.dims()[0];
    let largest = largest::of_batch(acts.clone(), k.saturating_mul(n));
    acts * largest
}

/// The smallest of `acts [n, d_sae]`, of which the `k · n` largest were kept, `[1]`: what others were not above. 0 if fewer
/// were there to be kept.
pub(super) fn smallest(acts: Tensor<2>, k: usize) -> Tensor<1> {
    let acts = acts.detach();
    let wanted = (k.saturating_mul(acts.dims()[0]).min(acts.shape().num_elements())) as f64;
    let silent = acts.clone().lower_equal_scalar(0.0);
    let few = (silent.clone().bool_not().float().sum_dim(1).sum()).lower_scalar(wanted);
    acts.mask_fill(silent, f32::INFINITY).min().mask_fill(few, 0.0)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_into_vec().unwrap()
    }

    #[test]
    fn the_largest_of_all_tokens_are_active() {
        let acts = Tensor::<2>::from_data([[1.0, 5.0, 0.0], [0.0, 2.0, 0.5]], &Device::flex());
        let kept = keep(acts.clone(), 1);
        assert_eq!(values(kept.clone()), [0.0, 5.0, 0.0, 0.0, 2.0, 0.0]);
        assert_eq!(values(smallest(kept, 1)), [2.0]);
        // There are not three a token.
        assert_eq!(values(smallest(acts, 3)), [0.0]);
    }
}
