//! GGUF files: weights, configuration and tokenizer in one. Blocks are dequantised by candle-core.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use candle_core::{
    Device,
    quantized::{GgmlDType, ggml_file::qtensor_from_ggml},
};
use memmap2::Mmap;
use monosema_text::Tokenizer;
use serde_json::{Map, Value};

use super::{
    Settings, StoredTensor, TensorSource,
    gguf_header::{self, Entry},
    gguf_tokenizer, safetensors,
};
use crate::ModelError;

/// An open GGUF file.
pub(crate) struct Gguf {
    path: PathBuf,
    map: Mmap,
    metadata: Map<String, Value>,
    tensors: BTreeMap<String, StoredTensor>,
    places: BTreeMap<String, Place>,
}

struct Place {
    ggml_type: GgmlDType,
    begin: usize,
    end: usize,
}

impl Gguf {
    /// Whether `path` is a file that begins as GGUF files do, or is named as they are.
    pub(crate) fn is_likely(path: &Path) -> bool {
        let begins = || {
            let mut magic = [0; gguf_header::MAGIC.len()];
            File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok()
                && magic == *gguf_header::MAGIC
        };
        path.is_file() && (path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) || begins())
    }

    /// Reads the header of the file at `path`, and checks that the tensors lie within the file and are of types
    /// that can be read.
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        let map = safetensors::map(path)?;
        let malformed = |reason: String| ModelError::Malformed { file: path.to_owned(), reason };
        let header = gguf_header::parse(&map).map_err(malformed)?;
        let mut gguf = Self {
            path: path.to_owned(),
            map,
            metadata: header.metadata,
            tensors: BTreeMap::new(),
            places: BTreeMap::new(),
        };
        for entry in header.tensors {
            let place = gguf.place(&entry, header.data_start)?;
            let stored = StoredTensor { file: path.to_owned(), shape: entry.shape };
            if gguf.tensors.insert(entry.name.clone(), stored).is_some() {
                return Err(gguf.bad(&entry.name, "it is in the file twice"));
            }
            gguf.places.insert(entry.name, place);
        }
        Ok(gguf)
    }

    fn place(&self, entry: &Entry, data_start: usize) -> Result<Place, ModelError> {
        let Some(ggml_type) = known_type(entry.ggml_type) else {
            let reason = format!(
                "expected ggml type F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K or Q6_K, found {}; \
                 fetch another quantisation of the model",
                type_name(entry.ggml_type)
            );
            return Err(self.bad(&entry.name, reason));
        };
        let overflow = || self.bad(&entry.name, "its size overflows");
        let elements = entry.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or_else(overflow)?;
        let width = entry.shape.last().copied().unwrap_or(1);
        let (block, bytes) = (ggml_type.block_size(), ggml_type.type_size());
        if !width.is_multiple_of(block) {
            let reason = format!("expected rows of a multiple of {block} values, found {width}");
            return Err(self.bad(&entry.name, reason));
        }
        let begin = data_start.checked_add(entry.offset).ok_or_else(overflow)?;
        let length = (elements / block).checked_mul(bytes).ok_or_else(overflow)?;
        let end = begin.checked_add(length).ok_or_else(overflow)?;
        if end > self.map.len() {
            let reason = format!(
                "cut short: tensor {} ends at byte {end}, the file at byte {}; fetch the file again",
                entry.name,
                self.map.len()
            );
            return Err(ModelError::Malformed { file: self.path.clone(), reason });
        }
        if begin % 8 != 0 {
            return Err(self.bad(&entry.name, format!("expected an aligned offset, found byte {begin}")));
        }
        Ok(Place { ggml_type, begin, end })
    }

    /// `general.architecture`.
    pub(crate) fn architecture(&self) -> Result<&str, ModelError> {
        let key = "general.architecture";
        self.metadata.get(key).and_then(Value::as_str).ok_or_else(|| ModelError::Config {
            file: self.path.clone(),
            key: key.into(),
            reason: "expected the architecture's name, found none".into(),
        })
    }

    /// `general.name`, if there is one.
    pub(crate) fn name(&self) -> Option<&str> {
        self.metadata.get("general.name").and_then(Value::as_str).filter(|name| !name.is_empty())
    }

    /// The metadata of the architecture `name`.
    pub(crate) fn settings(&self, name: &str) -> Settings {
        let prefix = format!("{name}.");
        let own = self
            .metadata
            .iter()
            .filter_map(|(key, value)| key.strip_prefix(&prefix).map(|key| (key.to_owned(), value.clone())));
        Settings::new(&self.path, &prefix, own.collect())
    }

    /// The tokenizer in the file.
    pub(crate) fn tokenizer(&self) -> Result<Tokenizer, ModelError> {
        gguf_tokenizer::build(&self.metadata)
            .map_err(|reason| ModelError::Tokenizer { file: self.path.clone(), reason })
    }

    fn bad(&self, tensor: &str, reason: impl Into<String>) -> ModelError {
        ModelError::BadTensor { file: self.path.clone(), tensor: tensor.to_owned(), reason: reason.into() }
    }
}

impl TensorSource for Gguf {
    fn tensors(&self) -> &BTreeMap<String, StoredTensor> {
        &self.tensors
    }

    fn read(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let Place { ggml_type, begin, end } = self.places[name];
        let bytes = &self.map[begin..end];
        let n = self.tensors[name].shape.iter().product::<usize>();
        qtensor_from_ggml(ggml_type, bytes, vec![n], &Device::Cpu)
            .and_then(|tensor| tensor.dequantize(&Device::Cpu)?.to_vec1::<f32>())
            .map_err(|e| self.bad(name, format!("cannot be dequantised: {e}")))
    }
}

/// The types that are read, by their numbers in
/// <https://github.com/ggml-org/ggml/blob/master/include/ggml.h> (`enum ggml_type`).
fn known_type(number: u32) -> Option<GgmlDType> {
    Some(match number {
        0 => GgmlDType::F32,
        1 => GgmlDType::F16,
        2 => GgmlDType::Q4_0,
        3 => GgmlDType::Q4_1,
        6 => GgmlDType::Q5_0,
        7 => GgmlDType::Q5_1,
        8 => GgmlDType::Q8_0,
        12 => GgmlDType::Q4K,
        13 => GgmlDType::Q5K,
        14 => GgmlDType::Q6K,
        30 => GgmlDType::BF16,
        _ => return None,
    })
}

/// What users know a type as.
fn type_name(number: u32) -> String {
    let name = match number {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return format!("an unknown type (number {number})"),
    };
    format!("{name} (number {number})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::SafetensorsFiles;
    use serde::Deserialize;

    fn fixtures() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/transformer")
    }

    /// Every type against the gguf package, to rounding (Q6_K and its like multiply in another order).
    #[test]
    fn every_type_is_dequantised_as_the_gguf_package_does() {
        let directory = fixtures().join("gguf_types");
        let file = Gguf::open(&directory.join("types.gguf")).unwrap();
        let expected = SafetensorsFiles::open_file(&directory.join("expected.safetensors")).unwrap();
        assert_eq!(file.tensors().len(), 11);
        for name in file.tensors().keys() {
            let (found, expected) = (file.read(name).unwrap(), expected.read(name).unwrap());
            assert_eq!(found.len(), 512);
            let largest = expected.iter().fold(0f32, |m, x| m.max(x.abs()));
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= 2.0 * f32::EPSILON * largest, "{name}: {worst} of {largest}");
        }
    }

    #[derive(Deserialize)]
    struct ExpectedTokens {
        texts: Vec<String>,
        /// The tokens of each text, by the tokenizer's name.
        #[serde(flatten)]
        tokens: BTreeMap<String, Vec<Vec<u32>>>,
    }

    /// Rebuilt tokenizers against those whose vocabularies they were made of.
    #[test]
    fn tokenizers_are_rebuilt() {
        let directory = fixtures().join("gguf_tokenizers");
        let expected = std::fs::read(directory.join("expected.json")).unwrap();
        let expected: ExpectedTokens = serde_json::from_slice(&expected).unwrap();
        assert_eq!(expected.tokens.len(), 8);
        for (name, ids) in expected.tokens {
            let tokenizer = Gguf::open(&directory.join(format!("{name}.gguf"))).unwrap().tokenizer().unwrap();
            for (text, ids) in expected.texts.iter().zip(ids) {
                assert_eq!(tokenizer.encode(text).unwrap(), ids, "{name}: {text:?}");
                assert_eq!(tokenizer.decode(&ids).unwrap(), *text, "{name}");
            }
        }
    }
}
