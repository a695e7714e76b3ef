//! What splicing costs the language model: next-token cross-entropy, and the share of it recovered.

use super::{Better, Definition, Family, Predictions, Shape};

/// Summed cross-entropies over the same predictions.
#[derive(Clone, Debug)]
pub(crate) struct Sums {
    predictions: u64,
    clean: f64,
    sae: f64,
    zero: f64,
    mean: f64,
}

const NATS: &str = "nats/token";

impl Family for Sums {
    const DEFINITIONS: &'static [Definition] = &[
        Definition {
            name: "ce.clean",
            unit: NATS,
            better: Better::Neither,
            formula: "mean_t −log p(next token of t)",
            meaning: "Cross-entropy of the untouched model.",
        },
        Definition {
            name: "ce.sae",
            unit: NATS,
            better: Better::Lower,
            formula: "ce with x̂_t in place of x_t",
            meaning: "Cross-entropy with reconstructions spliced in at the hook, at every counted position.",
        },
        Definition {
            name: "ce.zero",
            unit: NATS,
            better: Better::Neither,
            formula: "ce with 0 in place of x_t",
            meaning: "Cross-entropy with zero spliced in at the same positions.",
        },
        Definition {
            name: "ce.mean",
            unit: NATS,
            better: Better::Neither,
            formula: "ce with x̄ in place of x_t",
            meaning: "Cross-entropy with the text's mean activation spliced in at the same positions: a fairer \
                      baseline than zero.",
        },
        Definition {
            name: "loss_recovered.zero",
            unit: "",
            better: Better::Higher,
            formula: "(ce.zero − ce.sae) / (ce.zero − ce.clean)",
            meaning: "Share of the loss between zero ablation and the untouched model that the dictionary keeps: \
                      a ratio of means over all predictions.",
        },
        Definition {
            name: "loss_recovered.mean",
            unit: "",
            better: Better::Higher,
            formula: "(ce.mean − ce.sae) / (ce.mean − ce.clean)",
            meaning: "The same against mean ablation.",
        },
    ];

    fn new(_: Shape) -> Self {
        Self { predictions: 0, clean: 0.0, sae: 0.0, zero: 0.0, mean: 0.0 }
    }

    fn add_predictions(&mut self, predictions: &Predictions) {
        self.predictions += predictions.clean.len() as u64;
        self.clean += predictions.clean.iter().sum::<f64>();
        self.sae += predictions.sae.ce.iter().sum::<f64>();
        self.zero += predictions.zero.ce.iter().sum::<f64>();
        self.mean += predictions.mean.ce.iter().sum::<f64>();
    }

    fn merge(&mut self, other: &Self) {
        self.predictions += other.predictions;
        self.clean += other.clean;
        self.sae += other.sae;
        self.zero += other.zero;
        self.mean += other.mean;
    }

    fn values(&self) -> Vec<f64> {
        let n = self.predictions as f64;
        let recovered = |ablated: f64| (ablated - self.sae) / (ablated - self.clean);
        let means = [self.clean, self.sae, self.zero, self.mean].map(|sum| sum / n);
        means.into_iter().chain([recovered(self.zero), recovered(self.mean)]).collect()
    }
}
