//! The header of a GGUF file, versions 2 and 3, as
//! <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md> specifies it.
//!
//! candle-core has a reader too, but it names neither the tensor whose type it does not know nor the place
//! where a file is cut short.

use serde_json::{Map, Value};

/// What the header of a GGUF file says.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) metadata: Map<String, Value>,
    pub(super) tensors: Vec<Entry>,
    /// Where the tensors' data begins.
    pub(super) data_start: usize,
}

/// One tensor of the header.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Slowest dimension first (files have the fastest first).
    pub(super) shape: Vec<usize>,
    /// The number of its ggml type.
    pub(super) ggml_type: u32,
    /// From the beginning of the data.
    pub(super) offset: usize,
}

/// What GGUF files begin with.
pub(super) const MAGIC: &[u8; 4] = b"GGUF";
const DEFAULT_ALIGNMENT: usize = 32;
const MAX_DIMENSIONS: usize = 4;
/// Arrays within arrays are legal and unused; a bound keeps a malicious file from overflowing the stack.
const MAX_DEPTH: usize = 4;
/// What helps against a file that is cut short.
const AGAIN: &str = "fetch the file again";

/// Parses the header of the file that begins with `bytes`. Errors say expected and found.
pub(super) fn parse(bytes: &[u8]) -> Result<Header, String> {
    let mut cursor = Cursor { bytes, at: 0 };
    let magic = cursor.take(MAGIC.len())?;
    if magic != MAGIC {
        let found = String::from_utf8_lossy(magic);
        return Err(format!("expected a GGUF file, which begins with \"GGUF\", found one with {found:?}"));
    }
    match cursor.u32()? {
        2 | 3 => {}
        found => {
            return Err(format!(
                "expected GGUF version 2 or 3, found {found}; convert the model with a current llama.cpp"
            ));
        }
    }
    let (n_tensors, n_keys) = (cursor.length()?, cursor.length()?);
    let mut metadata = Map::new();
    for _ in 0..n_keys {
        let key = cursor.string()?;
        let kind = cursor.u32()?;
        let value = cursor.value(kind, 0).map_err(|reason| format!("{key}: {reason}"))?;
        metadata.insert(key, value);
    }
    let tensors = (0..n_tensors).map(|_| cursor.entry()).collect::<Result<_, _>>()?;
    let alignment = match metadata.get("general.alignment") {
        None => DEFAULT_ALIGNMENT,
        // The specification wants a multiple of 8; blocks are read as they lie.
        Some(value) => value
            .as_u64()
            .filter(|n| *n > 0 && n % 8 == 0 && *n <= 1 << 20)
            .ok_or_else(|| format!("general.alignment: expected a multiple of 8, found {value}"))?
            as usize,
    };
    Ok(Header { metadata, tensors, data_start: cursor.at.next_multiple_of(alignment) })
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| {
            format!("cut short: {n} bytes expected at byte {} of {}; {AGAIN}", self.at, self.bytes.len())
        })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("as many bytes as were asked for"))
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of things, each of which takes at least one of the bytes that are left.
    fn length(&mut self) -> Result<usize, String> {
        let n = self.u64()?;
        let left = self.bytes.len() - self.at;
        usize::try_from(n).ok().filter(|&n| n <= left).ok_or_else(|| {
            format!("cut short: {n} entries expected at byte {}, {left} bytes left; {AGAIN}", self.at)
        })
    }

    fn string(&mut self) -> Result<String, String> {
        let n = self.length()?;
        // Should be UTF-8; some writers do not take care.
        Ok(String::from_utf8_lossy(self.take(n)?).into_owned())
    }

    fn value(&mut self, kind: u32, depth: usize) -> Result<Value, String> {
        Ok(match kind {
            0 => u8::from_le_bytes(self.array()?).into(),
            1 => i8::from_le_bytes(self.array()?).into(),
            2 => u16::from_le_bytes(self.array()?).into(),
            3 => i16::from_le_bytes(self.array()?).into(),
            4 => self.u32()?.into(),
            5 => i32::from_le_bytes(self.array()?).into(),
            6 => number(f32::from_le_bytes(self.array()?).into()),
            7 => (u8::from_le_bytes(self.array()?) != 0).into(),
            8 => self.string()?.into(),
            9 if depth < MAX_DEPTH => {
                let kind = self.u32()?;
                let n = self.length()?;
                (0..n).map(|_| self.value(kind, depth + 1)).collect::<Result<Vec<_>, _>>()?.into()
            }
            10 => self.u64()?.into(),
            11 => i64::from_le_bytes(self.array()?).into(),
            12 => number(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("expected a metadata type from 0 to 12, found {other}")),
        })
    }

    fn entry(&mut self) -> Result<Entry, String> {
        let name = self.string()?;
        let n_dimensions = self.u32()? as usize;
        if n_dimensions > MAX_DIMENSIONS {
            return Err(format!(
                "tensor {name}: expected up to {MAX_DIMENSIONS} dimensions, found {n_dimensions}"
            ));
        }
        let mut shape = Vec::with_capacity(n_dimensions);
        for _ in 0..n_dimensions {
            let size = self.u64()?;
            shape.push(usize::try_from(size).map_err(|_| format!("tensor {name}: a dimension of {size}"))?);
        }
        shape.reverse();
        let ggml_type = self.u32()?;
        let offset = self.u64()?;
        let offset = usize::try_from(offset).map_err(|_| format!("tensor {name}: an offset of {offset}"))?;
        Ok(Entry { name, shape, ggml_type, offset })
    }
}

/// A number; text where JSON has none, so that it is neither read as missing nor as a number.
fn number(x: f64) -> Value {
    if x.is_finite() { x.into() } else { x.to_string().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One key, `a.b = 7u32`, and one tensor `t` of type 0 and shape [2, 3].
    fn file() -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC);
        bytes.extend(3u32.to_le_bytes());
        bytes.extend([1u64, 1, 3].map(u64::to_le_bytes).as_flattened());
        bytes.extend(b"a.b");
        bytes.extend([4u32, 7].map(u32::to_le_bytes).as_flattened());
        bytes.extend(1u64.to_le_bytes());
        bytes.extend(b"t");
        bytes.extend(2u32.to_le_bytes());
        bytes.extend([3u64, 2].map(u64::to_le_bytes).as_flattened());
        bytes.extend(0u32.to_le_bytes());
        bytes.extend(64u64.to_le_bytes());
        bytes
    }

    #[test]
    fn a_header_is_read() {
        let header = parse(&file()).unwrap();
        assert_eq!(header.metadata["a.b"], 7);
        let entry = &header.tensors[0];
        assert_eq!((entry.name.as_str(), entry.shape.as_slice(), entry.offset), ("t", [2, 3].as_slice(), 64));
        assert_eq!(header.data_start % DEFAULT_ALIGNMENT, 0);
        assert!(header.data_start >= file().len());
    }

    #[test]
    fn every_cut_is_an_error() {
        let file = file();
        for n in 0..file.len() {
            parse(&file[..n]).unwrap_err();
        }
    }

    #[test]
    fn a_length_beyond_the_file_is_an_error_not_an_allocation() {
        let mut file = file();
        file[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(parse(&file).unwrap_err().contains("cut short"));
    }
}
