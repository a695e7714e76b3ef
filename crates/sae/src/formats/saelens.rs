//! SAELens v6: a directory with `cfg.json`, `sae_weights.safetensors` and, optionally, `sparsity.safetensors`
//! (<https://github.com/decoderesearch/SAELens>, `sae_lens/saes/sae.py`: `save_model`, `load_from_disk`).
//!
//! Our own facts are under `metadata.monosema`, which SAELens keeps and ignores.

mod config;
mod tensors;

use std::path::Path;

use burn::tensor::Device;
use monosema_core::AtomicFile;

use self::config::Cfg;
use super::DictionaryFormat;
use crate::{Description, Dictionary, Output, Sae, SaeError};

/// Name of the configuration.
pub const CFG: &str = "cfg.json";
/// Name of the weights.
pub const WEIGHTS: &str = "sae_weights.safetensors";
/// Name of the latents' frequencies.
pub const SPARSITY: &str = "sparsity.safetensors";

/// The key of `metadata` that holds keyword arguments for `HookedTransformer.from_pretrained_no_processing`
/// (`sae_lens/saes/sae.py`: `SAE.__init__`; `sae_lens/evals.py`).
pub(crate) const MODEL_KWARGS: &str = "model_from_pretrained_kwargs";

/// What SAELens calls transcoders, after the name of their activation.
const TRANSCODERS: [(bool, &str); 2] = [(false, "transcoder"), (true, "skip_transcoder")];

/// The one of its activations that its transcoders do not name.
const UNNAMED: &str = "standard";

/// The name of a kind with this output. SAELens itself has such transcoders for `standard` and `jumprelu` only.
fn name(kind: &str, output: Option<Output>) -> String {
    let suffix = TRANSCODERS.into_iter().find(|(skip, _)| output.is_some_and(|output| output.skip == *skip));
    match suffix {
        None => kind.to_owned(),
        Some((_, suffix)) if kind == UNNAMED => suffix.to_owned(),
        Some((_, suffix)) => format!("{kind}_{suffix}"),
    }
}

/// The reverse of [`name`]: the kind, and of a transcoder whether it has a skip connection.
fn parse_name(name: &str) -> (&str, Option<bool>) {
    // The longer one first: it ends in the other.
    for (skip, suffix) in TRANSCODERS.into_iter().rev() {
        if name == suffix {
            return (UNNAMED, Some(skip));
        }
        if let Some(kind) = name.strip_suffix(suffix).and_then(|kind| kind.strip_suffix('_')) {
            return (kind, Some(skip));
        }
    }
    (name, None)
}

/// The [module](self)'s format.
pub(crate) struct SaeLens;

impl DictionaryFormat for SaeLens {
    const FILES: &'static [&'static str] = &[CFG, WEIGHTS];

    fn load(directory: &Path, device: &Device) -> Result<Dictionary, SaeError> {
        let cfg = Cfg::read(&directory.join(CFG))?;
        let shapes = cfg.architecture.shapes(cfg.size);
        let weights = tensors::read(&directory.join(WEIGHTS), &cfg.name(), &shapes)?;
        let sparsity = directory.join(SPARSITY);
        let log_sparsity = match sparsity.try_exists() {
            Ok(false) => None,
            _ => Some(tensors::read_sparsity(&sparsity, cfg.size.d_sae)?),
        };
        let sae = Sae::from_weights(&cfg.architecture, cfg.size, weights, device);
        Ok(Dictionary::new(sae, cfg.metadata, log_sparsity))
    }

    fn describe(directory: &Path) -> Result<Description, SaeError> {
        let cfg = Cfg::read(&directory.join(CFG))?;
        tensors::check(&directory.join(WEIGHTS), &cfg.name(), &cfg.architecture.shapes(cfg.size))?;
        let Cfg { architecture, size, metadata } = cfg;
        Ok(Description { architecture, size, metadata })
    }

    fn save(dictionary: &Dictionary, directory: &Path) -> Result<Vec<String>, SaeError> {
        let mut written = vec![WEIGHTS.to_owned(), CFG.to_owned()];
        let (file, weights) = (directory.join(WEIGHTS), dictionary.sae().to_weights());
        tensors::check_finite(&file, weights.iter())?;
        if let Some(log_sparsity) = dictionary.log_sparsity() {
            tensors::write_sparsity(&directory.join(SPARSITY), log_sparsity)?;
            written.push(SPARSITY.to_owned());
        }
        tensors::write(&file, weights.iter())?;
        let cfg = Cfg {
            architecture: dictionary.sae().config(),
            size: dictionary.size(),
            metadata: dictionary.metadata().clone(),
        };
        let path = directory.join(CFG);
        let json = serde_json::to_vec_pretty(&cfg.to_json()).expect("the keys are strings");
        AtomicFile::write(&path, &json).map_err(|source| SaeError::Io { path, source })?;
        Ok(written)
    }
}

#[cfg(test)]
mod tests;
