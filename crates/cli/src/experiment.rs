//! The configuration file of an experiment: sections that the stages' crates own.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use monosema_core::{Seed, Stage, config};
use monosema_evaluator::EvalConfig;
use monosema_harvester::HarvestConfig;
use monosema_text::ContextConfig;
use monosema_trainer::TrainConfig;
use serde::Deserialize;

use crate::{
    device::DeviceName,
    failure::{Failure, Outcome},
};

/// One TOML file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Experiment {
    /// Where it was read from, for errors.
    #[serde(skip)]
    file: PathBuf,
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
    harvest: Option<HarvestConfig>,
    train: Option<TrainConfig>,
    eval: Option<EvalConfig>,
}

/// The `[model]` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelConfig {
    /// A Hugging Face directory or a GGUF file.
    pub path: PathBuf,
}

impl Experiment {
    /// Reads `file` with `--set` overrides applied.
    pub(crate) fn read(file: &Path, overrides: &[String]) -> Outcome<Self> {
        let mut experiment: Self = config::read(file, overrides).map_err(Failure::usage)?;
        file.clone_into(&mut experiment.file);
        Ok(experiment)
    }

    /// The `[harvest]` section, which some stage needs.
    pub(crate) fn harvest(&self) -> Outcome<&HarvestConfig> {
        self.section(Stage::Harvest, self.harvest.as_ref())
    }

    /// The `[train]` section, which some stage needs.
    pub(crate) fn train(&self) -> Outcome<&TrainConfig> {
        self.section(Stage::Train, self.train.as_ref())
    }

    /// The `[eval]` section, which some stage needs.
    pub(crate) fn eval(&self) -> Outcome<&EvalConfig> {
        self.section(Stage::Eval, self.eval.as_ref())
    }

    /// The text that the dictionary is, was or will be trained on, as far as this file says.
    pub(crate) fn training_text(&self) -> Option<&monosema_text::TextConfig> {
        self.harvest.as_ref().map(|harvest| &harvest.text)
    }

    fn section<'a, T>(&self, stage: Stage, section: Option<&'a T>) -> Outcome<&'a T> {
        let file = self.file.display();
        section.ok_or_else(|| Failure::usage(anyhow!("{file}: expected a section [{stage}], found none")))
    }
}
