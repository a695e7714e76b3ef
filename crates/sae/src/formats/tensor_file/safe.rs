//! safetensors (<https://github.com/huggingface/safetensors>).

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use burn::tensor::TensorData;
use half::{bf16, f16};
use monosema_core::AtomicFile;
use safetensors::{Dtype, tensor::TensorView};

use super::{Kind, Stored, TensorFile, decode, io_at};
use crate::SaeError;

/// Where the header begins: after its length, a u64.
const LENGTH_BYTES: usize = 8;

/// No header is longer, the format says.
const LONGEST_HEADER: u64 = 100_000_000;

fn damaged(file: &Path, reason: impl ToString) -> SaeError {
    super::damaged(file, "safetensors", reason)
}

pub(super) fn open(path: &Path) -> Result<TensorFile, SaeError> {
    let mut opened = File::open(path).map_err(io_at(path))?;
    let file_bytes = opened.metadata().map_err(io_at(path))?.len();
    let mut length = [0; LENGTH_BYTES];
    opened.read_exact(&mut length).map_err(|e| damaged(path, e))?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER.min(file_bytes) {
        return Err(damaged(path, format!("a header of {length} bytes")));
    }
    let mut header = vec![0; usize::try_from(length).map_err(|e| damaged(path, e))?];
    opened.read_exact(&mut header).map_err(|e| damaged(path, e))?;
    let metadata: safetensors::tensor::Metadata =
        serde_json::from_slice(&header).map_err(|e| damaged(path, e))?;
    let start = (LENGTH_BYTES + header.len()) as u64;
    let expected = start + metadata.data_len() as u64;
    if file_bytes != expected {
        return Err(damaged(path, format!("expected {expected} bytes, found {file_bytes}")));
    }
    let stored = |info: &safetensors::tensor::TensorInfo| {
        let (begin, end) = info.data_offsets;
        let (path, dtype) = (path.to_owned(), info.dtype);
        let kind = match dtype {
            Dtype::F32 | Dtype::F64 | Dtype::F16 | Dtype::BF16 => Kind::Float,
            _ => Kind::Other,
        };
        let read = move || {
            let bytes = read_range(&path, start + begin as u64, end - begin).map_err(io_at(&path))?;
            Ok(match dtype {
                Dtype::F32 => decode(&bytes, f32::from_le_bytes),
                Dtype::F64 => decode(&bytes, |b| f64::from_le_bytes(b) as f32),
                Dtype::F16 => decode(&bytes, |b| f16::from_le_bytes(b).to_f32()),
                Dtype::BF16 => decode(&bytes, |b| bf16::from_le_bytes(b).to_f32()),
                other => return Err(damaged(&path, format!("numbers of type {other:?}"))),
            })
        };
        Stored { shape: info.shape.clone(), dtype: format!("{dtype:?}"), kind, read: Box::new(read) }
    };
    let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, stored(info))).collect();
    Ok(TensorFile { path: path.to_owned(), tensors })
}

fn read_range(path: &Path, start: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Writes f32 tensors, whole or not at all.
pub(in super::super) fn write_safetensors<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (&'static str, &'a TensorData)>,
) -> Result<(), SaeError> {
    let views = tensors.map(|(name, data)| {
        let view = TensorView::new(Dtype::F32, data.shape().to_vec(), data.as_bytes());
        (name, view.expect("a tensor's bytes fit its shape"))
    });
    // Not `serialize_to_file`: it puts another file in the place of the one that is to be made durable.
    let bytes =
        safetensors::serialize(views, None).map_err(|e| io_at(path)(io::Error::other(e.to_string())))?;
    AtomicFile::write(path, &bytes).map_err(io_at(path))
}
