//! Gated: whether a latent is active is decided by one pre-activation, and how much by another one.

use super::{active::ByToken, charge::Weighted, rule::Sums};

/// What makes the second pre-activation, m = scale·(z − b_gate) + b_mag, of the first.
#[derive(Clone, Copy)]
pub(super) struct Gated<'a> {
    /// exp(r_mag), `[d_sae]`.
    pub(super) scales: &'a [f32],
    /// `[d_sae]`.
    pub(super) b_gate: &'a [f32],
    /// `[d_sae]`.
    pub(super) b_mag: &'a [f32],
    /// The penalty, of the gate's pre-activations.
    pub(super) charge: Option<Weighted<'a>>,
}

impl Gated<'_> {
    /// What is no number stays that: it spoils the loss for all to see.
    #[inline(always)]
    pub(super) fn act(&self, latent: u32, z: f32) -> f32 {
        let m = self.scaled(latent, z) + self.b_mag[latent as usize];
        if m <= 0.0 { 0.0 } else { m }
    }

    /// m without its bias.
    #[inline(always)]
    fn scaled(&self, latent: u32, z: f32) -> f32 {
        let latent = latent as usize;
        self.scales[latent] * (z - self.b_gate[latent])
    }

    /// Turns the gradients of activations, and those of what passes the gate in the reconstruction that is made of it, into
    /// those of input·W_enc. The penalty.
    #[inline(always)]
    pub(super) fn pulls(
        &self,
        entries: &ByToken,
        acts: &[f32],
        of_gate: &[f32],
        pulls: &mut [f32],
        sums: &mut [Sums<f32>],
    ) -> f64 {
        let mut penalty = 0.0;
        for (i, (latent, z)) in entries.latents.iter().zip(&entries.values).enumerate() {
            let sums = &mut sums[*latent as usize];
            let mut by_gate = of_gate[i];
            if let Some(Weighted { norms, coefficient }) = self.charge {
                let norm = norms[*latent as usize];
                by_gate += coefficient * norm;
                sums.of_norm += coefficient * z;
                penalty += f64::from(z * norm);
            }
            let by_act = if acts[i] == 0.0 { 0.0 } else { pulls[i] };
            sums.bias += by_gate;
            sums.more[0] += by_act * self.scaled(*latent, *z);
            sums.more[1] += by_act;
            pulls[i] = by_gate + self.scales[*latent as usize] * by_act;
        }
        penalty
    }
}
