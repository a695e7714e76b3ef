//! How rotary frequencies were changed to reach longer contexts: what `modeling_rope_utils.py` of transformers does,
//! operation by operation in single precision.

use std::f64::consts::TAU;

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
    /// YaRN (Peng et al., 2023, arXiv:2309.00071): as Llama 3.1's, but interpolated by the number of the frequency.
    Yarn {
        /// By how much low frequencies are divided.
        factor: f64,
        /// What cosines and sines are multiplied with.
        attention_factor: f64,
        /// Frequencies that turn more often than this within the original context are kept.
        beta_fast: f64,
        /// Frequencies that turn less often than this within the original context are divided.
        beta_slow: f64,
        /// Whether the bounds between them are rounded to whole numbers of frequencies.
        truncate: bool,
        /// The context length before scaling.
        original_max_position_embeddings: usize,
    },
    /// LongRoPE (Ding et al., 2024, arXiv:2402.13753): a divisor for each frequency, others for long sequences.
    LongRope {
        /// The divisors for sequences up to the original context length.
        short_factor: Vec<f32>,
        /// The divisors for longer ones.
        long_factor: Vec<f32>,
        /// What cosines and sines are multiplied with.
        attention_factor: f64,
        /// The context length before scaling.
        original_max_position_embeddings: usize,
    },
    /// One divisor a frequency, as GGUF files store the outcome (`rope_freqs.weight`).
    Divisors(Vec<f32>),
}

/// Which value is wrong, and how.
pub(super) type Wrong = (&'static str, String);

impl RopeScaling {
    /// Whether the frequencies of `d_rotated` dimensions can be scaled so; else what is wrong with which value.
    pub(crate) fn check(&self, d_rotated: usize) -> Result<(), Wrong> {
        match self {
            Self::Linear { factor } => above_zero("factor", *factor),
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                above_zero("factor", *factor)?;
                above_zero("low_freq_factor", *low_freq_factor)?;
                above_zero("high_freq_factor", *high_freq_factor)?;
                above_zero("original_max_position_embeddings", *original_max_position_embeddings as f64)?;
                // They span what is interpolated between.
                more("high_freq_factor", *high_freq_factor, "low_freq_factor", *low_freq_factor)
            }
            Self::Yarn {
                factor,
                attention_factor,
                beta_fast,
                beta_slow,
                original_max_position_embeddings,
                ..
            } => {
                above_zero("factor", *factor)?;
                above_zero("attention_factor", *attention_factor)?;
                above_zero("beta_fast", *beta_fast)?;
                above_zero("beta_slow", *beta_slow)?;
                above_zero("original_max_position_embeddings", *original_max_position_embeddings as f64)?;
                more("beta_fast", *beta_fast, "beta_slow", *beta_slow)
            }
            Self::LongRope {
                short_factor,
                long_factor,
                attention_factor,
                original_max_position_embeddings,
            } => {
                above_zero("attention_factor", *attention_factor)?;
                above_zero("original_max_position_embeddings", *original_max_position_embeddings as f64)?;
                divisors("short_factor", short_factor, d_rotated)?;
                divisors("long_factor", long_factor, d_rotated)
            }
            Self::Divisors(values) => divisors("rope_freqs", values, d_rotated),
        }
    }

    /// What cosines and sines are multiplied with.
    pub(crate) fn magnitude(&self) -> f32 {
        match self {
            Self::Yarn { attention_factor, .. } | Self::LongRope { attention_factor, .. } => {
                *attention_factor as f32
            }
            Self::Linear { .. } | Self::Llama3 { .. } | Self::Divisors(_) => 1.0,
        }
    }

    /// The longest sequence that the frequencies for short ones are for, if there are others.
    pub(crate) fn short_up_to(&self) -> Option<usize> {
        match self {
            Self::LongRope { original_max_position_embeddings, .. } => {
                Some(*original_max_position_embeddings)
            }
            _ => None,
        }
    }

    /// The frequencies of which `periods` (radians to positions) are the inverses, scaled; those for `long`
    /// sequences, where they are others. `theta` is the base of the periods.
    pub(crate) fn apply(&self, periods: &[f32], theta: f64, long: bool) -> Vec<f32> {
        let each = |f: &dyn Fn(f32) -> f32| periods.iter().map(|period| f(1.0 / period)).collect();
        match self {
            Self::Linear { factor } => each(&|frequency| frequency / *factor as f32),
            Self::Divisors(divisors) => {
                periods.iter().zip(divisors).map(|(period, divisor)| 1.0 / period / divisor).collect()
            }
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                let (low, high) = (*low_freq_factor, *high_freq_factor);
                let context = *original_max_position_embeddings as f64;
                each(&|frequency| llama3(frequency, *factor as f32, low, high, context))
            }
            Self::LongRope { short_factor, long_factor, .. } => {
                let divisors = if long { long_factor } else { short_factor };
                periods.iter().zip(divisors).map(|(period, divisor)| 1.0 / (divisor * period)).collect()
            }
            Self::Yarn {
                factor, beta_fast, beta_slow, truncate, original_max_position_embeddings, ..
            } => {
                let context = *original_max_position_embeddings as f64;
                // The number of the frequency that turns so often within the original context.
                let dims = 2.0 * periods.len() as f64;
                let at = |turns: f64| dims * (context / (turns * TAU)).ln() / (2.0 * theta.ln());
                let (low, high) = (at(*beta_fast), at(*beta_slow));
                let (low, high) = if *truncate { (low.floor(), high.ceil()) } else { (low, high) };
                yarn(periods, *factor as f32, low.max(0.0), high.min(dims - 1.0))
            }
        }
    }
}

/// One frequency as Llama 3.1 has it.
fn llama3(frequency: f32, factor: f32, low: f64, high: f64, context: f64) -> f32 {
    let wavelength = frequency.recip() * TAU as f32;
    if wavelength > (context / low) as f32 {
        frequency / factor
    } else if wavelength < (context / high) as f32 {
        frequency
    } else {
        let turns = wavelength.recip() * context as f32;
        let kept = (turns - low as f32) / (high - low) as f32;
        (1.0 - kept) * frequency / factor + kept * frequency
    }
}

/// Frequencies up to number `low` as they are, from number `high` on divided by `factor`.
fn yarn(periods: &[f32], factor: f32, low: f64, high: f64) -> Vec<f32> {
    // Something must lie between them.
    let high = if low == high { high + 0.001 } else { high };
    let scaled = |(i, period): (usize, &f32)| {
        let divided = ((i as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
        let kept = 1.0 - divided;
        1.0 / (factor * period) * (1.0 - kept) + 1.0 / period * kept
    };
    periods.iter().enumerate().map(scaled).collect()
}

pub(super) fn above_zero(key: &'static str, x: f64) -> Result<(), Wrong> {
    let fits = x.is_finite() && x > 0.0;
    if fits { Ok(()) } else { Err((key, format!("expected a number above 0, found {x}"))) }
}

fn more(key: &'static str, x: f64, than_key: &str, than: f64) -> Result<(), Wrong> {
    if x > than { Ok(()) } else { Err((key, format!("expected more than {than_key}, {than}, found {x}"))) }
}

fn divisors(key: &'static str, values: &[f32], d_rotated: usize) -> Result<(), Wrong> {
    if values.len() != d_rotated / 2 {
        return Err((key, format!("expected {} divisors, found {}", d_rotated / 2, values.len())));
    }
    values.iter().try_for_each(|&divisor| above_zero(key, divisor.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_keeps_high_frequencies_and_divides_low_ones() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 100,
        };
        // Turns within 100 positions: 16 at frequency 1, 0.016 at 0.001, 2.5 at 2.5 * 2π / 100.
        let middle = 2.5 * TAU as f32 / 100.0;
        let found = scaling.apply(&[1.0, 1000.0, 1.0 / middle], 1e4, false);
        assert_eq!(found[..2], [1.0, 0.001 / 8.0]);
        assert!((found[2] / middle - (0.5 / 8.0 + 0.5)).abs() < 1e-6);
    }

    /// Frequency number `i` turns 32 / 2^i times within the original context: 7.9 and 2.1 turns are numbers 2.02 and 3.93,
    /// rounded outwards.
    #[test]
    fn yarn_interpolates_by_the_number_of_a_frequency() {
        let context = (32.0 * TAU).round() as usize;
        let scaling = |beta_fast, beta_slow| RopeScaling::Yarn {
            factor: 4.0,
            attention_factor: 1.5,
            beta_fast,
            beta_slow,
            truncate: true,
            original_max_position_embeddings: context,
        };
        let periods: Vec<f32> = (0..8).map(|i| 2f32.powi(i)).collect();
        let found = scaling(7.9, 2.1).apply(&periods, 256.0, false);
        let divided = [0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 1.0];
        for ((found, period), divided) in found.iter().zip(&periods).zip(divided) {
            let expected = (1.0 - divided + divided / 4.0) / period;
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        assert_eq!(scaling(7.9, 2.1).magnitude(), 1.5);
        assert_eq!(scaling(1.0, 1.0).check(16).unwrap_err().0, "beta_fast");
    }

    #[test]
    fn long_rope_has_two_sets_of_divisors() {
        let scaling = RopeScaling::LongRope {
            short_factor: vec![1.0, 2.0],
            long_factor: vec![4.0, 8.0],
            attention_factor: 1.25,
            original_max_position_embeddings: 10,
        };
        assert_eq!(scaling.apply(&[1.0, 2.0], 4.0, false), [1.0, 0.25]);
        assert_eq!(scaling.apply(&[1.0, 2.0], 4.0, true), [0.25, 0.0625]);
        assert_eq!((scaling.short_up_to(), scaling.magnitude()), (Some(10), 1.25));
        scaling.check(4).unwrap();
        assert_eq!(scaling.check(6).unwrap_err().0, "short_factor");
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
}
