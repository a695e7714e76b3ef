//! What splicing costs the language model: next-token cross-entropy, and the share of it recovered.

use super::{Better, Definition, Family, Prediction, Shape, spliced_sums::SplicedSums};

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
            source: "Bricken et al. 2023, Towards Monosemanticity",
        },
        Definition {
            name: "ce.sae",
            unit: NATS,
            better: Better::Lower,
            formula: "ce with x̂_t in place of x_t",
            meaning: "Cross-entropy with reconstructions spliced in at the hook, at every counted position.",
            source: "Bricken et al. 2023, Towards Monosemanticity",
        },
        Definition {
            name: "ce.zero",
            unit: NATS,
            better: Better::Neither,
            formula: "ce with 0 in place of x_t",
            meaning: "Cross-entropy with zero spliced in at the same positions.",
            source: "Bricken et al. 2023, Towards Monosemanticity",
        },
        Definition {
            name: "ce.mean",
            unit: NATS,
            better: Better::Neither,
            formula: "ce with x̄ in place of x_t",
            meaning: "Cross-entropy with the text's mean activation spliced in at the same positions: a fairer \
                      baseline than zero.",
            source: "mean ablation: Wang et al. 2023, arXiv 2211.00593",
        },
        Definition {
            name: "ce.resample",
            unit: NATS,
            better: Better::Neither,
            formula: "ce with x_s in place of x_t, s another counted token of the text, drawn at random",
            meaning: "Cross-entropy with the activation of another token spliced in at the same positions: as likely an activation as any, of the wrong token.",
            source: "resample ablation: Chan et al. 2022, Causal Scrubbing",
        },
        Definition {
            name: "loss_recovered.zero",
            unit: "",
            better: Better::Higher,
            formula: "(ce.zero − ce.sae) / (ce.zero − ce.clean)",
            meaning: "Share of the loss between zero ablation and the untouched model that the dictionary keeps: \
                      a ratio of means over all predictions.",
            source: "Bricken et al. 2023, Towards Monosemanticity",
        },
        Definition {
            name: "loss_recovered.mean",
            unit: "",
            better: Better::Higher,
            formula: "(ce.mean − ce.sae) / (ce.mean − ce.clean)",
            meaning: "The same against mean ablation.",
            source: "mean ablation: Wang et al. 2023, arXiv 2211.00593",
        },
        Definition {
            name: "loss_recovered.resample",
            unit: "",
            better: Better::Higher,
            formula: "(ce.resample − ce.sae) / (ce.resample − ce.clean)",
            meaning: "The same against resample ablation.",
            source: "resample ablation: Chan et al. 2022, Causal Scrubbing",
        },
    ];

    fn new(_: Shape) -> Self {
        Self { clean: 0.0, spliced: SplicedSums::default() }
    }

    fn add_predictions(&mut self, predictions: &[Prediction]) {
        self.clean += predictions.iter().map(|prediction| prediction.clean).sum::<f64>();
        self.spliced.add(predictions, |loss| loss.ce);
    }

    fn merge(&mut self, other: &Self, times: u32) {
        self.clean += f64::from(times) * other.clean;
        self.spliced.merge(&other.spliced, times);
    }

    fn values(&self) -> Vec<f64> {
        let clean = self.spliced.each(self.clean);
        let [sae, zero, mean, resample] = self.spliced.means();
        let recovered = |ablated: f64| (ablated - sae) / (ablated - clean);
        let recovered = [zero, mean, resample].map(recovered);
        [clean, sae, zero, mean, resample].into_iter().chain(recovered).collect()
    }
}
