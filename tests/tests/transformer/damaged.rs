//! Copies of fixtures, to be damaged, and what is said of them.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::Device;
use monosema_transformer::{Checkpoint, ModelError};
use safetensors::Dtype;
use serde_json::Value;
use tempfile::TempDir;

use crate::fixture::{directory, read_safetensors};

/// A copy of a fixture, to be damaged.
pub(crate) struct Copy(pub(crate) TempDir);

impl Copy {
    pub(crate) fn of(case: &str) -> Self {
        let copy = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(directory().join(case)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        Self(copy)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn config(self, change: impl FnOnce(&mut Value)) -> Self {
        let path = self.path("config.json");
        let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        fs::write(path, config.to_string()).unwrap();
        self
    }

    pub(crate) fn tensors(self, change: impl FnOnce(&mut BTreeMap<String, Raw>)) -> Self {
        let path = self.path("model.safetensors");
        let mut tensors = read_safetensors(&path)
            .into_iter()
            .map(|(name, tensor)| {
                let bytes = tensor.values.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect();
                (name, Raw { dtype: Dtype::F32, shape: tensor.shape, bytes })
            })
            .collect();
        change(&mut tensors);
        fs::write(path, safetensors::serialize(tensors, None).unwrap()).unwrap();
        self
    }

    pub(crate) fn bytes(self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut bytes = fs::read(self.path(name)).unwrap();
        change(&mut bytes);
        fs::write(self.path(name), bytes).unwrap();
        self
    }

    /// Overwrites what follows the first `after` in model.gguf, from `skip` bytes behind it on.
    pub(crate) fn gguf(self, after: &str, skip: usize, with: &[u8]) -> Self {
        self.bytes("model.gguf", |bytes| {
            let found = bytes.windows(after.len()).position(|window| window == after.as_bytes());
            let at = found.unwrap() + after.len() + skip;
            bytes[at..at + with.len()].copy_from_slice(with);
        })
    }

    pub(crate) fn open_directory(&self) -> Result<(), ModelError> {
        open(self.0.path())
    }

    pub(crate) fn open_gguf(&self) -> Result<(), ModelError> {
        open(&self.path("model.gguf"))
    }
}

/// A tensor as it is stored.
#[derive(Clone)]
pub(crate) struct Raw {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

impl Raw {
    pub(crate) fn zeros(shape: &[usize]) -> Self {
        let bytes = vec![0; 4 * shape.iter().product::<usize>()];
        Self { dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }
}

impl safetensors::View for Raw {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::from(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

pub(crate) fn open(path: &Path) -> Result<(), ModelError> {
    Checkpoint::open(path)?.load(&Device::flex()).map(|_| ())
}

#[track_caller]
pub(crate) fn refused(result: Result<(), ModelError>, parts: &[&str]) {
    let message = result.expect_err("the checkpoint was accepted").to_string();
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}
