//! From the active latents of some tokens through the decoder to the error, and back to the gradients of their
//! pre-activations.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::{
    active::{ByLatent, ByToken},
    line::LANES,
    pack,
    select::Entries,
    tile::{self, Across, Along, COLUMNS, ROWS, Tile},
    tiles::{self, Extent, Tiles},
    vectors::{ABREAST, add, add_rows, dot, squares},
};

/// What the tasks share.
#[derive(Clone, Copy)]
pub(super) struct Decoder<'a> {
    /// `[d_sae, d_in]`.
    pub(super) dec: &'a [f32],
    /// `[d_in]`.
    pub(super) b_dec: &'a [f32],
    /// What an activation of each latent adds to the penalty, `[d_sae]`.
    pub(super) weights: &'a [f32],
    /// 2 / tokens: the gradient of a token's squared error is this times the error.
    pub(super) of_error: f32,
    /// λ / tokens: the gradient of the penalty is this times the weight.
    pub(super) of_penalty: f32,
    /// `dec` for matrix products; absent if a latent is looked up whenever it is active.
    pub(super) packed: Option<&'a Packed>,
}

/// A decoder in the order in which tiles read it.
pub(super) struct Packed {
    /// For decoding, `[d_in / COLUMNS, d_sae]`.
    columns: Vec<Along>,
    /// For the way back, `[d_sae / COLUMNS, d_in]`.
    rows: Vec<Along>,
}

impl Packed {
    pub(super) fn new(dec: &[f32], d_in: usize) -> Self {
        Self { columns: pack::along_columns(&[dec], d_in), rows: pack::along_rows(dec, d_in) }
    }
}

/// What comes of some tokens.
pub(super) struct Block {
    /// Gradient of x̂, `[n, d_in]`.
    pub(super) error: Vec<f32>,
    pub(super) entries: ByLatent,
    /// Σ ‖x − x̂‖².
    pub(super) squared_error: f64,
    /// Σ acts · weights.
    pub(super) penalty: f64,
}

impl Block {
    /// Of `x [n, d_in]` and the entries of these tokens.
    pub(super) fn new(decoder: Decoder<'_>, entries: Vec<Entries>, x: &[f32]) -> Self {
        Arch::new().dispatch(Through { decoder, entries, x })
    }
}

struct Through<'a> {
    decoder: Decoder<'a>,
    entries: Vec<Entries>,
    x: &'a [f32],
}

impl WithSimd for Through<'_> {
    type Output = Block;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Block {
        let Self { decoder, entries, x } = self;
        let (d_in, d_sae) = (decoder.b_dec.len(), decoder.weights.len());
        let n = entries.len();
        let acts = ByToken::new(entries);
        let mut error = Vec::with_capacity(x.len());
        for _ in 0..n {
            error.extend_from_slice(decoder.b_dec);
        }
        match decoder.packed {
            None => decode(&acts, decoder.dec, d_in, &mut error),
            Some(packed) => decode_dense(simd, &acts, &packed.columns, d_in, &mut error),
        }
        let mut squared_error = 0.0;
        for (error, x) in error.chunks_exact_mut(d_in).zip(x.chunks_exact(d_in)) {
            error.iter_mut().zip(x).for_each(|(error, x)| *error -= x);
            squared_error += squares(simd, error);
            error.iter_mut().for_each(|error| *error *= decoder.of_error);
        }
        let mut pulls = match decoder.packed {
            None => pull(simd, &acts, decoder.dec, d_in, &error),
            Some(packed) => pull_dense(simd, &acts, &packed.rows, d_in, d_sae, &error),
        };
        for (pull, latent) in pulls.iter_mut().zip(&acts.latents) {
            *pull += decoder.of_penalty * decoder.weights[*latent as usize];
        }
        let penalty = acts.weighted(decoder.weights);
        Block { error, entries: acts.by_latent(&pulls, d_sae), squared_error, penalty }
    }
}

/// Adds Σ actsᵢ · decᵢ over a token's latents to its row of `x_hat [n, d_in]`.
#[inline(always)]
fn decode(acts: &ByToken, dec: &[f32], d_in: usize, x_hat: &mut [f32]) {
    let row = |latent: u32| &dec[latent as usize * d_in..][..d_in];
    for (token, x_hat) in x_hat.chunks_exact_mut(d_in).enumerate() {
        let (latents, acts) = acts.of(token);
        let (fours, ones) = latents.as_chunks::<ABREAST>();
        let (act_fours, act_ones) = acts.as_chunks::<ABREAST>();
        for ([a, b, c, d], acts) in fours.iter().zip(act_fours) {
            add_rows(x_hat, *acts, [row(*a), row(*b), row(*c), row(*d)]);
        }
        for (latent, act) in ones.iter().zip(act_ones) {
            add(x_hat, *act, row(*latent));
        }
    }
}

/// ⟨error, decᵢ⟩ of every entry.
#[inline(always)]
fn pull<S: Simd>(simd: S, acts: &ByToken, dec: &[f32], d_in: usize, error: &[f32]) -> Vec<f32> {
    let mut pulls = Vec::with_capacity(acts.latents.len());
    for (token, error) in error.chunks_exact(d_in).enumerate() {
        for latent in acts.of(token).0 {
            pulls.push(dot(simd, error, &dec[*latent as usize * d_in..][..d_in]));
        }
    }
    pulls
}

/// [`decode`] as a product with the whole decoder.
#[inline(always)]
fn decode_dense<S: Simd>(simd: S, acts: &ByToken, columns: &[Along], d_in: usize, x_hat: &mut [f32]) {
    let d_sae = columns.len() / d_in.div_ceil(COLUMNS);
    let extent =
        Extent { groups: acts.tokens().div_ceil(ROWS), panels: d_in.div_ceil(COLUMNS), terms: d_sae };
    let mut across = vec![[0.0; ROWS]; extent.groups * d_sae];
    for token in 0..acts.tokens() {
        let group = &mut across[token / ROWS * d_sae..][..d_sae];
        let (latents, acts) = acts.of(token);
        for (latent, act) in latents.iter().zip(acts) {
            group[*latent as usize][token % ROWS] = *act;
        }
    }
    tiles::for_each(
        simd,
        extent,
        &mut Dense { across, along: columns, terms: d_sae, width: d_in, sums: x_hat },
    );
}

/// A product whose tiles are added to the rows of a matrix.
pub(super) struct Dense<'a> {
    /// `[groups, terms]`.
    pub(super) across: Vec<Across>,
    /// `[panels, terms]`.
    pub(super) along: &'a [Along],
    pub(super) terms: usize,
    /// Columns of the matrix.
    pub(super) width: usize,
    pub(super) sums: &'a mut [f32],
}

impl Tiles for Dense<'_> {
    #[inline(always)]
    fn multiply<S: Simd>(&mut self, simd: S, at: [usize; 2], terms: Range<usize>, tiles: &mut [Tile]) {
        tile::multiply_at(simd, (&self.across, self.along), self.terms, at, terms, tiles);
    }

    #[inline(always)]
    fn done<S: Simd>(&mut self, _: S, [group, panel]: [usize; 2], tile: &Tile) {
        let rows = self.sums.chunks_exact_mut(self.width).skip(group * ROWS);
        for (row, lines) in rows.zip(tile) {
            let row = row.chunks_mut(COLUMNS).nth(panel).expect("panels end where rows end");
            for (row, line) in row.chunks_mut(LANES).zip(lines) {
                row.iter_mut().zip(&line.0).for_each(|(sum, value)| *sum += value);
            }
        }
    }
}

/// [`pull`] as a product with the whole decoder.
#[inline(always)]
fn pull_dense<S: Simd>(
    simd: S,
    acts: &ByToken,
    rows: &[Along],
    d_in: usize,
    d_sae: usize,
    error: &[f32],
) -> Vec<f32> {
    let extent =
        Extent { groups: acts.tokens().div_ceil(ROWS), panels: d_sae.div_ceil(COLUMNS), terms: d_in };
    let next = (0..acts.tokens()).map(|token| acts.begin(token)).collect();
    let pulls = vec![0.0; acts.latents.len()];
    let mut back = Back { across: pack::across(error, d_in), along: rows, d_in, acts, next, pulls };
    tiles::for_each(simd, extent, &mut back);
    back.pulls
}

/// A product of which only the entries of tokens matter.
struct Back<'a> {
    across: Vec<Across>,
    along: &'a [Along],
    d_in: usize,
    acts: &'a ByToken,
    /// Of every token, the first entry whose panel is still to come.
    next: Vec<usize>,
    pulls: Vec<f32>,
}

impl Tiles for Back<'_> {
    #[inline(always)]
    fn multiply<S: Simd>(&mut self, simd: S, at: [usize; 2], terms: Range<usize>, tiles: &mut [Tile]) {
        tile::multiply_at(simd, (&self.across, self.along), self.d_in, at, terms, tiles);
    }

    #[inline(always)]
    fn done<S: Simd>(&mut self, _: S, [group, panel]: [usize; 2], tile: &Tile) {
        for (token, lines) in (group * ROWS..self.next.len()).zip(tile) {
            let end = self.acts.begin(token + 1);
            let next = &mut self.next[token];
            while *next < end {
                let column = self.acts.latents[*next] as usize - panel * COLUMNS;
                let Some(line) = lines.get(column / LANES) else { break };
                self.pulls[*next] = line.0[column % LANES];
                *next += 1;
            }
        }
    }
}
