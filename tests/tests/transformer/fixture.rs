//! The fixtures: a directory a case, see `export.py` there.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Int, Tensor, TensorData};
use monosema_transformer::{Checkpoint, LanguageModel};
use safetensors::SafeTensors;

/// One model and what transformers computes with it.
pub(crate) struct Case {
    pub(crate) name: String,
    /// What [`Checkpoint::open`] takes.
    pub(crate) model: PathBuf,
    pub(crate) expected: BTreeMap<String, Expected>,
    tokens: Expected,
    /// Which positions `expected` is about, if not all.
    positions: Option<Expected>,
}

pub(crate) struct Expected {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f64>,
}

pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/transformer")
}

impl Case {
    /// Every case, so that a new one needs no further line.
    pub(crate) fn all() -> Vec<Self> {
        let mut names: Vec<String> = fs::read_dir(directory())
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| {
                let path = entry.path();
                path.join("config.json").exists() || path.join("model.gguf").exists()
            })
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert!(names.len() >= 40, "fixtures are missing: found {names:?}");
        names.iter().map(|name| Self::read(name)).collect()
    }

    pub(crate) fn read(name: &str) -> Self {
        let directory = directory().join(name);
        let gguf = directory.join("model.gguf");
        let mut expected = read_safetensors(&directory.join("expected.safetensors"));
        let tokens = expected.remove("tokens").unwrap();
        let positions = expected.remove("positions");
        let model = if gguf.exists() { gguf } else { directory };
        Self { name: name.to_owned(), model, expected, tokens, positions }
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint::open(&self.model).unwrap()
    }

    pub(crate) fn load(&self, device: &Device) -> LanguageModel {
        self.checkpoint().load(device).unwrap()
    }

    /// The positions of `x [batch, seq, d]` that `expected` is about.
    pub(crate) fn at_positions(&self, x: Tensor<3>) -> Tensor<3> {
        let Some(positions) = &self.positions else { return x };
        let ids: Vec<i64> = positions.values.iter().map(|&id| id as i64).collect();
        let ids = Tensor::from_data(TensorData::new(ids, [positions.shape[0]]), &x.device());
        x.select(1, ids)
    }

    /// Whether `expected` is about all positions.
    pub(crate) fn is_whole(&self) -> bool {
        self.positions.is_none()
    }

    /// `[batch, seq]`.
    pub(crate) fn tokens(&self, device: &Device) -> Tensor<2, Int> {
        let ids: Vec<i64> = self.tokens.values.iter().map(|&id| id as i64).collect();
        let shape = [self.tokens.shape[0], self.tokens.shape[1]];
        Tensor::from_data(TensorData::new(ids, shape), device)
    }
}

/// Every tensor of a safetensors file.
pub(crate) fn read_safetensors(path: &Path) -> BTreeMap<String, Expected> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let decode = |view: &safetensors::tensor::TensorView| match view.dtype() {
        safetensors::Dtype::F32 => {
            view.data().as_chunks::<4>().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect()
        }
        safetensors::Dtype::I64 => {
            view.data().as_chunks::<8>().0.iter().map(|&b| i64::from_le_bytes(b) as f64).collect()
        }
        other => panic!("no fixture holds {other:?}"),
    };
    let entry = |(name, view): (String, safetensors::tensor::TensorView)| {
        (name, Expected { shape: view.shape().to_vec(), values: decode(&view) })
    };
    file.tensors().into_iter().map(entry).collect()
}

/// The values of a tensor, row by row.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// The largest deviation relative to the root mean square of `expected`.
pub(crate) fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let rms = (expected.iter().map(|x| x * x).sum::<f64>() / expected.len() as f64).sqrt();
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(!found.iter().any(|x| x.is_nan()));
    worst / rms
}
