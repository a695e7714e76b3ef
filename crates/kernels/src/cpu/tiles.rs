//! The order in which a large product goes through its tiles, so that operands come from near caches.

use std::ops::Range;

use pulp::Simd;

use super::tile::{Tile, ZEROS};

/// Panels of columns whose numbers stay in the second-level cache while all rows pass by.
const PANELS: usize = 4;

/// Terms of a sum that one tile adds up at once, at most: four panels of so many fit the cache beside the rows.
const TERMS: usize = 640;

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
    /// Adds some terms to the tile of a group of rows and a panel of columns.
    fn multiply<S: Simd>(&self, simd: S, at: [usize; 2], terms: Range<usize>, tile: &mut Tile);

    /// Takes a finished tile. The panels of a group come in ascending order.
    fn done<S: Simd>(&mut self, simd: S, at: [usize; 2], tile: &Tile);

    /// Some panels of all groups are finished.
    fn panels_done<S: Simd>(&mut self, _: S) {}
}

/// Computes every tile of `product`.
#[inline(always)]
pub(super) fn for_each<S: Simd, T: Tiles>(simd: S, extent: Extent, product: &mut T) {
    let Extent { groups, panels, terms } = extent;
    let part = terms.div_ceil(terms.div_ceil(TERMS).max(1)).max(1);
    let mut tiles = vec![ZEROS; groups * PANELS];
    for first in (0..panels).step_by(PANELS) {
        let block = first..(first + PANELS).min(panels);
        for begin in (0..terms).step_by(part) {
            let end = (begin + part).min(terms);
            for group in 0..groups {
                for panel in block.clone() {
                    let tile = &mut tiles[group * PANELS + panel - first];
                    if begin == 0 {
                        *tile = ZEROS;
                    }
                    product.multiply(simd, [group, panel], begin..end, tile);
                    if end == terms {
                        product.done(simd, [group, panel], tile);
                    }
                }
            }
        }
        product.panels_done(simd);
    }
}
