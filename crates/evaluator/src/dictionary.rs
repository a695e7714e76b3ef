//! What a plan and a report say about the dictionary.

use std::path::Path;

use monosema_core::{Digest, HookPoint, digest_bytes, digest_file};
use monosema_sae::Dictionary;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::EvalError;

/// The hook and the sizes of a dictionary: all that a plan depends on, whether it is trained yet or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DictionaryShape {
    /// Where its activations come from.
    pub hook: HookPoint,
    /// Their width.
    pub d_in: usize,
    /// How many latents it has.
    pub d_sae: usize,
}

impl DictionaryShape {
    /// Of a dictionary in memory.
    pub fn of(dictionary: &Dictionary) -> Self {
        Self { hook: dictionary.metadata().hook, d_in: dictionary.d_in(), d_sae: dictionary.d_sae() }
    }
}

/// The dictionary of a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DictionaryFacts {
    /// Where it was read from, as configured.
    pub path: String,
    /// Its hook and sizes.
    #[serde(flatten)]
    pub shape: DictionaryShape,
    /// The contents of its own `cfg.json`.
    pub cfg: Value,
}
