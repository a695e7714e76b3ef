//! The autoencoder whose latents have thresholds: JumpReLU of Rajamanoharan et al. 2024
//! (<https://arxiv.org/abs/2407.14435>; Gemma Scope, <https://arxiv.org/abs/2408.05147>):
//!
//! z = x·W_enc + b_enc, f = z·H(z − θ), x̂ = f·W_dec + b_dec, H(u) = 1 if u > 0.
//!
//! Thresholds have no gradient but a pseudo-derivative, from a rectangle K(u) = 1 if |u| < 1/2 of width ε (equations 11 and 12):
//! ∂f/∂θ = −(θ/ε) K((z − θ)/ε), ∂H/∂θ = −(1/ε) K((z − θ)/ε). Optionally the same goes to z as well, as in Anthropic's update of
//! January 2025 (<https://transformer-circuits.pub/2025/january-update/index.html>). The loss is the mean over tokens of
//! ‖x − x̂‖² + λ times one of the [`Penalty`]s.
//!
//! SAELens calls it `jumprelu`.

use burn::{
    module::Param,
    tensor::{Tensor, activation::relu},
};
use monosema_kernels::{self as kernels, Activation, Form};
use serde::{Deserialize, Serialize};

use super::{Architecture, Sae};
use crate::{Affine, Loss, Now, Size, loss::weighted};

/// What the sparsity penalty is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Penalty {
    /// Mean over tokens of L0, Σᵢ H(zᵢ − θᵢ).
    #[default]
    L0,
    /// Mean over tokens of Σᵢ tanh(c·fᵢ‖W_dec,i‖₂), c being the number: Anthropic's, January 2025.
    Tanh(f64),
    /// (L0 / target − 1)² of the mean L0 of a batch, the target being the number: section 7 of the paper.
    TargetL0(f64),
}

/// What can be chosen of [it](self).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JumpReluConfig {
    /// Whether `b_dec` is subtracted from the input before encoding.
    pub apply_b_dec_to_input: bool,
    /// The sparsity penalty.
    pub penalty: Penalty,
    /// θ of every latent at the start.
    pub initial_threshold: f64,
    /// ε, the width of the rectangle.
    pub bandwidth: f64,
    /// Whether log θ is trained, as in the paper, instead of θ: its steps are then in proportion to it.
    pub log_threshold: bool,
    /// Whether the pseudo-derivatives go to pre-activations as well.
    pub ste_to_input: bool,
    /// Coefficient of Σᵢ ReLU(θᵢ − zᵢ)‖W_dec,i‖₂ over dead latents, which brings them back; 0 turns it off.
    pub pre_act_coefficient: f64,
}

impl Default for JumpReluConfig {
    fn default() -> Self {
        Self {
            apply_b_dec_to_input: false,
            penalty: Penalty::L0,
            initial_threshold: 0.001,
            bandwidth: 0.001,
            log_threshold: false,
            ste_to_input: false,
            pre_act_coefficient: 0.0,
        }
    }
}

impl JumpReluConfig {
    /// A dictionary with these thresholds, `[d_sae]`.
    pub(super) fn dictionary(affine: Affine, theta: Tensor<1>) -> Sae {
        let config = Self { apply_b_dec_to_input: affine.apply_b_dec_to_input, ..Self::default() };
        Sae::new(config, Affine { vectors: vec![Param::from_tensor(theta)], ..affine })
    }

    /// θ, `[d_sae]`.
    fn theta(&self, affine: &Affine) -> Tensor<1> {
        let threshold = affine.vector(0);
        if self.log_threshold { threshold.exp() } else { threshold }
    }

    /// Where pre-activations are above their thresholds, and the rectangle over its width, K((z − θ)/ε)/ε: constants `[n, d_sae]`.
    fn around(&self, pre_acts: &Tensor<2>, theta: &Tensor<1>) -> [Tensor<2>; 2] {
        let (z, theta) = (pre_acts.clone().detach(), theta.clone().detach().unsqueeze::<2>());
        let above = z.clone().greater(theta.clone()).float();
        let width = self.bandwidth;
        let near = (z - theta).abs().lower_scalar(width / 2.0).float().div_scalar(width);
        [above, near]
    }

    /// 0, with the gradient that a unit step upwards of width ε at θ has: weight · K/ε to z, if it goes there, and its negative
    /// to θ.
    fn jump(&self, pre_acts: &Tensor<2>, theta: &Tensor<1>, slope: Tensor<2>) -> Tensor<2> {
        let nothing = |rows: Tensor<2>| rows.clone() - rows.detach();
        let of_theta = nothing(theta.clone().unsqueeze::<2>());
        let along = if self.ste_to_input { nothing(pre_acts.clone()) - of_theta } else { -of_theta };
        along * slope
    }
}

impl Architecture for JumpReluConfig {
    const SAELENS_NAME: Option<&'static str> = Some("jumprelu");

    const ONLY_IN_TRAINING: &'static [&'static str] = &[
        "penalty",
        "initial_threshold",
        "bandwidth",
        "log_threshold",
        "ste_to_input",
        "pre_act_coefficient",
    ];

    fn variants() -> Vec<Self> {
        let base = Self { initial_threshold: 0.1, bandwidth: 0.3, ..Self::default() };
        vec![
            base,
            Self { apply_b_dec_to_input: true, log_threshold: true, penalty: Penalty::TargetL0(5.0), ..base },
            Self { penalty: Penalty::Tanh(4.0), ste_to_input: true, pre_act_coefficient: 0.1, ..base },
        ]
    }

    /// θ, or log θ if that is trained.
    fn vectors(&self) -> Vec<(&'static str, f32)> {
        let theta = self.initial_threshold;
        let (name, value) =
            if self.log_threshold { ("log_threshold", theta.ln()) } else { ("threshold", theta) };
        vec![(name, value as f32)]
    }

    fn applies_b_dec_to_input(&self) -> bool {
        self.apply_b_dec_to_input
    }

    fn check(&self, size: Size) -> Result<(), (String, String)> {
        let above_0 = |value: f64| value.is_finite() && value > 0.0;
        let lowest = if self.log_threshold { f64::MIN_POSITIVE } else { 0.0 };
        let threshold = self.initial_threshold;
        if !(threshold.is_finite() && threshold >= lowest) {
            return Err((
                "initial_threshold from 0 on, and above 0 for log_threshold".into(),
                threshold.to_string(),
            ));
        }
        if !above_0(self.bandwidth) {
            return Err(("bandwidth above 0".into(), self.bandwidth.to_string()));
        }
        if !(self.pre_act_coefficient.is_finite() && self.pre_act_coefficient >= 0.0) {
            return Err(("pre_act_coefficient from 0 on".into(), self.pre_act_coefficient.to_string()));
        }
        match self.penalty {
            Penalty::Tanh(scale) if !above_0(scale) => {
                Err(("tanh with a number above 0".into(), scale.to_string()))
            }
            Penalty::TargetL0(target) if !(above_0(target) && target <= size.d_sae as f64) => Err((
                format!("target_l0 above 0 and at most {}, the number of latents", size.d_sae),
                target.to_string(),
            )),
            _ => Ok(()),
        }
    }

    fn target_l0(&self) -> Option<f64> {
        match self.penalty {
            Penalty::TargetL0(target) => Some(target),
            Penalty::L0 | Penalty::Tanh(_) => None,
        }
    }

    fn heeds_dead(&self) -> bool {
        self.pre_act_coefficient > 0.0
    }

    fn form(&self, _: Size, _: bool) -> Option<Form> {
        let Self { bandwidth, log_threshold: log, ste_to_input, .. } = *self;
        let penalty = match self.penalty {
            Penalty::L0 => kernels::Penalty::Step,
            Penalty::Tanh(scale) => kernels::Penalty::Tanh { scale },
            Penalty::TargetL0(target) => kernels::Penalty::TargetL0 { target },
        };
        let pre_act = Some(self.pre_act_coefficient).filter(|coefficient| *coefficient > 0.0);
        let form = Form::new(Activation::JumpRelu { bandwidth, log, ste_to_input }, penalty);
        Some(Form { pre_act, ..form })
    }

    fn encode(&self, affine: &Affine, x: Tensor<2>) -> Tensor<2> {
        let z = affine.pre_acts(x);
        let above = z.clone().greater(self.theta(affine).unsqueeze()).float();
        // As SAELens has it: a threshold below 0 lets nothing negative through.
        relu(z) * above
    }

    fn loss(&self, affine: &Affine, x: Tensor<2>, y: Tensor<2>, now: &Now) -> Loss {
        let (z, theta) = (affine.pre_acts(x.clone()), self.theta(affine));
        let [above, near] = self.around(&z, &theta);
        let height = near.clone() * theta.clone().detach().unsqueeze::<2>();
        let acts = z.clone() * above.clone() + self.jump(&z, &theta, height);
        let l0 = || (above.clone() + self.jump(&z, &theta, near.clone())).sum_dim(1).mean();
        let norms = affine.decoder_norms();
        let penalty = match self.penalty {
            Penalty::L0 => l0(),
            Penalty::Tanh(scale) => {
                let weighed = acts.clone() * norms.clone().transpose();
                weighed.mul_scalar(scale).tanh().sum_dim(1).mean()
            }
            Penalty::TargetL0(target) => l0().div_scalar(target).sub_scalar(1.0).square(),
        };
        let x_hat = self.decode(affine, acts.clone(), x);
        let loss = Loss::new(y, x_hat, acts).penalised(penalty, now.sparsity);
        match now.dead.clone().filter(|_| self.pre_act_coefficient > 0.0) {
            Some(dead) => {
                let short = relu(theta.unsqueeze::<2>() - z) * dead.unsqueeze::<2>();
                loss.plus(weighted(short, norms).mul_scalar(self.pre_act_coefficient))
            }
            None => loss,
        }
    }

    /// Below 0 a threshold would mean nothing, and never come back.
    fn constrained(&self, affine: Affine) -> Affine {
        if self.log_threshold {
            return affine;
        }
        affine.map_vector(0, |theta| match theta.is_autodiff() {
            true => Tensor::from_inner(theta.inner().clamp_min(0.0)).require_grad(),
            false => theta.clamp_min(0.0),
        })
    }

    fn frozen(&self, affine: Affine, _: Option<f32>) -> Sae {
        let theta = self.theta(&affine);
        Self::dictionary(affine, theta)
    }

    fn scale_acts(&self, affine: Affine, factors: &Tensor<2>) -> Affine {
        let theta = self.theta(&affine) * factors.clone().squeeze_dim(1);
        let threshold = if self.log_threshold { theta.log() } else { theta };
        affine.scale_acts(factors).map_vector(0, |_| threshold)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::Weights;

    /// d_in 1, d_sae 2: z = x and 2x, θ = 0.5 and 1.
    fn by_hand(config: JumpReluConfig, device: &Device) -> Sae {
        let mut weights = Weights::default();
        weights.insert("W_enc", vec![1.0, 2.0], [1, 2]);
        weights.insert("b_enc", vec![0.0, 0.0], [2]);
        weights.insert("W_dec", vec![1.0, -2.0], [2, 1]);
        weights.insert("b_dec", vec![0.0], [1]);
        weights.insert(config.vectors()[0].0, vec![0.5, 1.0], [2]);
        Sae::from_weights(&config.into(), Size::new(1, 2), weights, device)
    }

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_into_vec().unwrap()
    }

    #[test]
    fn what_is_above_its_threshold_is_active() {
        let sae = by_hand(JumpReluConfig::default(), &Device::flex());
        let x = Tensor::<2>::from_data([[0.5], [0.6], [-3.0]], &Device::flex());
        assert_eq!(values(sae.encode(x)), [0.0, 0.0, 0.6, 1.2, 0.0, 0.0]);
    }

    #[test]
    fn penalties_and_their_pseudo_derivatives_by_hand() {
        let device = Device::flex().autodiff();
        let x = Tensor::<2>::from_data([[0.6], [0.4]], &device);
        let of = |penalty, ste_to_input| {
            let config =
                JumpReluConfig { penalty, ste_to_input, bandwidth: 0.5, ..JumpReluConfig::default() };
            let sae = by_hand(config, &device);
            // Without reconstruction: its gradients are autodiff's and the same rule.
            let loss = sae.loss(x.clone(), x.clone(), &Now::new(1.0));
            let gradients = loss.penalty.clone().backward();
            let theta = values(sae.affine.vector(0).grad(&gradients).unwrap());
            let b_enc = sae.affine.b_enc.val().grad(&gradients).map(values);
            (values(loss.penalty)[0], theta, b_enc.unwrap_or(vec![0.0; 2]))
        };
        // z = [0.6, 1.2] and [0.4, 0.8]; z − θ = ±0.1 and ±0.2: all within a quarter. One token has both active.
        let (penalty, theta, b_enc) = of(Penalty::L0, false);
        // −(1/0.5) from each of two tokens, over two tokens.
        assert_eq!((penalty, theta, b_enc), (1.0, vec![-2.0, -2.0], vec![0.0, 0.0]));
        let (_, theta, b_enc) = of(Penalty::L0, true);
        assert_eq!((theta, b_enc), (vec![-2.0, -2.0], vec![2.0, 2.0]));
        // (1/2 − 1)², whose slope is 2·(−1/2)/2 = −1/2.
        let (penalty, theta, _) = of(Penalty::TargetL0(2.0), false);
        assert_eq!((penalty, theta), (0.25, vec![1.0, 1.0]));
        // tanh(f ν): slope 1 − tanh² times ν times −θ/ε, half of it for each token.
        let (penalty, theta, _) = of(Penalty::Tanh(1.0), false);
        let [a, b] = [0.6_f32.tanh(), 2.4_f32.tanh()];
        assert!((penalty - (a + b) / 2.0).abs() < 1e-6);
        // f of the second token is 0, where the slope of tanh is 1.
        let expected = [-(1.0 - a * a + 1.0) / 2.0, -(1.0 - b * b + 1.0) / 2.0 * 2.0 * 2.0];
        assert!(theta.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{theta:?} {expected:?}");
    }

    #[test]
    fn thresholds_stay_where_they_mean_something() {
        let sae = by_hand(JumpReluConfig::default(), &Device::flex().autodiff());
        let below = Sae { affine: sae.affine.map_vector(0, |theta| theta.sub_scalar(0.75)), ..sae };
        assert_eq!(values(below.constrained().affine.vector(0).inner()), [0.0, 0.25]);
    }
}
