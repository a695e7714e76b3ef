//! The ReLU autoencoder whose penalty becomes sharper while it is trained: p-annealing of Karvonen et al. 2024
//! (<https://arxiv.org/abs/2408.00113>, section 4):
//!
//! f = ReLU(x·W_enc + b_enc), x̂ = f·W_dec + b_dec, loss = mean over tokens of ‖x − x̂‖² + λ Σᵢ fᵢᵖ,
//!
//! with p falling from 1. Whenever it does, λ is changed so that the penalty is as large as before. It is meant for decoder rows
//! that keep a norm of 1. Trained, it is a [`Relu`].

use burn::{
    module::Module,
    tensor::{Device, Tensor, activation::relu},
};
use monosema_kernels::{Activation, Form, Parameters, Penalty};
use serde::{Deserialize, Serialize};

use super::{Annealing, Architecture, Sae, relu::Relu};
use crate::{Affine, Loss, Now, Size, Weights};

/// What can be chosen of a [`PAnneal`].
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

/// See the [module](self).
#[derive(Module, Debug)]
pub struct PAnneal {
    affine: Affine,
    #[module(skip)]
    annealing: Annealing,
}

impl Architecture for PAnneal {
    type Config = PAnnealConfig;

    const SAELENS_NAME: Option<&'static str> = None;

    fn variants() -> Vec<PAnnealConfig> {
        [false, true]
            .map(|apply_b_dec_to_input| PAnnealConfig { apply_b_dec_to_input, ..Default::default() })
            .into()
    }

    fn check(config: &PAnnealConfig, _: Size) -> Result<(), (String, String)> {
        let Annealing { p_start, p_end, start, end, changes } = config.annealing;
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

    fn from_weights(config: &PAnnealConfig, size: Size, mut weights: Weights, device: &Device) -> Self {
        let affine = Affine::from_weights(config.apply_b_dec_to_input, size, &mut weights, device);
        Self { affine, annealing: config.annealing }
    }

    fn applies_b_dec_to_input(config: &PAnnealConfig) -> bool {
        config.apply_b_dec_to_input
    }

    fn annealing(config: &PAnnealConfig) -> Option<Annealing> {
        Some(config.annealing)
    }

    fn form(config: &PAnnealConfig, size: Size, unit_decoder: bool) -> Option<Form> {
        let apply_b_dec_to_input = config.apply_b_dec_to_input;
        let form = Form { apply_b_dec_to_input, ..Form::new(Activation::Relu, Penalty::Power) };
        Some(Form { unit_decoder, skip: size.skips(), ..form })
    }

    fn from_parameters(config: &PAnnealConfig, size: Size, parameters: Parameters) -> Self {
        let affine = Affine::from_parameters(config.apply_b_dec_to_input, size, parameters);
        Self { affine, annealing: config.annealing }
    }

    fn affine(&self) -> &Affine {
        &self.affine
    }

    fn map_affine(self, change: impl FnOnce(Affine) -> Affine) -> Self {
        Self { affine: change(self.affine), ..self }
    }

    fn config(&self) -> PAnnealConfig {
        let apply_b_dec_to_input = self.affine.apply_b_dec_to_input;
        PAnnealConfig { apply_b_dec_to_input, annealing: self.annealing }
    }

    fn encode(&self, x: Tensor<2>) -> Tensor<2> {
        relu(self.affine.pre_acts(x))
    }

    fn loss(&self, x: Tensor<2>, y: Tensor<2>, now: &Now) -> Loss {
        let acts = self.encode(x.clone());
        let penalty = powers(acts.clone(), now.p);
        let next_penalty = now.next_p.map(|p| powers(acts.clone().detach(), p));
        let loss = Loss::new(y, self.decode(acts.clone(), x), acts).penalised(penalty, now.sparsity);
        Loss { next_penalty, ..loss }
    }

    fn frozen(self, _: Option<f32>) -> Sae {
        Relu::new(self.affine).into()
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
