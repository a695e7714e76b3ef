//! Numbers as they lie on disk: little-endian f32, f16 or bf16.

use std::fmt;

use half::{bf16, f16, slice::HalfFloatSliceExt};
use pulp::Arch;
use serde::{Deserialize, Serialize};

/// The type of a stored activation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VectorDtype {
    /// 32 bits: as computed.
    #[default]
    F32,
    /// 16 bits: 11 significant bits, up to 65504.
    F16,
    /// 16 bits: 8 significant bits, the range of f32.
    BF16,
}

impl VectorDtype {
    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }

    /// The name in configurations and metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::F32, Self::F16, Self::BF16].into_iter().find(|dtype| dtype.name() == name)
    }

    /// The largest number.
    pub(crate) fn limit(self) -> f32 {
        match self {
            Self::F32 => f32::MAX,
            Self::F16 => f16::MAX.to_f32(),
            Self::BF16 => bf16::MAX.to_f32(),
        }
    }

    /// The first of `values` that is not a number of this type.
    pub(crate) fn first_unfit(self, values: &[f32]) -> Option<usize> {
        let limit = self.limit();
        // No early exit inside a block, so that it vectorises.
        let unfit = |value: &f32| value.is_nan() | (value.abs() > limit);
        const BLOCK: usize = 1024;
        let block =
            values.chunks(BLOCK).position(|block| block.iter().fold(false, |any, v| any | unfit(v)))?;
        let start = block * BLOCK;
        values[start..].iter().position(unfit).map(|i| start + i)
    }

    /// Appends `values` to `bytes`, rounded to nearest even.
    pub(crate) fn encode(self, values: &[f32], bytes: &mut Vec<u8>) {
        let start = bytes.len();
        bytes.resize(start + values.len() * self.bytes(), 0);
        let target = &mut bytes[start..];
        match self {
            Self::F32 => {
                for (target, value) in target.chunks_exact_mut(4).zip(values) {
                    target.copy_from_slice(&value.to_le_bytes());
                }
            }
            Self::F16 => by_blocks(values, target, |block, halves: &mut [f16]| {
                halves.convert_from_f32_slice(block);
            }),
            Self::BF16 => by_blocks(values, target, |block, halves: &mut [bf16]| {
                halves.convert_from_f32_slice(block);
            }),
        }
    }

    /// Writes the numbers of `bytes` over `values`, of which there are as many.
    pub(crate) fn decode(self, bytes: &[u8], values: &mut [f32]) {
        assert_eq!(bytes.len(), values.len() * self.bytes(), "as many numbers");
        match self {
            Self::F32 => {
                for (value, &bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                    *value = f32::from_le_bytes(bytes);
                }
            }
            Self::F16 => decode_f16(bytes, values),
            // Half of an f32: widening is a shift, which the compiler does many at a time.
            Self::BF16 => Arch::new().dispatch(
                #[inline(always)]
                || {
                    for (value, &bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                        *value = f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16);
                    }
                },
            ),
        }
    }
}

/// Eight at a time where the processor can. (So does `half`, but not in one loop, which takes three times as long.)
fn decode_f16(bytes: &[u8], values: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx") && std::arch::is_x86_feature_detected!("f16c") {
        // SAFETY: the processor has what it needs.
        return unsafe { decode_f16_by_eights(bytes, values) };
    }
    let mut halves = [f16::ZERO; BLOCK];
    for (values, bytes) in values.chunks_mut(BLOCK).zip(bytes.chunks(2 * BLOCK)) {
        let halves = &mut halves[..values.len()];
        for (half, &bytes) in halves.iter_mut().zip(bytes.as_chunks().0) {
            *half = f16::from_le_bytes(bytes);
        }
        halves.convert_to_f32_slice(values);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx,f16c")]
fn decode_f16_by_eights(bytes: &[u8], values: &mut [f32]) {
    use core::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};
    let (values, values_rest) = values.as_chunks_mut::<8>();
    let (bytes, bytes_rest) = bytes.as_chunks::<16>();
    for (values, bytes) in values.iter_mut().zip(bytes) {
        // SAFETY: 16 bytes are read and eight numbers written.
        unsafe {
            let halves = _mm_loadu_si128(bytes.as_ptr().cast());
            _mm256_storeu_ps(values.as_mut_ptr(), _mm256_cvtph_ps(halves));
        }
    }
    for (value, &bytes) in values_rest.iter_mut().zip(bytes_rest.as_chunks().0) {
        *value = f16::from_le_bytes(bytes).to_f32();
    }
}

impl fmt::Display for VectorDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Numbers converted at once, on the stack.
const BLOCK: usize = 512;

/// A 16-bit float, as bytes.
trait Half: Copy {
    const ZERO: Self;
    fn bytes(self) -> [u8; 2];
}

impl Half for f16 {
    const ZERO: Self = f16::ZERO;
    fn bytes(self) -> [u8; 2] {
        self.to_le_bytes()
    }
}

impl Half for bf16 {
    const ZERO: Self = bf16::ZERO;
    fn bytes(self) -> [u8; 2] {
        self.to_le_bytes()
    }
}

fn by_blocks<H: Half>(values: &[f32], target: &mut [u8], convert: impl Fn(&[f32], &mut [H])) {
    let mut halves = [H::ZERO; BLOCK];
    for (values, target) in values.chunks(BLOCK).zip(target.chunks_mut(2 * BLOCK)) {
        let halves = &mut halves[..values.len()];
        convert(values, halves);
        for (target, half) in target.chunks_exact_mut(2).zip(halves) {
            target.copy_from_slice(&half.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use VectorDtype::{BF16, F16, F32};

    fn round_trip(dtype: VectorDtype, values: &[f32]) -> Vec<f32> {
        let mut bytes = vec![7];
        dtype.encode(values, &mut bytes);
        assert_eq!(bytes.len(), 1 + values.len() * dtype.bytes());
        let mut back = vec![-7.0; values.len()];
        dtype.decode(&bytes[1..], &mut back);
        back
    }

    #[test]
    fn bytes_are_little_endian() {
        let encoded = |dtype: VectorDtype| {
            let mut bytes = Vec::new();
            dtype.encode(&[1.0, -2.0], &mut bytes);
            bytes
        };
        assert_eq!(encoded(F32), [0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0]);
        assert_eq!(encoded(F16), [0, 0x3c, 0, 0xc0]);
        assert_eq!(encoded(BF16), [0x80, 0x3f, 0, 0xc0]);
    }

    #[test]
    fn every_length_survives_to_its_precision() {
        for n in [0, 1, 7, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5] {
            let values: Vec<f32> = (0..n).map(|i| (i as f32 - 300.0) * 1.000_123).collect();
            assert_eq!(round_trip(F32, &values), values);
            for (dtype, relative) in [(F16, 1.0 / 2048.0), (BF16, 1.0 / 256.0)] {
                for (back, value) in round_trip(dtype, &values).iter().zip(&values) {
                    assert!((back - value).abs() <= value.abs() * relative, "{dtype}: {value} became {back}");
                }
            }
        }
        // To nearest even, as everybody rounds: 2049 lies between two f16, 257 between two bf16.
        assert_eq!(round_trip(F16, &[2049.0, 2051.0, 65504.0]), [2048.0, 2052.0, 65504.0]);
        assert_eq!(round_trip(BF16, &[257.0, 259.0]), [256.0, 260.0]);
    }

    #[test]
    fn what_does_not_fit_is_found() {
        let mut values = vec![1.0; 3000];
        for dtype in [F32, F16, BF16] {
            assert_eq!(dtype.first_unfit(&values), None);
        }
        values[2500] = -65505.0;
        assert_eq!((F16.first_unfit(&values), BF16.first_unfit(&values)), (Some(2500), None));
        values[1500] = f32::NAN;
        values[2000] = f32::INFINITY;
        assert_eq!([F32, F16, BF16].map(|d| d.first_unfit(&values)), [Some(1500); 3]);
        assert_eq!((F32.first_unfit(&[f32::MAX]), BF16.first_unfit(&[f32::MAX])), (None, Some(0)));
    }
}
