//! All latents of some tokens, by matrix products: for when many of them are active.

use monosema_sae::Size;
use pulp::Arch;
use rayon::prelude::*;

use super::{Block, Latents, ROWS, Shared, TILE, Total, vectors::dot};
use crate::step::product::product;

/// Activations and gradients of pre-activations, `[rows, d_sae]`.
pub(super) struct All {
    acts: Vec<f32>,
    pulls: Vec<f32>,
}

impl Latents for All {
    fn encode(shared: Shared<'_>, input: &[f32]) -> Self {
        let Size { d_in, d_sae } = shared.size;
        let rows = input.len() / d_in;
        let mut acts = vec![0.0; rows * d_sae];
        product(&mut acts, [rows, d_in, d_sae], (input, [d_in, 1]), (&shared.weights.enc, [1, d_in]), false);
        Arch::new().dispatch(|| {
            for acts in acts.chunks_exact_mut(d_sae) {
                acts.iter_mut()
                    .zip(&shared.weights.b_enc)
                    .for_each(|(act, bias)| *act = (*act + bias).max(0.0));
            }
        });
        Self { acts, pulls: Vec::new() }
    }

    fn decode(&self, shared: Shared<'_>, x_hat: &mut [f32]) {
        let Size { d_in, d_sae } = shared.size;
        let shape = [x_hat.len() / d_in, d_sae, d_in];
        product(x_hat, shape, (&self.acts, [d_sae, 1]), (&shared.weights.dec, [d_in, 1]), true);
    }

    fn penalty(&self, shared: Shared<'_>) -> f64 {
        let rows = self.acts.chunks_exact(shared.size.d_sae);
        Arch::new().dispatch(|| rows.map(|acts| f64::from(dot(acts, shared.norms))).sum())
    }

    fn pull(&mut self, shared: Shared<'_>, error: &[f32]) {
        let Size { d_in, d_sae } = shared.size;
        let shape = [error.len() / d_in, d_in, d_sae];
        self.pulls = vec![0.0; self.acts.len()];
        product(&mut self.pulls, shape, (error, [d_in, 1]), (&shared.weights.dec, [1, d_in]), false);
        Arch::new().dispatch(|| {
            for (pulls, acts) in self.pulls.chunks_exact_mut(d_sae).zip(self.acts.chunks_exact(d_sae)) {
                for ((pull, act), norm) in pulls.iter_mut().zip(acts).zip(shared.norms) {
                    *pull = if *act > 0.0 { *pull + shared.of_penalty * norm } else { 0.0 };
                }
            }
        });
    }

    fn gradients(
        blocks: &[Block<Self>],
        input: &[f32],
        Size { d_in, d_sae }: Size,
        enc: &mut [f32],
        dec: &mut [f32],
    ) -> Vec<Total> {
        let mut totals = vec![Total::default(); d_sae];
        let tiles = enc.par_chunks_mut(TILE * d_in).zip(dec.par_chunks_mut(TILE * d_in));
        tiles.zip(totals.par_chunks_mut(TILE)).enumerate().for_each(|(tile, ((enc, dec), totals))| {
            let begin = tile * TILE;
            for (index, (block, input)) in blocks.iter().zip(input.chunks(ROWS * d_in)).enumerate() {
                let All { acts, pulls } = &block.latents;
                let shape = [totals.len(), input.len() / d_in, d_in];
                product(enc, shape, (&pulls[begin..], [1, d_sae]), (input, [d_in, 1]), index > 0);
                product(dec, shape, (&acts[begin..], [1, d_sae]), (&block.error, [d_in, 1]), index > 0);
                for (acts, pulls) in acts.chunks_exact(d_sae).zip(pulls.chunks_exact(d_sae)) {
                    let latents = acts[begin..].iter().zip(&pulls[begin..]);
                    for (total, (act, pull)) in totals.iter_mut().zip(latents) {
                        total.acts += act;
                        total.pulls += pull;
                        total.fired += u32::from(*act > 0.0);
                    }
                }
            }
        });
        totals
    }
}
