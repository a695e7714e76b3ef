//! safetensors files, one or several with an index, as on the Hugging Face hub.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use memmap2::Mmap;
use monosema_core::AtomicFile;
use safetensors::{Dtype, SafeTensors, View, tensor::Metadata};

use super::{StoredTensor, TensorSource, directory};
use crate::ModelError;

/// The name of a file that holds all weights.
pub(super) const SINGLE: &str = "model.safetensors";

/// The weights of a Hugging Face directory.
pub(crate) struct SafetensorsFiles {
    files: BTreeMap<PathBuf, MappedFile>,
    tensors: BTreeMap<String, StoredTensor>,
}

struct MappedFile {
    map: Mmap,
    header: Metadata,
    data_start: usize,
}

impl SafetensorsFiles {
    /// Opens the files at `paths`. Reads headers only.
    pub(super) fn open(paths: &BTreeSet<PathBuf>) -> Result<Self, ModelError> {
        let mut opened = Self { files: BTreeMap::new(), tensors: BTreeMap::new() };
        for path in paths {
            let file = MappedFile::open(path)?;
            for (name, info) in file.header.tensors() {
                directory::note(&mut opened.tensors, &name, path, &info.shape)?;
            }
            opened.files.insert(path.clone(), file);
        }
        Ok(opened)
    }

    /// Opens one file by its path.
    #[cfg(test)]
    pub(crate) fn open_file(path: &Path) -> Result<Self, ModelError> {
        Self::open(&[path.to_owned()].into())
    }
}

impl TensorSource for SafetensorsFiles {
    fn tensors(&self) -> &BTreeMap<String, StoredTensor> {
        &self.tensors
    }

    fn read(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let path = &self.tensors[name].file;
        let file = &self.files[path];
        let info = file.header.info(name).expect("the file was listed as holding this tensor");
        let (begin, end) = info.data_offsets;
        let bytes = &file.map[file.data_start + begin..file.data_start + end];
        match info.dtype {
            Dtype::F32 => Ok(decode(bytes, f32::from_le_bytes)),
            Dtype::F16 => Ok(decode(bytes, |b| f16::from_le_bytes(b).to_f32())),
            Dtype::BF16 => Ok(decode(bytes, |b| bf16::from_le_bytes(b).to_f32())),
            Dtype::F64 => Ok(decode(bytes, |b| f64::from_le_bytes(b) as f32)),
            other => {
                let reason = format!("expected dtype F64, F32, F16 or BF16, found {other:?}");
                Err(ModelError::BadTensor { file: path.clone(), tensor: name.to_owned(), reason })
            }
        }
    }
}

/// Little-endian values of `N` bytes.
pub(super) fn decode<const N: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (values, _) = bytes.as_chunks::<N>();
    values.iter().map(|&value| f(value)).collect()
}

impl MappedFile {
    fn open(path: &Path) -> Result<Self, ModelError> {
        let map = map(path)?;
        let malformed = |e: safetensors::SafeTensorError| {
            let reason =
                format!("not a whole safetensors file of {} bytes: {e}; fetch the file again", map.len());
            ModelError::Malformed { file: path.to_owned(), reason }
        };
        let (header_bytes, header) = SafeTensors::read_metadata(&map).map_err(malformed)?;
        let data_start = header_bytes + size_of::<u64>();
        if map.len() != data_start + header.data_len() {
            let expected = data_start + header.data_len();
            let reason =
                format!("expected {expected} bytes by its header, found {}; fetch the file again", map.len());
            return Err(ModelError::Malformed { file: path.to_owned(), reason });
        }
        Ok(Self { header, data_start, map })
    }
}

/// Maps a file into memory.
pub(super) fn map(path: &Path) -> Result<Mmap, ModelError> {
    let io = |source| ModelError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    // SAFETY: the usual contract of mapped weights: nobody may write to the file while a model is loaded.
    unsafe { Mmap::map(&file) }.map_err(io)
}

/// A tensor to be saved.
pub(crate) struct SavedTensor {
    /// Slowest dimension first.
    pub(crate) shape: Vec<usize>,
    /// Row by row.
    pub(crate) values: Vec<f32>,
}

/// Writes `model.safetensors` into `dir`, in bf16 (rounded to nearest) or f32.
pub(crate) fn save(
    dir: &Path,
    tensors: BTreeMap<String, SavedTensor>,
    as_bf16: bool,
) -> Result<(), ModelError> {
    struct Encoded {
        dtype: Dtype,
        shape: Vec<usize>,
        bytes: Vec<u8>,
    }
    impl View for Encoded {
        fn dtype(&self) -> Dtype {
            self.dtype
        }
        fn shape(&self) -> &[usize] {
            &self.shape
        }
        fn data(&self) -> std::borrow::Cow<'_, [u8]> {
            self.bytes.as_slice().into()
        }
        fn data_len(&self) -> usize {
            self.bytes.len()
        }
    }
    let encode = |tensor: SavedTensor| {
        let (dtype, bytes) = if as_bf16 {
            (Dtype::BF16, tensor.values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect())
        } else {
            (Dtype::F32, tensor.values.iter().flat_map(|x| x.to_le_bytes()).collect())
        };
        Encoded { dtype, shape: tensor.shape, bytes }
    };
    let tensors = tensors.into_iter().map(|(name, tensor)| (name, encode(tensor)));
    // transformers asks for the format in the metadata.
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let bytes = safetensors::serialize(tensors, Some(metadata)).expect("dtype, shape and length agree");
    let path = dir.join(SINGLE);
    AtomicFile::write(&path, &bytes).map_err(|source| ModelError::Io { path, source })
}
