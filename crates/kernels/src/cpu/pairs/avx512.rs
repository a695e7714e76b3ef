//! Pairs by AVX512-BF16: two products and two additions a lane and instruction, twice what f32 gets.

use std::{
    arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_load_ps, _mm512_load_si512, _mm512_set1_epi32,
        _mm512_setzero_ps, _mm512_store_ps,
    },
    ops::Range,
};

use super::{AlongPairs, LinePairs, Multiply};
use crate::cpu::{
    line::Line,
    tile::{LINES, ROWS, Tile},
};

/// Pairs of a tile's rows at one place.
type AcrossPairs = [u32; ROWS];

/// Proof that the processor has the instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cpu) struct Found(());

impl Found {
    pub(super) fn detect() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16");
        found.then_some(Self(()))
    }
}

impl Multiply for Found {
    type Rows = Rows;

    const ABREAST: usize = 1;

    const STEP: usize = 1;

    #[inline(always)]
    fn rows(self, n: usize, places: usize) -> Rows {
        Rows { _found: self, places, pairs: vec![[0; ROWS]; n.div_ceil(ROWS) * places] }
    }
}

/// `[n / ROWS, places]`: tokens as their numbers are spread over registers.
pub(in crate::cpu) struct Rows {
    _found: Found,
    places: usize,
    pairs: Vec<AcrossPairs>,
}

impl super::Rows for Rows {
    #[inline(always)]
    fn put(&mut self, row: usize, pairs: &[u32]) {
        let group = &mut self.pairs[row / ROWS * self.places..][..self.places];
        let i = row % ROWS;
        group.iter_mut().zip(pairs).for_each(|(across, pair)| across[i] = *pair);
    }

    #[inline(always)]
    fn multiply(&mut self, group: usize, places: Range<usize>, along: &[AlongPairs], tiles: &mut [Tile]) {
        let across = &self.pairs[group * self.places..][places];
        // SAFETY: a `Found` exists only where both features were found.
        unsafe { multiply(across, along, &mut tiles[0]) }
    }
}

/// `tile += a·b`.
#[allow(clippy::needless_range_loop, reason = "indices that are known beforehand keep the sums in registers")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn multiply(a: &[AcrossPairs], b: &[AlongPairs], tile: &mut Tile) {
    let splat = |pair: u32| pairs(_mm512_set1_epi32(pair as i32));
    let mut sums = [[_mm512_setzero_ps(); LINES]; ROWS];
    for i in 0..ROWS {
        for j in 0..LINES {
            sums[i][j] = load(&tile[i][j]);
        }
    }
    for (a, b) in a.iter().zip(b) {
        let b = [pairs(load_pairs(&b[0])), pairs(load_pairs(&b[1])), pairs(load_pairs(&b[2]))];
        for i in 0..ROWS {
            let a = splat(a[i]);
            for j in 0..LINES {
                sums[i][j] = _mm512_dpbf16_ps(sums[i][j], a, b[j]);
            }
        }
    }
    for i in 0..ROWS {
        for j in 0..LINES {
            store(&mut tile[i][j], sums[i][j]);
        }
    }
}

/// The same bits, by another name.
#[inline(always)]
fn pairs(bits: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes, all of whose values mean something.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(bits) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(line: &Line) -> __m512 {
    // SAFETY: a line has 64 bytes and is aligned to them.
    unsafe { _mm512_load_ps(line.0.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(line: &mut Line, values: __m512) {
    // SAFETY: as in `load`.
    unsafe { _mm512_store_ps(line.0.as_mut_ptr(), values) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_pairs(line: &LinePairs) -> __m512i {
    // SAFETY: as in `load`.
    unsafe { _mm512_load_si512(line.0.as_ptr().cast()) }
}
