//! What a report says about the language model.

use monosema_transformer::{Checkpoint, ModelInfo};
use serde::{Deserialize, Serialize};

/// The language model of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// Where it was read from, as configured.
    pub path: String,
    /// What its headers say.
    #[serde(flatten)]
    pub info: ModelInfo,
}

impl ModelFacts {
    /// Of `checkpoint`.
    pub(crate) fn new(checkpoint: &Checkpoint) -> Self {
        Self { path: checkpoint.path().display().to_string(), info: checkpoint.info().clone() }
    }
}
