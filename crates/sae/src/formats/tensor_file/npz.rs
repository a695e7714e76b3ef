//! What `numpy.savez` writes: a zip archive of `.npy` files
//! (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>), of which those of objects are pickles, and refused.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use half::f16;
use zip::{ZipArchive, result::ZipError};

use super::{Kind, Stored, TensorFile, decode, io_at, transposed};
use crate::SaeError;

/// How every `.npy` file begins.
const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// No header of ours is longer: NumPy itself refuses to evaluate longer ones.
const LONGEST_HEADER: usize = 10_000;

fn damaged(file: &Path, reason: impl ToString) -> SaeError {
    super::damaged(file, "npz", reason)
}

type Archive = ZipArchive<BufReader<File>>;

fn archive(path: &Path) -> Result<Archive, SaeError> {
    let file = File::open(path).map_err(io_at(path))?;
    ZipArchive::new(BufReader::new(file)).map_err(|error| of_zip(path, error))
}

fn of_zip(path: &Path, error: ZipError) -> SaeError {
    match error {
        ZipError::Io(source)
            if !matches!(
                source.kind(),
                std::io::ErrorKind::InvalidData
                    | std::io::ErrorKind::UnexpectedEof
                    | std::io::ErrorKind::InvalidInput
            ) =>
        {
            io_at(path)(source)
        }
        error => damaged(path, error),
    }
}

pub(super) fn open(path: &Path) -> Result<TensorFile, SaeError> {
    let mut archive = archive(path)?;
    let mut tensors = BTreeMap::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| of_zip(path, error))?;
        let entry_name = entry.name().map_err(|error| damaged(path, error))?.into_owned();
        let Some(name) = entry_name.strip_suffix(".npy") else {
            return Err(damaged(path, format!("expected .npy files in it, found {entry_name}")));
        };
        let header =
            Header::read(&mut entry).map_err(|reason| damaged(path, format!("{entry_name}: {reason}")))?;
        let bytes = (header.numbers() * header.dtype.size + header.length) as u64;
        if entry.size() != bytes {
            let reason = format!("{entry_name}: expected {bytes} bytes, found {}", entry.size());
            return Err(damaged(path, reason));
        }
        let stored = Stored {
            shape: header.shape.clone(),
            dtype: header.dtype.name.clone(),
            kind: header.dtype.kind,
            read: Box::new({
                let (path, header, entry) = (path.to_owned(), header, entry_name.clone());
                move || header.numbers_of(&path, &entry)
            }),
        };
        tensors.insert(name.to_owned(), stored);
    }
    Ok(TensorFile { path: path.to_owned(), tensors })
}

/// The type of a number, such as `<f4`.
#[derive(Clone, Debug, PartialEq)]
struct NumpyType {
    name: String,
    size: usize,
    kind: Kind,
}

impl NumpyType {
    fn parse(name: &str) -> Option<Self> {
        let (kind, size) = match name {
            "<f2" => (Kind::Float, 2),
            "<f4" => (Kind::Float, 4),
            "<f8" => (Kind::Float, 8),
            "<i4" => (Kind::Integer, 4),
            "<i8" => (Kind::Integer, 8),
            _ => return None,
        };
        Some(Self { name: name.to_owned(), size, kind })
    }
}

/// What a `.npy` file says of itself.
#[derive(Clone, Debug, PartialEq)]
struct Header {
    dtype: NumpyType,
    /// Whether columns lie together, not rows.
    fortran_order: bool,
    shape: Vec<usize>,
    /// Bytes before the numbers.
    length: usize,
}

impl Header {
    fn read(file: &mut impl Read) -> Result<Self, String> {
        let mut start = [0; 8];
        file.read_exact(&mut start).map_err(|e| e.to_string())?;
        if start[..6] != *MAGIC {
            return Err("it does not begin as a .npy file does".into());
        }
        let mut length = [0; 4];
        // Version 1 has two bytes of length, 2 and 3 have four.
        let length_bytes = if start[6] == 1 { 2 } else { 4 };
        file.read_exact(&mut length[..length_bytes]).map_err(|e| e.to_string())?;
        let length = u32::from_le_bytes(length) as usize;
        if length > LONGEST_HEADER {
            return Err(format!("a header of {length} bytes"));
        }
        let mut text = vec![0; length];
        file.read_exact(&mut text).map_err(|e| e.to_string())?;
        let text = String::from_utf8(text).map_err(|e| e.to_string())?;
        Self::parse(&text, start.len() + length_bytes + length).ok_or_else(|| {
            format!("expected numbers of type <f2, <f4, <f8, <i4 or <i8 in a shape, found {}", text.trim())
        })
    }

    /// `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`: what NumPy writes, in any order.
    fn parse(text: &str, length: usize) -> Option<Self> {
        let value = |key: &str| {
            let (_, rest) = text.split_once(&format!("'{key}':"))?;
            Some(rest.trim_start())
        };
        let dtype = value("descr")?.strip_prefix('\'')?.split_once('\'')?.0;
        let fortran_order = value("fortran_order")?;
        let shape = value("shape")?.strip_prefix('(')?.split_once(')')?.0;
        let sizes = shape.split(',').map(str::trim).filter(|size| !size.is_empty());
        let shape: Vec<usize> = sizes.map(|size| size.parse().ok()).collect::<Option<_>>()?;
        // So that no product of them can overflow.
        shape
            .iter()
            .try_fold(1_usize, |product, &size| product.checked_mul(size).filter(|&n| n < 1 << 48))?;
        Some(Self {
            dtype: NumpyType::parse(dtype)?,
            fortran_order: match fortran_order.split_once([',', '}'])?.0.trim() {
                "True" => true,
                "False" => false,
                _ => return None,
            },
            shape,
            length,
        })
    }

    fn numbers(&self) -> usize {
        self.shape.iter().product()
    }

    fn numbers_of(&self, path: &Path, entry: &str) -> Result<Vec<f32>, SaeError> {
        let mut archive = archive(path)?;
        let file = archive.by_name(entry).map_err(|error| of_zip(path, error))?;
        let expected = self.length + self.numbers() * self.dtype.size;
        // An archive may lie about what it unpacks to: no room is made before there is something to put there.
        let mut bytes = Vec::with_capacity(expected.min(1 << 20));
        file.take(expected as u64 + 1).read_to_end(&mut bytes).map_err(|error| of_zip(path, error.into()))?;
        if bytes.len() != expected {
            return Err(damaged(path, format!("{entry}: expected {expected} bytes, found {}", bytes.len())));
        }
        let bytes = &bytes[self.length..];
        let values = match self.dtype.name.as_str() {
            "<f2" => decode(bytes, |b| f16::from_le_bytes(b).to_f32()),
            "<f4" => decode(bytes, f32::from_le_bytes),
            "<f8" => decode(bytes, |b| f64::from_le_bytes(b) as f32),
            "<i4" => decode(bytes, |b| i32::from_le_bytes(b) as f32),
            _ => decode(bytes, |b| i64::from_le_bytes(b) as f32),
        };
        match self.shape[..] {
            [rows, columns] if self.fortran_order => Ok(transposed(&values, [columns, rows])),
            [] | [_] | [_, _] => Ok(values),
            _ if self.fortran_order => {
                Err(damaged(path, format!("{entry}: expected rows that lie together, found columns")))
            }
            _ => Ok(values),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_as_numpy_writes_them() {
        let parsed = |text: &str| Header::parse(text, 128);
        let header = parsed("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }  \n").unwrap();
        assert_eq!((header.shape, header.fortran_order, header.dtype.size), (vec![3, 4], false, 4));
        let header = parsed("{'descr': '<f8', 'fortran_order': True, 'shape': (7,), }").unwrap();
        assert_eq!((header.shape, header.fortran_order, header.dtype.size), (vec![7], true, 8));
        assert_eq!(parsed("{'descr': '<i8', 'fortran_order': False, 'shape': (), }").unwrap().numbers(), 1);
        for bad in [
            "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
            "{'descr': '>f4', 'fortran_order': False, 'shape': (3,), }",
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }",
            "{'descr': '<f4', 'fortran_order': Maybe, 'shape': (3,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-3,), }",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999, 999999999999), }",
            "{'descr': '<f4', 'fortran_order': False}",
            "",
        ] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}
