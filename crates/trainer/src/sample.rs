//! What a sample of the activations says about all of them: their scale, their mean and their geometric median.

use monosema_sae::Scales;
use monosema_store::{Batch, StoreError};
use rayon::prelude::*;
use serde::Serialize;

use crate::{
    TrainError, TrainPlan,
    config::{BDecInit, Normalize},
};

/// A norm so many times the mean is worth a warning: such tokens spoil the scale and the training.
const MASSIVE: f64 = 20.0;

/// Tokens from which the geometric median is computed: it needs them in memory.
const MEDIAN_TOKENS: usize = 16_384;

/// The median is found when it moves by less than this, relative to the mean norm.
const MEDIAN_TOLERANCE: f64 = 1e-7;

/// Rounds in which it is looked for at most.
const MEDIAN_ROUNDS: usize = 200;

/// Estimates in f64 over some tokens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Tokens in the sample.
    pub tokens: u64,
    /// What is read.
    pub input: Estimates,
    /// What is to come out, of a transcoder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Estimates>,
    /// What b_dec begins with, in the units of training; nothing for zeros.
    #[serde(skip)]
    pub b_dec: Vec<f32>,
}

/// Of one hook.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimates {
    /// Mean of ‖x‖₂.
    pub mean_norm: f64,
    /// Largest ‖x‖₂.
    pub largest_norm: f64,
    /// What activations are multiplied by in training.
    pub scale: f64,
    /// FVU of a reconstruction that is zero: Σ‖x‖² / Σ‖x − x̄‖².
    pub zero_fvu: f64,
    /// The mean activation x̄, before that, `[d]`.
    #[serde(skip)]
    pub mean: Vec<f64>,
}

impl Sample {
    /// Of all tokens of `batches`, which are as `plan` says, normalised one by one if it says so.
    ///
    /// # Errors
    /// No tokens; a value that is not finite; activations that are all zero; a batch that cannot be read.
    pub fn of(
        batches: impl IntoIterator<Item = Result<Batch, StoreError>>,
        plan: &TrainPlan,
    ) -> Result<Self, TrainError> {
        let mut input = Sums::new(plan.size.d_in);
        let mut output = plan.size.output.map(|output| Sums::new(output.d_out));
        let mut kept = Vec::new();
        for batch in batches {
            let batch = batch?;
            let place = |row: usize| (batch.documents[row], batch.positions[row]);
            input.add(&batch.x, place)?;
            if let Some(output) = &mut output {
                output.add(&batch.y, place)?;
            }
            if plan.b_dec_init == BDecInit::GeometricMedian {
                let of_target = if output.is_some() { &batch.y } else { &batch.x };
                let room = (MEDIAN_TOKENS * plan.size.d_out()).saturating_sub(kept.len());
                kept.extend_from_slice(&of_target[..room.min(of_target.len())]);
            }
        }
        let tokens = input.tokens;
        let input = input.estimates(plan.normalize)?;
        let output = output.map(|sums| sums.estimates(plan.normalize)).transpose()?;
        let target = output.as_ref().unwrap_or(&input);
        let b_dec = match plan.b_dec_init {
            BDecInit::Zero => Vec::new(),
            BDecInit::Mean => target.mean.clone(),
            BDecInit::GeometricMedian => {
                geometric_median(&kept, target.mean.clone(), MEDIAN_TOLERANCE * target.mean_norm)
            }
        };
        let b_dec = b_dec.into_iter().map(|value| (value * target.scale) as f32).collect();
        Ok(Self { tokens, input, output, b_dec })
    }

    /// What is to come out: y, or of an autoencoder x.
    pub fn target(&self) -> &Estimates {
        self.output.as_ref().unwrap_or(&self.input)
    }

    /// What activations are multiplied by in training.
    pub fn scales(&self) -> Scales {
        Scales { input: self.input.scale, output: self.target().scale }
    }
}

/// Of the vectors of one hook.
struct Sums {
    tokens: u64,
    norms: f64,
    squares: f64,
    largest_norm: f64,
    values: Vec<f64>,
}

impl Sums {
    fn new(width: usize) -> Self {
        Self { tokens: 0, norms: 0.0, squares: 0.0, largest_norm: 0.0, values: vec![0.0; width] }
    }

    /// Adds rows; `place` tells the document and the position of each.
    fn add(&mut self, rows: &[f32], place: impl Fn(usize) -> (u64, u32)) -> Result<(), TrainError> {
        for (row, x) in rows.chunks_exact(self.values.len()).enumerate() {
            let mut square = 0.0;
            for (&value, sum) in x.iter().zip(&mut self.values) {
                let value = f64::from(value);
                square += value * value;
                *sum += value;
            }
            let norm = square.sqrt();
            if !norm.is_finite() {
                let (document, position) = place(row);
                let reason =
                    format!("document {document}, position {position}: a value is infinite or not a number");
                return Err(TrainError::BadActivations { reason });
            }
            self.tokens += 1;
            self.norms += norm;
            self.squares += square;
            self.largest_norm = self.largest_norm.max(norm);
        }
        Ok(())
    }

    fn estimates(self, normalize: Normalize) -> Result<Estimates, TrainError> {
        let Self { tokens, norms, squares, largest_norm, values } = self;
        let mean_norm = norms / tokens as f64;
        if mean_norm.is_nan() || mean_norm <= 0.0 {
            let reason = format!("the mean norm of {tokens} of them is {mean_norm}");
            return Err(TrainError::BadActivations { reason });
        }
        if largest_norm > MASSIVE * mean_norm {
            tracing::warn!(
                "the longest activation of the sample is {:.0} times the mean ({largest_norm:.0} against \
                 {mean_norm:.1}): such tokens spoil training; [context] skip_first drops those at the start of a \
                 context, and `monosema inspect` on the model shows where else they are",
                largest_norm / mean_norm
            );
        }
        let scale = match normalize {
            Normalize::None | Normalize::LayerNorm => 1.0,
            Normalize::MeanNorm => (values.len() as f64).sqrt() / mean_norm,
            Normalize::MeanSquare => (tokens as f64 / squares).sqrt(),
        };
        let mean: Vec<f64> = values.into_iter().map(|sum| sum / tokens as f64).collect();
        let of_mean: f64 = mean.iter().map(|x| x * x).sum();
        let zero_fvu = squares / (squares - tokens as f64 * of_mean).max(f64::MIN_POSITIVE);
        Ok(Estimates { mean_norm, largest_norm, scale, zero_fvu, mean })
    }
}

/// The point whose distances from all `rows` add up to the least (Weiszfeld 1937), from `start` on.
fn geometric_median(rows: &[f32], start: Vec<f64>, tolerance: f64) -> Vec<f64> {
    /// Rows that one task adds up: the sum has an order of its own whatever the threads.
    const TASK: usize = 256;
    let width = start.len();
    let mut guess = start;
    for _ in 0..MEDIAN_ROUNDS {
        let parts: Vec<(f64, Vec<f64>)> = rows
            .par_chunks(TASK * width)
            .map(|rows| {
                let (mut weights, mut sums) = (0.0, vec![0.0; width]);
                for row in rows.chunks_exact(width) {
                    let distance =
                        row.iter().zip(&guess).map(|(&x, g)| (f64::from(x) - g).powi(2)).sum::<f64>().sqrt();
                    // At a row itself its weight would be infinite.
                    let weight = 1.0 / distance.max(tolerance);
                    weights += weight;
                    row.iter().zip(&mut sums).for_each(|(&x, sum)| *sum += weight * f64::from(x));
                }
                (weights, sums)
            })
            .collect();
        let total: f64 = parts.iter().map(|(weights, _)| weights).sum();
        let next: Vec<f64> =
            (0..width).map(|d| parts.iter().map(|(_, sums)| sums[d]).sum::<f64>() / total).collect();
        let moved = next.iter().zip(&guess).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        guess = next;
        if moved <= tolerance {
            break;
        }
    }
    guess
}

#[cfg(test)]
mod tests {
    use monosema_core::{BlockHook, HookPoint, Seed};
    use monosema_store::HookColumn;

    use super::*;
    use crate::{StoreFacts, TrainConfig};

    fn batch(x: Vec<f32>, width: usize) -> Result<Batch, StoreError> {
        let n = x.len() / width;
        Ok(Batch {
            n,
            width,
            documents: vec![7; n],
            positions: (0..n as u32).collect(),
            x,
            ..Batch::default()
        })
    }

    fn plan(normalize: Normalize, b_dec_init: BDecInit) -> TrainPlan {
        let hooks = vec![HookColumn { hook: HookPoint::block(0, BlockHook::ResidPost), width: 2 }];
        let config = TrainConfig {
            normalize: Some(normalize),
            b_dec_init: Some(b_dec_init),
            batch_tokens: Some(2),
            ..TrainConfig::default()
        };
        TrainPlan::resolve(&config, &StoreFacts { hooks, tokens: 10, ..StoreFacts::default() }, Seed(0))
            .unwrap()
    }

    #[test]
    fn scale_and_mean_by_hand() {
        // Norms 5, 0 and 13: their mean is 6, that of their squares 194 / 3.
        let sample = |normalize, b_dec_init| {
            let batches = [batch(vec![3.0, 4.0, 0.0, 0.0], 2), batch(vec![-5.0, 12.0], 2)];
            Sample::of(batches, &plan(normalize, b_dec_init)).unwrap()
        };
        let of_norm = sample(Normalize::MeanNorm, BDecInit::Zero);
        let Estimates { mean_norm, largest_norm, scale, zero_fvu, mean } = of_norm.input;
        // Σ‖x − x̄‖² is 194 less three times 4 / 9 + 256 / 9.
        assert!((zero_fvu - 194.0 / (194.0 - 260.0 / 3.0)).abs() < 1e-12);
        assert_eq!((of_norm.tokens, mean_norm, largest_norm), (3, 6.0, 13.0));
        assert_eq!((scale, mean, of_norm.b_dec), (2_f64.sqrt() / 6.0, vec![-2.0 / 3.0, 16.0 / 3.0], vec![]));
        let of_square = sample(Normalize::MeanSquare, BDecInit::Mean);
        let scale = (3.0_f64 / 194.0).sqrt();
        assert_eq!(of_square.scales(), Scales { input: scale, output: scale });
        assert_eq!(of_square.b_dec, [-2.0 / 3.0 * scale, 16.0 / 3.0 * scale].map(|v| v as f32));
        assert_eq!(sample(Normalize::None, BDecInit::Zero).input.scale, 1.0);
    }

    #[test]
    fn a_geometric_median_heeds_no_outlier() {
        // Of three points on a line it is the middle one; of a triangle, the point that sees its sides under 120°.
        let found = geometric_median(&[0.0, 0.0, 1.0, 0.0, 1000.0, 0.0], vec![333.0, 0.0], 1e-9);
        assert!((found[0] - 1.0).abs() < 1e-3 && found[1].abs() < 1e-9, "{found:?}");
        let height = 3_f32.sqrt() / 2.0;
        let found = geometric_median(&[0.0, 0.0, 1.0, 0.0, 0.5, height], vec![0.9, 0.1], 1e-9);
        assert!(
            (found[0] - 0.5).abs() < 1e-6 && (found[1] - f64::from(height) / 3.0).abs() < 1e-6,
            "{found:?}"
        );
    }

    #[test]
    fn what_has_no_scale_is_refused() {
        let plan = plan(Normalize::MeanNorm, BDecInit::Zero);
        let error =
            Sample::of([batch(vec![1.0, 2.0, f32::INFINITY, 0.0], 2)], &plan).unwrap_err().to_string();
        assert!(error.contains("document 7, position 1"), "{error}");
        for nothing in [vec![], vec![batch(vec![0.0; 4], 2)]] {
            assert!(matches!(Sample::of(nothing, &plan), Err(TrainError::BadActivations { .. })));
        }
    }
}
