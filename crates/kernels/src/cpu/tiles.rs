//! The order in which a large product goes through its tiles, so that operands come from near caches.

use std::ops::Range;

use pulp::Simd;

use super::tile::{Tile, ZEROS};

/// Panels of columns whose numbers stay in the second-level cache while all rows pass by.
const PANELS: usize = 4;

/// Terms of a sum that one tile adds up at once, at most: four panels of so many fit the cache beside the rows.
const TERMS: usize = 640;

/// What a tile adds up at once is a multiple of this, but at the end: some multiply so many terms with one instruction.
pub(super) const STEP: usize = 16;

/// How many tiles a product has, and how many terms each of its sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Groups of rows.
    pub(super) groups: usize,
    /// Panels of columns.
    pub(super) panels: usize,
    pub(super) terms: usize,
}

/// A product: its operands, and what becomes of its tiles.
pub(super) trait Tiles {
    /// Groups that are multiplied together.
    const ABREAST: usize = 1;

    /// Adds some terms to the tiles of a panel of columns with so many groups of rows, the first of which is named.
    fn multiply<S: Simd>(&mut self, simd: S, at: [usize; 2], terms: Range<usize>, tiles: &mut [Tile]);

    /// Takes a finished tile. The panels of a group come in ascending order.
    fn done<S: Simd>(&mut self, simd: S, at: [usize; 2], tile: &Tile);

    /// Some panels of all groups are finished.
    fn panels_done<S: Simd>(&mut self, _: S) {}
}

/// Computes every tile of `product`.
#[inline(always)]
pub(super) fn for_each<S: Simd, T: Tiles>(simd: S, extent: Extent, product: &mut T) {
    let Extent { groups, panels, terms } = extent;
    let part = terms.div_ceil(terms.div_ceil(TERMS).max(1)).max(1).next_multiple_of(STEP);
    let mut tiles = vec![ZEROS; groups.next_multiple_of(T::ABREAST) * PANELS];
    for first in (0..panels).step_by(PANELS) {
        let block = first..(first + PANELS).min(panels);
        for begin in (0..terms).step_by(part) {
            let end = (begin + part).min(terms);
            for group in (0..groups).step_by(T::ABREAST) {
                for panel in block.clone() {
                    let tiles = &mut tiles[group * PANELS + (panel - first) * T::ABREAST..][..T::ABREAST];
                    if begin == 0 {
                        tiles.fill(ZEROS);
                    }
                    product.multiply(simd, [group, panel], begin..end, tiles);
                    if end == terms {
                        for (group, tile) in (group..groups).zip(tiles) {
                            product.done(simd, [group, panel], tile);
                        }
                    }
                }
            }
        }
        product.panels_done(simd);
    }
}
