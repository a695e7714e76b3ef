//! Rotary position embeddings (Su et al., 2021, arXiv:2104.09864), in the half-split form of transformers:
//! dimension `i` of those that are rotated, a head's first ones, is paired with `i + d_rotated / 2`.

use burn::tensor::Tensor;
use pulp::Arch;

use super::RopeScaling;

/// The rotation angles of one head.
///
/// All in single precision, as transformers has it: at position 2000 the rounding of a frequency moves the angle by
/// 1e-4, so that a more exact table would be a different model.
#[derive(Clone, Debug)]
pub(crate) struct Rotary {
    /// Radians a position, `[d_rotated / 2]`.
    frequencies: Vec<f32>,
    /// The longest sequence that those are for, and the frequencies for longer ones.
    long: Option<(usize, Vec<f32>)>,
    /// What cosines and sines are multiplied with.
    magnitude: f32,
}

impl Rotary {
    /// Frequencies `theta^(-2i / d_rotated)`, scaled. `d_rotated` is even, and `scaling` has been checked with it.
    pub(crate) fn new(d_rotated: usize, theta: f64, scaling: Option<&RopeScaling>) -> Self {
        let period = |i: usize| {
            // The power of an f32 exponent, rounded once: torch's own is off by one unit in a few of a hundred.
            let exponent = (2 * i) as f32 / d_rotated as f32;
            theta.powf(f64::from(exponent)) as f32
        };
        let periods: Vec<f32> = (0..d_rotated / 2).map(period).collect();
        let Some(scaling) = scaling else {
            let frequencies = periods.iter().map(|period| 1.0 / period).collect();
            return Self { frequencies, long: None, magnitude: 1.0 };
        };
        Self {
            frequencies: scaling.apply(&periods, theta, false),
            long: scaling.short_up_to().map(|most| (most, scaling.apply(&periods, theta, true))),
            magnitude: scaling.magnitude(),
        }
    }

    /// Cosines and sines of the angles at positions `0..seq_len` of a sequence so long, each `[seq_len, d_rotated / 2]`
    /// row by row.
    pub(crate) fn tables(&self, seq_len: usize) -> (Vec<f32>, Vec<f32>) {
        let frequencies = self.frequencies(seq_len);
        let angles = (0..seq_len)
            .flat_map(|position| frequencies.iter().map(move |frequency| position as f32 * frequency));
        let scaled = |x: f64| x as f32 * self.magnitude;
        angles.map(|angle| (scaled(f64::from(angle).cos()), scaled(f64::from(angle).sin()))).unzip()
    }

    /// Those of sequences so long.
    fn frequencies(&self, seq_len: usize) -> &[f32] {
        match &self.long {
            Some((most, long)) if seq_len > *most => long,
            _ => &self.frequencies,
        }
    }

    /// Half the number of dimensions that are rotated.
    pub(crate) fn half(&self) -> usize {
        self.frequencies.len()
    }
}

/// Rotates heads.
///
/// # Shapes
/// `x` and the result: `[batch, heads, seq, d_head]`; `cos`, `sin`: `[seq, d_rotated / 2]`.
pub(crate) fn rotate(x: Tensor<4>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<4> {
    let (d_head, half) = (x.dims()[3], cos.dims()[1]);
    let (cos, sin) = (cos.unsqueeze::<4>(), sin.unsqueeze::<4>());
    let (a, b) = (x.clone().narrow(3, 0, half), x.clone().narrow(3, half, half));
    let first = a.clone() * cos.clone() - b.clone() * sin.clone();
    let second = b * cos + a * sin;
    let mut parts = vec![first, second];
    if d_head > 2 * half {
        parts.push(x.narrow(3, 2 * half, d_head - 2 * half));
    }
    Tensor::cat(parts, 3)
}

/// As [`rotate`], of the rows of one head in place: `rows` is `[seq, d_head]`, of which the first `2 half` are rotated.
pub(crate) fn rotate_rows(rows: &mut [f32], d_head: usize, half: usize, cos: &[f32], sin: &[f32]) {
    let angles = cos.chunks_exact(half).zip(sin.chunks_exact(half));
    Arch::new().dispatch(|| {
        for (row, (cos, sin)) in rows.chunks_exact_mut(d_head).zip(angles) {
            let (a, b) = row[..2 * half].split_at_mut(half);
            for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{SafetensorsFiles, TensorSource};
    use burn::tensor::{Device, TensorData};
    use std::path::Path;

    #[test]
    fn frequencies_fall_geometrically() {
        let rotary = Rotary::new(8, 10_000.0, None);
        assert_eq!(rotary.frequencies, [1.0, 0.1, 0.01, 0.001]);
        let linear = Rotary::new(8, 10_000.0, Some(&RopeScaling::Linear { factor: 4.0 }));
        assert_eq!(linear.frequencies, [0.25, 0.025, 0.0025, 0.00025]);
    }

    /// Bit by bit: a model with the last bits of a frequency changed is another model at position 8191.
    #[test]
    fn frequencies_and_angles_are_those_of_transformers() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/transformer");
        let expected = SafetensorsFiles::open_file(&fixtures.join("rope/expected.safetensors")).unwrap();
        let linear = RopeScaling::Linear { factor: 3.0 };
        let llama3 = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let yarn = |factor: f64, attention_factor, original_max_position_embeddings| RopeScaling::Yarn {
            factor,
            attention_factor,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: true,
            original_max_position_embeddings,
        };
        let qwen = yarn(4.0, 0.1 * 4f64.ln() + 1.0, 32768);
        let deepseek = yarn(40.0, (0.1 * 40f64.ln() + 1.0) / (0.07 * 40f64.ln() + 1.0), 4096);
        let long_rope = |original: usize| RopeScaling::LongRope {
            short_factor: (0..48).map(|i| (1.0 + f64::from(i) / 48.0) as f32).collect(),
            long_factor: (0..48).map(|i| 1.0 + i as f32).collect(),
            attention_factor: (1.0 + (131_072.0 / original as f64).ln() / (original as f64).ln()).sqrt(),
            original_max_position_embeddings: original,
        };
        let cases = [
            ("default_64", Rotary::new(64, 1e4, None)),
            ("default_128", Rotary::new(128, 5e5, None)),
            ("linear", Rotary::new(64, 1e5, Some(&linear))),
            ("llama3", Rotary::new(128, 5e5, Some(&llama3))),
            ("yarn", Rotary::new(64, 1e6, Some(&qwen))),
            ("yarn_mscale", Rotary::new(64, 1e4, Some(&deepseek))),
            ("longrope_long", Rotary::new(96, 1e4, Some(&long_rope(4096)))),
            ("longrope_short", Rotary::new(96, 1e4, Some(&long_rope(8192)))),
        ];
        for (case, rotary) in cases {
            let expected = |what: &str| expected.read(&format!("{case}.{what}")).unwrap();
            // As is a power of torch's.
            for (found, expected) in rotary.frequencies(8192).iter().zip(expected("frequencies")) {
                assert!((found / expected - 1.0).abs() <= f32::EPSILON, "{case}: {found} {expected}");
            }
            let (cos, sin) = rotary.tables(8192);
            // torch's cosine and sine are correct to one unit in the last place, of angles that differ as frequencies do.
            let angles = rotary.frequencies(8192).iter().zip(expected("frequencies"));
            let bounds: Vec<f32> = angles
                .map(|(found, expected)| {
                    (f32::EPSILON + 3.0 * 8191.0 * (found - expected).abs()) * rotary.magnitude
                })
                .collect();
            for (table, what) in [(cos, "cos"), (sin, "sin")] {
                let last = &table[table.len() - rotary.half()..];
                for ((found, expected), bound) in last.iter().zip(expected(what)).zip(&bounds) {
                    assert!((found - expected).abs() <= *bound, "{case} {what}: {found} {expected}");
                }
            }
        }
    }

    #[test]
    fn a_quarter_turn_swaps_the_halves_and_leaves_the_rest() {
        let device = Device::flex();
        let x =
            Tensor::<4>::from_data(TensorData::new(vec![1f32, 2.0, 3.0, 4.0, 5.0], [1, 1, 1, 5]), &device);
        let (cos, sin) = (Tensor::zeros([1, 2], &device), Tensor::ones([1, 2], &device));
        let turned = rotate(x.clone(), cos, sin).into_data();
        assert_eq!(turned.as_slice::<f32>().unwrap(), [-3.0, -4.0, 1.0, 2.0, 5.0]);
        let mut rows = [1.0, 2.0, 3.0, 4.0, 5.0];
        rotate_rows(&mut rows, 5, 2, &[0.0, 0.0], &[1.0, 1.0]);
        assert_eq!(rows, [-3.0, -4.0, 1.0, 2.0, 5.0]);
    }

    #[test]
    fn long_sequences_turn_by_other_frequencies() {
        let scaling = RopeScaling::LongRope {
            short_factor: vec![1.0],
            long_factor: vec![2.0],
            attention_factor: 3.0,
            original_max_position_embeddings: 2,
        };
        let rotary = Rotary::new(2, 10.0, Some(&scaling));
        let sines = |seq_len| rotary.tables(seq_len).1;
        assert_eq!(sines(2), [0.0, 3.0 * 1f32.sin()]);
        assert_eq!(sines(3)[1], 3.0 * 0.5f32.sin());
    }
}
