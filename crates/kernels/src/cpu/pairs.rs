//! Numbers rounded to bf16, two by two, and the instructions that multiply them.
//!
//! What is needed of the instructions is little: that products of bf16 are exact or flushed to zero, and that every addition
//! rounds to nearest. [`screened`](super::screened) bounds what is lost for any order of additions.

#[cfg(any(test, all(target_arch = "x86_64", target_os = "linux")))]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx512;

use std::ops::Range;

use super::{
    line::LANES,
    tile::{LINES, Tile},
};

/// A line of pairs; the first of a pair is in the lower half.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct LinePairs(pub(super) [u32; LANES]);

impl LinePairs {
    pub(super) const ZERO: Self = Self([0; LANES]);
}

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

/// Instructions that multiply pairs.
pub(super) trait Multiply: Copy + Sync {
    /// Of a task.
    type Rows: Rows;

    /// Groups of rows that are multiplied together.
    const ABREAST: usize;

    /// Places that are multiplied together.
    const STEP: usize;

    /// `n` rows of zeros, with so many places: a multiple of [`STEP`](Self::STEP).
    fn rows(self, n: usize, places: usize) -> Self::Rows;
}

/// The left operand of a product, in the order in which its instructions read it.
pub(super) trait Rows {
    /// Writes a row. Places that it does not reach stay zeros.
    fn put(&mut self, row: usize, pairs: &[u32]);

    /// Adds the product of [`Multiply::ABREAST`] groups of rows, from `group` on, with `along`, which are some `places` of a
    /// panel of columns.
    fn multiply(&mut self, group: usize, places: Range<usize>, along: &[AlongPairs], tiles: &mut [Tile]);
}

/// The instructions that this processor has for pairs. On others there is no value of this type.
#[derive(Clone, Copy, Debug)]
pub(super) enum Multiplier {
    /// AMX-BF16.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx(amx::Amx<amx::Found>),
    /// AVX512-BF16.
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Found),
    /// AMX-BF16, acted out: to test on any processor what is done with it.
    #[cfg(test)]
    Portable(amx::Amx<amx::Portable>),
}

/// Something to do with instructions for pairs.
pub(super) trait WithMultiplier {
    type Output;

    fn with_multiplier<M: Multiply>(self, multiplier: M) -> Self::Output;
}

impl Multiplier {
    /// The fastest that is here, if any is.
    pub(super) fn detect() -> Option<Self> {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if let Some(found) = amx::Found::detect() {
            return Some(Self::Amx(amx::Amx(found)));
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(found) = avx512::Found::detect() {
            return Some(Self::Avx512(found));
        }
        None
    }

    /// Does `what`, compiled for these instructions.
    pub(super) fn dispatch<W: WithMultiplier>(self, what: W) -> W::Output {
        match self {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Self::Amx(amx) => what.with_multiplier(amx),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(found) => what.with_multiplier(found),
            #[cfg(test)]
            Self::Portable(amx) => what.with_multiplier(amx),
        }
    }

    /// All that are here, and what is everywhere.
    #[cfg(test)]
    pub(super) fn all() -> Vec<Self> {
        let all = [
            Some(Self::Portable(amx::Amx(amx::Portable))),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            amx::Found::detect().map(|found| Self::Amx(amx::Amx(found))),
            #[cfg(target_arch = "x86_64")]
            avx512::Found::detect().map(Self::Avx512),
        ];
        all.into_iter().flatten().collect()
    }
}
