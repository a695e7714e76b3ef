//! What training minimises, and what it is told for that.

use burn::tensor::Tensor;

/// What a loss depends on besides parameters and activations: numbers that a schedule changes from step to step, and which
/// latents are dead.
#[derive(Clone, Debug)]
pub struct Now {
    /// λ, the coefficient of the sparsity penalty.
    pub sparsity: f64,
    /// The exponent of a penalty that has one (p-annealing).
    pub p: f64,
    /// The exponent to come, whose penalty is to be told too.
    pub next_p: Option<f64>,
    /// How many latents may be active, if not as many as the configuration says.
    pub k: Option<usize>,
    /// 1 for each latent that has been silent for so long that it counts as dead, 0 for the others, `[d_sae]`; `None` if
    /// none is.
    pub dead: Option<Tensor<1>>,
}

impl Now {
    /// With this λ, and everything else as the configuration says.
    pub fn new(sparsity: f64) -> Self {
        Self { sparsity, p: 1.0, next_p: None, k: None, dead: None }
    }
}

/// The loss of one batch and its parts. Scalars have shape `[1]`.
#[derive(Clone, Debug)]
pub struct Loss {
    /// What training minimises.
    pub total: Tensor<1>,
    /// Mean over tokens of ‖y − x̂‖², summed over `d_out`.
    pub squared_error: Tensor<1>,
    /// Mean over tokens of the sparsity penalty, before its coefficient.
    pub penalty: Tensor<1>,
    /// What the total holds besides the squared error and λ times the penalty, if there can be such.
    pub rest: Option<Tensor<1>>,
    /// The activations, `[n, d_sae]`.
    pub acts: Tensor<2>,
    /// The smallest activation, where the largest of a batch are chosen; 0 if fewer were positive than that.
    pub smallest: Option<Tensor<1>>,
    /// The penalty with [`Now::next_p`].
    pub next_penalty: Option<Tensor<1>>,
}

impl Loss {
    /// The squared error alone, of targets and reconstructions `[n, d_out]`.
    pub fn new(y: Tensor<2>, x_hat: Tensor<2>, acts: Tensor<2>) -> Self {
        let squared_error = mean_square(x_hat - y);
        let penalty = squared_error.zeros_like();
        let total = squared_error.clone();
        Self { total, squared_error, penalty, rest: None, acts, smallest: None, next_penalty: None }
    }

    /// With `sparsity` times the penalty.
    pub fn penalised(self, penalty: Tensor<1>, sparsity: f64) -> Self {
        let total = self.total + penalty.clone().mul_scalar(sparsity);
        Self { total, penalty, ..self }
    }

    /// With another term.
    pub fn plus(self, term: Tensor<1>) -> Self {
        let total = self.total + term.clone();
        let rest = Some(match self.rest {
            Some(rest) => rest + term,
            None => term,
        });
        Self { total, rest, ..self }
    }
}

/// Mean over rows of their squared norms.
pub(crate) fn mean_square(rows: Tensor<2>) -> Tensor<1> {
    rows.square().sum_dim(1).mean()
}

/// Mean over tokens of Σᵢ actsᵢ·weightsᵢ: `acts [n, d_sae]`, `weights [d_sae, 1]`. A product with a column reads the
/// activations once and writes `[n, 1]`.
pub(crate) fn weighted(acts: Tensor<2>, weights: Tensor<2>) -> Tensor<1> {
    acts.matmul(weights).mean()
}
