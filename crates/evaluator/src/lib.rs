//! A dictionary, its language model and held-out text to a report.
//!
//! [`EvalPlan`] is the `[eval]` section checked against the model and the dictionary; [`evaluate`] runs it, writes
//! `report.json` and `report.html` and returns the [`Report`]. Every figure has its [`Definition`]: a new one is one
//! file in `metrics/` and one line in `families!`. [`inspect_model`] looks at a model alone. CONVENTIONS.md has what other
//! programs call by the same names.
//!
//! Architecture invariant: this crate knows no activation store and no training. A dictionary is judged by what it
//! does to the model on text, so the activations come from the model, at the positions that count, while it runs.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod chart;
mod config;
mod dictionary;
mod error;
mod evaluate;
mod host;
mod html;
mod inspect;
mod metrics;
mod model;
mod moments;
mod plan;
mod positions;
mod predictions;
mod reconstruct;
mod report;

pub use config::{EvalConfig, NamedText};
pub use dictionary::{DictionaryFacts, DictionaryShape, WeightFacts};
pub use error::EvalError;
pub use evaluate::evaluate;
pub use inspect::{CrossEntropy, LargeNorm, LayerNorms, ModelInspection, Prediction, inspect_model};
pub use metrics::{Better, Definition, Figures, Histogram, definitions};
pub use model::ModelFacts;
pub use plan::{EvalPlan, PlannedPasses, PlannedText, Training};
pub use report::{
    Counted, HTML_FILE, JSON_FILE, Report, Row, SCHEMA, Tally, TextReport, Timing, format_figure,
};
