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
use crate::{Description, Dictionary, Sae, SaeError};

/// Name of the configuration.
pub const CFG: &str = "cfg.json";
/// Name of the weights.
pub const WEIGHTS: &str = "sae_weights.safetensors";
/// Name of the latents' frequencies.
pub const SPARSITY: &str = "sparsity.safetensors";

/// The key of `metadata` that holds keyword arguments for `HookedTransformer.from_pretrained_no_processing`
/// (`sae_lens/saes/sae.py`: `SAE.__init__`; `sae_lens/evals.py`).
pub(crate) const MODEL_KWARGS: &str = "model_from_pretrained_kwargs";

/// The [module](self)'s format.
pub(crate) struct SaeLens;

impl DictionaryFormat for SaeLens {
    const FILES: &'static [&'static str] = &[CFG, WEIGHTS];

    fn load(directory: &Path, device: &Device) -> Result<Dictionary, SaeError> {
        let cfg = Cfg::read(&directory.join(CFG))?;
        let shapes = cfg.architecture.shapes(cfg.size);
        let architecture = cfg.architecture.saelens_name();
        let weights = tensors::read(&directory.join(WEIGHTS), architecture, &shapes)?;
        let sparsity = directory.join(SPARSITY);
        let log_sparsity = match sparsity.try_exists() {
            Ok(false) => None,
            _ => Some(tensors::read_sparsity(&sparsity, cfg.size.d_sae)?),
        };
        let sae = Sae::from_weights(&cfg.architecture, weights, device);
        Ok(Dictionary::new(sae, cfg.metadata, log_sparsity))
    }

    fn describe(directory: &Path) -> Result<Description, SaeError> {
        let Cfg { architecture, size, metadata } = Cfg::read(&directory.join(CFG))?;
        let file = directory.join(WEIGHTS);
        tensors::check(&file, architecture.saelens_name(), &architecture.shapes(size))?;
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
