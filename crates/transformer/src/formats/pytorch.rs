//! PyTorch's files (`pytorch_model.bin`), as the Hugging Face hub's older models have them: zip archives and what came
//! before them.
//!
//! Such a file is a pickle, which is a program. It is read by an interpreter that knows tensors and plain values and
//! calls nothing: whatever else a pickle asks for is left out or refused, never run.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use pytorch_reader::{DType, PytorchError, PytorchReader, Tensor};

use super::{StoredTensor, TensorSource, directory, safetensors::decode};
use crate::ModelError;

/// The name of a file that holds all weights.
pub(super) const SINGLE: &str = "pytorch_model.bin";

/// The weights of a Hugging Face directory.
pub(crate) struct PytorchFiles {
    tensors: BTreeMap<String, StoredTensor>,
    contents: HashMap<String, Tensor>,
}

impl PytorchFiles {
    /// Opens the files at `paths`.
    pub(super) fn open(paths: &BTreeSet<PathBuf>) -> Result<Self, ModelError> {
        let mut opened = Self { tensors: BTreeMap::new(), contents: HashMap::new() };
        for path in paths {
            let reader = PytorchReader::new(path).map_err(|error| unreadable(path, error))?;
            for (name, tensor) in reader.into_tensors() {
                directory::note(&mut opened.tensors, &name, path, tensor.shape())?;
                opened.contents.insert(name, tensor);
            }
        }
        Ok(opened)
    }
}

impl TensorSource for PytorchFiles {
    fn tensors(&self) -> &BTreeMap<String, StoredTensor> {
        &self.tensors
    }

    fn read(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let (file, tensor) = (&self.tensors[name].file, &self.contents[name]);
        let bad =
            |reason: String| ModelError::BadTensor { file: file.clone(), tensor: name.to_owned(), reason };
        let values: fn(&[u8]) -> Vec<f32> = match tensor.dtype() {
            DType::F32 => |bytes| decode(bytes, f32::from_ne_bytes),
            DType::F16 => |bytes| decode(bytes, |b| f16::from_ne_bytes(b).to_f32()),
            DType::BF16 => |bytes| decode(bytes, |b| bf16::from_ne_bytes(b).to_f32()),
            DType::F64 => |bytes| decode(bytes, |b| f64::from_ne_bytes(b) as f32),
            other => return Err(bad(format!("expected dtype F64, F32, F16 or BF16, found {other:?}"))),
        };
        match tensor.read() {
            Ok(bytes) => Ok(values(&bytes)),
            Err(error) if is_damage(&error) => Err(bad(format!("{error}; fetch the file again"))),
            Err(source) => Err(ModelError::Io { path: file.clone(), source }),
        }
    }
}

/// Whether the file, not the disk, is at fault.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn unreadable(path: &Path, error: PytorchError) -> ModelError {
    match error {
        PytorchError::Io(source) if !is_damage(&source) => ModelError::Io { path: path.to_owned(), source },
        error => {
            let reason = format!(
                "not a whole file of PyTorch's tensors: {error}; fetch the file again, or the model's safetensors"
            );
            ModelError::Malformed { file: path.to_owned(), reason }
        }
    }
}
