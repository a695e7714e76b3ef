//! The gradients of some latents: their rows of both matrices, which are sums over the tokens on which they were active.

use pulp::{Arch, Simd, WithSimd};

use super::{
    active::Entry,
    pack,
    step::TOKENS,
    through::{Block, Dense},
    tile::{Along, COLUMNS, ROWS},
    tiles::{self, Extent},
    vectors::{ABREAST, add, add_rows, dot, squares},
};

/// What the tasks share.
#[derive(Clone, Copy)]
pub(super) struct Batch<'a> {
    pub(super) blocks: &'a [Block],
    /// What was encoded, `[n, d_in]`.
    pub(super) input: &'a [f32],
    pub(super) d_in: usize,
    /// λ / tokens, and ‖W_dec,i‖₂ of every latent; absent if the penalty does not change the decoder.
    pub(super) penalty: Option<(f32, &'a [f32])>,
    /// Whether rows of the decoder keep their norms: what points along them is taken from their gradients.
    pub(super) unit_decoder: bool,
    /// `input` and the errors for matrix products; absent if a token is looked up whenever a latent was active on it.
    pub(super) packed: Option<&'a Packed>,
}

/// Tokens in the order in which tiles read them, `[d_in / COLUMNS, n]`.
pub(super) struct Packed {
    input: Vec<Along>,
    error: Vec<Along>,
}

impl Packed {
    pub(super) fn new(input: &[f32], blocks: &[Block], d_in: usize) -> Self {
        let errors: Vec<&[f32]> = blocks.iter().map(|block| &block.error[..]).collect();
        Self { input: pack::along_columns(&[input], d_in), error: pack::along_columns(&errors, d_in) }
    }
}

/// Some latents, from `first` on.
pub(super) struct Latents<'a> {
    pub(super) first: usize,
    /// Their rows of `W_dec`, `[latents, d_in]`.
    pub(super) w_dec: &'a [f32],
    /// Where their gradients go, `[latents, d_in]`.
    pub(super) enc: &'a mut [f32],
    pub(super) dec: &'a mut [f32],
    /// `[latents]`.
    pub(super) b_enc: &'a mut [f32],
    /// On how many tokens each was active, `[latents]`.
    pub(super) fired: &'a mut [f32],
}

impl Latents<'_> {
    /// Computes the gradients; Σ of their squares.
    pub(super) fn compute(self, batch: Batch<'_>) -> f64 {
        Arch::new().dispatch(Compute { batch, latents: self })
    }
}

struct Compute<'a, 'b> {
    batch: Batch<'a>,
    latents: Latents<'b>,
}

impl WithSimd for Compute<'_, '_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let Self { batch, latents: Latents { first, w_dec, enc, dec, b_enc, fired } } = self;
        let d_in = batch.d_in;
        enc.fill(0.0);
        dec.fill(0.0);
        if let Some(packed) = batch.packed {
            products(simd, batch, packed, first, [&mut *enc, &mut *dec]);
        }
        let mut entries = Vec::new();
        let mut sum = 0.0;
        for i in 0..b_enc.len() {
            let row = i * d_in..(i + 1) * d_in;
            let (enc, dec, w_dec) = (&mut enc[row.clone()], &mut dec[row.clone()], &w_dec[row]);
            entries.clear();
            for (block, first_token) in batch.blocks.iter().zip((0..).step_by(TOKENS)) {
                for entry in block.entries.of(first + i) {
                    entries.push(Entry { token: first_token + entry.token, ..*entry });
                }
            }
            if batch.packed.is_none() {
                sums(batch, &entries, enc, dec);
            }
            let (mut acts, mut pulls) = (0.0_f64, 0.0_f64);
            for entry in &entries {
                acts += f64::from(entry.act);
                pulls += f64::from(entry.pull);
            }
            let (acts, pulls) = (acts as f32, pulls as f32);
            if let Some((of_penalty, norms)) = batch.penalty {
                add(dec, of_penalty * acts / norms[first + i], w_dec);
            }
            if batch.unit_decoder {
                let along = dot(simd, dec, w_dec) / dot(simd, w_dec, w_dec).max(f32::MIN_POSITIVE);
                add(dec, -along, w_dec);
            }
            b_enc[i] = pulls;
            fired[i] = entries.len() as f32;
            sum += squares(simd, enc) + squares(simd, dec) + f64::from(pulls).powi(2);
        }
        sum
    }
}

/// `enc += Σ pull · input` and `dec += Σ act · error` over the tokens of a latent's entries.
#[inline(always)]
fn sums(batch: Batch<'_>, entries: &[Entry], enc: &mut [f32], dec: &mut [f32]) {
    let d_in = batch.d_in;
    let input = |entry: &Entry| &batch.input[entry.token as usize * d_in..][..d_in];
    let error = |entry: &Entry| {
        let token = entry.token as usize;
        &batch.blocks[token / TOKENS].error[token % TOKENS * d_in..][..d_in]
    };
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

/// The same sums of all latents as products with all tokens.
#[inline(always)]
fn products<S: Simd>(simd: S, batch: Batch<'_>, packed: &Packed, first: usize, [enc, dec]: [&mut [f32]; 2]) {
    let d_in = batch.d_in;
    let (latents, terms) = (enc.len() / d_in, batch.input.len() / d_in);
    let extent = Extent { groups: latents.div_ceil(ROWS), panels: d_in.div_ceil(COLUMNS), terms };
    let scattered = |value: fn(&Entry) -> f32| {
        let mut across = vec![[0.0; ROWS]; extent.groups * terms];
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
    let of = |across, along, sums| Dense { across, along, terms, width: d_in, sums };
    tiles::for_each(simd, extent, &mut of(scattered(|entry| entry.pull), &packed.input, enc));
    tiles::for_each(simd, extent, &mut of(scattered(|entry| entry.act), &packed.error, dec));
}
