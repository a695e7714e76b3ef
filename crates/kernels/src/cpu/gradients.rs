//! The gradients of some latents: their rows of both matrices, which are sums over the tokens on which they were active.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    active::Entry,
    aux::Revived,
    charge::{Charge, Weighted},
    dense, pack, pre_act, rule,
    step::TOKENS,
    through::Block,
    tile::{Along, COLUMNS, ROWS},
    tiles::{self, Extent},
    values::{Sizes, Values},
    vectors::{ABREAST, add, add_rows, dot, squares},
};

/// Latents that one task works on.
const LATENTS: usize = 32;

/// What the tasks share.
#[derive(Clone, Copy)]
pub(super) struct Batch<'a> {
    pub(super) blocks: &'a [Block],
    /// What was encoded, `[n, d_in]`.
    pub(super) input: &'a [f32],
    pub(super) d_in: usize,
    pub(super) d_out: usize,
    pub(super) groups: &'a [Range<usize>],
    /// `input` and the errors for matrix products; absent if a token is looked up whenever a latent was active on it.
    pub(super) packed: Option<&'a Packed>,
    /// ‖W_dec,i‖₂ of every latent, if the loss knows them.
    pub(super) norms: Option<&'a [f32]>,
    pub(super) charge: Charge<'a>,
    /// Whether rows of the decoder keep their norms: what points along them is taken from their gradients.
    pub(super) unit_decoder: bool,
    /// θ of every latent, if its logarithm is the parameter.
    pub(super) log_of: Option<&'a [f32]>,
    pub(super) pre_act: Option<&'a pre_act::All<'a>>,
    pub(super) aux: Option<&'a Revived>,
}

/// Tokens in the order in which tiles read them.
pub(super) struct Packed {
    /// `[d_in / COLUMNS, n]`.
    input: Vec<Along>,
    /// `[d_out / COLUMNS, n]`.
    pub(super) error: Vec<Along>,
}

impl Packed {
    pub(super) fn new(input: &[f32], blocks: &[Block], [d_in, d_out]: [usize; 2]) -> Self {
        Self { input: pack::along_columns(&[input], d_in), error: errors(blocks, d_out) }
    }
}

/// The errors that latents of the first group see, in the order in which tiles read them, `[d_out / COLUMNS, n]`.
pub(super) fn errors(blocks: &[Block], d_out: usize) -> Vec<Along> {
    let errors: Vec<&[f32]> = blocks.iter().map(|block| block.errors_of(0)).collect();
    pack::along_columns(&errors, d_out)
}

/// Computes the gradients of all that belongs to latents, and on how many tokens each was active; Σ of their squares.
pub(super) fn of_latents(
    batch: Batch<'_>,
    w_dec: &[f32],
    gradients: &mut Values<&mut [f32]>,
    fired: &mut [f32],
) -> f64 {
    let mut more = gradients.more.each_mut().map(|values| values.chunks_mut(LATENTS));
    let mut next = |i: usize| more[i].next().unwrap_or_default();
    let enc = gradients.w_enc.chunks_mut(LATENTS * batch.d_in);
    let dec = gradients.w_dec.chunks_mut(LATENTS * batch.d_out);
    let vectors = gradients.b_enc.chunks_mut(LATENTS).zip(fired.chunks_mut(LATENTS));
    let w_dec = w_dec.chunks(LATENTS * batch.d_out);
    let tasks: Vec<Latents<'_>> = w_dec
        .zip(enc.zip(dec).zip(vectors))
        .enumerate()
        .map(|(task, (w_dec, ((enc, dec), (b_enc, fired))))| {
            let more = [next(0), next(1)];
            Latents { first: task * LATENTS, w_dec, enc, dec, b_enc, more, fired }
        })
        .collect();
    let errors: Vec<Vec<&[f32]>> = (0..batch.groups.len())
        .map(|group| batch.blocks.iter().map(|block| block.errors_of(group)).collect())
        .collect();
    let compute = |latents| Arch::new().dispatch(Compute { batch, errors: &errors, latents });
    let squares: Vec<f64> = tasks.into_par_iter().map(compute).collect();
    squares.iter().sum()
}

/// Some latents, from `first` on.
struct Latents<'a> {
    first: usize,
    /// Their rows of `W_dec`, `[latents, d_out]`.
    w_dec: &'a [f32],
    /// Where their gradients go, `[latents, d_in]` and `[latents, d_out]`.
    enc: &'a mut [f32],
    dec: &'a mut [f32],
    /// `[latents]`.
    b_enc: &'a mut [f32],
    /// `[latents]` each, or empty.
    more: [&'a mut [f32]; 2],
    /// On how many tokens each was active, `[latents]`.
    fired: &'a mut [f32],
}

struct Compute<'a, 'b> {
    batch: Batch<'a>,
    /// Of every group, of every block, `[n, d_out]`.
    errors: &'a [Vec<&'a [f32]>],
    latents: Latents<'b>,
}

impl WithSimd for Compute<'_, '_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let Self {
            batch,
            errors,
            latents: Latents { first, w_dec, enc, dec, b_enc, more: [more, more_2], fired },
        } = self;
        let Batch { d_in, d_out, .. } = batch;
        enc.fill(0.0);
        dec.fill(0.0);
        if let Some(packed) = batch.packed {
            products(simd, batch, packed, first, [&mut *enc, &mut *dec]);
        }
        let mut entries = Vec::new();
        let mut sum = 0.0;
        for i in 0..b_enc.len() {
            let latent = first + i;
            let row = i * d_out..(i + 1) * d_out;
            let (enc, dec, w_dec) = (&mut enc[i * d_in..][..d_in], &mut dec[row.clone()], &w_dec[row]);
            batch.entries_of(latent, &mut entries);
            if batch.packed.is_none() {
                let group = batch.groups.partition_point(|group| group.end <= latent);
                batch.rows(&errors[group], &entries, enc, dec);
            }
            let mut sums = batch.sums(latent, &entries);
            if let Some(aux) = batch.aux {
                aux.add(latent, enc, dec, &mut sums);
            }
            if let Some(pre_act) = batch.pre_act {
                let (factor, row) = pre_act.add(latent, &mut sums);
                add(enc, factor, row);
            }
            if let Some(norms) = batch.norms {
                add(dec, sums.of_norm as f32 / norms[latent], w_dec);
            }
            if batch.unit_decoder {
                let along = dot(simd, dec, w_dec) / dot(simd, w_dec, w_dec).max(f32::MIN_POSITIVE);
                add(dec, -along, w_dec);
            }
            if let Some(thetas) = batch.log_of {
                sums.more[0] *= f64::from(thetas[latent]);
            }
            b_enc[i] = sums.bias as f32;
            let mut squared = f64::from(b_enc[i]).powi(2);
            for (more, sum) in [&mut *more, &mut *more_2].into_iter().zip(sums.more) {
                if let Some(more) = more.get_mut(i) {
                    *more = sum as f32;
                    squared += f64::from(*more).powi(2);
                }
            }
            fired[i] = entries.iter().filter(|entry| entry.act != 0.0).count() as f32;
            sum += squares(simd, enc) + squares(simd, dec) + squared;
        }
        sum
    }
}

impl<'a> Batch<'a> {
    /// Of a loss that holds errors alone.
    pub(super) fn new(
        blocks: &'a [Block],
        input: &'a [f32],
        Sizes { d_in, d_out, .. }: Sizes,
        groups: &'a [Range<usize>],
        packed: Option<&'a Packed>,
    ) -> Self {
        Self {
            blocks,
            input,
            d_in,
            d_out,
            groups,
            packed,
            norms: None,
            charge: Charge::Nothing,
            unit_decoder: false,
            log_of: None,
            pre_act: None,
            aux: None,
        }
    }

    /// Collects the entries of a latent, with tokens counted from the first of the batch.
    #[inline(always)]
    fn entries_of(&self, latent: usize, entries: &mut Vec<Entry>) {
        entries.clear();
        for (block, first_token) in self.blocks.iter().zip((0..).step_by(TOKENS)) {
            for entry in block.entries.of(latent) {
                entries.push(Entry { token: first_token + entry.token, ..*entry });
            }
        }
    }

    /// `enc += Σ pull · input` and `dec += Σ act · error` over the tokens of a latent's entries.
    #[inline(always)]
    fn rows(&self, errors: &[&[f32]], entries: &[Entry], enc: &mut [f32], dec: &mut [f32]) {
        let Self { d_in, d_out, .. } = *self;
        let input = |entry: &Entry| &self.input[entry.token as usize * d_in..][..d_in];
        let error = |entry: &Entry| {
            let token = entry.token as usize;
            &errors[token / TOKENS][token % TOKENS * d_out..][..d_out]
        };
        if entries.iter().any(|entry| entry.act == 0.0 || entry.pull == 0.0) {
            add_some(enc, entries, |entry| entry.pull, input);
            add_some(dec, entries, |entry| entry.act, error);
            return;
        }
        let (fours, ones) = entries.as_chunks::<ABREAST>();
        for [a, b, c, d] in fours {
            add_rows(enc, [a.pull, b.pull, c.pull, d.pull], [input(a), input(b), input(c), input(d)]);
            add_rows(dec, [a.act, b.act, c.act, d.act], [error(a), error(b), error(c), error(d)]);
        }
        for entry in ones {
            add(enc, entry.pull, input(entry));
            add(dec, entry.act, error(entry));
        }
    }

    /// The gradients of what else belongs to a latent.
    #[inline(always)]
    fn sums(&self, latent: usize, entries: &[Entry]) -> rule::Sums<f64> {
        let mut sums = rule::Sums::default();
        if self.blocks.iter().any(|block| !block.sums.is_empty()) {
            self.blocks.iter().for_each(|block| sums.add(block.sums[latent]));
            return sums;
        }
        let mut acts = 0.0_f64;
        for entry in entries {
            acts += f64::from(entry.act);
            sums.bias += f64::from(entry.pull);
        }
        if let Charge::Norm(Weighted { coefficient, .. }) = self.charge {
            sums.of_norm = f64::from(coefficient * acts as f32);
        }
        sums
    }
}

/// `sum += Σ weight · row` over entries whose weight is not 0.
#[inline(always)]
fn add_some<'a>(
    sum: &mut [f32],
    entries: &[Entry],
    weight: impl Fn(&Entry) -> f32,
    row: impl Fn(&Entry) -> &'a [f32],
) {
    let some: Vec<Entry> = entries.iter().filter(|entry| weight(entry) != 0.0).copied().collect();
    let (fours, ones) = some.as_chunks::<ABREAST>();
    for [a, b, c, d] in fours {
        add_rows(sum, [weight(a), weight(b), weight(c), weight(d)], [row(a), row(b), row(c), row(d)]);
    }
    for entry in ones {
        add(sum, weight(entry), row(entry));
    }
}

/// The rows of all latents as products with all tokens.
#[inline(always)]
fn products<S: Simd>(simd: S, batch: Batch<'_>, packed: &Packed, first: usize, [enc, dec]: [&mut [f32]; 2]) {
    let Batch { d_in, d_out, .. } = batch;
    let (latents, terms) = (enc.len() / d_in, batch.input.len() / d_in);
    let groups = latents.div_ceil(ROWS);
    let scattered = |value: fn(&Entry) -> f32| {
        let mut across = vec![[0.0; ROWS]; groups * terms];
        for i in 0..latents {
            let group = &mut across[i / ROWS * terms..][..terms];
            for (block, group) in batch.blocks.iter().zip(group.chunks_mut(TOKENS)) {
                for entry in block.entries.of(first + i) {
                    group[entry.token as usize][i % ROWS] = value(entry);
                }
            }
        }
        across
    };
    let extent = |width: usize| Extent { groups, panels: width.div_ceil(COLUMNS), terms };
    let of = |across, along, width, sums| dense::Sums { across, along, terms, width, sums };
    let pulls = scattered(|entry| entry.pull);
    tiles::for_each(simd, extent(d_in), &mut of(pulls, &packed.input, d_in, enc));
    let acts = scattered(|entry| entry.act);
    tiles::for_each(simd, extent(d_out), &mut of(acts, &packed.error, d_out, dec));
}
