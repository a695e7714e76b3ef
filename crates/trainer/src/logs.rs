//! What a run says about itself: `metrics.jsonl` for programs and event files for TensorBoard.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    Density, TrainError,
    error::io,
    tensorboard::EventWriter,
    window::{BINS, BINS_A_DECADE},
};

/// The directory of the logs, within the dictionary's.
pub(crate) const DIRECTORY: &str = "logs";
/// One JSON object a line: [`Record`].
pub(crate) const METRICS: &str = "logs/metrics.jsonl";
/// One JSON object a line: [`DensityRecord`].
pub(crate) const DENSITY: &str = "logs/density.jsonl";
/// One JSON object a line: [`SpeedRecord`]. The only one that is not the same whenever the same is trained.
pub(crate) const SPEED: &str = "logs/speed.jsonl";
/// All of them on a page.
pub(crate) const REPORT: &str = "logs/report.html";
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
    /// The loss: `mse + sparsity · penalty + rest`.
    pub loss: f64,
    /// Mean of ‖y − x̂‖², y being x or, of a transcoder, what is to come out.
    pub mse: f64,
    /// Mean of the sparsity penalty before its coefficient, for instance Σᵢ fᵢ‖W_dec,i‖₂.
    pub penalty: f64,
    /// Mean of what else the loss holds: AuxK, inner prefixes, the gate's reconstruction; 0 if there is nothing.
    pub rest: f64,
    /// Mean number of active latents.
    pub l0: f64,
    /// Σ‖y − x̂‖² / Σ‖y − ȳ‖², ȳ being the mean of the sample that the scale is estimated from.
    pub fvu: f64,
    /// Share of latents that were silent for the dead window; none until the run is as long as that.
    pub dead_share: Option<f64>,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate of the last step.
    pub lr: f64,
    /// λ of the last step.
    pub sparsity: f64,
    /// k of the last step, while it is warmed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k: Option<usize>,
}

/// One line of `density.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DensityRecord {
    /// Tokens trained on.
    pub tokens: u64,
    /// How many latents fired how often since the line before.
    pub latents: Density,
}

/// One line of `speed.jsonl`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpeedRecord {
    /// Tokens trained on.
    pub tokens: u64,
    /// Tokens a second since the line before.
    pub tokens_per_s: f64,
}

impl Record {
    /// The numbers by name, as TensorBoard gets them.
    fn scalars(&self) -> Vec<(&'static str, f64)> {
        let mut scalars = vec![
            ("loss/loss", self.loss),
            ("loss/mse", self.mse),
            ("loss/penalty", self.penalty),
            ("loss/rest", self.rest),
            ("metrics/l0", self.l0),
            ("metrics/fvu", self.fvu),
            ("optimiser/grad_norm", self.grad_norm),
            ("optimiser/lr", self.lr),
            ("optimiser/sparsity", self.sparsity),
        ];
        scalars.extend(self.dead_share.map(|share| ("metrics/dead_share", share)));
        scalars.extend(self.k.map(|k| ("optimiser/k", k as f64)));
        scalars
    }
}

/// How long each of the files is, by name: what came after that is to be written again.
pub(crate) type Lengths = BTreeMap<String, u64>;

/// Whether the files are as long as they were, so that they can go on from there.
///
/// # Errors
/// One that is shorter: it would be filled with zeros.
pub(crate) fn reach(directory: &Path, lengths: &Lengths) -> Result<(), TrainError> {
    for (name, &length) in lengths {
        let path = directory.join(name);
        if fs::metadata(&path).map_or(0, |metadata| metadata.len()) < length {
            let reason =
                "it is shorter than it was at the checkpoint; put it back, or train anew with --overwrite";
            return Err(io(path)(std::io::Error::other(reason)));
        }
    }
    Ok(())
}

/// One of the files, open.
#[derive(Debug)]
struct Log {
    name: &'static str,
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens a file to go on after `length` bytes, which [`reach`].
    fn open(directory: &Path, name: &'static str, length: u64) -> Result<Self, TrainError> {
        let path = directory.join(name);
        let open = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
            file.set_len(length)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        let file = open().map_err(io(&path))?;
        Ok(Self { name, path, file })
    }

    fn line(&mut self, line: &impl Serialize) -> Result<(), TrainError> {
        let mut line = serde_json::to_vec(line).expect("a record has string keys only");
        line.push(b'\n');
        self.file.write_all(&line).map_err(io(&self.path))
    }

    /// Makes durable what is written, and tells how much it is.
    fn sync(&self) -> Result<u64, TrainError> {
        let length = || {
            self.file.sync_data()?;
            Ok(self.file.metadata()?.len())
        };
        length().map_err(io(&self.path))
    }
}

/// All logs, open.
#[derive(Debug)]
pub struct Logs {
    metrics: Log,
    density: Log,
    speed: Log,
    events: EventWriter<File>,
    events_path: PathBuf,
}

impl Logs {
    /// Begins logs within the dictionary's directory, or goes on with them where they were so long.
    pub(crate) fn open(directory: &Path, lengths: &Lengths) -> Result<Self, TrainError> {
        let logs = directory.join(DIRECTORY);
        fs::create_dir_all(&logs).map_err(io(&logs))?;
        let open = |name| Log::open(directory, name, lengths.get(name).copied().unwrap_or(0));
        let Log { path: events_path, file, .. } = open(EVENTS)?;
        let events = if lengths.contains_key(EVENTS) {
            EventWriter::go_on(file)
        } else {
            EventWriter::new(file).map_err(io(&events_path))?
        };
        Ok(Self {
            metrics: open(METRICS)?,
            density: open(DENSITY)?,
            speed: open(SPEED)?,
            events,
            events_path,
        })
    }

    /// Writes a line to each.
    pub(crate) fn write(
        &mut self,
        record: &Record,
        density: Density,
        tokens_per_s: f64,
    ) -> Result<(), TrainError> {
        let tokens = record.tokens;
        self.metrics.line(record)?;
        self.density.line(&DensityRecord { tokens, latents: density })?;
        self.speed.line(&SpeedRecord { tokens, tokens_per_s })?;
        let mut scalars = record.scalars();
        scalars.push(("speed/tokens_per_s", tokens_per_s));
        let edges = density_edges();
        // The first bin, of latents that never fired, has no logarithm.
        let events = &mut self.events;
        let written = events
            .scalars(record.step, &scalars)
            .and_then(|()| events.histogram(record.step, "density/log10", &edges, &density[1..]));
        written.map_err(io(&self.events_path))
    }

    /// Makes durable what is written, and tells how long each file is.
    pub(crate) fn sync(&self) -> Result<Lengths, TrainError> {
        let events = || {
            let file = self.events.get_ref();
            file.sync_data()?;
            Ok(file.metadata()?.len())
        };
        let mut lengths = BTreeMap::from([(EVENTS.to_owned(), events().map_err(io(&self.events_path))?)]);
        for log in [&self.metrics, &self.density, &self.speed] {
            lengths.insert(log.name.to_owned(), log.sync()?);
        }
        Ok(lengths)
    }
}

/// What the logs of a finished dictionary say of its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    /// The last line.
    pub last: Record,
    /// Tokens a second, the mean of all lines.
    pub tokens_per_s: Option<f64>,
}

impl Training {
    /// Of the dictionary in `directory`.
    pub fn read(directory: &Path) -> Result<Self, TrainError> {
        let last = read::<Record>(directory, METRICS)?.pop();
        let nothing = || io(directory.join(METRICS))(std::io::Error::other("it has no line"));
        let speed: Vec<SpeedRecord> = read(directory, SPEED)?;
        let sum: f64 = speed.iter().map(|line| line.tokens_per_s).sum();
        let tokens_per_s = (!speed.is_empty()).then(|| sum / speed.len() as f64);
        Ok(Self { last: last.ok_or_else(nothing)?, tokens_per_s })
    }
}

/// The logarithms between which the bins of a density histogram lie, but for the first.
fn density_edges() -> Vec<f64> {
    (0..BINS).rev().map(|n| -(n as f64) / f64::from(BINS_A_DECADE)).collect()
}

/// The lines of a log of the dictionary in `directory`.
pub(crate) fn read<T: serde::de::DeserializeOwned>(
    directory: &Path,
    name: &str,
) -> Result<Vec<T>, TrainError> {
    let path = directory.join(name);
    let text = fs::read_to_string(&path).map_err(io(&path))?;
    let parsed: Result<_, _> = text.lines().map(serde_json::from_str).collect();
    parsed.map_err(|error| io(&path)(error.into()))
}
