//! What a report says about the language model.

use std::path::Path;

use monosema_transformer::ModelInfo;
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
    /// Of the model at `path`.
    pub(crate) fn new(path: &Path, info: &ModelInfo) -> Self {
        Self { path: path.display().to_string(), info: info.clone() }
    }
}
