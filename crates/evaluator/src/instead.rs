//! What comes in the place of activations to see what they were worth.

use std::iter;

use crate::{
    error::EvalError,
    metrics::Ablation,
    moments::Moments,
    plan::EvalPlan,
    positions::Positions,
    resample::{Pool, Resample},
};

/// The activations of a text at one hook, as they come by.
pub(crate) struct Survey {
    width: usize,
    moments: Moments,
    /// If it is asked for.
    pool: Option<Pool>,
}

/// What ablations put in the place of a text's activations at one hook.
pub(crate) struct Instead {
    /// The mean activation at the counted positions `[width]`.
    pub(crate) mean: Vec<f64>,
    resample: Option<Resample>,
}

impl Survey {
    /// Of no activations `[width]` yet, for the ablations of `plan`.
    pub(crate) fn new(plan: &EvalPlan, width: usize) -> Self {
        let pool = plan.ablations.contains(&Ablation::Resample).then(|| Pool::new(plan.seed));
        Self { width, moments: Moments::new(width), pool }
    }

    /// Takes note of `y [batch * seq, width]` at the counted positions.
    pub(crate) fn add(&mut self, positions: &Positions, y: &[f32]) {
        for (&index, &token) in positions.counted.iter().zip(&positions.tokens) {
            let y = &y[index * self.width..(index + 1) * self.width];
            self.moments.add(y.iter().map(|&y| f64::from(y)));
            if let Some(pool) = &mut self.pool {
                pool.add(token, y);
            }
        }
    }

    /// Of all of the text `name`.
    pub(crate) fn finish(self, name: &str) -> Result<Instead, EvalError> {
        let mean = self.moments.mean().to_vec();
        if mean.iter().any(|m| !m.is_finite()) {
            return Err(EvalError::NotFinite { name: name.to_owned(), what: "the mean activation" });
        }
        Ok(Instead { mean, resample: self.pool.map(Pool::finish) })
    }
}

impl Instead {
    /// `y [batch * seq, width]` with what `ablation`, which was planned, puts at the counted positions.
    pub(crate) fn splice(&self, ablation: Ablation, positions: &Positions, y: &[f32]) -> Vec<f32> {
        let width = self.mean.len();
        let everywhere = |row: &[f32]| positions.splice(y, width, iter::repeat(row));
        match ablation {
            Ablation::Zero => everywhere(&vec![0.0; width]),
            Ablation::Mean => everywhere(&self.mean.iter().map(|&mean| mean as f32).collect::<Vec<_>>()),
            Ablation::Resample => {
                let resample = self.resample.as_ref().expect("the survey knows what is planned");
                positions.splice(y, width, positions.tokens.iter().map(|&token| resample.of(token)))
            }
        }
    }
}
