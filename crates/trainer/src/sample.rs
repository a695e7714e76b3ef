//! What a sample of the activations says about all of them: their scale and their mean.

use monosema_store::{Batch, StoreError};
use serde::Serialize;

use crate::TrainError;

/// A norm so many times the mean is worth a warning: such tokens spoil the scale and the training.
const MASSIVE: f64 = 20.0;

/// Estimates in f64 over some tokens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sample {
    /// Tokens in the sample.
    pub tokens: u64,
    /// Mean of ‖x‖₂.
    pub mean_norm: f64,
    /// Largest ‖x‖₂.
    pub largest_norm: f64,
    /// What activations are multiplied by in training, so that E‖x‖₂ = √d_in.
    pub scale: f64,
    /// The mean activation x̄, raw, `[d_in]`.
    #[serde(skip)]
    pub mean: Vec<f64>,
}

impl Sample {
    /// Of all tokens of `batches`, which are `d_in` wide.
    ///
    /// # Errors
    /// No tokens; a value that is not finite; activations that are all zero; a batch that cannot be read.
    pub fn of(
        batches: impl IntoIterator<Item = Result<Batch, StoreError>>,
        d_in: usize,
    ) -> Result<Self, TrainError> {
        let (mut tokens, mut norms, mut largest_norm) = (0, 0.0, 0.0);
        let mut sums = vec![0.0; d_in];
        for batch in batches {
            let batch = batch?;
            for (row, x) in batch.x.chunks_exact(d_in).enumerate() {
                let mut square = 0.0;
                for (&value, sum) in x.iter().zip(&mut sums) {
                    let value = f64::from(value);
                    square += value * value;
                    *sum += value;
                }
                let norm = square.sqrt();
                if !norm.is_finite() {
                    let (document, position) = (batch.documents[row], batch.positions[row]);
                    let reason = format!(
                        "document {document}, position {position}: a value is infinite or not a number"
                    );
                    return Err(TrainError::BadActivations { reason });
                }
                tokens += 1;
                norms += norm;
                largest_norm = f64::max(largest_norm, norm);
            }
        }
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
        let scale = (d_in as f64).sqrt() / mean_norm;
        let mean = sums.into_iter().map(|sum| sum / tokens as f64).collect();
        Ok(Self { tokens, mean_norm, largest_norm, scale, mean })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn scale_and_mean_by_hand() {
        // Norms 5, 0 and 13: their mean is 6.
        let sample = Sample::of([batch(vec![3.0, 4.0, 0.0, 0.0], 2), batch(vec![-5.0, 12.0], 2)], 2).unwrap();
        assert_eq!((sample.tokens, sample.mean_norm, sample.largest_norm), (3, 6.0, 13.0));
        assert_eq!(sample.scale, 2_f64.sqrt() / 6.0);
        assert_eq!(sample.mean, [-2.0 / 3.0, 16.0 / 3.0]);
    }

    #[test]
    fn what_has_no_scale_is_refused() {
        let error = Sample::of([batch(vec![1.0, 2.0, f32::INFINITY, 0.0], 2)], 2).unwrap_err().to_string();
        assert!(error.contains("document 7, position 1"), "{error}");
        for nothing in [vec![], vec![batch(vec![0.0; 4], 2)]] {
            assert!(matches!(Sample::of(nothing, 2), Err(TrainError::BadActivations { .. })));
        }
    }
}
