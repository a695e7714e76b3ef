//! How near a reconstruction is to its token.

use super::{Better, Block, Definition, Family, Shape, dot, square_distance, square_norm};

/// Sums over tokens of the squared distance, the cosine and the ratio of norms.
#[derive(Clone, Debug)]
pub(crate) struct Sums {
    tokens: f64,
    square_error: f64,
    cosine: f64,
    ratio: f64,
    /// Tokens with x ≠ 0: only for them are direction and ratio defined.
    directed: f64,
}

impl Family for Sums {
    const DEFINITIONS: &'static [Definition] = &[
        Definition {
            name: "mse",
            unit: "",
            better: Better::Lower,
            formula: "mean_t ‖x_t − x̂_t‖²",
            meaning: "Squared error, summed over dimensions; in the units of the model, so not comparable \
                      between hooks.",
            source: "Bricken et al. 2023, Towards Monosemanticity",
        },
        Definition {
            name: "cos",
            unit: "",
            better: Better::Higher,
            formula: "mean_t ⟨x_t, x̂_t⟩ / (‖x_t‖ ‖x̂_t‖)",
            meaning: "Cosine between a token's activation and its reconstruction (0 where x̂ = 0).",
            source: "dictionary_learning, evaluation.py, cossim",
        },
        Definition {
            name: "l2_ratio",
            unit: "",
            better: Better::One,
            formula: "mean_t ‖x̂_t‖ / ‖x_t‖",
            meaning: "Norm of the reconstruction against that of the activation.",
            source: "dictionary_learning, evaluation.py, l2_ratio",
        },
    ];

    fn new(_: Shape) -> Self {
        Self { tokens: 0.0, square_error: 0.0, cosine: 0.0, ratio: 0.0, directed: 0.0 }
    }

    fn add(&mut self, block: &Block<'_>) {
        self.tokens += block.n() as f64;
        for (x, x_hat) in block.rows() {
            self.square_error += square_distance(x, x_hat);
            let (norm, norm_hat) = (square_norm(x).sqrt(), square_norm(x_hat).sqrt());
            if norm > 0.0 {
                self.directed += 1.0;
                self.ratio += norm_hat / norm;
                if norm_hat > 0.0 {
                    self.cosine += dot(x, x_hat) / (norm * norm_hat);
                }
            }
        }
    }

    fn merge(&mut self, other: &Self, times: u32) {
        let times = f64::from(times);
        self.tokens += times * other.tokens;
        self.square_error += times * other.square_error;
        self.cosine += times * other.cosine;
        self.ratio += times * other.ratio;
        self.directed += times * other.directed;
    }

    fn values(&self) -> Vec<f64> {
        vec![self.square_error / self.tokens, self.cosine / self.directed, self.ratio / self.directed]
    }
}
