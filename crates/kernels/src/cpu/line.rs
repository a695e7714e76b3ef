//! Sixteen numbers on a cache line of their own: what packed matrices are made of.

use pulp::{Simd, bytemuck};

use super::tile::LINES;

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

/// `values` in whole panels of lines, filled up with 0.
pub(super) fn padded(values: &[f32]) -> Vec<Line> {
    let mut lines = lines(values, 0.0);
    lines.resize(values.len().div_ceil(LINES * LANES) * LINES, Line::ZERO);
    lines
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

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use pulp::{
        WithSimd,
        x86::{V3, V4},
    };

    use super::*;

    struct Above(f32);

    impl WithSimd for Above {
        type Output = u32;

        fn with_simd<S: Simd>(self, simd: S) -> u32 {
            let line = Line(std::array::from_fn(|i| (i * 7 % LANES) as f32));
            let floor = simd.splat_f32s(self.0);
            let vectors = line.vectors::<S>().iter().enumerate();
            vectors.fold(0, |all, (i, vector)| {
                all | bits::<S>(simd.greater_than_f32s(*vector, floor)) << (i * S::F32_LANES)
            })
        }
    }

    #[test]
    fn a_lane_is_a_bit_whatever_the_vectors() {
        for floor in [-1.0, 3.5, 11.0, 15.0] {
            let expected =
                (0..LANES).fold(0, |bits, i| bits | u32::from((i * 7 % LANES) as f32 > floor) << i);
            assert_eq!(Above(floor).with_simd(pulp::Scalar::new()), expected);
            let found = [
                V3::try_new().map(|simd| Simd::vectorize(simd, Above(floor))),
                V4::try_new().map(|simd| Simd::vectorize(simd, Above(floor))),
            ];
            assert!(found.into_iter().flatten().all(|bits| bits == expected), "{found:?} {expected}");
        }
    }

    #[test]
    fn lines_are_filled_up() {
        let values: Vec<f32> = (0..LANES + 2).map(|i| i as f32).collect();
        let lines = lines(&values, -1.0);
        assert_eq!(
            (lines.len(), lines[0].0[15], lines[1].0[..3].to_vec()),
            (2, 15.0, vec![16.0, 17.0, -1.0])
        );
        assert_eq!(align_of::<Line>(), size_of::<Line>());
    }
}
