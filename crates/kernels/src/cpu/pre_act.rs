//! The pre-act loss: dead latents are pulled towards their thresholds on all tokens on which they are below.
//!
//! That is nearly all tokens, but its gradients are sums over tokens of what is linear in them. So they are computed for all
//! tokens at once, from the sum of the inputs, and those of the few tokens with z ≥ θ are taken back.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{rule::Sums, values::Sizes, vectors::dot};

/// What the loss weighs latents with.
#[derive(Clone, Copy)]
pub(super) struct Below<'a> {
    /// κ / tokens of a dead latent, 0 of others, `[d_sae]`.
    pub(super) weights: &'a [f32],
    /// νᵢ = ‖W_dec,i‖₂, `[d_sae]`.
    pub(super) norms: &'a [f32],
}

impl Below<'_> {
    /// Takes back what [`All`] adds for a token on which `latent` is above its threshold by `above`. The loss.
    #[inline(always)]
    pub(super) fn take_back(&self, latent: u32, above: f32, pull: &mut f32, sums: &mut Sums<f32>) -> f64 {
        let (weight, norm) = (self.weights[latent as usize], self.norms[latent as usize]);
        *pull += weight * norm;
        sums.more[0] -= weight * norm;
        sums.of_norm += weight * above;
        f64::from(weight * above) * f64::from(norm)
    }
}

/// What the loss would be if dead latents were below their thresholds on every token.
pub(super) struct All<'a> {
    of: Below<'a>,
    tokens: f64,
    /// Σ input, `[d_in]`.
    sum: Vec<f32>,
    /// Of every latent, its weight · Σ (θ − z).
    distances: Vec<f64>,
}

impl<'a> All<'a> {
    /// `sum [d_in]` is that of the inputs; `enc [d_sae, d_in]`, `b_enc [d_sae]`, `thetas [d_sae]`.
    pub(super) fn new(of: Below<'a>, sizes: Sizes, sum: Vec<f32>, [enc, b_enc, thetas]: [&[f32]; 3]) -> Self {
        let tokens = sizes.n as f64;
        let latents = enc.par_chunks(sizes.d_in).zip(b_enc).zip(thetas.par_iter().zip(of.weights));
        let distances = latents.map(|((enc, bias), (theta, weight))| match *weight {
            0.0 => 0.0,
            weight => {
                let product = f64::from(Arch::new().dispatch(Dot(&sum, enc)));
                f64::from(weight) * (tokens * (f64::from(*theta) - f64::from(*bias)) - product)
            }
        });
        let distances = distances.collect();
        Self { of, tokens, sum, distances }
    }

    /// The loss.
    pub(super) fn loss(&self) -> f64 {
        self.distances.iter().zip(self.of.norms).map(|(distance, norm)| distance * f64::from(*norm)).sum()
    }

    /// Adds the gradients of a latent: what to multiply the sum of the inputs with for its row of W_enc, which
    /// comes too, and the others.
    pub(super) fn add(&self, latent: usize, sums: &mut Sums<f64>) -> (f32, &[f32]) {
        let pull = self.of.weights[latent] * self.of.norms[latent];
        let of_all = f64::from(pull) * self.tokens;
        sums.bias -= of_all;
        sums.more[0] += of_all;
        sums.of_norm += self.distances[latent];
        (-pull, &self.sum)
    }
}

struct Dot<'a>(&'a [f32], &'a [f32]);

impl WithSimd for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        dot(simd, self.0, self.1)
    }
}
