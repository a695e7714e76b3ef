//! The auxiliary loss of dead latents (Gao et al. 2024, section A.2): a dictionary of their own, made of their rows, that
//! reconstructs what is left over.

use std::slice::from_ref;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    activate::{Encoder, Instructions},
    bias::weighted_sum,
    charge::Charge,
    dense,
    gradients::{self, Batch},
    rule::{Rule, Sums},
    select::{Entries, Select},
    step::TOKENS,
    through::{Block, Decoder, Part},
    values::{Sizes, Values},
    vectors::{add, squares},
};
use crate::{Aux, NO_SPREAD, Path, Settings};

/// The gradients of dead latents.
pub(super) struct Revived {
    /// Where each latent is among the dead.
    places: Vec<Option<u32>>,
    /// `[dead, d_in]`.
    enc: Vec<f32>,
    /// `[dead, d_out]`.
    dec: Vec<f32>,
    /// `[dead]`.
    b_enc: Vec<f32>,
    /// With its coefficient.
    pub(super) loss: f64,
    /// Share of dead latents that took part.
    pub(super) share: f64,
}

impl Revived {
    /// Adds those of a latent to its rows and sums, if it is dead.
    #[inline(always)]
    pub(super) fn add(&self, latent: usize, enc: &mut [f32], dec: &mut [f32], sums: &mut Sums<f64>) {
        if let Some(place) = self.places[latent] {
            let place = place as usize;
            add(enc, 1.0, &self.enc[place * enc.len()..][..enc.len()]);
            add(dec, 1.0, &self.dec[place * dec.len()..][..dec.len()]);
            sums.bias += f64::from(self.b_enc[place]);
        }
    }
}

/// A dictionary of dead latents.
pub(super) struct Dead {
    aux: Aux,
    sizes: Sizes,
    /// Which they are.
    latents: Vec<usize>,
    /// `[dead, d_in]`.
    w_enc: Vec<f32>,
    /// `[dead, d_out]`.
    w_dec: Vec<f32>,
    /// `[dead]`.
    b_enc: Vec<f32>,
}

impl Dead {
    /// The latents that are marked in `dead [d_sae]`, if any is.
    pub(super) fn new(aux: Aux, parameters: &Values<&mut [f32]>, dead: &[f32], sizes: Sizes) -> Option<Self> {
        let latents: Vec<usize> = (0..sizes.d_sae).filter(|latent| dead[*latent] != 0.0).collect();
        let gather = |values: &[f32], width: usize| {
            let mut rows = vec![0.0; latents.len() * width];
            let places = rows.par_chunks_mut(width).zip(&latents);
            places.for_each(|(row, latent)| row.copy_from_slice(&values[latent * width..][..width]));
            rows
        };
        let w_enc = gather(parameters.w_enc, sizes.d_in);
        let w_dec = gather(parameters.w_dec, sizes.d_out);
        let b_enc = gather(parameters.b_enc, 1);
        (!latents.is_empty()).then_some(Self { aux, sizes, latents, w_enc, w_dec, b_enc })
    }

    /// Has them reconstruct what `blocks`, whose errors have been multiplied by `of_error`, leave over of `input [n, d_in]`.
    /// Absent if nothing is left over.
    pub(super) fn revive(
        &self,
        instructions: Instructions,
        input: &[f32],
        (blocks, of_error): (&[Block], f32),
        settings: &Settings,
    ) -> Option<Revived> {
        let Self { aux, latents, .. } = self;
        let (left, [spread, size]) = left_over(blocks, of_error, self.sizes);
        // What is no number is more than nothing.
        if spread <= NO_SPREAD * size {
            return None;
        }
        let encoder = Encoder { w_enc: &self.w_enc, b_enc: &self.b_enc, input };
        let entries = encoder.encode(instructions, Select::Largest(aux.k.min(latents.len())));
        let active: usize = entries.iter().flatten().map(Vec::len).sum();
        let share = active as f64 / (self.sizes.n * latents.len()) as f64;
        let path = settings.path.unwrap_or_else(|| Path::for_share(share));
        let blocks = self.decode(entries, &left, aux.coefficient / spread, path);
        let squared: f64 = blocks.iter().map(|block| block.squared_error).sum();
        let revived = self.gradients(&blocks, input, path);
        Some(Revived { loss: aux.coefficient * squared / spread, share, ..revived })
    }

    /// Their errors, whose squares count so much.
    fn decode(&self, entries: Vec<Vec<Entries>>, left: &[f32], coefficient: f64, path: Path) -> Vec<Block> {
        let d_out = self.sizes.d_out;
        let packed = (path == Path::Dense).then(|| dense::Packed::new(&self.w_dec, d_out));
        let all = 0..self.latents.len();
        let decoder = Decoder {
            dec: &self.w_dec,
            d_sae: self.latents.len(),
            b_dec: &vec![0.0; d_out],
            skip: None,
            groups: from_ref(&all),
            of_error: (2.0 * coefficient) as f32,
            rule: Rule::Positive,
            charge: Charge::Nothing,
            packed: packed.as_ref(),
        };
        let tasks = entries.into_par_iter().zip(left.par_chunks(TOKENS * d_out));
        tasks.map(|(entries, y)| Block::new(decoder, entries, Part { x: &[], y })).collect()
    }

    fn gradients(&self, blocks: &[Block], input: &[f32], path: Path) -> Revived {
        let Self { sizes, latents, .. } = self;
        let mut revived = Revived {
            places: vec![None; sizes.d_sae],
            enc: vec![0.0; self.w_enc.len()],
            dec: vec![0.0; self.w_dec.len()],
            b_enc: vec![0.0; latents.len()],
            loss: 0.0,
            share: 0.0,
        };
        for (place, latent) in (0..).zip(latents) {
            revived.places[*latent] = Some(place);
        }
        let packed =
            (path == Path::Dense).then(|| gradients::Packed::new(input, blocks, [sizes.d_in, sizes.d_out]));
        let all = 0..latents.len();
        let batch = Batch::new(blocks, input, *sizes, from_ref(&all), packed.as_ref());
        let mut gradients = Values {
            w_enc: &mut revived.enc[..],
            w_dec: &mut revived.dec[..],
            b_enc: &mut revived.b_enc[..],
            b_dec: &mut [],
            more: [&mut [], &mut []],
            w_skip: &mut [],
        };
        gradients::of_latents(batch, &self.w_dec, &mut gradients, &mut vec![0.0; latents.len()]);
        revived
    }
}

/// e = y − x̂ of all tokens, `[n, d_out]`, with Σ ‖e − ē‖² and Σ ‖e‖².
fn left_over(blocks: &[Block], of_error: f32, Sizes { n, d_out, .. }: Sizes) -> (Vec<f32>, [f64; 2]) {
    let mut left = vec![0.0; n * d_out];
    let parts: Vec<Vec<f32>> = left
        .par_chunks_mut(TOKENS * d_out)
        .zip(blocks)
        .map(|(left, block)| {
            left.iter_mut().zip(block.last_errors()).for_each(|(left, error)| *left = -error / of_error);
            weighted_sum(left, &vec![1.0; left.len() / d_out], d_out)
        })
        .collect();
    let mut mean = weighted_sum(&parts.concat(), &vec![1.0; parts.len()], d_out);
    mean.iter_mut().for_each(|sum| *sum /= n as f32);
    let tasks = left.par_chunks(TOKENS * d_out);
    let squared: Vec<[f64; 2]> =
        tasks.map(|left| Arch::new().dispatch(Spread { left, mean: &mean })).collect();
    (left, [0, 1].map(|of| squared.iter().map(|sums| sums[of]).sum()))
}

/// Σ ‖e − ē‖² and Σ ‖e‖² of some tokens.
struct Spread<'a> {
    left: &'a [f32],
    mean: &'a [f32],
}

impl WithSimd for Spread<'_> {
    type Output = [f64; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [f64; 2] {
        let mut sums = [0.0; 2];
        let mut off = vec![0.0; self.mean.len()];
        for left in self.left.chunks_exact(self.mean.len()) {
            off.iter_mut().zip(left.iter().zip(self.mean)).for_each(|(off, (left, mean))| *off = left - mean);
            sums[0] += squares(simd, &off);
            sums[1] += squares(simd, left);
        }
        sums
    }
}
