//! A dictionary, its language model and held-out text to a report.
//!
//! [`EvalPlan`] is the `[eval]` section checked against the model and the dictionary; [`evaluate`] runs it, writes
//! `report.json` and `report.html` and returns the [`Report`]. Every figure has its [`Definition`]: a new one is one
//! file in `metrics/` and one line in `families!`. On labelled text, [`ConceptsReport`] and [`ProbesReport`] say whether there are latents for
//! what is known to hold. [`inspect_model`] looks at a model alone, [`mod@compare`] at dictionaries alone. CONVENTIONS.md has what
//! other programs call by the same names.
//!
//! Architecture invariant: this crate knows no activation store and no training. A dictionary is judged by what it
//! does to the model on text, so the activations come from the model, at the positions that count, while it runs.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod absorbed;
mod chart;
pub mod compare;
mod concepts;
mod config;
mod conventions;
mod dictionary;
mod error;
mod evaluate;
mod findings;
mod findings_html;
mod ground_truth;
mod host;
mod html;
mod inspect;
mod instead;
mod labelled;
mod metrics;
mod model;
mod moments;
mod plan;
mod positions;
mod predictions;
mod probing;
mod reading;
mod reconstruct;
mod report;
mod resample;
mod summary;
mod together;
mod units;
mod windows;

pub use config::{EvalConfig, NamedText};
pub use conventions::{Convention, ConventionFigure};
pub use dictionary::{DictionaryFacts, DictionaryShape, WEIGHT_DEFINITIONS, WeightFacts};
pub use error::EvalError;
pub use evaluate::{Job, evaluate};
pub use findings::{
    AbsorptionReport, ClassReport, ConceptsReport, LatentReport, ProbeReport, ProbesReport, UnitsReport,
    ValueAbsorption, ValueReport,
};
pub use inspect::{CrossEntropy, LargeNorm, LayerNorms, ModelInspection, Prediction, inspect_model};
pub use labelled::{ConceptsConfig, ProbesConfig};
pub use metrics::{
    Ablation, Better, Curves, Definition, Figures, Histogram, Intervals, Spread, TokenHistogram, definitions,
};
pub use model::ModelFacts;
pub use plan::{EvalPlan, PlannedPasses, PlannedText, Training};
pub use report::{
    Counted, HTML_FILE, JSON_FILE, Report, Row, SCHEMA, Tally, TextReport, Timing, format_figure,
};
pub use summary::EvalSummary;
