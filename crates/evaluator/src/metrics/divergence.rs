//! How far splicing moves the model's predictions, whatever the next token was.

use super::{Better, Definition, Family, Predictions, Shape, spliced_sums::SplicedSums};

/// Summed divergences over the same predictions.
#[derive(Clone, Debug)]
pub(crate) struct Sums(SplicedSums);

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
        Self(SplicedSums::default())
    }

    fn add_predictions(&mut self, predictions: &Predictions) {
        self.0.add(predictions, |spliced| &spliced.kl);
    }

    fn merge(&mut self, other: &Self) {
        self.0.merge(&other.0);
    }

    fn values(&self) -> Vec<f64> {
        let SplicedSums { predictions, sae, zero, mean } = self.0;
        let n = predictions as f64;
        vec![sae / n, zero / n, mean / n, (zero - sae) / zero]
    }
}
