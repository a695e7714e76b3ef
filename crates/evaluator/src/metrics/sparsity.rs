//! How much of the dictionary a token uses.

use super::{Better, Block, Definition, Family, Shape};

/// Tokens, active latents, and the sum of their values.
#[derive(Clone, Debug)]
pub(crate) struct Sums {
    tokens: f64,
    active: f64,
    value: f64,
}

impl Family for Sums {
    const DEFINITIONS: &'static [Definition] = &[
        Definition {
            name: "l0",
            unit: "latents/token",
            better: Better::Lower,
            formula: "mean_t #{i : f_ti > 0}",
            meaning: "How many latents are active for a token.",
            source: "Bricken et al. 2023, Towards Monosemanticity",
        },
        Definition {
            name: "l1",
            unit: "",
            better: Better::Neither,
            formula: "mean_t Σ_i |f_ti|",
            meaning: "Sum of the active latents' values; it depends on the norms of the decoder rows.",
            source: "Bricken et al. 2023, Towards Monosemanticity",
        },
    ];

    fn new(_: Shape) -> Self {
        Self { tokens: 0.0, active: 0.0, value: 0.0 }
    }

    fn add(&mut self, block: &Block<'_>) {
        self.tokens += block.n() as f64;
        for token in block.latents() {
            self.active += token.iter().filter(|&&f| f > 0.0).count() as f64;
            self.value += token.iter().map(|&f| f64::from(f.abs())).sum::<f64>();
        }
    }

    fn merge(&mut self, other: &Self, times: u32) {
        let times = f64::from(times);
        self.tokens += times * other.tokens;
        self.active += times * other.active;
        self.value += times * other.value;
    }

    fn values(&self) -> Vec<f64> {
        vec![self.active / self.tokens, self.value / self.tokens]
    }
}
