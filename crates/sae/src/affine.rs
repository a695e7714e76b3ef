//! The two affine maps that every architecture here is made of, and what does not depend on what is between them.

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor},
};
use monosema_core::Seed;
use monosema_kernels::{NORM_TINY, Parameters, SMALLEST_NORM};

use crate::{
    Loss, Size,
    weights::{Weights, random_directions},
};

/// pre-activations = input·W_enc + b_enc; x̂ = acts·W_dec + b_dec.
#[derive(Module, Debug)]
pub struct Affine {
    /// `[d_in, d_sae]`.
    pub w_enc: Param<Tensor<2>>,
    /// `[d_sae]`.
    pub b_enc: Param<Tensor<1>>,
    /// `[d_sae, d_in]`.
    pub w_dec: Param<Tensor<2>>,
    /// `[d_in]`.
    pub b_dec: Param<Tensor<1>>,
    /// Whether the input is x − b_dec, instead of x.
    pub apply_b_dec_to_input: bool,
}

impl Affine {
    /// Names and shapes of the weights.
    pub fn shapes(Size { d_in, d_sae }: Size) -> Vec<(&'static str, Vec<usize>)> {
        vec![
            ("W_enc", vec![d_in, d_sae]),
            ("b_enc", vec![d_sae]),
            ("W_dec", vec![d_sae, d_in]),
            ("b_dec", vec![d_in]),
        ]
    }

    /// Decoder rows of this norm in random directions, the encoder their transpose, biases 0.
    pub fn initial_weights(Size { d_in, d_sae }: Size, norm: f64, seed: Seed) -> Weights {
        let w_dec = random_directions(seed, d_sae, d_in, norm);
        let w_enc = (0..d_in * d_sae).map(|i| w_dec[(i % d_sae) * d_in + i / d_sae]).collect();
        let mut weights = Weights::default();
        weights.insert("W_enc", w_enc, [d_in, d_sae]);
        weights.insert("b_enc", vec![0.0; d_sae], [d_sae]);
        weights.insert("W_dec", w_dec, [d_sae, d_in]);
        weights.insert("b_dec", vec![0.0; d_in], [d_in]);
        weights
    }

    /// With these weights, which must be those of [`Affine::shapes`].
    pub fn from_weights(apply_b_dec_to_input: bool, mut weights: Weights, device: &Device) -> Self {
        Self {
            w_enc: weights.take("W_enc", device),
            b_enc: weights.take("b_enc", device),
            w_dec: weights.take("W_dec", device),
            b_dec: weights.take("b_dec", device),
            apply_b_dec_to_input,
        }
    }

    /// The weights, copied to the host.
    pub fn to_weights(&self) -> Weights {
        let mut weights = Weights::default();
        weights.insert_param("W_enc", &self.w_enc);
        weights.insert_param("b_enc", &self.b_enc);
        weights.insert_param("W_dec", &self.w_dec);
        weights.insert_param("b_dec", &self.b_dec);
        weights
    }

    /// The same tensors as the fused step takes them.
    pub fn to_parameters(&self) -> Parameters {
        Parameters {
            w_enc: self.w_enc.val().transpose(),
            w_dec: self.w_dec.val(),
            b_enc: self.b_enc.val(),
            b_dec: self.b_dec.val(),
        }
    }

    /// The reverse of [`Affine::to_parameters`]; nothing is copied.
    pub fn from_parameters(apply_b_dec_to_input: bool, parameters: Parameters) -> Self {
        let Parameters { w_enc, w_dec, b_enc, b_dec } = parameters;
        Self {
            w_enc: Param::from_tensor(w_enc.transpose()),
            b_enc: Param::from_tensor(b_enc),
            w_dec: Param::from_tensor(w_dec),
            b_dec: Param::from_tensor(b_dec),
            apply_b_dec_to_input,
        }
    }

    /// The size of the weights.
    pub fn size(&self) -> Size {
        let [d_in, d_sae] = self.w_enc.dims();
        Size { d_in, d_sae }
    }

    /// `x [n, d_in]` → pre-activations `[n, d_sae]`.
    pub fn pre_acts(&self, x: Tensor<2>) -> Tensor<2> {
        let x = if self.apply_b_dec_to_input { x - self.b_dec.val().unsqueeze() } else { x };
        x.matmul(self.w_enc.val()) + self.b_enc.val().unsqueeze()
    }

    /// `acts [n, d_sae]` → x̂ `[n, d_in]`.
    pub fn decode(&self, acts: Tensor<2>) -> Tensor<2> {
        acts.matmul(self.w_dec.val()) + self.b_dec.val().unsqueeze()
    }

    /// ‖W_dec,i‖₂ of every row, `[d_sae, 1]`.
    pub fn decoder_norms(&self) -> Tensor<2> {
        (self.w_dec.val().square().sum_dim(1) + NORM_TINY).sqrt()
    }

    /// The squared error of `x̂`, and as the penalty Σᵢ actsᵢ‖W_dec,i‖₂, of which the loss holds `sparsity` times.
    pub fn loss(&self, x: Tensor<2>, x_hat: Tensor<2>, acts: Tensor<2>, sparsity: f64) -> Loss {
        let squared_error = (x_hat - x).square().sum_dim(1).mean();
        // A product with a column of norms reads the [n, d_sae] activations once and writes [n, 1].
        let penalty = acts.clone().matmul(self.decoder_norms()).mean();
        let total = squared_error.clone() + penalty.clone().mul_scalar(sparsity);
        Loss { total, squared_error, penalty, acts }
    }

    /// What was trained on `scale · x`, as a function of `x`.
    pub fn fold_scale(self, scale: f64) -> Self {
        Self {
            w_enc: self.w_enc.map(|w| w.mul_scalar(scale)),
            w_dec: self.w_dec.map(|w| w.div_scalar(scale)),
            b_dec: self.b_dec.map(|b| b.div_scalar(scale)),
            ..self
        }
    }

    /// With decoder rows of norm 1 (rows of zeros excepted); pre-activations grow by the norms that the rows had.
    pub fn unit_decoder(self) -> Self {
        let norms = self.decoder_norms().clamp_min(SMALLEST_NORM);
        Self {
            w_enc: self.w_enc.map(|w| w * norms.clone().transpose()),
            b_enc: self.b_enc.map(|b| b * norms.clone().squeeze_dim(1)),
            w_dec: self.w_dec.map(|w| w / norms),
            ..self
        }
    }
}
