//! The tensor files of a SAELens directory.

use std::{fs, path::Path};

use burn::tensor::{DType, TensorData};
use monosema_core::AtomicFile;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{SaeError, Weights};

/// The one tensor of `sparsity.safetensors`.
const SPARSITY_TENSOR: &str = "sparsity";

/// Reads exactly the tensors of `shapes`, all of them finite, as f32.
pub(super) fn read(
    file: &Path,
    architecture: &str,
    shapes: &[(&'static str, Vec<usize>)],
) -> Result<Weights, SaeError> {
    let bytes = fs::read(file).map_err(|source| SaeError::Io { path: file.to_owned(), source })?;
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|e| SaeError::NotSafetensors { file: file.to_owned(), reason: e.to_string() })?;
    let mut names: Vec<_> = tensors.names().into_iter().map(str::to_owned).collect();
    names.sort();
    let mut weights = Weights::default();
    for (name, shape) in shapes {
        let Ok(view) = tensors.tensor(name) else {
            let found = if names.is_empty() { "none".into() } else { names.join(", ") };
            let (file, name) = (file.to_owned(), (*name).to_owned());
            return Err(SaeError::MissingTensor { file, name, expected: shape.clone(), found });
        };
        weights.insert_data(name, to_f32(file, name, &view, shape)?);
    }
    if let Some(extra) = names.into_iter().find(|n| shapes.iter().all(|(name, _)| name != n)) {
        let expected: Vec<_> = shapes.iter().map(|(name, _)| *name).collect();
        return Err(SaeError::ExtraTensor {
            file: file.to_owned(),
            name: extra,
            architecture: architecture.to_owned(),
            expected: expected.join(", "),
        });
    }
    Ok(weights)
}

fn to_f32(file: &Path, name: &str, view: &TensorView<'_>, shape: &[usize]) -> Result<TensorData, SaeError> {
    let (file, name) = (file.to_owned(), name.to_owned());
    if view.shape() != shape {
        return Err(SaeError::Shape { file, name, expected: shape.to_vec(), found: view.shape().to_vec() });
    }
    let dtype = match view.dtype() {
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        other => return Err(SaeError::DType { file, name, found: format!("{other:?}") }),
    };
    let data = TensorData::from_bytes_vec(view.data().to_vec(), shape.to_vec(), dtype).convert::<f32>();
    let values = data.as_slice::<f32>().expect("it was converted to f32");
    match values.iter().position(|v| !v.is_finite()) {
        Some(index) => Err(SaeError::NotFinite { file, name, index, value: values[index] }),
        None => Ok(data),
    }
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
    let io = |source| SaeError::Io { path: path.to_owned(), source };
    let views = tensors.map(|(name, data)| {
        let view = TensorView::new(Dtype::F32, data.shape().to_vec(), data.as_bytes());
        (name, view.expect("a tensor's bytes fit its shape"))
    });
    // Not `serialize_to_file`: it puts another file in the place of the one that is to be made durable.
    let bytes = safetensors::serialize(views, None).map_err(|e| io(std::io::Error::other(e.to_string())))?;
    AtomicFile::write(path, &bytes).map_err(io)
}

/// Writes log10(frequency + 1e-10) of every latent.
pub(super) fn write_sparsity(path: &Path, log_sparsity: &[f32]) -> Result<(), SaeError> {
    let data = TensorData::new(log_sparsity.to_vec(), [log_sparsity.len()]);
    write(path, std::iter::once((SPARSITY_TENSOR, &data)))
}
