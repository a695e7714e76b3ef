//! The share of variance that the dictionary explains, in the three conventions of the field.
//!
//! Both sums of `fvu` run over the whole set before the division, and the variance is taken about the
//! set's own mean vector, ‖E x‖², not the mean of squares (E x)² of single dimensions: the figure does not
//! change when the data is scaled, and explained variance never passes 1.

use super::{Better, Block, Definition, Family, Shape, square_distance};
use crate::moments::Moments;

/// Moments of x and of the error, and the sums of the per-token ratio.
#[derive(Clone, Debug)]
pub(crate) struct Sums {
    x: Moments,
    error: Moments,
    square_error: f64,
    /// Σ_t ‖e_t‖² / ‖x_t − x̄‖², over tokens that are not the mean itself.
    ratio: f64,
    ratio_tokens: f64,
}

impl Family for Sums {
    const DEFINITIONS: &'static [Definition] = &[
        Definition {
            name: "fvu",
            unit: "",
            better: Better::Lower,
            formula: "Σ_t ‖x_t − x̂_t‖² / Σ_t ‖x_t − x̄‖²",
            meaning: "Fraction of variance unexplained, over the whole set; x̄ is the mean of that set. 0 is perfect, \
                      1 is as good as always answering x̄.",
            source: "Gao et al. 2024, arXiv 2406.04093, normalised MSE",
        },
        Definition {
            name: "ev.r2",
            unit: "",
            better: Better::Higher,
            formula: "1 − fvu",
            meaning: "Explained variance: the coefficient of determination.",
            source: "the coefficient of determination",
        },
        Definition {
            name: "ev.legacy",
            unit: "",
            better: Better::Higher,
            formula: "mean_t (1 − ‖x_t − x̂_t‖² / ‖x_t − x̄‖²)",
            meaning: "Mean of per-token ratios, the number in many papers; x̄ is the mean activation of the \
                      token's text. Tokens near the mean dominate it.",
            source: "SAELens's explained_variance_legacy",
        },
        Definition {
            name: "ev.centred",
            unit: "",
            better: Better::Higher,
            formula: "1 − Σ_d Var(x_d − x̂_d) / Σ_d Var(x_d)",
            meaning: "As dictionary_learning has it: blind to a constant bias of the reconstruction.",
            source: "dictionary_learning, evaluation.py, frac_variance_explained",
        },
    ];

    fn new(shape: Shape) -> Self {
        let moments = Moments::new(shape.d_in);
        Self { x: moments.clone(), error: moments, square_error: 0.0, ratio: 0.0, ratio_tokens: 0.0 }
    }

    fn add(&mut self, block: &Block<'_>) {
        for (x, x_hat) in block.rows() {
            self.x.add(x.iter().map(|&x| f64::from(x)));
            self.error.add(x.iter().zip(x_hat).map(|(&x, &x_hat)| f64::from(x) - f64::from(x_hat)));
            let square_error = square_distance(x, x_hat);
            self.square_error += square_error;
            let spread: f64 = x.iter().zip(block.mean).map(|(&x, mean)| (f64::from(x) - mean).powi(2)).sum();
            if spread > 0.0 {
                self.ratio += square_error / spread;
                self.ratio_tokens += 1.0;
            }
        }
    }

    fn merge(&mut self, other: &Self, times: u32) {
        self.x.merge(&other.x, times);
        self.error.merge(&other.error, times);
        let times = f64::from(times);
        self.square_error += times * other.square_error;
        self.ratio += times * other.ratio;
        self.ratio_tokens += times * other.ratio_tokens;
    }

    fn values(&self) -> Vec<f64> {
        let fvu = self.square_error / self.x.deviation();
        let legacy = 1.0 - self.ratio / self.ratio_tokens;
        let centred = 1.0 - self.error.deviation() / self.x.deviation();
        vec![fvu, 1.0 - fvu, legacy, centred]
    }
}
