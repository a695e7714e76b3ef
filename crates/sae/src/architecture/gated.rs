//! The autoencoder in which one affine map says which latents are active and another how much: Gated SAE of Rajamanoharan et al.
//! 2024 (<https://arxiv.org/abs/2404.16014>, section 3.2):
//!
//! g = (x − b_dec)·W_enc + b_gate, m = exp(r_mag)·((x − b_dec)·W_enc) + b_mag, f = H(g)·ReLU(m), x̂ = f·W_dec + b_dec,
//! loss = mean over tokens of ‖x − x̂‖² + λ Σᵢ ReLU(gᵢ)‖W_dec,i‖₂ + ‖x − x̂(ReLU(g))‖²,
//!
//! the last through a copy of the decoder that gets no gradient. It is meant for decoder rows that keep a norm of 1.
//!
//! SAELens calls it `gated`.

use burn::tensor::{Tensor, activation::relu};
use monosema_kernels::{Activation, Form, Penalty};
use serde::{Deserialize, Serialize};

use super::Architecture;
use crate::{
    Affine, Loss, Now, Size,
    loss::{mean_square, weighted},
};

/// What can be chosen of [it](self).
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

/// What opens the gates, and what goes through them: both `[n, d_sae]`.
fn paths(affine: &Affine, x: Tensor<2>) -> [Tensor<2>; 2] {
    let (r_mag, b_mag) = (affine.vector(0), affine.vector(1));
    let product = affine.input(x).matmul(affine.w_enc.val());
    let gates = product.clone() + affine.b_enc.val().unsqueeze();
    let magnitudes = product * r_mag.exp().unsqueeze() + b_mag.unsqueeze();
    [gates, magnitudes]
}

impl Architecture for GatedConfig {
    const SAELENS_NAME: Option<&'static str> = Some("gated");

    const NAME_OF_B_ENC: &'static str = "b_gate";

    fn variants() -> Vec<Self> {
        [false, true].map(|apply_b_dec_to_input| Self { apply_b_dec_to_input }).into()
    }

    fn vectors(&self) -> Vec<(&'static str, f32)> {
        vec![("r_mag", 0.0), ("b_mag", 0.0)]
    }

    fn applies_b_dec_to_input(&self) -> bool {
        self.apply_b_dec_to_input
    }

    fn form(&self, _: Size, _: bool) -> Option<Form> {
        Some(Form::new(Activation::Gated, Penalty::L1))
    }

    fn encode(&self, affine: &Affine, x: Tensor<2>) -> Tensor<2> {
        let [gates, magnitudes] = paths(affine, x);
        relu(magnitudes) * gates.greater_scalar(0.0).float()
    }

    fn loss(&self, affine: &Affine, x: Tensor<2>, y: Tensor<2>, now: &Now) -> Loss {
        let [gates, magnitudes] = paths(affine, x.clone());
        let acts = relu(magnitudes) * gates.clone().detach().greater_scalar(0.0).float();
        let open = relu(gates);
        let penalty = weighted(open.clone(), affine.decoder_norms());
        let through_gates = open.matmul(affine.w_dec.val().detach());
        let through_gates = through_gates + affine.without_latents(x.clone()).detach();
        Loss::new(y.clone(), self.decode(affine, acts.clone(), x), acts)
            .penalised(penalty, now.sparsity)
            .plus(mean_square(through_gates - y))
    }

    fn scale_acts(&self, affine: Affine, factors: &Tensor<2>) -> Affine {
        affine.scale_acts(factors).map_vector(1, |b_mag| b_mag * factors.clone().squeeze_dim(1))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::{Sae, Weights};

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
        let sae =
            Sae::from_weights(&GatedConfig::default().into(), Size::new(1, 2), weights, &Device::flex());
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
