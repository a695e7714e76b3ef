//! The files that weights come in. A format knows names, shapes and bytes; it knows no model.

mod directory;
mod gguf;
mod gguf_header;
mod gguf_tokenizer;
mod pytorch;
mod safetensors;
mod settings;

pub(crate) use directory::open_weights;
pub(crate) use gguf::Gguf;
pub use gguf_tokenizer::GGUF_SPLITS;
use pytorch::PytorchFiles;
pub(crate) use safetensors::{SafetensorsFiles, SavedTensor, save};
pub(crate) use settings::Settings;

use std::{collections::BTreeMap, path::PathBuf};

use crate::ModelError;

/// Named tensors on disk.
pub(crate) trait TensorSource: Send + Sync {
    /// Every tensor by its name in the file.
    fn tensors(&self) -> &BTreeMap<String, StoredTensor>;

    /// The values of the tensor `name`, which exists, in f32 and row by row.
    fn read(&self, name: &str) -> Result<Vec<f32>, ModelError>;
}

/// A tensor as a file's header describes it.
#[derive(Clone, Debug)]
pub(crate) struct StoredTensor {
    /// The file that holds it.
    pub(crate) file: PathBuf,
    /// Slowest dimension first.
    pub(crate) shape: Vec<usize>,
}
