//! Sixteen numbers on a cache line of their own: what packed matrices are made of.

use pulp::{Simd, bytemuck};

/// Numbers in a [`Line`].
pub(super) const LANES: usize = 16;

/// As many numbers as the widest vectors hold, aligned so that reading them touches one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [f32; LANES]);

impl Line {
    pub(super) const ZERO: Self = Self([0.0; LANES]);

    /// The same numbers as vectors: one, or several where they are narrower.
    #[inline(always)]
    pub(super) fn vectors<S: Simd>(&self) -> &[S::f32s] {
        S::as_simd_f32s(&self.0).0
    }

    /// The same, to write to.
    #[inline(always)]
    pub(super) fn vectors_mut<S: Simd>(&mut self) -> &mut [S::f32s] {
        S::as_mut_simd_f32s(&mut self.0).0
    }
}

/// `values` in lines; the last is filled up with `fill`.
pub(super) fn lines(values: &[f32], fill: f32) -> Vec<Line> {
    let line = |chunk: &[f32]| {
        let mut line = Line([fill; LANES]);
        line.0[..chunk.len()].copy_from_slice(chunk);
        line
    };
    values.chunks(LANES).map(line).collect()
}

/// Bit `i` is lane `i` of `mask`.
#[inline(always)]
pub(super) fn bits<S: Simd>(mask: S::m32s) -> u32 {
    let bytes = bytemuck::bytes_of(&mask);
    if S::F32_LANES == LANES {
        // AVX-512 has masks of bits already.
        return u32::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    }
    let lane = bytes.len() / S::F32_LANES;
    (0..S::F32_LANES).fold(0, |bits, i| bits | (u32::from(bytes[i * lane] != 0) << i))
}
