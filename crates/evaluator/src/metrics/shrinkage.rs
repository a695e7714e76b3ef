//! Whether reconstructions are systematically too short.

use super::{Better, Block, Definition, Family, Shape, dot, square_norm};

/// Σ‖x̂‖² and Σ⟨x, x̂⟩.
#[derive(Clone, Debug)]
pub(crate) struct Sums {
    square: f64,
    product: f64,
}

impl Family for Sums {
    const DEFINITIONS: &'static [Definition] = &[Definition {
        name: "rel_bias",
        unit: "",
        better: Better::One,
        formula: "Σ_t ‖x̂_t‖² / Σ_t ⟨x_t, x̂_t⟩",
        meaning: "Relative reconstruction bias: 1/γ, where γ x̂ \
                  fits x best; below 1 is shrinkage.",
        source: "Rajamanoharan et al. 2024, arXiv 2404.16014, eq. 10",
    }];

    fn new(_: Shape) -> Self {
        Self { square: 0.0, product: 0.0 }
    }

    fn add(&mut self, block: &Block<'_>) {
        for (x, x_hat) in block.rows() {
            self.square += square_norm(x_hat);
            self.product += dot(x, x_hat);
        }
    }

    fn merge(&mut self, other: &Self, times: u32) {
        let times = f64::from(times);
        self.square += times * other.square;
        self.product += times * other.product;
    }

    fn values(&self) -> Vec<f64> {
        vec![self.square / self.product]
    }
}
