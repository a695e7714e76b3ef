//! JumpReLU: activations above a threshold of each latent, and pseudo-derivatives near it.

use super::{active::ByToken, charge::Charge, pre_act::Below, rule::Sums};

/// The thresholds, and what depends on which side of them a pre-activation is.
#[derive(Clone, Copy)]
pub(super) struct Jump<'a> {
    /// θ, `[d_sae]`.
    pub(super) thetas: &'a [f32],
    /// ε.
    pub(super) bandwidth: f32,
    /// Whether pseudo-derivatives pass to the pre-activation.
    pub(super) ste_to_input: bool,
    /// The gradient of each H(z − θ), where the penalty counts them.
    pub(super) of_step: Option<f32>,
    pub(super) pre_act: Option<Below<'a>>,
}

/// What pre-activations must be above to take part in anything: below θ − ε/2 by a bit, for rounding, and below θ.
pub(super) fn floors(thetas: &[f32], bandwidth: f32) -> Vec<f32> {
    thetas.iter().map(|theta| (theta - 0.5 * bandwidth).next_down()).collect()
}

impl Jump<'_> {
    /// What is no number stays that: it spoils the loss for all to see.
    #[inline(always)]
    pub(super) fn act(&self, latent: u32, z: f32) -> f32 {
        if z <= self.thetas[latent as usize] { 0.0 } else { z }
    }

    /// Turns the gradients of activations into those of pre-activations. The penalty, and what of the pre-act loss is not
    /// the same for all tokens.
    #[inline(always)]
    pub(super) fn pulls(
        &self,
        entries: &ByToken,
        charge: &Charge<'_>,
        pulls: &mut [f32],
        sums: &mut [Sums<f32>],
    ) -> [f64; 2] {
        let (mut penalty, mut pre_act) = (0.0, 0.0);
        for ((latent, z), pull) in entries.latents.iter().zip(&entries.values).zip(pulls) {
            let theta = self.thetas[*latent as usize];
            let sums = &mut sums[*latent as usize];
            let act = self.act(*latent, *z);
            let share = charge.of(*latent, act);
            penalty += f64::from(share.penalty);
            let of_act = *pull + share.by_act;
            let active = act != 0.0;
            *pull = if active { of_act } else { 0.0 };
            if self.of_step.is_some() && active {
                penalty += 1.0;
            }
            if ((z - theta) / self.bandwidth).abs() < 0.5 {
                let near = (theta * of_act + self.of_step.unwrap_or(0.0)) / self.bandwidth;
                sums.more[0] -= near;
                *pull += if self.ste_to_input { near } else { 0.0 };
            }
            if let Some(below) = self.pre_act.filter(|_| *z >= theta) {
                pre_act += below.take_back(*latent, z - theta, pull, sums);
            }
            sums.bias += *pull;
            sums.of_norm += share.by_norm;
        }
        [penalty, pre_act]
    }
}
