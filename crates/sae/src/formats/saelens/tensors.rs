//! The tensor files of a SAELens directory.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Read,
    path::Path,
};

use burn::tensor::{DType, TensorData};
use monosema_core::AtomicFile;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{SaeError, Weights};

/// The one tensor of `sparsity.safetensors`.
const SPARSITY_TENSOR: &str = "sparsity";

/// Where the header begins: after its length, a u64.
const LENGTH_BYTES: usize = 8;

/// No header is longer, the format says.
const LONGEST_HEADER: u64 = 100_000_000;

/// Reads exactly the tensors of `shapes`, all of them finite, as f32.
pub(super) fn read(
    file: &Path,
    architecture: &str,
    shapes: &[(&'static str, Vec<usize>)],
) -> Result<Weights, SaeError> {
    let bytes = fs::read(file).map_err(io(file))?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| damaged(file, e))?;
    let found =
        tensors.tensors().into_iter().map(|(name, view)| (name, (view.dtype(), view.shape().to_vec())));
    check_tensors(file, architecture, shapes, &found.collect())?;
    let mut weights = Weights::default();
    for (name, shape) in shapes {
        let view = tensors.tensor(name).expect("it was just found");
        let dtype = burn_dtype(view.dtype()).expect("it was just checked");
        let data = TensorData::from_bytes_vec(view.data().to_vec(), shape.clone(), dtype).convert::<f32>();
        weights.insert_data(name, data);
    }
    check_finite(file, weights.iter())?;
    Ok(weights)
}

/// Checks that `file` holds exactly the tensors of `shapes`, by its header and its length.
pub(super) fn check(
    file: &Path,
    architecture: &str,
    shapes: &[(&'static str, Vec<usize>)],
) -> Result<(), SaeError> {
    let mut opened = File::open(file).map_err(io(file))?;
    let file_bytes = opened.metadata().map_err(io(file))?.len();
    let mut length = [0; LENGTH_BYTES];
    opened.read_exact(&mut length).map_err(|e| damaged(file, e))?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER.min(file_bytes) {
        return Err(damaged(file, format!("a header of {length} bytes")));
    }
    let mut header = vec![0; usize::try_from(length).map_err(|e| damaged(file, e))?];
    opened.read_exact(&mut header).map_err(|e| damaged(file, e))?;
    let metadata: safetensors::tensor::Metadata =
        serde_json::from_slice(&header).map_err(|e| damaged(file, e))?;
    let expected = (LENGTH_BYTES + header.len() + metadata.data_len()) as u64;
    if file_bytes != expected {
        return Err(damaged(file, format!("expected {expected} bytes, found {file_bytes}")));
    }
    let found = metadata.tensors().into_iter().map(|(name, info)| (name, (info.dtype, info.shape.clone())));
    check_tensors(file, architecture, shapes, &found.collect())
}

/// Whether exactly the tensors of `shapes` are there, as floating-point numbers.
fn check_tensors(
    file: &Path,
    architecture: &str,
    shapes: &[(&'static str, Vec<usize>)],
    found: &BTreeMap<String, (Dtype, Vec<usize>)>,
) -> Result<(), SaeError> {
    let names = || found.keys().cloned().collect::<Vec<_>>();
    for (name, expected) in shapes {
        let (file, expected) = (file.to_owned(), expected.clone());
        let Some((dtype, shape)) = found.get(*name) else {
            let found = if found.is_empty() { "none".into() } else { names().join(", ") };
            return Err(SaeError::MissingTensor { file, name: (*name).to_owned(), expected, found });
        };
        let name = (*name).to_owned();
        if *shape != expected {
            return Err(SaeError::Shape { file, name, expected, found: shape.clone() });
        }
        if burn_dtype(*dtype).is_none() {
            return Err(SaeError::DType { file, name, found: format!("{dtype:?}") });
        }
    }
    if let Some(name) = names().into_iter().find(|found| shapes.iter().all(|(name, _)| found != name)) {
        let expected: Vec<_> = shapes.iter().map(|(name, _)| *name).collect();
        let (file, architecture) = (file.to_owned(), architecture.to_owned());
        return Err(SaeError::ExtraTensor { file, name, architecture, expected: expected.join(", ") });
    }
    Ok(())
}

fn burn_dtype(dtype: Dtype) -> Option<DType> {
    match dtype {
        Dtype::F32 => Some(DType::F32),
        Dtype::F64 => Some(DType::F64),
        Dtype::F16 => Some(DType::F16),
        Dtype::BF16 => Some(DType::BF16),
        _ => None,
    }
}

/// Checks that every number of f32 tensors is finite; `file` is where they come from or go to.
pub(super) fn check_finite<'a>(
    file: &Path,
    tensors: impl Iterator<Item = (&'static str, &'a TensorData)>,
) -> Result<(), SaeError> {
    for (name, data) in tensors {
        let values = data.as_slice::<f32>().expect("weights are f32");
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            let (file, name) = (file.to_owned(), name.to_owned());
            return Err(SaeError::NotFinite { file, name, index, value: values[index] });
        }
    }
    Ok(())
}

fn io(file: &Path) -> impl FnOnce(std::io::Error) -> SaeError {
    let path = file.to_owned();
    |source| SaeError::Io { path, source }
}

fn damaged(file: &Path, reason: impl ToString) -> SaeError {
    SaeError::NotSafetensors { file: file.to_owned(), reason: reason.to_string() }
}

/// Reads log10(frequency + 1e-10) of `d_sae` latents.
pub(super) fn read_sparsity(file: &Path, d_sae: usize) -> Result<Vec<f32>, SaeError> {
    let weights = read(file, "a sparsity file", &[(SPARSITY_TENSOR, vec![d_sae])])?;
    let (_, data) = weights.iter().next().expect("`read` returns every tensor it was asked for");
    Ok(data.try_to_vec().expect("`read` converts to f32"))
}

/// Writes f32 tensors, whole or not at all.
pub(super) fn write<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (&'static str, &'a TensorData)>,
) -> Result<(), SaeError> {
    let views = tensors.map(|(name, data)| {
        let view = TensorView::new(Dtype::F32, data.shape().to_vec(), data.as_bytes());
        (name, view.expect("a tensor's bytes fit its shape"))
    });
    // Not `serialize_to_file`: it puts another file in the place of the one that is to be made durable.
    let bytes =
        safetensors::serialize(views, None).map_err(|e| io(path)(std::io::Error::other(e.to_string())))?;
    AtomicFile::write(path, &bytes).map_err(io(path))
}

/// Writes log10(frequency + 1e-10) of every latent.
pub(super) fn write_sparsity(path: &Path, log_sparsity: &[f32]) -> Result<(), SaeError> {
    let data = TensorData::new(log_sparsity.to_vec(), [log_sparsity.len()]);
    check_finite(path, std::iter::once((SPARSITY_TENSOR, &data)))?;
    write(path, std::iter::once((SPARSITY_TENSOR, &data)))
}
