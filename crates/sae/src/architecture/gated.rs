//! The autoencoder in which one affine map says which latents are active and another how much: Gated SAE of Rajamanoharan et al.
//! 2024 (<https://arxiv.org/abs/2404.16014>, section 3.2):
//!
//! g = (x − b_dec)·W_enc + b_gate, m = exp(r_mag)·((x − b_dec)·W_enc) + b_mag, f = H(g)·ReLU(m), x̂ = f·W_dec + b_dec,
//! loss = mean over tokens of ‖x − x̂‖² + λ Σᵢ ReLU(gᵢ)‖W_dec,i‖₂ + ‖x − x̂(ReLU(g))‖²,
//!
//! the last through a copy of the decoder that gets no gradient. It is meant for decoder rows that keep a norm of 1.
//!
//! SAELens calls it `gated`.

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, activation::relu},
};
use monosema_kernels::{Activation, Extras, Form, Parameters, Penalty};
use serde::{Deserialize, Serialize};

use super::Architecture;
use crate::{
    Affine, Init, Loss, Now, Size, Weights,
    loss::{mean_square, weighted},
};

/// What can be chosen of a [`Gated`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatedConfig {
    /// Whether `b_dec` is subtracted from the input before encoding.
    pub apply_b_dec_to_input: bool,
}

impl Default for GatedConfig {
    fn default() -> Self {
        Self { apply_b_dec_to_input: true }
    }
}

/// See the [module](self).
#[derive(Module, Debug)]
pub struct Gated {
    /// Whose b_enc is b_gate.
    affine: Affine,
    /// `[d_sae]`.
    r_mag: Param<Tensor<1>>,
    /// `[d_sae]`.
    b_mag: Param<Tensor<1>>,
}

/// The gate's bias as [`Affine`] calls it, and as SAELens does.
const BIAS: [&str; 2] = ["b_enc", "b_gate"];

impl Gated {
    /// What opens the gates, and what goes through them: both `[n, d_sae]`.
    fn paths(&self, x: Tensor<2>) -> [Tensor<2>; 2] {
        let product = self.affine.input(x).matmul(self.affine.w_enc.val());
        let gates = product.clone() + self.affine.b_enc.val().unsqueeze();
        let magnitudes = product * self.r_mag.val().exp().unsqueeze() + self.b_mag.val().unsqueeze();
        [gates, magnitudes]
    }
}

impl Architecture for Gated {
    type Config = GatedConfig;

    const SAELENS_NAME: Option<&'static str> = Some("gated");

    fn variants() -> Vec<GatedConfig> {
        [false, true].map(|apply_b_dec_to_input| GatedConfig { apply_b_dec_to_input }).into()
    }

    fn shapes(_: &GatedConfig, size: Size) -> Vec<(&'static str, Vec<usize>)> {
        let named = |name| if name == BIAS[0] { BIAS[1] } else { name };
        let affine = Affine::shapes(size).into_iter().map(|(name, shape)| (named(name), shape));
        affine.chain([("r_mag", vec![size.d_sae]), ("b_mag", vec![size.d_sae])]).collect()
    }

    fn initial_weights(_: &GatedConfig, size: Size, init: &Init) -> Weights {
        let mut weights = Affine::initial_weights(size, init);
        weights.rename(BIAS[0], BIAS[1]);
        weights.insert("r_mag", vec![0.0; size.d_sae], [size.d_sae]);
        weights.insert("b_mag", vec![0.0; size.d_sae], [size.d_sae]);
        weights
    }

    fn from_weights(config: &GatedConfig, size: Size, mut weights: Weights, device: &Device) -> Self {
        weights.rename(BIAS[1], BIAS[0]);
        Self {
            affine: Affine::from_weights(config.apply_b_dec_to_input, size, &mut weights, device),
            r_mag: weights.take("r_mag", device),
            b_mag: weights.take("b_mag", device),
        }
    }

    fn to_weights(&self) -> Weights {
        let mut weights = self.affine.to_weights();
        weights.rename(BIAS[0], BIAS[1]);
        weights.insert_param("r_mag", &self.r_mag);
        weights.insert_param("b_mag", &self.b_mag);
        weights
    }

    fn applies_b_dec_to_input(config: &GatedConfig) -> bool {
        config.apply_b_dec_to_input
    }

    fn form(config: &GatedConfig, size: Size, unit_decoder: bool) -> Option<Form> {
        let apply_b_dec_to_input = config.apply_b_dec_to_input;
        let form = Form { apply_b_dec_to_input, ..Form::new(Activation::Gated, Penalty::L1) };
        Some(Form { unit_decoder, skip: size.skips(), ..form })
    }

    fn to_parameters(&self) -> Parameters {
        let parameters = self.affine.to_parameters();
        let (first, second) = (self.r_mag.val(), self.b_mag.val());
        Parameters { extras: Extras { first, second, ..parameters.extras }, ..parameters }
    }

    fn from_parameters(config: &GatedConfig, size: Size, parameters: Parameters) -> Self {
        let Extras { first, second, .. } = parameters.extras.clone();
        let affine = Affine::from_parameters(config.apply_b_dec_to_input, size, parameters);
        Self { affine, r_mag: Param::from_tensor(first), b_mag: Param::from_tensor(second) }
    }

    fn affine(&self) -> &Affine {
        &self.affine
    }

    fn map_affine(self, change: impl FnOnce(Affine) -> Affine) -> Self {
        Self { affine: change(self.affine), ..self }
    }

    fn config(&self) -> GatedConfig {
        GatedConfig { apply_b_dec_to_input: self.affine.apply_b_dec_to_input }
    }

    fn encode(&self, x: Tensor<2>) -> Tensor<2> {
        let [gates, magnitudes] = self.paths(x);
        relu(magnitudes) * gates.greater_scalar(0.0).float()
    }

    fn loss(&self, x: Tensor<2>, y: Tensor<2>, now: &Now) -> Loss {
        let [gates, magnitudes] = self.paths(x.clone());
        let acts = relu(magnitudes) * gates.clone().detach().greater_scalar(0.0).float();
        let open = relu(gates);
        let penalty = weighted(open.clone(), self.affine.decoder_norms());
        let through_gates = open.matmul(self.affine.w_dec.val().detach());
        let through_gates = through_gates + self.affine.without_latents(x.clone()).detach();
        Loss::new(y.clone(), self.decode(acts.clone(), x), acts)
            .penalised(penalty, now.sparsity)
            .plus(mean_square(through_gates - y))
    }

    fn scale_acts(self, factors: &Tensor<2>) -> Self {
        let factor = || factors.clone().squeeze_dim::<1>(1);
        Self {
            affine: self.affine.scale_acts(factors),
            r_mag: self.r_mag,
            b_mag: self.b_mag.map(|b| b * factor()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_and_magnitudes_by_hand() {
        // d_in 1, d_sae 2.
        let mut weights = Weights::default();
        weights.insert("W_enc", vec![1.0, -1.0], [1, 2]);
        weights.insert("b_gate", vec![-1.0, 0.0], [2]);
        weights.insert("r_mag", vec![2.0_f32.ln(), 0.0], [2]);
        weights.insert("b_mag", vec![-3.0, 3.0], [2]);
        weights.insert("W_dec", vec![1.0, 2.0], [2, 1]);
        weights.insert("b_dec", vec![1.0], [1]);
        let sae = Gated::from_weights(&GatedConfig::default(), Size::new(1, 2), weights, &Device::flex());
        // x − b_dec = 2, 3 and −1: gates [1, −2], [2, −3], [−2, 1]; magnitudes [1, 1], [3, 0], [−5, 4].
        let x = Tensor::<2>::from_data([[3.0], [4.0], [0.0]], &Device::flex());
        let acts: Vec<f32> = sae.encode(x.clone()).into_data().try_into_vec().unwrap();
        assert_eq!(acts, [1.0, 0.0, 3.0, 0.0, 0.0, 4.0]);
        // x̂ = 2, 4, 9: errors 1, 0, 9. Through the gates 2, 3, 3: errors 1, 1, 3. Penalties 1, 2, 2.
        let loss = sae.loss(x.clone(), x, &Now::new(0.5));
        let values = [loss.squared_error, loss.penalty, loss.rest.unwrap(), loss.total];
        let values = values.map(|value| value.into_scalar::<f32>());
        let expected = [82.0 / 3.0, 5.0 / 3.0, 11.0 / 3.0, 93.0 / 3.0 + 2.5 / 3.0];
        assert!(values.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{values:?}");
    }
}
