//! Which files of a Hugging Face directory hold the weights, and in which format.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{PytorchFiles, SafetensorsFiles, StoredTensor, TensorSource, pytorch, safetensors};
use crate::ModelError;

/// Opens the weights in `dir`: safetensors, or else PyTorch's pickles; one file, or those that an index lists. Reads
/// headers only.
pub(crate) fn open_weights(dir: &Path) -> Result<Arc<dyn TensorSource>, ModelError> {
    if let Some(files) = WeightFiles::find(dir, safetensors::SINGLE)? {
        let opened = SafetensorsFiles::open(&files.paths)?;
        files.check(dir, opened.tensors())?;
        return Ok(Arc::new(opened));
    }
    if let Some(files) = WeightFiles::find(dir, pytorch::SINGLE)? {
        let opened = PytorchFiles::open(&files.paths)?;
        files.check(dir, opened.tensors())?;
        return Ok(Arc::new(opened));
    }
    let names = [safetensors::SINGLE, pytorch::SINGLE];
    let reason = format!("it has no weights: neither {}, nor an index of shards", names.join(" nor "));
    Err(ModelError::NotAModel { path: dir.to_owned(), reason })
}

/// The files of one format.
struct WeightFiles {
    paths: BTreeSet<PathBuf>,
    /// Which file holds which weight, if an index says so.
    places: BTreeMap<String, String>,
    index: PathBuf,
}

impl WeightFiles {
    /// The file `single`, or those that its index lists.
    fn find(dir: &Path, single: &str) -> Result<Option<Self>, ModelError> {
        let (file, index) = (dir.join(single), dir.join(format!("{single}.index.json")));
        if file.exists() {
            return Ok(Some(Self { paths: [file].into(), places: BTreeMap::new(), index }));
        }
        if !index.exists() {
            return Ok(None);
        }
        let places = read_index(&index)?;
        Ok(Some(Self { paths: places.values().map(|name| dir.join(name)).collect(), places, index }))
    }

    /// Whether every tensor is where the index says.
    fn check(&self, dir: &Path, tensors: &BTreeMap<String, StoredTensor>) -> Result<(), ModelError> {
        for (tensor, name) in &self.places {
            let file = dir.join(name);
            if tensors.get(tensor).is_none_or(|found| found.file != file) {
                let reason = format!("not in this file, though {} says so", self.index.display());
                return Err(ModelError::BadTensor { file, tensor: tensor.clone(), reason });
            }
        }
        Ok(())
    }
}

/// Which file holds which tensor.
fn read_index(index: &Path) -> Result<BTreeMap<String, String>, ModelError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let bytes = std::fs::read(index).map_err(|source| ModelError::Io { path: index.to_owned(), source })?;
    let malformed = |reason: String| ModelError::Malformed { file: index.to_owned(), reason };
    let index: Index = serde_json::from_slice(&bytes)
        .map_err(|e| malformed(format!("expected a JSON object with a weight_map: {e}")))?;
    for name in index.weight_map.values() {
        // A plain file name: an index must not reach out of its directory.
        if Path::new(name).file_name().is_none_or(|file_name| file_name != Path::new(name).as_os_str()) {
            return Err(malformed(format!("weight_map: expected file names, found {name:?}")));
        }
    }
    Ok(index.weight_map)
}

/// Notes that `file` holds the tensor `name`, which no other may.
pub(super) fn note(
    tensors: &mut BTreeMap<String, StoredTensor>,
    name: &str,
    file: &Path,
    shape: &[usize],
) -> Result<(), ModelError> {
    let stored = StoredTensor { file: file.to_owned(), shape: shape.to_vec() };
    match tensors.insert(name.to_owned(), stored) {
        Some(other) => {
            let reason = format!("also in {}", other.file.display());
            Err(ModelError::BadTensor { file: file.to_owned(), tensor: name.to_owned(), reason })
        }
        None => Ok(()),
    }
}
