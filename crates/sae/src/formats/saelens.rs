//! SAELens v6: a directory with `cfg.json`, `sae_weights.safetensors` and, optionally, `sparsity.safetensors`
//! (<https://github.com/decoderesearch/SAELens>, `sae_lens/saes/sae.py`: `save_model`, `load_from_disk`).
//!
//! Our own facts are under `metadata.monosema`, which SAELens keeps and ignores.

mod config;

use std::path::Path;

use burn::tensor::TensorData;
use monosema_core::AtomicFile;

use self::config::{Cfg, full_name, to_json};
use super::{
    DictionaryFormat, Opened,
    tensor_file::{TensorFile, check_finite, write_safetensors},
};
use crate::{Dictionary, Output, SaeError};

/// Name of the configuration.
pub const CFG: &str = "cfg.json";
/// Name of the weights.
pub const WEIGHTS: &str = "sae_weights.safetensors";
/// Name of the latents' frequencies.
pub const SPARSITY: &str = "sparsity.safetensors";

/// What a checkpoint of SAELens's training has besides: the scale that is folded in when the training ends
/// (`sae_lens/training/activation_scaler.py`).
pub const SCALER: &str = "activation_scaler.json";

/// The one tensor of [`SPARSITY`].
const SPARSITY_TENSOR: &str = "sparsity";

/// The architectures of which SAELens itself has transcoders.
const TRANSCODED: [&str; 2] = ["standard", "jumprelu"];

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
    const NAME: &'static str = "SAELens v6";

    const FILES: &'static [&'static str] = &[CFG, WEIGHTS];

    const MORE_FILES: &'static [&'static str] = &[SCALER];

    fn open(directory: &Path) -> Result<Opened, SaeError> {
        let Cfg { architecture, size, about, hook, hook_out, scales } =
            Cfg::read(&directory.join(CFG), &directory.join(SCALER))?;
        let shapes = architecture.shapes(size);
        let file = TensorFile::safetensors(&directory.join(WEIGHTS))?;
        file.check(&full_name(&architecture, size), &shapes, &[])?;
        let sparsity = directory.join(SPARSITY);
        let read = move || {
            let log_sparsity = match sparsity.try_exists() {
                Ok(false) => None,
                _ => Some(read_sparsity(&sparsity, size.d_sae)?),
            };
            Ok((file.weights(&shapes)?, log_sparsity))
        };
        Ok(Opened { architecture, size, about, hook, hook_out, scales, read: Box::new(read) })
    }

    fn expresses(dictionary: &Dictionary) -> Result<(), SaeError> {
        let kind = dictionary.sae().config().saelens_name();
        let Some(kind) = kind else {
            let what = "its latents are chosen in batches; export it first".into();
            return Err(SaeError::NotExpressible { format: Self::NAME, what });
        };
        if dictionary.size().output.is_some() && !TRANSCODED.contains(&kind) {
            let what = format!("SAELens has transcoders of {}, not of {kind}", TRANSCODED.join(" and "));
            return Err(SaeError::NotExpressible { format: Self::NAME, what });
        }
        Ok(())
    }

    fn save(dictionary: &Dictionary, directory: &Path) -> Result<Vec<String>, SaeError> {
        let mut written = vec![WEIGHTS.to_owned(), CFG.to_owned()];
        let (file, weights) = (directory.join(WEIGHTS), dictionary.sae().to_weights());
        check_finite(&file, weights.iter())?;
        if let Some(log_sparsity) = dictionary.log_sparsity() {
            write_sparsity(&directory.join(SPARSITY), log_sparsity)?;
            written.push(SPARSITY.to_owned());
        }
        write_safetensors(&file, weights.iter())?;
        let path = directory.join(CFG);
        let json = serde_json::to_vec_pretty(&to_json(dictionary)).expect("the keys are strings");
        AtomicFile::write(&path, &json).map_err(|source| SaeError::Io { path, source })?;
        Ok(written)
    }
}

/// Reads log10(frequency + 1e-10) of `d_sae` latents.
fn read_sparsity(path: &Path, d_sae: usize) -> Result<Vec<f32>, SaeError> {
    let file = TensorFile::safetensors(path)?;
    file.check("a sparsity file", &[(SPARSITY_TENSOR, vec![d_sae])], &[])?;
    file.read(SPARSITY_TENSOR)
}

/// Writes log10(frequency + 1e-10) of every latent.
fn write_sparsity(path: &Path, log_sparsity: &[f32]) -> Result<(), SaeError> {
    let data = TensorData::new(log_sparsity.to_vec(), [log_sparsity.len()]);
    let tensors = || std::iter::once((SPARSITY_TENSOR, &data));
    check_finite(path, tensors())?;
    write_safetensors(path, tensors())
}

/// What SAELens calls the architecture of a dictionary, or would if it had such transcoders.
pub fn architecture(dictionary: &Dictionary) -> String {
    full_name(&dictionary.sae().config(), dictionary.size())
}

#[cfg(test)]
mod tests;
