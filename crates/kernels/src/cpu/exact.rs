//! Pre-activations in f32.

use std::ops::Range;

use pulp::Simd;

use super::{
    encode::{Product, Side},
    line::{Line, padded},
    pack,
    tile::{self, Across, Along, Tile},
};

/// `W_enc` and `b_enc` in the order in which tiles read them.
pub(super) struct Exact {
    d_in: usize,
    /// `[d_sae / COLUMNS, d_in]`.
    weights: Vec<Along>,
    bias: Vec<Line>,
}

impl Exact {
    /// Packs `enc [d_sae, d_in]` and `b_enc [d_sae]`.
    pub(super) fn new(enc: &[f32], b_enc: &[f32], d_in: usize) -> Self {
        Self { d_in, weights: pack::along_rows(enc, d_in), bias: padded(b_enc) }
    }
}

impl Product for Exact {
    type Tokens = Vec<Across>;

    const EXACT: bool = true;

    const ABREAST: usize = 1;

    fn terms(&self) -> usize {
        self.d_in
    }

    #[inline(always)]
    fn tokens<S: Simd>(&self, _: S, x: &[f32]) -> Vec<Across> {
        pack::across(x, self.d_in)
    }

    #[inline(always)]
    fn multiply<S: Simd>(
        &self,
        simd: S,
        tokens: &mut Vec<Across>,
        at: [usize; 2],
        terms: Range<usize>,
        tiles: &mut [Tile],
    ) {
        tile::multiply_at(simd, (tokens, &self.weights), self.d_in, at, terms, tiles);
    }

    #[inline(always)]
    fn bound<S: Simd>(
        &self,
        simd: S,
        _: Side,
        _: &Vec<Across>,
        _: usize,
        line: usize,
        product: &Line,
    ) -> Line {
        let mut sum = Line::ZERO;
        let terms = product.vectors::<S>().iter().zip(self.bias[line].vectors::<S>());
        for (sum, (product, bias)) in sum.vectors_mut::<S>().iter_mut().zip(terms) {
            *sum = simd.add_f32s(*product, *bias);
        }
        sum
    }
}
