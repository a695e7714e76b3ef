//! The autoencoder whose first latents must do without the others: Matryoshka BatchTopK of Bussmann et al. 2025
//! (<https://arxiv.org/abs/2503.17547>):
//!
//! f as of [BatchTopK](super::batch_top_k), x̂_g = Σ_{i < prefix g} fᵢ W_dec,i + b_dec,
//! loss = mean over tokens of Σ_g ‖x − x̂_g‖² + AuxK,
//!
//! over nested prefixes of the latents, the last of which is all of them. Trained, it is a [JumpReLU](super::jump_relu).

use std::num::NonZeroUsize;

use burn::tensor::{Tensor, activation::relu};
use monosema_kernels::{Activation, Form, Penalty};
use serde::{Deserialize, Serialize};

use super::{
    Architecture, Sae,
    batch_top_k::{keep, smallest, with_threshold},
    top_k,
};
use crate::{Affine, AuxK, Loss, Now, Size, loss::mean_square};

/// What can be chosen of [it](self).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatryoshkaConfig {
    /// Latents that are active on a token, on average over a batch.
    pub k: NonZeroUsize,
    /// The prefixes as fractions of the latents, ascending; all of them are one more.
    #[serde(default = "doubling")]
    pub prefixes: Vec<f64>,
    /// Whether `b_dec` is subtracted from the input before encoding.
    #[serde(default = "top_k::yes")]
    pub apply_b_dec_to_input: bool,
    /// The term for dead latents.
    #[serde(default)]
    pub aux: AuxK,
}

/// Groups of 1/32, 1/16, 1/8 and 1/4 of the latents before the rest: SAEBench's.
fn doubling() -> Vec<f64> {
    vec![0.03125, 0.09375, 0.21875, 0.46875]
}

impl MatryoshkaConfig {
    /// How many latents each prefix has; the last has all.
    pub fn widths(&self, d_sae: usize) -> Vec<usize> {
        let width = |fraction: &f64| (fraction * d_sae as f64).round() as usize;
        self.prefixes.iter().map(width).chain([d_sae]).collect()
    }
}

impl Architecture for MatryoshkaConfig {
    const SAELENS_NAME: Option<&'static str> = None;

    const PENALISED: bool = false;

    const CHOOSES_IN_BATCH: bool = true;

    fn variants() -> Vec<Self> {
        let of = |k, prefixes: &[f64], apply_b_dec_to_input, aux| Self {
            k: NonZeroUsize::new(k).expect("one or more"),
            prefixes: prefixes.into(),
            apply_b_dec_to_input,
            aux,
        };
        vec![of(3, &[0.25, 0.5], true, AuxK::default()), of(2, &[0.1], false, AuxK::OFF)]
    }

    fn check(&self, size: Size) -> Result<(), (String, String)> {
        let widths = self.widths(size.d_sae);
        if widths[0] == 0 || !widths.is_sorted_by(|a, b| a < b) {
            let expected =
                "prefixes above 0, ascending, below 1, and so far apart that each holds more latents";
            return Err((expected.into(), format!("{:?}, which are {widths:?} latents", self.prefixes)));
        }
        Ok(())
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

    fn form(&self, size: Size, _: bool) -> Option<Form> {
        let form = Form::new(Activation::BatchTopK { k: self.k.get() }, Penalty::None);
        Some(Form { prefixes: self.widths(size.d_sae), ..form })
    }

    fn encode(&self, affine: &Affine, x: Tensor<2>) -> Tensor<2> {
        keep(relu(affine.pre_acts(x)), self.k.get())
    }

    fn loss(&self, affine: &Affine, x: Tensor<2>, y: Tensor<2>, now: &Now) -> Loss {
        let positive = relu(affine.pre_acts(x.clone()));
        let k = now.k.unwrap_or(self.k.get());
        let acts = keep(positive.clone(), k);
        let (d_out, w_dec) = (affine.size().d_out(), affine.w_dec.val());
        let mut x_hat = affine.without_latents(x);
        let mut inner = Vec::new();
        let mut begin = 0;
        for end in self.widths(w_dec.dims()[0]) {
            if begin > 0 {
                inner.push(mean_square(x_hat.clone() - y.clone()));
            }
            let group = w_dec.clone().slice([begin..end, 0..d_out]);
            x_hat = x_hat + acts.clone().slice_dim(1, begin..end).matmul(group);
            begin = end;
        }
        let smallest = Some(smallest(acts.clone(), k));
        let aux = self.aux.term(affine, now, positive, [y.clone(), x_hat.clone()]);
        let loss = Loss { smallest, ..Loss::new(y, x_hat, acts) };
        inner.into_iter().chain(aux).fold(loss, Loss::plus)
    }

    fn frozen(&self, affine: Affine, threshold: Option<f32>) -> Sae {
        with_threshold(affine, threshold)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::{SaeConfig, Weights};

    #[test]
    fn every_prefix_has_its_error() {
        // d_in 1, d_sae 2: the first latent alone, then both.
        let mut weights = Weights::default();
        weights.insert("W_enc", vec![1.0, 2.0], [1, 2]);
        weights.insert("b_enc", vec![0.0, 0.0], [2]);
        weights.insert("W_dec", vec![1.0, 0.5], [2, 1]);
        weights.insert("b_dec", vec![-1.0], [1]);
        let config = SaeConfig::Matryoshka(MatryoshkaConfig {
            k: NonZeroUsize::new(2).unwrap(),
            prefixes: vec![0.5],
            apply_b_dec_to_input: false,
            aux: AuxK::OFF,
        });
        let sae = Sae::from_weights(&config, Size::new(1, 2), weights, &Device::flex());
        let x = Tensor::<2>::from_data([[3.0]], &Device::flex());
        // Activations 3 and 6: x̂ is 3 − 1 = 2, then 2 + 3 = 5.
        let loss = sae.loss(x.clone(), x, &Now::new(0.0));
        let values = [loss.squared_error, loss.rest.unwrap(), loss.total].map(|v| v.into_scalar::<f32>());
        assert_eq!(values, [4.0, 1.0, 5.0]);
    }

    #[test]
    fn prefixes_that_hold_nothing_more_are_refused() {
        let config = |prefixes: &[f64]| MatryoshkaConfig {
            prefixes: prefixes.into(),
            ..MatryoshkaConfig::variants().remove(0)
        };
        let check = |prefixes: &[f64]| config(prefixes).check(Size::new(4, 16)).is_ok();
        assert!(check(&[]) && check(&[0.25, 0.5]));
        assert!(!check(&[0.5, 0.25]) && !check(&[0.0]) && !check(&[1.0]) && !check(&[0.5, 0.51]));
    }
}
