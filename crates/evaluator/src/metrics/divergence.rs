//! How far splicing moves the model's predictions, whatever the next token was.

use super::{Better, Definition, Family, Predictions, Shape};

/// Summed divergences over the same predictions.
#[derive(Clone, Debug)]
pub(crate) struct Sums {
    predictions: u64,
    sae: f64,
    zero: f64,
    mean: f64,
}

const NATS: &str = "nats/token";

impl Family for Sums {
    const DEFINITIONS: &'static [Definition] = &[
        Definition {
            name: "kl",
            unit: NATS,
            better: Better::Lower,
            formula: "mean_t Σ_v p_clean(v) log(p_clean(v) / p_sae(v))",
            meaning: "Divergence of the predictions with reconstructions spliced in from the untouched model's.",
        },
        Definition {
            name: "kl.zero",
            unit: NATS,
            better: Better::Neither,
            formula: "the same with zero spliced in",
            meaning: "Divergence under zero ablation.",
        },
        Definition {
            name: "kl.mean",
            unit: NATS,
            better: Better::Neither,
            formula: "the same with x̄ spliced in",
            meaning: "Divergence under mean ablation.",
        },
        Definition {
            name: "kl_recovered",
            unit: "",
            better: Better::Higher,
            formula: "(kl.zero − kl) / kl.zero",
            meaning: "Share of the divergence under zero ablation that the dictionary avoids.",
        },
    ];

    fn new(_: Shape) -> Self {
        Self { predictions: 0, sae: 0.0, zero: 0.0, mean: 0.0 }
    }

    fn add_predictions(&mut self, predictions: &Predictions) {
        self.predictions += predictions.clean.len() as u64;
        self.sae += predictions.sae.kl.iter().sum::<f64>();
        self.zero += predictions.zero.kl.iter().sum::<f64>();
        self.mean += predictions.mean.kl.iter().sum::<f64>();
    }

    fn merge(&mut self, other: &Self) {
        self.predictions += other.predictions;
        self.sae += other.sae;
        self.zero += other.zero;
        self.mean += other.mean;
    }

    fn values(&self) -> Vec<f64> {
        let n = self.predictions as f64;
        vec![self.sae / n, self.zero / n, self.mean / n, (self.zero - self.sae) / self.zero]
    }
}
