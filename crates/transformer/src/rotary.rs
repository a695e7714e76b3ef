//! Rotary position embeddings (Su et al., 2021, arXiv:2104.09864), in the half-split form of transformers:
//! dimension `i` of a head is paired with `i + d_head / 2`.

use std::f64::consts::TAU;

use burn::tensor::Tensor;
use pulp::Arch;
use serde::{Deserialize, Serialize};

/// How the rotary frequencies of a model were changed to reach longer contexts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RopeScaling {
    /// Positions divided by a factor (Chen et al., 2023, arXiv:2306.15595).
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3.1's: low frequencies divided, high ones kept, those between interpolated.
    Llama3 {
        /// By how much low frequencies are divided.
        factor: f64,
        /// Wavelengths longer than the original context over this are low frequencies.
        low_freq_factor: f64,
        /// Wavelengths shorter than the original context over this are high frequencies.
        high_freq_factor: f64,
        /// The context length before scaling.
        original_max_position_embeddings: usize,
    },
    /// One divisor a frequency, as GGUF files store the outcome (`rope_freqs.weight`).
    Divisors(Vec<f32>),
}

impl RopeScaling {
    /// Whether the frequencies of heads of `d_head` can be scaled so; else what is wrong with which value.
    pub(crate) fn check(&self, d_head: usize) -> Result<(), (&'static str, String)> {
        let positive = |key, x: f64| {
            let fits = x.is_finite() && x > 0.0;
            if fits { Ok(()) } else { Err((key, format!("expected a number above 0, found {x}"))) }
        };
        match self {
            Self::Linear { factor } => positive("factor", *factor),
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                positive("factor", *factor)?;
                positive("low_freq_factor", *low_freq_factor)?;
                positive("high_freq_factor", *high_freq_factor)?;
                positive("original_max_position_embeddings", *original_max_position_embeddings as f64)?;
                // They span what is interpolated between.
                if high_freq_factor <= low_freq_factor {
                    let reason = format!(
                        "expected more than low_freq_factor, {low_freq_factor}, found {high_freq_factor}"
                    );
                    return Err(("high_freq_factor", reason));
                }
                Ok(())
            }
            Self::Divisors(divisors) if divisors.len() != d_head / 2 => {
                Err(("rope_freqs", format!("expected {} divisors, found {}", d_head / 2, divisors.len())))
            }
            Self::Divisors(divisors) => {
                divisors.iter().try_for_each(|&divisor| positive("rope_freqs", divisor.into()))
            }
        }
    }

    /// The frequency `index`, scaled: operation by operation what `modeling_rope_utils.py` of transformers does in
    /// single precision.
    fn apply(&self, index: usize, frequency: f32) -> f32 {
        match self {
            Self::Linear { factor } => frequency / *factor as f32,
            Self::Divisors(divisors) => frequency / divisors[index],
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                let context = *original_max_position_embeddings as f64;
                let wavelength = frequency.recip() * TAU as f32;
                if wavelength > (context / low_freq_factor) as f32 {
                    frequency / *factor as f32
                } else if wavelength < (context / high_freq_factor) as f32 {
                    frequency
                } else {
                    let turns = wavelength.recip() * context as f32;
                    let kept =
                        (turns - *low_freq_factor as f32) / (high_freq_factor - low_freq_factor) as f32;
                    (1.0 - kept) * frequency / *factor as f32 + kept * frequency
                }
            }
        }
    }
}

/// The rotation angles of one head.
///
/// All in single precision, as transformers has it: at position 2000 the rounding of a frequency moves the angle by
/// 1e-4, so that a more exact table would be a different model.
#[derive(Clone, Debug)]
pub(crate) struct Rotary {
    /// Radians a position, `[d_head / 2]`.
    frequencies: Vec<f32>,
}

impl Rotary {
    /// Frequencies `theta^(-2i / d_head)`, scaled. `d_head` is even; [`RopeScaling::Divisors`] has `d_head / 2`.
    pub(crate) fn new(d_head: usize, theta: f64, scaling: Option<&RopeScaling>) -> Self {
        let frequency = |i: usize| {
            // The power of an f32 exponent, rounded once: torch's own is off by one unit in a few of a hundred.
            let exponent = (2 * i) as f32 / d_head as f32;
            let frequency = 1.0 / theta.powf(f64::from(exponent)) as f32;
            scaling.map_or(frequency, |scaling| scaling.apply(i, frequency))
        };
        Self { frequencies: (0..d_head / 2).map(frequency).collect() }
    }

    /// Cosines and sines of the angles at positions `0..seq_len`, each `[seq_len, d_head / 2]` row by row.
    pub(crate) fn tables(&self, seq_len: usize) -> (Vec<f32>, Vec<f32>) {
        let angles = (0..seq_len)
            .flat_map(|position| self.frequencies.iter().map(move |frequency| position as f32 * frequency));
        angles.map(|angle| (f64::from(angle).cos() as f32, f64::from(angle).sin() as f32)).unzip()
    }

    /// Half the width of a head.
    pub(crate) fn half(&self) -> usize {
        self.frequencies.len()
    }
}

/// Rotates heads.
///
/// # Shapes
/// `x` and the result: `[batch, heads, seq, d_head]`; `cos`, `sin`: `[seq, d_head / 2]`.
pub(crate) fn rotate(x: Tensor<4>, cos: Tensor<2>, sin: Tensor<2>) -> Tensor<4> {
    let half = x.dims()[3] / 2;
    let (cos, sin) = (cos.unsqueeze::<4>(), sin.unsqueeze::<4>());
    let (a, b) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
    let first = a.clone() * cos.clone() - b.clone() * sin.clone();
    let second = b * cos + a * sin;
    Tensor::cat(vec![first, second], 3)
}

/// As [`rotate`], of the rows of one head in place: `rows` is `[seq, d_head]`.
pub(crate) fn rotate_rows(rows: &mut [f32], d_head: usize, cos: &[f32], sin: &[f32]) {
    let half = d_head / 2;
    let angles = cos.chunks_exact(half).zip(sin.chunks_exact(half));
    Arch::new().dispatch(|| {
        for (row, (cos, sin)) in rows.chunks_exact_mut(d_head).zip(angles) {
            let (a, b) = row.split_at_mut(half);
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
        let cases = [
            ("default_64", Rotary::new(64, 1e4, None)),
            ("default_128", Rotary::new(128, 5e5, None)),
            ("linear", Rotary::new(64, 1e5, Some(&linear))),
            ("llama3", Rotary::new(128, 5e5, Some(&llama3))),
        ];
        for (case, rotary) in cases {
            let expected = |what: &str| expected.read(&format!("{case}.{what}")).unwrap();
            assert_eq!(rotary.frequencies, expected("frequencies"), "{case}");
            let (cos, sin) = rotary.tables(8192);
            // torch's cosine and sine are correct to one unit in the last place.
            for (table, what) in [(cos, "cos"), (sin, "sin")] {
                let last = &table[table.len() - rotary.half()..];
                for (found, expected) in last.iter().zip(expected(what)) {
                    assert!((found - expected).abs() <= f32::EPSILON, "{case} {what}: {found} {expected}");
                }
            }
        }
    }

    #[test]
    fn llama3_keeps_high_frequencies_and_divides_low_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 100,
        };
        // Turns within 100 positions: 16 at frequency 1, 0.016 at 0.001, 2.5 at 2.5 * 2π / 100.
        assert_eq!(scaling.apply(0, 1.0), 1.0);
        assert_eq!(scaling.apply(0, 0.001), 0.001 / 8.0);
        let middle = 2.5 * TAU as f32 / 100.0;
        assert!((scaling.apply(0, middle) / middle - (0.5 / 8.0 + 0.5)).abs() < 1e-6);
    }

    #[test]
    fn a_scaling_that_divides_by_zero_is_named() {
        let llama3 = |low_freq_factor, high_freq_factor| RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings: 100,
        };
        llama3(1.0, 4.0).check(8).unwrap();
        assert_eq!(llama3(4.0, 4.0).check(8).unwrap_err().0, "high_freq_factor");
        assert_eq!(llama3(0.0, 4.0).check(8).unwrap_err().0, "low_freq_factor");
        assert_eq!(RopeScaling::Linear { factor: f64::NAN }.check(8).unwrap_err().0, "factor");
        for divisors in [vec![1.0; 3], vec![1.0, 1.0, 1.0, 0.0]] {
            assert_eq!(RopeScaling::Divisors(divisors).check(8).unwrap_err().0, "rope_freqs");
        }
    }

    #[test]
    fn a_quarter_turn_swaps_the_halves() {
        let device = Device::flex();
        let x = Tensor::<4>::from_data(TensorData::new(vec![1f32, 2.0, 3.0, 4.0], [1, 1, 1, 4]), &device);
        let (cos, sin) = (Tensor::zeros([1, 2], &device), Tensor::ones([1, 2], &device));
        let turned = rotate(x, cos, sin).into_data();
        assert_eq!(turned.as_slice::<f32>().unwrap(), [-3.0, -4.0, 1.0, 2.0]);
        let mut rows = [1.0, 2.0, 3.0, 4.0];
        rotate_rows(&mut rows, 4, &[0.0, 0.0], &[1.0, 1.0]);
        assert_eq!(rows, [-3.0, -4.0, 1.0, 2.0]);
    }
}
