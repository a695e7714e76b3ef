//! What a step is given, what it changes and what it finds, as plain slices.

use crate::{Path, Phases};

/// A value for every parameter. Latents come first: what belongs to one of them lies together.
pub(crate) struct Values<T> {
    /// `[d_sae, d_in]`.
    pub(crate) w_enc: T,
    /// `[d_sae, d_out]`.
    pub(crate) w_dec: T,
    /// `[d_sae]`.
    pub(crate) b_enc: T,
    /// `[d_out]`.
    pub(crate) b_dec: T,
    /// θ or log θ of [`Activation::JumpRelu`](crate::Activation::JumpRelu), `r_mag` and `b_mag` of
    /// [`Activation::Gated`](crate::Activation::Gated), `[d_sae]` each; empty where the form has none.
    pub(crate) more: [T; 2],
    /// `[d_in, d_out]`; empty without a skip connection.
    pub(crate) w_skip: T,
}

impl<T> Values<T> {
    pub(super) fn into_parts(self) -> [T; 7] {
        let [first, second] = self.more;
        [self.w_enc, self.w_dec, self.b_enc, self.b_dec, first, second, self.w_skip]
    }
}

/// What a step changes.
pub(crate) struct State<'a> {
    pub(crate) parameters: Values<&'a mut [f32]>,
    pub(crate) gradients: Values<&'a mut [f32]>,
    /// The optimiser's moments.
    pub(crate) first: Values<&'a mut [f32]>,
    /// May be empty where the optimiser has none.
    pub(crate) second: Values<&'a mut [f32]>,
    /// The moving average of the parameters, if there is one.
    pub(crate) ema: Option<Values<&'a mut [f32]>>,
}

/// What a step learns from.
#[derive(Clone, Copy)]
pub(crate) struct Examples<'a> {
    /// `[n, d_in]`.
    pub(crate) x: &'a [f32],
    /// `[n, d_out]`; absent if it is `x`.
    pub(crate) y: Option<&'a [f32]>,
    /// 1 for a dead latent and 0 for others, `[d_sae]`; absent if none is dead.
    pub(crate) dead: Option<&'a [f32]>,
}

/// How large all is.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) n: usize,
    pub(super) d_in: usize,
    pub(super) d_out: usize,
    pub(super) d_sae: usize,
}

impl Sizes {
    pub(super) fn new<T: AsRef<[f32]>>(parameters: &Values<T>, x: &[f32]) -> Self {
        let [w_enc, b_enc, b_dec] =
            [&parameters.w_enc, &parameters.b_enc, &parameters.b_dec].map(|values| values.as_ref().len());
        let d_in = w_enc / b_enc;
        Self { n: x.len() / d_in, d_in, d_out: b_dec, d_sae: b_enc }
    }
}

/// What a step found. Means are over tokens, before the step.
pub(crate) struct Found {
    /// Mean of ‖y − x̂‖², of all latents.
    pub(crate) squared_error: f64,
    /// The same, summed over prefixes: what the loss holds.
    pub(crate) reconstruction: f64,
    /// Before its coefficient.
    pub(crate) penalty: f64,
    /// What else the loss holds, with its coefficients: of dead latents, of a gate, of the pre-act loss.
    pub(crate) aux: f64,
    /// Of all gradients together, before clipping.
    pub(crate) grad_norm: f64,
    /// Share of latents that were looked at one by one: active, or so near to it that it matters.
    pub(crate) share: f64,
    /// Share of dead latents that took part in the auxiliary loss; 0 without one.
    pub(crate) aux_share: f64,
    /// The smallest active pre-activation of a batch from which the largest were chosen; 0 otherwise.
    pub(crate) floor: f32,
    pub(crate) path: Path,
    pub(crate) phases: Phases,
    /// On how many tokens each latent was active, `[d_sae]`.
    pub(crate) fired: Vec<f32>,
}
