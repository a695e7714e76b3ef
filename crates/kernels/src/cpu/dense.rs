//! Through the decoder and back as products with all of it, for when many latents are active.

use std::ops::Range;

use pulp::Simd;

use super::{
    active::ByToken,
    line::LANES,
    pack,
    tile::{self, Across, Along, COLUMNS, ROWS, Tile},
    tiles::{self, Extent, Tiles},
};

/// A decoder in the order in which tiles read it.
pub(super) struct Packed {
    /// For decoding, `[d_out / COLUMNS, d_sae]`.
    columns: Vec<Along>,
    /// For the way back, `[d_sae / COLUMNS, d_out]`.
    rows: Vec<Along>,
    d_out: usize,
    d_sae: usize,
}

impl Packed {
    /// Packs `dec [d_sae, d_out]`.
    pub(super) fn new(dec: &[f32], d_out: usize) -> Self {
        let (columns, rows) = (pack::along_columns(&[dec], d_out), pack::along_rows(dec, d_out));
        Self { columns, rows, d_out, d_sae: dec.len() / d_out }
    }

    /// Adds what all entries decode to, to `x_hat [n, d_out]`.
    #[inline(always)]
    pub(super) fn decode<S: Simd>(&self, simd: S, entries: &ByToken, acts: &[f32], x_hat: &mut [f32]) {
        let groups = entries.tokens().div_ceil(ROWS);
        let extent = Extent { groups, panels: self.d_out.div_ceil(COLUMNS), terms: self.d_sae };
        let mut across = vec![[0.0; ROWS]; groups * self.d_sae];
        for token in 0..entries.tokens() {
            let group = &mut across[token / ROWS * self.d_sae..][..self.d_sae];
            for i in entries.of(token) {
                group[entries.latents[i] as usize][token % ROWS] = acts[i];
            }
        }
        let (along, terms, width) = (&self.columns[..], self.d_sae, self.d_out);
        tiles::for_each(simd, extent, &mut Sums { across, along, terms, width, sums: x_hat });
    }

    /// ⟨error, decᵢ⟩ of every entry; `error [n, d_out]`.
    #[inline(always)]
    pub(super) fn back<S: Simd>(&self, simd: S, entries: &ByToken, error: &[f32]) -> Vec<f32> {
        let groups = entries.tokens().div_ceil(ROWS);
        let extent = Extent { groups, panels: self.d_sae.div_ceil(COLUMNS), terms: self.d_out };
        let next = (0..entries.tokens()).map(|token| entries.of(token).start).collect();
        let dots = vec![0.0; entries.latents.len()];
        let across = pack::across(error, self.d_out);
        let mut back = Back { across, along: &self.rows, terms: self.d_out, entries, next, dots };
        tiles::for_each(simd, extent, &mut back);
        back.dots
    }
}

/// A product that is added to `sums [n, width]`.
pub(super) struct Sums<'a> {
    pub(super) across: Vec<Across>,
    pub(super) along: &'a [Along],
    pub(super) terms: usize,
    pub(super) width: usize,
    pub(super) sums: &'a mut [f32],
}

impl Tiles for Sums<'_> {
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

/// A product of which only the entries of tokens matter.
struct Back<'a> {
    across: Vec<Across>,
    along: &'a [Along],
    terms: usize,
    entries: &'a ByToken,
    /// Of every token, the first entry whose panel is still to come.
    next: Vec<usize>,
    dots: Vec<f32>,
}

impl Tiles for Back<'_> {
    #[inline(always)]
    fn multiply<S: Simd>(&mut self, simd: S, at: [usize; 2], terms: Range<usize>, tiles: &mut [Tile]) {
        tile::multiply_at(simd, (&self.across, self.along), self.terms, at, terms, tiles);
    }

    #[inline(always)]
    fn done<S: Simd>(&mut self, _: S, [group, panel]: [usize; 2], tile: &Tile) {
        for (token, lines) in (group * ROWS..self.next.len()).zip(tile) {
            let end = self.entries.of(token).end;
            let next = &mut self.next[token];
            while *next < end {
                let column = self.entries.latents[*next] as usize - panel * COLUMNS;
                let Some(line) = lines.get(column / LANES) else { break };
                self.dots[*next] = line.0[column % LANES];
                *next += 1;
            }
        }
    }
}
