//! The active latents of some tokens.

use std::ops::Range;

use monosema_sae::Size;
use pulp::Arch;
use rayon::prelude::*;

use super::{
    Block, Latents, ROWS, Shared, TILE, Total,
    vectors::{add, dot},
};
use crate::step::product::product;

/// Active latents, token by token.
pub(super) struct Active {
    /// Those of token `t` are at `ends[t - 1]..ends[t]`.
    ends: Vec<usize>,
    latents: Vec<u32>,
    acts: Vec<f32>,
    /// Gradients of their pre-activations.
    pulls: Vec<f32>,
}

impl Latents for Active {
    fn encode(shared: Shared<'_>, input: &[f32]) -> Self {
        let Size { d_in, d_sae } = shared.size;
        let rows = input.len() / d_in;
        let mut found: Vec<Vec<(u32, f32)>> = vec![Vec::new(); rows];
        let mut tile = vec![0.0; rows * TILE.min(d_sae)];
        for begin in (0..d_sae).step_by(TILE) {
            let width = TILE.min(d_sae - begin);
            let tile = &mut tile[..rows * width];
            let encoder = &shared.weights.enc[begin * d_in..(begin + width) * d_in];
            product(tile, [rows, d_in, width], (input, [d_in, 1]), (encoder, [1, d_in]), false);
            let bias = &shared.weights.b_enc[begin..begin + width];
            Arch::new().dispatch(|| {
                for (pre_acts, found) in tile.chunks_exact(width).zip(&mut found) {
                    keep_positive(pre_acts, bias, begin, found);
                }
            });
        }
        let ends = found.iter().scan(0, |end, row| {
            *end += row.len();
            Some(*end)
        });
        Self {
            ends: ends.collect(),
            latents: found.iter().flatten().map(|&(latent, _)| latent).collect(),
            acts: found.iter().flatten().map(|&(_, act)| act).collect(),
            pulls: Vec::new(),
        }
    }

    fn decode(&self, shared: Shared<'_>, x_hat: &mut [f32]) {
        Arch::new().dispatch(|| {
            for (token, x_hat) in x_hat.chunks_exact_mut(shared.size.d_in).enumerate() {
                for entry in self.of(token) {
                    add(x_hat, self.acts[entry], decoder(shared, self.latents[entry]));
                }
            }
        });
    }

    fn penalty(&self, shared: Shared<'_>) -> f64 {
        let entries = self.latents.iter().zip(&self.acts);
        entries.map(|(&latent, act)| f64::from(act * shared.norms[latent as usize])).sum()
    }

    fn pull(&mut self, shared: Shared<'_>, error: &[f32]) {
        let mut pulls = vec![0.0; self.latents.len()];
        Arch::new().dispatch(|| {
            for (token, error) in error.chunks_exact(shared.size.d_in).enumerate() {
                for entry in self.of(token) {
                    let latent = self.latents[entry];
                    let penalty = shared.of_penalty * shared.norms[latent as usize];
                    pulls[entry] = dot(error, decoder(shared, latent)) + penalty;
                }
            }
        });
        self.pulls = pulls;
    }

    fn gradients(
        blocks: &[Block<Self>],
        input: &[f32],
        Size { d_in, d_sae }: Size,
        enc: &mut [f32],
        dec: &mut [f32],
    ) -> Vec<Total> {
        let by_latent = ByLatent::new(blocks, d_sae);
        let rows = enc.par_chunks_mut(d_in).zip(dec.par_chunks_mut(d_in)).enumerate();
        let total = |(latent, (enc, dec)): (usize, (&mut [f32], &mut [f32]))| {
            Arch::new().dispatch(|| {
                enc.fill(0.0);
                dec.fill(0.0);
                let mut total = Total::default();
                for &Entry { token, act, pull } in by_latent.of(latent) {
                    let token = token as usize;
                    let (block, row) = (&blocks[token / ROWS], token % ROWS);
                    add(enc, pull, &input[token * d_in..(token + 1) * d_in]);
                    add(dec, act, &block.error[row * d_in..(row + 1) * d_in]);
                    total.acts += act;
                    total.pulls += pull;
                    total.fired += 1;
                }
                total
            })
        };
        rows.map(total).collect()
    }
}

impl Active {
    /// Where the active latents of a token are.
    fn of(&self, token: usize) -> Range<usize> {
        token.checked_sub(1).map_or(0, |before| self.ends[before])..self.ends[token]
    }
}

/// W_dec of a latent, `[d_in]`.
#[inline(always)]
fn decoder(shared: Shared<'_>, latent: u32) -> &[f32] {
    let (latent, d_in) = (latent as usize, shared.size.d_in);
    &shared.weights.dec[latent * d_in..(latent + 1) * d_in]
}

/// Appends the latents from `begin` on whose pre-activation with its bias is above 0, and their activations.
#[inline(always)]
fn keep_positive(pre_acts: &[f32], bias: &[f32], begin: usize, found: &mut Vec<(u32, f32)>) {
    // A look at sixteen at once: most of them have none.
    for (index, (pre_acts, bias)) in pre_acts.chunks(16).zip(bias.chunks(16)).enumerate() {
        let acts = || pre_acts.iter().zip(bias).map(|(pre_act, bias)| pre_act + bias);
        if acts().fold(false, |any, act| any | (act > 0.0)) {
            let first = begin + 16 * index;
            let active = acts().enumerate().filter(|&(_, act)| act > 0.0);
            found.extend(active.map(|(i, act)| ((first + i) as u32, act)));
        }
    }
}

/// The tokens on which each latent was active, in their order.
struct ByLatent {
    /// Those of latent `i` are at `ends[i - 1]..ends[i]`.
    ends: Vec<usize>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    token: u32,
    act: f32,
    pull: f32,
}

impl ByLatent {
    fn new(blocks: &[Block<Active>], d_sae: usize) -> Self {
        let mut next = vec![0; d_sae + 1];
        for &latent in blocks.iter().flat_map(|block| &block.latents.latents) {
            next[latent as usize + 1] += 1;
        }
        for latent in 0..d_sae {
            next[latent + 1] += next[latent];
        }
        let mut entries = vec![Entry::default(); next[d_sae]];
        for (index, Block { latents: active, .. }) in blocks.iter().enumerate() {
            for row in 0..active.ends.len() {
                let token = (index * ROWS + row) as u32;
                for i in active.of(row) {
                    let place = &mut next[active.latents[i] as usize];
                    entries[*place] = Entry { token, act: active.acts[i], pull: active.pulls[i] };
                    *place += 1;
                }
            }
        }
        // Each has moved from where its latent begins to where it ends.
        next.truncate(d_sae);
        Self { ends: next, entries }
    }

    fn of(&self, latent: usize) -> &[Entry] {
        let begin = latent.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.entries[begin..self.ends[latent]]
    }
}
