//! How often splicing leaves the model's first choice as it was.

use super::{Better, Definition, Family, Prediction, Shape, spliced_sums::SplicedSums};

/// Counted agreements over the same predictions.
#[derive(Clone, Debug)]
pub(crate) struct Sums(SplicedSums);

impl Family for Sums {
    const DEFINITIONS: &'static [Definition] = &[
        Definition {
            name: "top1",
            unit: "",
            better: Better::Higher,
            formula: "mean_t [argmax p_clean is an argmax of p_sae]",
            meaning: "Share of the predictions whose most probable token is the untouched model's (top-1 agreement).",
            source: "of no paper: the share of equal first choices",
        },
        Definition {
            name: "top1.zero",
            unit: "",
            better: Better::Neither,
            formula: "the same with zero spliced in",
            meaning: "Top-1 agreement under zero ablation.",
            source: "as top1",
        },
        Definition {
            name: "top1.mean",
            unit: "",
            better: Better::Neither,
            formula: "the same with x̄ spliced in",
            meaning: "Top-1 agreement under mean ablation.",
            source: "as top1",
        },
        Definition {
            name: "top1.resample",
            unit: "",
            better: Better::Neither,
            formula: "the same with another token's x spliced in",
            meaning: "Top-1 agreement under resample ablation.",
            source: "as top1",
        },
    ];

    fn new(_: Shape) -> Self {
        Self(SplicedSums::default())
    }

    fn add_predictions(&mut self, predictions: &[Prediction]) {
        self.0.add(predictions, |loss| f64::from(u8::from(loss.agrees)));
    }

    fn merge(&mut self, other: &Self, times: u32) {
        self.0.merge(&other.0, times);
    }

    fn values(&self) -> Vec<f64> {
        self.0.means().to_vec()
    }
}
