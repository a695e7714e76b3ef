//! What a run says about itself: `metrics.jsonl` for programs and event files for TensorBoard.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{TrainError, error::io, tensorboard::EventWriter};

/// The directory of the logs, within the dictionary's.
pub(crate) const DIRECTORY: &str = "logs";
/// One JSON object a line.
pub(crate) const METRICS: &str = "logs/metrics.jsonl";
/// TensorBoard knows its files by `tfevents` in their names.
pub(crate) const EVENTS: &str = "logs/events.out.tfevents.monosema";

/// One line of `metrics.jsonl`. Everything but the first two fields, the rates and the dead share is a mean over
/// the tokens since the line before. Squares are of scaled activations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Steps done.
    pub step: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// The loss: `mse + l1_coefficient · l1` for an architecture with an L1 penalty.
    pub loss: f64,
    /// Mean of ‖x − x̂‖².
    pub mse: f64,
    /// Mean of the sparsity penalty before its coefficient: Σᵢ fᵢ‖W_dec,i‖₂.
    pub l1: f64,
    /// Mean number of active latents.
    pub l0: f64,
    /// Σ‖x − x̂‖² / Σ‖x − x̄‖², x̄ being the mean of the sample that the scale is estimated from.
    pub fvu: f64,
    /// Share of latents that were silent for the dead window; none until the run is as long as that.
    pub dead_share: Option<f64>,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate of the last step.
    pub lr: f64,
    /// λ of the last step.
    pub l1_coefficient: f64,
    /// Tokens a second since the line before.
    pub tokens_per_s: f64,
}

impl Record {
    /// The numbers by name, as TensorBoard gets them.
    fn scalars(&self) -> Vec<(&'static str, f64)> {
        let mut scalars = vec![
            ("loss/loss", self.loss),
            ("loss/mse", self.mse),
            ("loss/l1", self.l1),
            ("metrics/l0", self.l0),
            ("metrics/fvu", self.fvu),
            ("optimiser/grad_norm", self.grad_norm),
            ("optimiser/lr", self.lr),
            ("optimiser/l1_coefficient", self.l1_coefficient),
            ("speed/tokens_per_s", self.tokens_per_s),
        ];
        scalars.extend(self.dead_share.map(|share| ("metrics/dead_share", share)));
        scalars
    }
}

/// Both logs, open.
#[derive(Debug)]
pub struct Logs {
    metrics: File,
    metrics_path: PathBuf,
    events: EventWriter<File>,
    events_path: PathBuf,
}

impl Logs {
    /// Begins new logs within the dictionary's directory.
    pub fn create(directory: &Path) -> Result<Self, TrainError> {
        let logs = directory.join(DIRECTORY);
        fs::create_dir_all(&logs).map_err(io(&logs))?;
        let [metrics_path, events_path] = [METRICS, EVENTS].map(|name| directory.join(name));
        let metrics = File::create(&metrics_path).map_err(io(&metrics_path))?;
        let events = File::create(&events_path).and_then(EventWriter::new).map_err(io(&events_path))?;
        Ok(Self { metrics, metrics_path, events, events_path })
    }

    /// Writes a line to both.
    pub fn write(&mut self, record: &Record) -> Result<(), TrainError> {
        let mut line = serde_json::to_vec(record).expect("a record has string keys only");
        line.push(b'\n');
        self.metrics.write_all(&line).map_err(io(&self.metrics_path))?;
        self.events.scalars(record.step, &record.scalars()).map_err(io(&self.events_path))
    }

    /// Makes both durable. Returns their names within the dictionary's directory.
    pub(crate) fn finish(self) -> Result<Vec<String>, TrainError> {
        self.metrics.sync_all().map_err(io(&self.metrics_path))?;
        self.events.get_ref().sync_all().map_err(io(&self.events_path))?;
        Ok(vec![METRICS.to_owned(), EVENTS.to_owned()])
    }
}
