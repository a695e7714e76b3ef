//! What makes activations of pre-activations, and gradients of the ones those of the others.

use std::borrow::Cow;

use super::{active::ByToken, charge::Charge, gated::Gated, jump::Jump};

/// What an activation function does with entries.
#[derive(Clone, Copy)]
pub(super) enum Rule<'a> {
    /// Entries are positive, and all are activations.
    Positive,
    Jump(Jump<'a>),
    Gated(Gated<'a>),
}

/// Gradients of what belongs to a latent, beside its rows of matrices.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sums<T> {
    /// Of b_enc.
    pub(super) bias: T,
    /// Of ‖W_dec,i‖₂.
    pub(super) of_norm: T,
    /// Of what the form has more.
    pub(super) more: [T; 2],
}

impl Sums<f64> {
    pub(super) fn add(&mut self, other: Sums<f32>) {
        self.bias += f64::from(other.bias);
        self.of_norm += f64::from(other.of_norm);
        self.more[0] += f64::from(other.more[0]);
        self.more[1] += f64::from(other.more[1]);
    }
}

impl Rule<'_> {
    /// Activations of all entries.
    #[inline(always)]
    pub(super) fn acts<'a>(&self, entries: &'a ByToken) -> Cow<'a, [f32]> {
        let latents = entries.latents.iter().zip(&entries.values);
        match self {
            Self::Positive => Cow::Borrowed(&entries.values),
            Self::Jump(jump) => Cow::Owned(latents.map(|(latent, z)| jump.act(*latent, *z)).collect()),
            Self::Gated(gated) => Cow::Owned(latents.map(|(latent, z)| gated.act(*latent, *z)).collect()),
        }
    }

    /// Whether the sums of a latent are other than those of its entries' pulls and activations.
    pub(super) fn has_sums(&self, charge: &Charge<'_>) -> bool {
        !matches!((self, charge), (Self::Positive, Charge::Nothing | Charge::Norm(_) | Charge::Power { .. }))
    }
}

/// Adds the penalty's gradient to those of activations that are all pre-activations. The penalty. `sums` may be empty.
#[inline(always)]
pub(super) fn positive(
    entries: &ByToken,
    charge: &Charge<'_>,
    pulls: &mut [f32],
    sums: &mut [Sums<f32>],
) -> f64 {
    let mut penalty = 0.0;
    for ((latent, act), pull) in entries.latents.iter().zip(&entries.values).zip(pulls) {
        let share = charge.of(*latent, *act);
        *pull += share.by_act;
        penalty += f64::from(share.penalty);
        if let Some(sums) = sums.get_mut(*latent as usize) {
            sums.bias += *pull;
            sums.of_norm += share.by_norm;
        }
    }
    penalty
}
