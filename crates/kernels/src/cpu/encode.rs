//! Encoding: the dense product of tokens with all latents, and the choice of those that are active. Pre-activations
//! are looked at while they are in registers or in the nearest cache, and only the active ones are kept.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::{
    line::{LANES, Line, bits},
    select::{self, Candidates, Entries, Select},
    tile::{Along, COLUMNS, LINES, ROWS, Tile},
    tiles::{self, Extent, Tiles},
    vectors::dot,
};

/// A way to compute pre-activations, or bounds on them, tile by tile.
pub(super) trait Product: Sync {
    /// Tokens of a task, packed.
    type Tokens;

    /// Whether [`Product::bound`] is always the pre-activations themselves.
    const EXACT: bool;

    /// Groups of tokens that are multiplied together.
    const ABREAST: usize;

    /// Terms of a sum.
    fn terms(&self) -> usize;

    /// Packs `x [n, d_in]`.
    fn tokens<S: Simd>(&self, simd: S, x: &[f32]) -> Self::Tokens;

    /// Adds some terms of the product of so many groups of tokens, from that one on, with a panel of latents.
    fn multiply<S: Simd>(
        &self,
        simd: S,
        tokens: &mut Self::Tokens,
        at: [usize; 2],
        terms: Range<usize>,
        tiles: &mut [Tile],
    );

    /// A bound on the pre-activations of a line of latents on `token`, whose whole product this is.
    fn bound<S: Simd>(
        &self,
        simd: S,
        side: Side,
        tokens: &Self::Tokens,
        token: usize,
        line: usize,
        product: &Line,
    ) -> Line;
}

/// What a bound is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Lower,
    Upper,
}

/// Encodes `x [n, d_in]` with `enc [d_sae, d_in]` and `b_enc [d_sae]`, which `product` holds packed: the entries of
/// every token.
pub(super) fn encode<P: Product>(
    product: &P,
    [enc, b_enc]: [&[f32]; 2],
    select: Select<'_>,
    x: &[f32],
) -> Vec<Entries> {
    Arch::new().dispatch(Encode { product, enc, b_enc, select, x })
}

struct Encode<'a, P> {
    product: &'a P,
    enc: &'a [f32],
    b_enc: &'a [f32],
    select: Select<'a>,
    x: &'a [f32],
}

impl<P: Product> WithSimd for Encode<'_, P> {
    type Output = Vec<Entries>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<Entries> {
        let Self { product, enc, b_enc, select, x } = self;
        let d_in = enc.len() / b_enc.len();
        let n = x.len() / d_in;
        let tokens = product.tokens(simd, x);
        let mut rows = Vec::with_capacity(n);
        rows.resize_with(n, || Candidates::above(select.floor()));
        let extent = Extent {
            groups: n.div_ceil(ROWS),
            panels: b_enc.len().div_ceil(COLUMNS),
            terms: product.terms(),
        };
        let mut encoding = Encoding { product, tokens, d_sae: b_enc.len(), select, rows };
        tiles::for_each(simd, extent, &mut encoding);
        let mut entries = Vec::with_capacity(n);
        for (mut row, x) in encoding.rows.into_iter().zip(x.chunks_exact(d_in)) {
            if let Select::Largest(k) = select {
                row.prune(simd, k);
            }
            let mut of_row = row.entries();
            if !P::EXACT {
                refine(simd, [enc, b_enc], select, x, &mut of_row);
            }
            if let Select::Largest(k) = select {
                select::largest(k, &mut of_row);
            }
            entries.push(of_row);
        }
        entries
    }
}

/// Replaces the bounds in a token's entries by the pre-activations themselves, and keeps those above their floors.
#[inline(always)]
fn refine<S: Simd>(simd: S, [enc, b_enc]: [&[f32]; 2], select: Select<'_>, x: &[f32], entries: &mut Entries) {
    let mut kept = 0;
    for i in 0..entries.len() {
        let latent = entries[i].0;
        let row = latent as usize * x.len();
        let value = dot(simd, x, &enc[row..][..x.len()]) + b_enc[latent as usize];
        entries[kept] = (latent, value);
        let below = value <= select.floor_of(latent);
        kept += usize::from(!below);
    }
    entries.truncate(kept);
}

/// Tokens of a task while they are encoded.
struct Encoding<'a, P: Product> {
    product: &'a P,
    tokens: P::Tokens,
    d_sae: usize,
    select: Select<'a>,
    rows: Vec<Candidates>,
}

impl<P: Product> Encoding<'_, P> {
    /// Bounds on the pre-activations of a panel of latents on `token`.
    #[inline(always)]
    fn bounds<S: Simd>(&self, simd: S, side: Side, token: usize, panel: usize, lines: &Along) -> Along {
        let mut bounds = *lines;
        for (j, bound) in bounds.iter_mut().enumerate() {
            *bound = self.product.bound(simd, side, &self.tokens, token, panel * LINES + j, &lines[j]);
        }
        bounds
    }
}

impl<P: Product> Tiles for Encoding<'_, P> {
    const ABREAST: usize = P::ABREAST;

    #[inline(always)]
    fn multiply<S: Simd>(&mut self, simd: S, at: [usize; 2], terms: Range<usize>, tiles: &mut [Tile]) {
        self.product.multiply(simd, &mut self.tokens, at, terms, tiles);
    }

    /// Keeps what may be above the floors.
    #[inline(always)]
    fn done<S: Simd>(&mut self, simd: S, [group, panel]: [usize; 2], tile: &Tile) {
        let latents = (self.d_sae - panel * COLUMNS).min(COLUMNS);
        for (i, lines) in tile.iter().enumerate().take(self.rows.len() - group * ROWS) {
            let token = group * ROWS + i;
            let upper = self.bounds(simd, Side::Upper, token, panel, lines);
            let floor = simd.splat_f32s(self.rows[token].floor);
            // What is no number is not below either: it goes on, and spoils the loss for all to see.
            let mut below = 0_u64;
            for (j, upper) in upper.iter().enumerate() {
                for (k, upper) in upper.vectors::<S>().iter().enumerate() {
                    let floor = match self.select {
                        Select::Each(floors) => floors.line(panel * LINES + j).vectors::<S>()[k],
                        _ => floor,
                    };
                    let bits = bits::<S>(simd.less_than_or_equal_f32s(*upper, floor));
                    below |= u64::from(bits) << (j * LANES + k * S::F32_LANES);
                }
            }
            let mut above = !below & ((1 << latents) - 1);
            if above == 0 {
                continue;
            }
            let lower = if P::EXACT || !self.select.prunes() {
                upper
            } else {
                self.bounds(simd, Side::Lower, token, panel, lines)
            };
            let row = &mut self.rows[token];
            while above != 0 {
                let column = above.trailing_zeros() as usize;
                above &= above - 1;
                let (j, lane) = (column / LANES, column % LANES);
                row.push((panel * COLUMNS + column) as u32, lower[j].0[lane], upper[j].0[lane]);
            }
        }
    }

    #[inline(always)]
    fn panels_done<S: Simd>(&mut self, simd: S) {
        if let Select::Largest(k) = self.select {
            for row in &mut self.rows {
                if row.crowded(k) {
                    row.prune(simd, k);
                }
            }
        }
    }
}
