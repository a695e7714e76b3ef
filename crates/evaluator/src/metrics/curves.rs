//! What changes along a window: figures by position.

use serde::{Deserialize, Serialize};

use super::{Block, Family, Prediction, Shape, Splice, square_distance};

/// Sums at each position of a window.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums(Vec<At>);

#[derive(Clone, Copy, Debug, Default)]
struct At {
    tokens: u64,
    active: u64,
    square_error: f64,
    spread: f64,
    predictions: u64,
    clean: f64,
    spliced: [f64; Splice::ALL.len()],
}

/// Figures by position in the window, over all texts. Each list has a value for each of `position`; `null` where a figure is not
/// defined, as a cross-entropy is at the last position, or was not asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curves {
    /// Positions of which a token counts, from 0 on.
    pub position: Vec<usize>,
    /// How many tokens count there.
    pub tokens: Vec<u64>,
    /// `l0` there.
    pub l0: Vec<Option<f64>>,
    /// Σ‖x − x̂‖² / Σ‖x − x̄‖² there, x̄ the mean of the token's text.
    pub fvu: Vec<Option<f64>>,
    /// `ce.clean` of predictions from there, nats.
    pub ce_clean: Vec<Option<f64>>,
    /// `ce.sae` of them.
    pub ce_sae: Vec<Option<f64>>,
    /// `ce.zero` of them.
    pub ce_zero: Vec<Option<f64>>,
    /// `ce.mean` of them.
    pub ce_mean: Vec<Option<f64>>,
    /// `ce.resample` of them.
    pub ce_resample: Vec<Option<f64>>,
}

impl Sums {
    fn at(&mut self, position: usize) -> &mut At {
        if self.0.len() <= position {
            self.0.resize(position + 1, At::default());
        }
        &mut self.0[position]
    }

    /// The curves.
    pub(crate) fn curves(&self) -> Curves {
        let counted = || self.0.iter().enumerate().filter(|(_, at)| at.tokens > 0);
        let ratio = |of: fn(&At) -> (f64, f64)| {
            let defined = |(sum, by): (f64, f64)| Some(sum / by).filter(|value| value.is_finite());
            counted().map(|(_, at)| defined(of(at))).collect()
        };
        Curves {
            position: counted().map(|(position, _)| position).collect(),
            tokens: counted().map(|(_, at)| at.tokens).collect(),
            l0: ratio(|at| (at.active as f64, at.tokens as f64)),
            fvu: ratio(|at| (at.square_error, at.spread)),
            ce_clean: ratio(|at| (at.clean, at.predictions as f64)),
            ce_sae: ratio(|at| (at.spliced[Splice::Sae as usize], at.predictions as f64)),
            ce_zero: ratio(|at| (at.spliced[Splice::Zero as usize], at.predictions as f64)),
            ce_mean: ratio(|at| (at.spliced[Splice::Mean as usize], at.predictions as f64)),
            ce_resample: ratio(|at| (at.spliced[Splice::Resample as usize], at.predictions as f64)),
        }
    }
}

impl Family for Sums {
    fn new(_: Shape) -> Self {
        Self::default()
    }

    fn add(&mut self, block: &Block<'_>) {
        for ((token, (x, x_hat)), latents) in block.tokens.iter().zip(block.rows()).zip(block.latents()) {
            let at = self.at(token.position);
            at.tokens += 1;
            at.active += latents.iter().filter(|&&f| f > 0.0).count() as u64;
            at.square_error += square_distance(x, x_hat);
            at.spread +=
                x.iter().zip(block.mean).map(|(&x, mean)| (f64::from(x) - mean).powi(2)).sum::<f64>();
        }
    }

    fn add_predictions(&mut self, predictions: &[Prediction]) {
        for prediction in predictions {
            let at = self.at(prediction.token.position);
            at.predictions += 1;
            at.clean += prediction.clean;
            for (sum, loss) in at.spliced.iter_mut().zip(prediction.spliced) {
                *sum += loss.map_or(f64::NAN, |loss| loss.ce);
            }
        }
    }

    fn merge(&mut self, other: &Self, times: u32) {
        let (more, factor) = (u64::from(times), f64::from(times));
        for (position, theirs) in other.0.iter().enumerate() {
            let at = self.at(position);
            at.tokens += more * theirs.tokens;
            at.active += more * theirs.active;
            at.square_error += factor * theirs.square_error;
            at.spread += factor * theirs.spread;
            at.predictions += more * theirs.predictions;
            at.clean += factor * theirs.clean;
            for (sum, theirs) in at.spliced.iter_mut().zip(theirs.spliced) {
                *sum += factor * theirs;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::positions::Token;

    #[test]
    fn numbers_worked_out_by_hand() {
        // At position 2: x = 3 and 5 about a mean of 1, reconstructed as 2 and 5; at position 0 one token, and no prediction.
        let shape = Shape { d_in: 1, d_sae: 2 };
        let token = |position| Token { document: 0, place: 0, position };
        let mut sums = Sums::new(shape);
        sums.add(&Block {
            shape,
            x: &[3.0, 1.0, 5.0],
            acts: &[1.0, 2.0, 0.0, 0.0, 3.0, 0.0],
            x_hat: &[2.0, 1.5, 5.0],
            mean: &[1.0],
            tokens: &[token(2), token(0), token(2)],
        });
        let loss = |ce| Some(super::super::Loss { ce, ..Default::default() });
        let spliced = [2.0, 9.0, 8.0, 7.0].map(loss);
        sums.add_predictions(&[Prediction { token: token(2), clean: 1.0, spliced }]);
        let mut twice = Sums::new(shape);
        twice.merge(&sums, 2);
        assert_eq!(twice.curves().tokens, [2, 4]);
        let expected = Curves {
            position: vec![0, 2],
            tokens: vec![1, 2],
            l0: vec![Some(0.0), Some(1.5)],
            // Position 0 is at the mean: no spread.
            fvu: vec![None, Some(1.0 / 20.0)],
            ce_clean: vec![None, Some(1.0)],
            ce_sae: vec![None, Some(2.0)],
            ce_zero: vec![None, Some(9.0)],
            ce_mean: vec![None, Some(8.0)],
            ce_resample: vec![None, Some(7.0)],
        };
        assert_eq!(sums.curves(), expected);
    }
}
