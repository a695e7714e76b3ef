//! The language model, wherever it is.

use std::path::Path;

use monosema_remote::hub::{Address, Hub, is_hub};
use monosema_transformer::Checkpoint;

use crate::experiment::ModelConfig;

/// Opens the model of a configuration.
pub(crate) fn of(config: &ModelConfig) -> anyhow::Result<Checkpoint> {
    Ok(open(&config.path)?.with_precision(config.precision))
}

/// Opens the model at `path`: a directory, a GGUF file, or `hf:owner/name@revision`, which is fetched.
pub(crate) fn open(path: &Path) -> anyhow::Result<Checkpoint> {
    match path.to_str().filter(|name| is_hub(name)) {
        None => Ok(Checkpoint::open(path)?),
        Some(name) => {
            let files = Hub::from_env()?.model(&Address::parse(name)?)?;
            Ok(Checkpoint::open(&files.path)?.named(files.name, files.resolved))
        }
    }
}

/// Whether `path` names a model that is elsewhere.
pub(crate) fn is_elsewhere(path: &Path) -> bool {
    path.to_str().is_some_and(is_hub)
}
