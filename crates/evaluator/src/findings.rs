//! What a report says about labelled text.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What was found on one `[[eval.concepts]]`. Whatever is chosen is chosen on the fit half of the documents, and all figures are of the held-out half, unless
/// their name says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConceptsReport {
    /// Its name in the configuration.
    pub name: String,
    /// Documents of which a token was read.
    pub documents: u64,
    /// Counted tokens of the half on which units, thresholds and probes were chosen.
    pub fit_tokens: u64,
    /// Counted tokens of the other half.
    pub held_out_tokens: u64,
    /// Values with fewer tokens of either kind in either half are left out.
    pub min_tokens: u64,
    /// Which those are: `factor = value`.
    pub left_out: Vec<String>,
    /// The dictionary's latents, and what they are held against: `latents`, `neurons`, `principal`, `random`.
    pub units: Vec<UnitsReport>,
    /// Mean over values of the F1 of saying yes to every token.
    pub always_f1: Option<f64>,
    /// Mean over values of the monosemanticity of a unit that activates alike on all tokens.
    pub same_value: Option<f64>,
    /// Absorption and splitting; `None` of a dictionary whose latents do not add up to what it reads.
    pub absorption: Option<AbsorptionReport>,
    /// Each value.
    pub values: Vec<ValueReport>,
}

/// Units, and what the best of them come to.
///
/// `latents` are the dictionary's; `neurons` are the dimensions of the activations, each with both signs; `principal` are the directions in which
/// those vary most (256 at most), each with both signs; `random` are as many random directions as there are latents, each a ReLU whose bias lets as
/// many tokens through as are active on a latent on average. All are treated in the same way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnitsReport {
    /// Which.
    pub name: String,
    /// How many there are to choose from.
    pub n_units: u64,
    /// Coverage: mean over values of the best unit's F1 (Karvonen et al. 2024, arXiv 2408.00113, section 3.2; thresholds there are tenths of a unit's
    /// largest activation, here every activation is one, and unit and threshold are chosen on other documents).
    pub coverage_f1: Option<f64>,
    /// Mean over values of the best unit's AUROC.
    pub coverage_auroc: Option<f64>,
    /// F1 of reading all values off the units that are right in 95 % of cases (board reconstruction, ibid., section 3.3; F1 there is averaged
    /// over boards, here it is of all pairs of a token and a value together).
    pub reconstruction_f1: f64,
    /// Mean over values of the best unit's monosemanticity with respect to the value's factor; see [`LatentReport::monosemanticity`].
    pub monosemanticity: Option<f64>,
}

/// A value of a factor, held against all other tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValueReport {
    /// The factor.
    pub factor: String,
    /// Its value.
    pub value: String,
    /// Tokens that have it.
    pub held_out_tokens: u64,
    /// The latent with the best F1.
    #[serde(flatten)]
    pub best: LatentReport,
    /// The latent with the best AUROC.
    pub auroc_latent: u64,
    /// That AUROC, exact, ties counted half.
    pub auroc: f64,
    /// F1 of saying yes to every token.
    pub always_f1: f64,
    /// The chance that two tokens agree in the factor.
    pub same_value: Option<f64>,
    /// F1 of the best of the other units.
    pub baseline_f1: BTreeMap<String, f64>,
    /// `None` where a probe on the activations has an F1 of 0.6 or less.
    pub absorption: Option<ValueAbsorption>,
}

/// How well one latent detects a value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatentReport {
    /// Which.
    pub latent: u64,
    /// The activation from which on it detects the value; `None` if nothing was active on it where this was chosen.
    pub threshold: Option<f64>,
    /// F1 on the half where both were chosen.
    pub fit_f1: f64,
    /// F1 = 2·TP / (2·TP + FP + FN).
    pub f1: f64,
    /// TP / (TP + FP).
    pub precision: f64,
    /// TP / (TP + FN).
    pub recall: f64,
    /// The chance that two tokens, drawn as strongly as they activate the latent, agree in the factor: the monosemanticity score of Pach et al. 2025 (arXiv 2504.02821),
    /// Σ ãₜãᵤ s(t, u) / Σ ãₜãᵤ over pairs, with s = 1 for two of one value and 0 for two of different ones. Tokens at which the factor has no value are left
    /// out. `None` if no two of the others activate it.
    pub monosemanticity: Option<f64>,
}

/// Absorption over all values that a probe finds in the activations (F1 above 0.6).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AbsorptionReport {
    /// How many those are.
    pub values: u64,
    /// Mean over values of [`ValueAbsorption::mean_fraction`].
    pub mean_fraction: Option<f64>,
    /// Mean over values of [`ValueAbsorption::full_rate`].
    pub full_rate: Option<f64>,
    /// Mean over values of the number of latents that stand for one.
    pub mean_latents: Option<f64>,
}

/// Absorption of one value (Chanin et al. 2024, arXiv 2409.14507, as SAEBench computes it).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValueAbsorption {
    /// F1 of a logistic regression on the activations.
    pub probe_f1: f64,
    /// The latents that stand for the value: those of a k-sparse probe, k growing while F1 on the fit half grows by more than 0.03. More than one is a split.
    pub latents: Vec<u64>,
    /// Tokens at which the probe is right; the rates are of these.
    pub probe_true_positives: u64,
    /// Tokens at which all of those latents are silent and one other stands in for them.
    pub full_rate: f64,
    /// Mean share that up to three other latents stand in for.
    pub mean_fraction: f64,
}

/// What was found on one `[[eval.probes]]`: sparse probing (Gurnee et al. 2023, arXiv 2305.01610) of documents, each the mean over its counted tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbesReport {
    /// Its name in the configuration.
    pub name: String,
    /// Documents on which units and weights were chosen.
    pub fit_documents: u64,
    /// Documents that all figures are of.
    pub held_out_documents: u64,
    /// Classes with too few documents in either half to be told from the others.
    pub left_out: Vec<String>,
    /// Mean over classes of each kind of probe.
    pub probes: Vec<ProbeReport>,
    /// Each class against all others; of two classes one.
    pub classes: Vec<ClassReport>,
}

/// One class against all others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassReport {
    /// Its name in the text.
    pub class: String,
    /// Its share of the held-out documents.
    pub share: f64,
    /// Each kind of probe.
    pub probes: Vec<ProbeReport>,
}

/// A probe, on the held-out documents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// What it reads: `latents`, `neurons`, or all `activations`.
    pub on: String,
    /// How many units it reads, of those whose means differ most between the classes; `None`: all.
    pub k: Option<u64>,
    /// Which; empty for all, and of a mean over classes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<u64>,
    /// Share of documents that are told rightly.
    pub accuracy: f64,
    /// F1 of the class.
    pub f1: f64,
    /// AUROC of the probe's score.
    pub auroc: f64,
}

/// The mean; `None` of nothing.
pub(crate) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (n, sum) = values.fold((0_u64, 0.0), |(n, sum), value| (n + 1, sum + value));
    (n > 0).then(|| sum / n as f64)
}
