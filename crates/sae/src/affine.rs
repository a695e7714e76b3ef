//! The parameters of every architecture: two affine maps and what is between them.

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor},
};
use monosema_kernels::{Extras, NORM_TINY, Parameters};

use crate::{
    SaeConfig, Size,
    init::Init,
    size::Output,
    weights::{Weights, random_directions},
};

/// pre-activations = input·W_enc + b_enc; x̂ = acts·W_dec + b_dec, and of a transcoder with a skip connection
/// + x·W_skipᵀ.
#[derive(Module, Debug)]
pub struct Affine {
    /// `[d_in, d_sae]`.
    pub w_enc: Param<Tensor<2>>,
    /// `[d_sae]`.
    pub b_enc: Param<Tensor<1>>,
    /// `[d_sae, d_out]`.
    pub w_dec: Param<Tensor<2>>,
    /// `[d_out]`.
    pub b_dec: Param<Tensor<1>>,
    /// `[d_out, d_in]`.
    pub w_skip: Option<Param<Tensor<2>>>,
    /// What only some architectures have, `[d_sae]` each: [`Architecture::vectors`](crate::Architecture::vectors).
    pub vectors: Vec<Param<Tensor<1>>>,
    /// Whether what is decoded is of the input's space, so that the input can be x − b_dec.
    #[module(skip)]
    pub output: Option<Output>,
    /// Whether the input is x − b_dec, instead of x. Never of a transcoder.
    #[module(skip)]
    pub apply_b_dec_to_input: bool,
}

impl Affine {
    /// Names and shapes of the weights.
    pub(crate) fn shapes(config: &SaeConfig, size: Size) -> Vec<(&'static str, Vec<usize>)> {
        let Size { d_in, d_sae, .. } = size;
        let d_out = size.d_out();
        let mut shapes = vec![
            ("W_enc", vec![d_in, d_sae]),
            (config.name_of_b_enc(), vec![d_sae]),
            ("W_dec", vec![d_sae, d_out]),
            ("b_dec", vec![d_out]),
        ];
        if size.skips() {
            shapes.push(("W_skip", vec![d_out, d_in]));
        }
        shapes.extend(config.vectors().into_iter().map(|(name, _)| (name, vec![d_sae])));
        shapes
    }

    /// Decoder rows and encoder of `init`'s norms in random directions, the same for both, or, untied or where widths
    /// differ, others; biases and skip connection 0, but for b_dec, which is `init`'s.
    pub(crate) fn initial_weights(config: &SaeConfig, size: Size, init: &Init) -> Weights {
        let Size { d_in, d_sae, .. } = size;
        let w_dec = random_directions(init.seed, "init", d_sae, size.d_out(), init.decoder_norm);
        let rows: Vec<f32> = if init.tied && size.d_out() == d_in {
            let factor = (init.encoder_norm / init.decoder_norm) as f32;
            w_dec.iter().map(|w| w * factor).collect()
        } else {
            random_directions(init.seed, "init: encoder", d_sae, d_in, init.encoder_norm)
        };
        let w_enc = (0..d_in * d_sae).map(|i| rows[(i % d_sae) * d_in + i / d_sae]).collect();
        let mut weights = Weights::zeros(&Self::shapes(config, size));
        weights.set("W_enc", w_enc);
        weights.set("W_dec", w_dec);
        if !init.b_dec.is_empty() {
            weights.set("b_dec", init.b_dec.clone());
        }
        for (name, value) in config.vectors() {
            weights.set(name, vec![value; d_sae]);
        }
        weights
    }

    /// With these weights, which must be those of [`Affine::shapes`].
    pub(crate) fn from_weights(
        config: &SaeConfig,
        size: Size,
        mut weights: Weights,
        device: &Device,
    ) -> Self {
        Self {
            w_enc: weights.take("W_enc", device),
            b_enc: weights.take(config.name_of_b_enc(), device),
            w_dec: weights.take("W_dec", device),
            b_dec: weights.take("b_dec", device),
            w_skip: size.skips().then(|| weights.take("W_skip", device)),
            vectors: config.vectors().into_iter().map(|(name, _)| weights.take(name, device)).collect(),
            output: size.output,
            apply_b_dec_to_input: config.applies_b_dec_to_input(),
        }
    }

    /// The weights, copied to the host.
    pub(crate) fn to_weights(&self, config: &SaeConfig) -> Weights {
        let mut weights = Weights::default();
        weights.insert_param("W_enc", &self.w_enc);
        weights.insert_param(config.name_of_b_enc(), &self.b_enc);
        weights.insert_param("W_dec", &self.w_dec);
        weights.insert_param("b_dec", &self.b_dec);
        if let Some(w_skip) = &self.w_skip {
            weights.insert_param("W_skip", w_skip);
        }
        for ((name, _), vector) in config.vectors().into_iter().zip(&self.vectors) {
            weights.insert_param(name, vector);
        }
        weights
    }

    /// The same tensors as the fused step takes them.
    pub(crate) fn to_parameters(&self) -> Parameters {
        let none = Extras::none(&self.b_dec.val().device());
        let mut vectors = self.vectors.iter().map(Param::val);
        Parameters {
            w_enc: self.w_enc.val().transpose(),
            w_dec: self.w_dec.val(),
            b_enc: self.b_enc.val(),
            b_dec: self.b_dec.val(),
            extras: Extras {
                first: vectors.next().unwrap_or(none.first),
                second: vectors.next().unwrap_or(none.second),
                w_skip: self.w_skip.as_ref().map_or(none.w_skip, |w_skip| w_skip.val().transpose()),
            },
        }
    }

    /// The reverse of [`Affine::to_parameters`]; nothing is copied.
    pub(crate) fn from_parameters(config: &SaeConfig, size: Size, parameters: Parameters) -> Self {
        let Parameters { w_enc, w_dec, b_enc, b_dec, extras: Extras { first, second, w_skip } } = parameters;
        let vectors = [first, second].into_iter().take(config.vectors().len());
        Self {
            w_enc: Param::from_tensor(w_enc.transpose()),
            b_enc: Param::from_tensor(b_enc),
            w_dec: Param::from_tensor(w_dec),
            b_dec: Param::from_tensor(b_dec),
            w_skip: size.skips().then(|| Param::from_tensor(w_skip.transpose())),
            vectors: vectors.map(Param::from_tensor).collect(),
            output: size.output,
            apply_b_dec_to_input: config.applies_b_dec_to_input(),
        }
    }

    /// The size of the weights.
    pub fn size(&self) -> Size {
        let [d_in, d_sae] = self.w_enc.dims();
        Size { d_in, d_sae, output: self.output }
    }

    /// What is encoded of `x [n, d_in]`.
    pub fn input(&self, x: Tensor<2>) -> Tensor<2> {
        if self.apply_b_dec_to_input { x - self.b_dec.val().unsqueeze() } else { x }
    }

    /// `x [n, d_in]` → pre-activations `[n, d_sae]`.
    pub fn pre_acts(&self, x: Tensor<2>) -> Tensor<2> {
        self.input(x).matmul(self.w_enc.val()) + self.b_enc.val().unsqueeze()
    }

    /// `acts [n, d_sae]` of `x [n, d_in]` → x̂ `[n, d_out]`.
    pub fn decode(&self, acts: Tensor<2>, x: Tensor<2>) -> Tensor<2> {
        acts.matmul(self.w_dec.val()) + self.without_latents(x)
    }

    /// What is decoded of `x [n, d_in]` if no latent is active: `[n, d_out]`, or `[1, d_out]` if it is the same for all.
    pub fn without_latents(&self, x: Tensor<2>) -> Tensor<2> {
        let b_dec = self.b_dec.val().unsqueeze();
        match &self.w_skip {
            Some(w_skip) => x.matmul(w_skip.val().transpose()) + b_dec,
            None => b_dec,
        }
    }

    /// One of the [vectors](Self::vectors), `[d_sae]`.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn vector(&self, index: usize) -> Tensor<1> {
        self.vectors[index].val()
    }

    /// Changes one of the [vectors](Self::vectors).
    ///
    /// # Panics
    /// If there are not so many.
    pub fn map_vector(mut self, index: usize, change: impl FnOnce(Tensor<1>) -> Tensor<1>) -> Self {
        let vector = self.vectors.remove(index).map(change);
        self.vectors.insert(index, vector);
        self
    }

    /// ‖W_dec,i‖₂ of every row, `[d_sae, 1]`.
    pub fn decoder_norms(&self) -> Tensor<2> {
        (self.w_dec.val().square().sum_dim(1) + NORM_TINY).sqrt()
    }

    /// What was trained on `input · x` to give `output · y`, as a function of `x` that gives `y`.
    pub fn fold_scales(self, scales: Scales) -> Self {
        let Scales { input, output } = scales;
        Self {
            w_enc: self.w_enc.map(|w| w.mul_scalar(input)),
            w_dec: self.w_dec.map(|w| w.div_scalar(output)),
            b_dec: self.b_dec.map(|b| b.div_scalar(output)),
            w_skip: self.w_skip.map(|w_skip| w_skip.map(|w| w.mul_scalar(input / output))),
            ..self
        }
    }

    /// The same maps with activations between them that are `factors [d_sae, 1]` times as large.
    pub fn scale_acts(self, factors: &Tensor<2>) -> Self {
        Self {
            w_enc: self.w_enc.map(|w| w * factors.clone().transpose()),
            b_enc: self.b_enc.map(|b| b * factors.clone().squeeze_dim(1)),
            w_dec: self.w_dec.map(|w| w / factors.clone()),
            ..self
        }
    }
}

/// What activations are multiplied by in training: those that are read, and those that are to come out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scales {
    /// Of x.
    pub input: f64,
    /// Of y; the same for an autoencoder.
    pub output: f64,
}

impl From<f64> for Scales {
    /// Of an autoencoder.
    fn from(scale: f64) -> Self {
        Self { input: scale, output: scale }
    }
}
