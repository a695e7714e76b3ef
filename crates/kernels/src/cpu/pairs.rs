//! Numbers rounded to bf16, two by two, and the instructions that multiply them.

#[cfg(target_arch = "x86_64")]
mod avx512;

use super::{
    line::LANES,
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

/// The instructions that this processor has for pairs. On others there is no value of this type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Multiplier {
    /// AVX512-BF16.
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Found),
}

impl Multiplier {
    /// The fastest that is here, if any is.
    pub(super) fn detect() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if let Some(found) = avx512::Found::detect() {
            return Some(Self::Avx512(found));
        }
        None
    }

    /// `tile += a·b`, where `a` and `b` have as many elements.
    #[inline(always)]
    pub(super) fn multiply(self, a: &[AcrossPairs], b: &[AlongPairs], tile: &mut Tile) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(found) => found.multiply(a, b, tile),
        }
    }
}
