//! The product of a few tokens with a few latents, in registers: the inner loop of every dense product here.
//!
//! Both operands are packed, so that the loop reads them from front to back: for every term of the sums, `a` holds the
//! numbers *across* the rows of a tile, [`ROWS`] of them, and `b` those *along* its columns, [`COLUMNS`]. Of the 32 registers of AVX-512, 24 hold sums, 3 hold numbers of `b`; 24 sums are what two
//! units with a latency of four cycles need, three times over, and 11 loads serve 24 multiplications. On a Zen 5 core this
//! runs at 98 % of what the multipliers can do, as long as `b` comes from the second-level cache.

use std::ops::Range;

use pulp::Simd;

use super::line::{LANES, Line};

/// Rows of a tile: tokens.
pub(super) const ROWS: usize = 8;

/// Lines in a row of a tile.
pub(super) const LINES: usize = 3;

/// Columns of a tile: latents.
pub(super) const COLUMNS: usize = LINES * LANES;

/// Numbers of `a` for one term.
pub(super) type Across = [f32; ROWS];

/// Numbers of `b` for one term.
pub(super) type Along = [Line; LINES];

/// A product of [`ROWS`] × [`COLUMNS`].
pub(super) type Tile = [Along; ROWS];

/// What a sum starts from.
pub(super) const ZEROS: Tile = [[Line::ZERO; LINES]; ROWS];

/// `tile += a·b`, where `a` and `b` have as many elements: the terms of a sum.
#[inline(always)]
pub(super) fn multiply<S: Simd>(simd: S, a: &[Across], b: &[Along], tile: &mut Tile) {
    // With vectors of half the width there are half as many registers.
    let groups = LANES / S::F32_LANES;
    for group in 0..groups {
        if groups == 1 {
            rows::<S, ROWS>(simd, a, 0, b, group, tile);
        } else {
            rows::<S, { ROWS / 2 }>(simd, a, 0, b, group, tile);
            rows::<S, { ROWS / 2 }>(simd, a, ROWS / 2, b, group, tile);
        }
    }
}

/// Adds `terms` of as many groups of rows as there are `tiles`, from `group` on, and a panel of columns; `across [groups,
/// width]` and `along [panels, width]` are whole operands, whose sums have `width` terms.
#[inline(always)]
pub(super) fn multiply_at<S: Simd>(
    simd: S,
    (across, along): (&[Across], &[Along]),
    width: usize,
    [group, panel]: [usize; 2],
    terms: Range<usize>,
    tiles: &mut [Tile],
) {
    let along = &along[panel * width..][terms.clone()];
    for (group, tile) in (group..).zip(tiles) {
        multiply(simd, &across[group * width..][terms.clone()], along, tile);
    }
}

/// `M` rows from `first` on, and vector `group` of every line.
#[inline(always)]
fn rows<S: Simd, const M: usize>(
    simd: S,
    a: &[Across],
    first: usize,
    b: &[Along],
    group: usize,
    tile: &mut Tile,
) {
    let mut sums = [[simd.splat_f32s(0.0); LINES]; M];
    for (sums, line) in sums.iter_mut().zip(&tile[first..]) {
        for (sum, line) in sums.iter_mut().zip(line) {
            *sum = line.vectors::<S>()[group];
        }
    }
    for (a, b) in a.iter().zip(b) {
        let b = [b[0].vectors::<S>()[group], b[1].vectors::<S>()[group], b[2].vectors::<S>()[group]];
        for (sums, a) in sums.iter_mut().zip(&a[first..first + M]) {
            let a = simd.splat_f32s(*a);
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = simd.mul_add_e_f32s(a, b, *sum);
            }
        }
    }
    for (sums, line) in sums.iter().zip(&mut tile[first..]) {
        for (sum, line) in sums.iter().zip(line) {
            line.vectors_mut::<S>()[group] = *sum;
        }
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use pulp::{
        Scalar, WithSimd,
        x86::{V3, V4},
    };

    use super::*;

    const TERMS: usize = 37;

    struct Product<'a> {
        a: &'a [Across],
        b: &'a [Along],
    }

    impl WithSimd for Product<'_> {
        type Output = Vec<f32>;

        fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
            let mut tile = [[Line([0.5; LANES]); LINES]; ROWS];
            multiply(simd, self.a, self.b, &mut tile);
            tile.iter().flatten().flat_map(|line| line.0).collect()
        }
    }

    /// Small whole numbers, whose sums are exact in any order.
    fn number(i: usize) -> f32 {
        ((i * i + 3 * i) % 11) as f32 - 5.0
    }

    #[test]
    fn a_tile_is_a_product_whatever_the_vectors() {
        let a: Vec<Across> = (0..TERMS).map(|k| std::array::from_fn(|row| number(k * ROWS + row))).collect();
        let column = |k: usize, column: usize| number(7 * k + column);
        let along =
            |k| std::array::from_fn(|j| Line(std::array::from_fn(|lane| column(k, j * LANES + lane))));
        let b: Vec<Along> = (0..TERMS).map(along).collect();
        let sum = |row: usize, c: usize| 0.5 + (0..TERMS).map(|k| a[k][row] * column(k, c)).sum::<f32>();
        let expected: Vec<f32> = (0..ROWS * COLUMNS).map(|i| sum(i / COLUMNS, i % COLUMNS)).collect();
        let product = || Product { a: &a, b: &b };
        assert_eq!(product().with_simd(Scalar::new()), expected);
        if let Some(simd) = V3::try_new() {
            assert_eq!(Simd::vectorize(simd, product()), expected);
        }
        if let Some(simd) = V4::try_new() {
            assert_eq!(Simd::vectorize(simd, product()), expected);
        }
    }
}
