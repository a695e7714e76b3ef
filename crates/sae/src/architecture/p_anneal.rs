//! The ReLU autoencoder whose penalty becomes sharper while it is trained: p-annealing of Karvonen et al. 2024
//! (<https://arxiv.org/abs/2408.00113>, section 4):
//!
//! f = ReLU(x·W_enc + b_enc), x̂ = f·W_dec + b_dec, loss = mean over tokens of ‖x − x̂‖² + λ Σᵢ fᵢᵖ,
//!
//! with p falling from 1. Whenever it does, λ is changed so that the penalty is as large as before. It is meant for decoder rows
//! that keep a norm of 1. Trained, it is a [ReLU](super::relu).

use burn::tensor::{Tensor, activation::relu};
use monosema_kernels::{Activation, Form, Penalty};
use serde::{Deserialize, Serialize};

use super::{Annealing, Architecture, Sae, relu::ReluConfig};
use crate::{Affine, Loss, Now, Size};

/// What can be chosen of [it](self).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PAnnealConfig {
    /// Whether `b_dec` is subtracted from the input before encoding.
    pub apply_b_dec_to_input: bool,
    /// How p falls.
    pub annealing: Annealing,
}

impl Default for PAnnealConfig {
    fn default() -> Self {
        Self { apply_b_dec_to_input: true, annealing: Annealing::default() }
    }
}

impl Architecture for PAnnealConfig {
    const SAELENS_NAME: Option<&'static str> = None;

    fn variants() -> Vec<Self> {
        [false, true].map(|apply_b_dec_to_input| Self { apply_b_dec_to_input, ..Self::default() }).into()
    }

    fn check(&self, _: Size) -> Result<(), (String, String)> {
        let Annealing { p_start, p_end, start, end, changes } = self.annealing;
        if !(p_end > 0.0 && p_end <= p_start && p_start <= 1.0) {
            return Err(("annealing: 0 < p_end <= p_start <= 1".into(), format!("{p_start} to {p_end}")));
        }
        if !(0.0 <= start && start < end && end <= 1.0) {
            return Err(("annealing: 0 <= start < end <= 1".into(), format!("{start} to {end}")));
        }
        if changes == 0 {
            return Err(("annealing.changes from 1 on".into(), "0".into()));
        }
        Ok(())
    }

    fn applies_b_dec_to_input(&self) -> bool {
        self.apply_b_dec_to_input
    }

    fn annealing(&self) -> Option<Annealing> {
        Some(self.annealing)
    }

    fn form(&self, _: Size, _: bool) -> Option<Form> {
        Some(Form::new(Activation::Relu, Penalty::Power))
    }

    fn encode(&self, affine: &Affine, x: Tensor<2>) -> Tensor<2> {
        relu(affine.pre_acts(x))
    }

    fn loss(&self, affine: &Affine, x: Tensor<2>, y: Tensor<2>, now: &Now) -> Loss {
        let acts = self.encode(affine, x.clone());
        let penalty = powers(acts.clone(), now.p);
        let next_penalty = now.next_p.map(|p| powers(acts.clone().detach(), p));
        let loss = Loss::new(y, self.decode(affine, acts.clone(), x), acts).penalised(penalty, now.sparsity);
        Loss { next_penalty, ..loss }
    }

    fn frozen(&self, affine: Affine, _: Option<f32>) -> Sae {
        Sae::new(ReluConfig { apply_b_dec_to_input: self.apply_b_dec_to_input }, affine)
    }
}

/// Mean over tokens of Σ actsᵖ over the active latents.
fn powers(acts: Tensor<2>, p: f64) -> Tensor<1> {
    let silent = acts.clone().lower_equal_scalar(0.0);
    // The slope at 0 is infinite for p < 1: what is 0 there must not be asked for it.
    let powers = acts.mask_fill(silent.clone(), 1.0).powf_scalar(p).mask_fill(silent, 0.0);
    powers.sum_dim(1).mean()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn the_penalty_by_hand() {
        let acts = Tensor::<2>::from_data([[4.0, 0.0, 9.0], [0.0, 1.0, 0.0]], &Device::flex());
        let of = |p| powers(acts.clone(), p).into_scalar::<f32>();
        assert_eq!((of(1.0), of(0.5)), (7.0, 3.0));
    }

    #[test]
    fn silent_latents_have_no_gradient() {
        let device = Device::flex().autodiff();
        let acts = Tensor::<2>::from_data([[4.0, 0.0]], &device).require_grad();
        let gradients = powers(acts.clone(), 0.5).backward();
        let found: Vec<f32> = acts.grad(&gradients).unwrap().into_data().try_into_vec().unwrap();
        assert_eq!(found, [0.25, 0.0]);
    }
}
