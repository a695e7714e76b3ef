//! How far splicing moves the model's predictions, whatever the next token was.

use super::{Better, Definition, Family, Prediction, Shape, spliced_sums::SplicedSums};

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
            source: "SAEBench core: Karvonen et al. 2025, arXiv 2503.09532",
        },
        Definition {
            name: "kl.zero",
            unit: NATS,
            better: Better::Neither,
            formula: "the same with zero spliced in",
            meaning: "Divergence under zero ablation.",
            source: "SAEBench core: Karvonen et al. 2025, arXiv 2503.09532",
        },
        Definition {
            name: "kl.mean",
            unit: NATS,
            better: Better::Neither,
            formula: "the same with x̄ spliced in",
            meaning: "Divergence under mean ablation.",
            source: "as kl, of mean ablation",
        },
        Definition {
            name: "kl.resample",
            unit: NATS,
            better: Better::Neither,
            formula: "the same with another token's x spliced in",
            meaning: "Divergence under resample ablation.",
            source: "as kl, of resample ablation",
        },
        Definition {
            name: "kl_recovered",
            unit: "",
            better: Better::Higher,
            formula: "(kl.zero − kl) / kl.zero",
            meaning: "Share of the divergence under zero ablation that the dictionary avoids.",
            source: "SAEBench core: Karvonen et al. 2025, arXiv 2503.09532",
        },
    ];

    fn new(_: Shape) -> Self {
        Self(SplicedSums::default())
    }

    fn add_predictions(&mut self, predictions: &[Prediction]) {
        self.0.add(predictions, |loss| loss.kl);
    }

    fn merge(&mut self, other: &Self, times: u32) {
        self.0.merge(&other.0, times);
    }

    fn values(&self) -> Vec<f64> {
        let [sae, zero, mean, resample] = self.0.means();
        vec![sae, zero, mean, resample, (zero - sae) / zero]
    }
}
