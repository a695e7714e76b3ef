//! The configuration file of an experiment: sections that the stages' crates own.

use std::path::{Path, PathBuf};

use monosema_core::{Seed, config};
use monosema_evaluator::EvalConfig;
use monosema_harvester::HarvestConfig;
use monosema_text::ContextConfig;
use monosema_trainer::TrainConfig;
use monosema_transformer::Precision;
use serde::Deserialize;

use crate::{
    device::DeviceName,
    failure::{Failure, Outcome},
};

/// One TOML file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Experiment {
    /// Every random choice follows from it.
    #[serde(default)]
    pub seed: Seed,
    /// `auto`, `cpu`, `cuda:N` or `ndarray`.
    #[serde(default)]
    pub device: DeviceName,
    /// The language model.
    pub model: ModelConfig,
    /// How text is cut into windows, and which of their positions count.
    #[serde(default)]
    pub context: ContextConfig,
    /// Each stage that is to run needs its section.
    pub harvest: Option<HarvestConfig>,
    pub train: Option<TrainConfig>,
    pub eval: Option<EvalConfig>,
}

/// The `[model]` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelConfig {
    /// A Hugging Face directory, a GGUF file, or either of them on the Hugging Face hub: `hf:owner/name@revision`,
    /// `hf:owner/name/FILE.gguf@revision`.
    pub path: PathBuf,
    /// What its large products are computed in: `f32`, `bf16` or `f16`. Default `f32`. On GPUs the other two take half the
    /// memory and are several times as fast; all between the products stays f32. On the CPU they are slower.
    #[serde(default)]
    pub precision: Precision,
}

impl Experiment {
    /// Reads `file` with `--set` overrides applied.
    pub(crate) fn read(file: &Path, overrides: &[String]) -> Outcome<Self> {
        config::read(file, overrides).map_err(Failure::usage)
    }

    /// Whether the language model works for the training alone, and no activations are stored.
    pub(crate) fn streams(&self) -> bool {
        self.harvest.as_ref().is_some_and(|harvest| harvest.stream)
    }
}
