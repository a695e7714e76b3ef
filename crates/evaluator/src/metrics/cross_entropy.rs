//! What splicing costs the language model: next-token cross-entropy, and the share of it recovered.

use super::{Better, Definition, Family, Predictions, Shape, spliced_sums::SplicedSums};

/// Summed cross-entropies over the same predictions.
#[derive(Clone, Debug)]
pub(crate) struct Sums {
    clean: f64,
    spliced: SplicedSums,
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
        Self { clean: 0.0, spliced: SplicedSums::default() }
    }

    fn add_predictions(&mut self, predictions: &Predictions) {
        self.clean += predictions.clean.iter().sum::<f64>();
        self.spliced.add(predictions, |spliced| &spliced.ce);
    }

    fn merge(&mut self, other: &Self) {
        self.clean += other.clean;
        self.spliced.merge(&other.spliced);
    }

    fn values(&self) -> Vec<f64> {
        let SplicedSums { predictions, sae, zero, mean } = self.spliced;
        let recovered = |ablated: f64| (ablated - sae) / (ablated - self.clean);
        let means = [self.clean, sae, zero, mean].map(|sum| sum / predictions as f64);
        means.into_iter().chain([recovered(zero), recovered(mean)]).collect()
    }
}
