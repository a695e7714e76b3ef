//! The tensors of one file, whoever wrote it: safetensors, PyTorch's pickles, NumPy's archives.
//!
//! Opening reads names, types and shapes; numbers are read when they are asked for, as f32.

mod npz;
mod pickle;
mod safe;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use burn::tensor::TensorData;

pub(super) use self::safe::write_safetensors;
use crate::{SaeError, Weights};

/// The tensors of one file.
pub(super) struct TensorFile {
    path: PathBuf,
    tensors: BTreeMap<String, Stored>,
}

/// A tensor that was not read yet.
struct Stored {
    shape: Vec<usize>,
    /// As the format calls it.
    dtype: String,
    /// Whether its numbers can be f32 at all: floating-point, or integers for those who ask for a count.
    kind: Kind,
    read: Box<dyn Fn() -> Result<Vec<f32>, SaeError>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Float,
    Integer,
    Other,
}

/// A tensor that a file must hold.
pub(super) type Shape = (&'static str, Vec<usize>);

impl TensorFile {
    /// Opens a safetensors file.
    pub(super) fn safetensors(path: &Path) -> Result<Self, SaeError> {
        safe::open(path)
    }

    /// Opens a file of `torch.save`: of the pickle only tensors are read, and nothing of it is run.
    pub(super) fn pickle(path: &Path) -> Result<Self, SaeError> {
        pickle::open(path)
    }

    /// Opens a file of `numpy.savez`.
    pub(super) fn npz(path: &Path) -> Result<Self, SaeError> {
        npz::open(path)
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the tensors.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The shape of a tensor that has two dimensions.
    pub(super) fn matrix(&self, name: &str) -> Result<[usize; 2], SaeError> {
        let stored = self.tensors.get(name).ok_or_else(|| self.missing(name, Vec::new()))?;
        <[usize; 2]>::try_from(stored.shape.as_slice()).ok().filter(|shape| !shape.contains(&0)).ok_or_else(
            || SaeError::Rank {
                file: self.path.clone(),
                name: name.to_owned(),
                expected: 2,
                found: stored.shape.clone(),
            },
        )
    }

    /// Checks that exactly these tensors are there, beside those that are `ignored`, as floating-point numbers.
    pub(super) fn check(
        &self,
        architecture: &str,
        shapes: &[Shape],
        ignored: &[&str],
    ) -> Result<(), SaeError> {
        for (name, expected) in shapes {
            let (file, expected) = (self.path.clone(), expected.clone());
            let Some(stored) = self.tensors.get(*name) else { return Err(self.missing(name, expected)) };
            let name = (*name).to_owned();
            if stored.shape != expected {
                return Err(SaeError::Shape { file, name, expected, found: stored.shape.clone() });
            }
            if stored.kind != Kind::Float {
                return Err(SaeError::DType { file, name, found: stored.dtype.clone() });
            }
        }
        let known = |found: &&str| shapes.iter().any(|(name, _)| name == found) || ignored.contains(found);
        if let Some(name) = self.names().find(|name| !known(name)) {
            let expected: Vec<_> = shapes.iter().map(|(name, _)| *name).collect();
            return Err(SaeError::ExtraTensor {
                file: self.path.clone(),
                name: name.to_owned(),
                architecture: architecture.to_owned(),
                expected: expected.join(", "),
            });
        }
        Ok(())
    }

    fn missing(&self, name: &str, expected: Vec<usize>) -> SaeError {
        let names: Vec<_> = self.names().collect();
        let found = if names.is_empty() { "none".into() } else { names.join(", ") };
        SaeError::MissingTensor { file: self.path.clone(), name: name.to_owned(), expected, found }
    }

    /// The numbers of a tensor of [checked](Self::check) shape, row by row. All are finite.
    pub(super) fn read(&self, name: &str) -> Result<Vec<f32>, SaeError> {
        let values = (self.tensors[name].read)()?;
        check_values(&self.path, name, &values)?;
        Ok(values)
    }

    /// The one number of a tensor, be it a float or an integer.
    pub(super) fn number(&self, name: &str) -> Result<f32, SaeError> {
        let Some(stored) = self.tensors.get(name) else { return Err(self.missing(name, Vec::new())) };
        let (file, name) = (self.path.clone(), name.to_owned());
        if stored.shape.iter().product::<usize>() != 1 {
            return Err(SaeError::Shape { file, name, expected: Vec::new(), found: stored.shape.clone() });
        }
        if stored.kind == Kind::Other {
            return Err(SaeError::DType { file, name, found: stored.dtype.clone() });
        }
        Ok(self.read(&name)?[0])
    }

    /// All tensors of `shapes`, which were [checked](Self::check).
    pub(super) fn weights(&self, shapes: &[Shape]) -> Result<Weights, SaeError> {
        let mut weights = Weights::default();
        for (name, shape) in shapes {
            weights.insert_data(name, TensorData::new(self.read(name)?, shape.clone()));
        }
        Ok(weights)
    }
}

/// `values [rows, columns]`, row by row, as `[columns, rows]`.
pub(super) fn transposed(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    // Tiles: a column of a large matrix is one cache line a number.
    const TILE: usize = 32;
    let mut turned = vec![0.0; values.len()];
    for row in (0..rows).step_by(TILE) {
        for column in (0..columns).step_by(TILE) {
            for r in row..(row + TILE).min(rows) {
                for c in column..(column + TILE).min(columns) {
                    turned[c * rows + r] = values[r * columns + c];
                }
            }
        }
    }
    turned
}

/// Checks that every number of f32 tensors is finite; `file` is where they come from or go to.
pub(super) fn check_finite<'a>(
    file: &Path,
    tensors: impl Iterator<Item = (&'static str, &'a TensorData)>,
) -> Result<(), SaeError> {
    for (name, data) in tensors {
        check_values(file, name, data.as_slice::<f32>().expect("weights are f32"))?;
    }
    Ok(())
}

fn check_values(file: &Path, name: &str, values: &[f32]) -> Result<(), SaeError> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(index) => Err(SaeError::NotFinite {
            file: file.to_owned(),
            name: name.to_owned(),
            index,
            value: values[index],
        }),
    }
}

/// Values of `N` bytes each.
fn decode<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|&value| f(value)).collect()
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> SaeError {
    let path = path.to_owned();
    |source| SaeError::Io { path, source }
}

fn damaged(file: &Path, kind: &'static str, reason: impl ToString) -> SaeError {
    SaeError::Damaged { file: file.to_owned(), kind, reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_by_hand() {
        assert_eq!(transposed(&[1., 2., 3., 4., 5., 6.], [2, 3]), [1., 4., 2., 5., 3., 6.]);
        // Beyond one tile, and odd.
        let (rows, columns) = (37, 65);
        let values: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
        let turned = transposed(&values, [rows, columns]);
        assert_eq!(turned[5 * rows + 36], values[36 * columns + 5]);
        assert_eq!(transposed(&turned, [columns, rows]), values);
    }
}
