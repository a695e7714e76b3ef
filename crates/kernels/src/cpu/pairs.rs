//! Numbers rounded to bf16, two by two, and the instructions that multiply them.

#![allow(unsafe_code)]

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_load_ps, _mm512_load_si512, _mm512_set1_epi32,
    _mm512_setzero_ps, _mm512_store_ps,
};

use super::{
    line::{LANES, Line},
    tile::{LINES, ROWS, Tile},
};

/// A line of pairs; the first of a pair is in the lower half.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct LinePairs(pub(super) [u32; LANES]);

impl LinePairs {
    pub(super) const ZERO: Self = Self([0; LANES]);
}

/// Pairs of a tile's rows at one place.
pub(super) type AcrossPairs = [u32; ROWS];

/// Pairs of a tile's columns at one place.
pub(super) type AlongPairs = [LinePairs; LINES];

/// The bits of the nearest bf16, ties to even. Numbers too small for it to hold in full are 0, as the processor takes
/// them.
#[inline(always)]
pub(super) fn bf16(value: f32) -> u32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    if rounded & 0x7f80 == 0 { 0 } else { rounded }
}

/// The number with these bits.
#[inline(always)]
pub(super) fn value(bf16: u32) -> f32 {
    f32::from_bits(bf16 << 16)
}

/// The instructions that this processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Multiplier {
    /// AVX512-BF16. Made by [`Multiplier::detect`] alone.
    Avx512,
}

impl Multiplier {
    /// The fastest that is here, if any is.
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16"))
            .then_some(Self::Avx512)
    }

    /// `tile += a·b`, where `a` and `b` have as many elements.
    #[inline(always)]
    pub(super) fn multiply(self, a: &[AcrossPairs], b: &[AlongPairs], tile: &mut Tile) {
        match self {
            // SAFETY: a value of this variant exists only where both features were found.
            Self::Avx512 => unsafe { avx512(a, b, tile) },
        }
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn avx512(a: &[AcrossPairs], b: &[AlongPairs], tile: &mut Tile) {
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
