//! What `torch.save` writes of a state dict. Such a file is a pickle, which is a program. It is read by an interpreter that
//! knows tensors and plain values and calls nothing: whatever else a pickle asks for is left out or refused, never run.

use std::path::Path;

use half::{bf16, f16};
use pytorch_reader::{DType, PytorchError, PytorchReader};

use super::{Kind, Stored, TensorFile, decode, io_at};
use crate::SaeError;

fn damaged(file: &Path, reason: impl ToString) -> SaeError {
    super::damaged(file, "PyTorch", reason)
}

pub(super) fn open(path: &Path) -> Result<TensorFile, SaeError> {
    let reader = PytorchReader::new(path).map_err(|error| match error {
        PytorchError::Io(source) if !is_damage(&source) => io_at(path)(source),
        error => damaged(path, error),
    })?;
    let tensors = reader.into_tensors().into_iter().map(|(name, tensor)| {
        let (dtype, shape) = (tensor.dtype(), tensor.shape().to_vec());
        let kind = match dtype {
            DType::F64 | DType::F32 | DType::F16 | DType::BF16 => Kind::Float,
            DType::I64 | DType::I32 => Kind::Integer,
            _ => Kind::Other,
        };
        let path = path.to_owned();
        let read = move || {
            let bytes = tensor.read().map_err(|error| match is_damage(&error) {
                true => damaged(&path, error),
                false => io_at(&path)(error),
            })?;
            Ok(match dtype {
                DType::F32 => decode(&bytes, f32::from_ne_bytes),
                DType::F64 => decode(&bytes, |b| f64::from_ne_bytes(b) as f32),
                DType::F16 => decode(&bytes, |b| f16::from_ne_bytes(b).to_f32()),
                DType::BF16 => decode(&bytes, |b| bf16::from_ne_bytes(b).to_f32()),
                DType::I64 => decode(&bytes, |b| i64::from_ne_bytes(b) as f32),
                DType::I32 => decode(&bytes, |b| i32::from_ne_bytes(b) as f32),
                other => return Err(damaged(&path, format!("numbers of type {other:?}"))),
            })
        };
        (name, Stored { shape, dtype: format!("{dtype:?}"), kind, read: Box::new(read) })
    });
    Ok(TensorFile { path: path.to_owned(), tensors: tensors.collect() })
}

/// Whether the file, not the disk, is at fault.
fn is_damage(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof)
}
