//! Checkpoints: all that the rest of a training depends on, in one safetensors file that appears whole or not at all.
//!
//! The last two are kept. Tensors have checksums; of a damaged checkpoint the one before is taken, and it no longer counts. A
//! checkpoint says which work it is of, so that it is never taken up with another configuration or other activations.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use burn::tensor::TensorData;
use monosema_core::{AtomicFile, manifest::Work};
use monosema_sae::{SaeConfig, Size, Weights};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    TrainError, TrainPlan, error::io, found::unless_missing, logs::Lengths, step::StepState,
    window::WindowState,
};

/// The directory of the checkpoints, within the dictionary's.
pub(crate) const DIRECTORY: &str = "checkpoints";

/// How many are kept.
const KEPT: usize = 2;

const PREFIX: &str = "step-";
const SUFFIX: &str = ".safetensors";

/// What is added to the name of one that cannot be taken up.
const UNUSABLE: &str = ".unusable";

/// Bytes of the number that a safetensors file begins with: the length of its header.
const LENGTH: usize = 8;

/// The longest header that is read; safetensors itself takes none that is longer.
const MOST_HEADER: usize = 100_000_000;

/// The key of the file's metadata that holds [`Facts`].
const FACTS: &str = "monosema";

/// The key that holds the checksum of those.
const FACTS_CRC32C: &str = "monosema.crc32c";

/// The version of the layout.
const VERSION: u32 = 1;

/// Of which group a tensor is, before its name.
const GROUPS: [&str; 3] = ["parameter.", "first.", "second."];
const AVERAGE: &str = "average.";
const SILENT: &str = "silent";
const FIRED_AT_END: &str = "fired_at_end";

/// All that the steps to come depend on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Checkpoint {
    /// Steps done.
    pub(crate) steps: u64,
    /// What is being done.
    pub(crate) work: Work,
    pub(crate) step: StepState,
    pub(crate) window: WindowState,
    /// What the loop carries from step to step.
    pub(crate) carried: Carried,
    pub(crate) logs: Lengths,
}

/// What the loop carries from step to step.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Carried {
    /// The mean of the smallest activations of batches, where those are chosen in batches.
    pub(crate) threshold: Option<f32>,
    /// By what λ was multiplied when the penalty's exponent changed.
    pub(crate) annealed: Option<f64>,
    /// The penalties with this exponent and the next, of the last steps.
    pub(crate) penalties: Vec<[f64; 2]>,
    /// The least loss of a line of the logs.
    pub(crate) least_loss: Option<f64>,
    /// What a warning was given of, and what it said.
    pub(crate) warned: Vec<(String, String)>,
}

/// What a checkpoint says besides its tensors.
#[derive(Serialize, Deserialize)]
struct Facts {
    version: u32,
    steps: u64,
    work: Work,
    numbers: BTreeMap<String, f64>,
    carried: Carried,
    logs: Lengths,
    /// Of the bytes of each tensor.
    crc32c: BTreeMap<String, u32>,
}

impl Checkpoint {
    /// Writes it into the dictionary's directory, and removes those that are no longer kept. Returns its file.
    pub(crate) fn save(self, dictionary: &Path) -> Result<PathBuf, TrainError> {
        let directory = dictionary.join(DIRECTORY);
        fs::create_dir_all(&directory).map_err(io(&directory))?;
        let path = directory.join(format!("{PREFIX}{:012}{SUFFIX}", self.steps));
        let Self { steps, work, step, window, carried, logs } = self;
        let StepState { parameters, moments: [first, second], average, numbers } = step;
        let mut tensors = BTreeMap::new();
        let groups = GROUPS.into_iter().zip([parameters, first, second]);
        for (group, weights) in groups.chain(average.map(|weights| (AVERAGE, weights))) {
            tensors.extend(weights.into_iter().map(|(name, data)| (format!("{group}{name}"), data)));
        }
        let n = window.silent.len();
        tensors.insert(SILENT.into(), TensorData::new(window.silent, [n]));
        tensors.insert(FIRED_AT_END.into(), TensorData::new(window.fired_at_end, [n]));
        let crc32c =
            tensors.iter().map(|(name, data)| (name.clone(), crc32c::crc32c(data.as_bytes()))).collect();
        let facts = Facts { version: VERSION, steps, work, numbers, carried, logs, crc32c };
        let facts = serde_json::to_string(&facts).expect("facts have string keys");
        let views = tensors.iter().map(|(name, data)| {
            let dtype = if name == FIRED_AT_END { Dtype::U64 } else { Dtype::F32 };
            let view = TensorView::new(dtype, data.shape().to_vec(), data.as_bytes());
            (name, view.expect("a tensor's bytes fit its shape"))
        });
        let sum = crc32c::crc32c(facts.as_bytes()).to_string();
        let metadata = [(FACTS.to_owned(), facts), (FACTS_CRC32C.to_owned(), sum)].into();
        let bytes = safetensors::serialize(views, Some(metadata)).expect("shapes fit their bytes");
        AtomicFile::write(&path, &bytes).map_err(io(&path))?;
        let old = steps_in(dictionary).into_iter().filter(|&found| found <= steps).skip(KEPT);
        old.for_each(|steps| drop(fs::remove_file(file(dictionary, steps))));
        Ok(path)
    }

    /// Whether a training could go on from there.
    pub(crate) fn is_finite(&self) -> bool {
        self.step.parameters.iter().all(|(_, data)| data.iter::<f32>().all(f32::is_finite))
    }

    /// The checkpoint after so many steps of a training of `plan`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn load(dictionary: &Path, steps: u64, plan: &TrainPlan) -> Result<Self, String> {
        let bytes = fs::read(file(dictionary, steps)).map_err(|e| e.to_string())?;
        let (facts, tensors) = parse(&bytes)?;
        let Facts { version, work, numbers, carried, logs, crc32c, .. } = facts;
        if version != VERSION {
            return Err(format!("expected version {VERSION} of the layout, found {version}"));
        }
        let reader = Reader { tensors, crc32c };
        let [parameters, first, second] =
            GROUPS.map(|group| reader.weights(group, &plan.architecture, plan.size));
        let average = (plan.ema_decay > 0.0).then(|| reader.weights(AVERAGE, &plan.architecture, plan.size));
        let moments = [first?, second?];
        let step = StepState { parameters: parameters?, moments, average: average.transpose()?, numbers };
        let n = [plan.size.d_sae];
        let silent = reader.values(SILENT, Dtype::F32, &n, f32::from_le_bytes)?;
        let fired_at_end = reader.values(FIRED_AT_END, Dtype::U64, &n, u64::from_le_bytes)?;
        Ok(Self { steps, work, step, window: WindowState { silent, fired_at_end }, carried, logs })
    }
}

/// What the newest checkpoint in a dictionary's directory whose header can be read is of, and after how many steps there are
/// checkpoints, the newest first; `None` if there is none. Reads headers alone.
pub(crate) fn interrupted(dictionary: &Path) -> Option<(Work, Vec<u64>)> {
    let steps = steps_in(dictionary);
    let work = steps.iter().find_map(|&steps| Some(header(&file(dictionary, steps)).ok()?.work))?;
    Some((work, steps))
}

/// How long each log was when a checkpoint was written.
pub(crate) fn lengths(dictionary: &Path, steps: u64) -> Option<Lengths> {
    Some(header(&file(dictionary, steps)).ok()?.logs)
}

/// Keeps a checkpoint that cannot be taken up from being counted. It stays for whoever wants to know.
pub(crate) fn set_aside(dictionary: &Path, steps: u64) {
    let file = file(dictionary, steps);
    let mut name = file.clone().into_os_string();
    name.push(UNUSABLE);
    if let Err(error) = fs::rename(&file, name) {
        tracing::warn!("{}: cannot be renamed: {error}", file.display());
    }
}

/// Removes the checkpoints after step `steps`: who goes on from there comes to them again, with logs of its own.
pub(crate) fn remove_after(dictionary: &Path, steps: u64) -> Result<(), TrainError> {
    for later in steps_in(dictionary).into_iter().filter(|&found| found > steps) {
        let file = file(dictionary, later);
        fs::remove_file(&file).map_err(io(&file))?;
    }
    Ok(())
}

/// Removes all checkpoints of a dictionary's directory.
pub(crate) fn remove(dictionary: &Path) -> Result<(), TrainError> {
    let directory = dictionary.join(DIRECTORY);
    unless_missing(fs::remove_dir_all(&directory)).map_err(io(directory))
}

/// After how many steps there are checkpoints, the newest first.
pub(crate) fn steps_in(dictionary: &Path) -> Vec<u64> {
    let files = fs::read_dir(dictionary.join(DIRECTORY)).into_iter().flatten().flatten();
    let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
    let mut steps: Vec<u64> =
        names.filter_map(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()).collect();
    steps.sort_unstable_by(|a, b| b.cmp(a));
    steps
}

/// The file of a checkpoint.
pub(crate) fn file(dictionary: &Path, steps: u64) -> PathBuf {
    dictionary.join(DIRECTORY).join(format!("{PREFIX}{steps:012}{SUFFIX}"))
}

fn parse(bytes: &[u8]) -> Result<(Facts, SafeTensors<'_>), String> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    Ok((facts(bytes)?, tensors))
}

/// The facts of a file, whose tensors are not read.
fn header(file: &Path) -> Result<Facts, String> {
    let read = || {
        let mut file = File::open(file)?;
        let mut bytes = [0; LENGTH];
        file.read_exact(&mut bytes)?;
        let mut bytes = bytes.to_vec();
        let length = header_length(&bytes).unwrap_or(0).min(MOST_HEADER);
        file.take(length as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    facts(&read().map_err(|e: std::io::Error| e.to_string())?)
}

/// What bytes that begin with a header say.
fn facts(bytes: &[u8]) -> Result<Facts, String> {
    let json = header_length(bytes).and_then(|n| bytes[LENGTH..].get(..n)).ok_or("its header is cut off")?;
    let header: Value = serde_json::from_slice(json).map_err(|e| e.to_string())?;
    let value = |key| header["__metadata__"][key].as_str();
    let (facts, sum) = value(FACTS).zip(value(FACTS_CRC32C)).ok_or("it is no checkpoint of monosema")?;
    if *sum != crc32c::crc32c(facts.as_bytes()).to_string() {
        return Err("its facts are not those that were written".into());
    }
    serde_json::from_str(facts).map_err(|e| e.to_string())
}

/// How long the JSON is that a safetensors file begins with, after its length.
fn header_length(bytes: &[u8]) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(*bytes.first_chunk::<LENGTH>()?)).ok()
}

struct Reader<'a> {
    tensors: SafeTensors<'a>,
    crc32c: BTreeMap<String, u32>,
}

impl Reader<'_> {
    /// A tensor of this type and shape, whole.
    fn values<T, const BYTES: usize>(
        &self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        value: fn([u8; BYTES]) -> T,
    ) -> Result<Vec<T>, String> {
        let view = self.tensors.tensor(name).map_err(|e| e.to_string())?;
        if (view.dtype(), view.shape()) != (dtype, shape) {
            let found = (view.dtype(), view.shape());
            return Err(format!(
                "tensor `{name}`: expected {dtype:?} {shape:?}, found {:?} {:?}",
                found.0, found.1
            ));
        }
        if self.crc32c.get(name) != Some(&crc32c::crc32c(view.data())) {
            return Err(format!("tensor `{name}`: its bytes are not those that were written"));
        }
        Ok(view.data().as_chunks().0.iter().map(|bytes| value(*bytes)).collect())
    }

    fn weights(&self, group: &str, config: &SaeConfig, size: Size) -> Result<Weights, String> {
        let mut weights = Weights::default();
        for (name, shape) in config.shapes(size) {
            let values = self.values(&format!("{group}{name}"), Dtype::F32, &shape, f32::from_le_bytes)?;
            weights.insert_data(name, TensorData::new(values, shape));
        }
        Ok(weights)
    }
}

#[cfg(test)]
mod tests;
