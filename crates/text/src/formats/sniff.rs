//! Files that are something else than their names say, by their first bytes.

use std::{
    fs::File,
    io::{Read, Seek},
    path::Path,
};

use crate::TextError;

/// What no text begins with, what does, and what to do with it.
const OTHERS: [(&[u8], &str, &str); 8] = [
    (b"\x1f\x8b\x08", "gzip", "decompress it (`gunzip`)"),
    (b"\x28\xb5\x2f\xfd", "zstd", "decompress it (`unzstd`)"),
    (b"\xfd7zXZ\0", "xz", "decompress it (`unxz`)"),
    (b"BZh91AY&SY", "bzip2", "decompress it (`bunzip2`)"),
    (b"PK\x03\x04", "a zip archive", "unpack it (`unzip`)"),
    (PARQUET, "Parquet", "name it .parquet"),
    (b"\xff\xfe", "UTF-16", "convert it (`iconv -f utf-16 -t utf-8`)"),
    (b"\xfe\xff", "UTF-16", "convert it (`iconv -f utf-16 -t utf-8`)"),
];

/// Its mark, and the page header that follows.
const PARQUET: &[u8] = b"PAR1\x15";

/// Opens a file that should hold text.
pub(super) fn open_text(path: &Path, expected: &'static str) -> Result<File, TextError> {
    let (file, head) = open(path)?;
    refuse(path, expected, &head, OTHERS.iter())?;
    Ok(file)
}

/// Opens a file that should be Parquet.
pub(super) fn open_parquet(path: &Path) -> Result<File, TextError> {
    let (file, head) = open(path)?;
    let (expected, file_name) = ("Parquet", path.to_owned());
    if head.is_empty() {
        let (found, advice) = ("an empty file", "write or fetch it again");
        return Err(TextError::WrongKind { file: file_name, expected, found, advice });
    }
    refuse(path, expected, &head, OTHERS.iter().filter(|(mark, ..)| *mark != PARQUET))?;
    Ok(file)
}

fn refuse<'a>(
    path: &Path,
    expected: &'static str,
    head: &[u8],
    mut others: impl Iterator<Item = &'a (&'static [u8], &'static str, &'static str)>,
) -> Result<(), TextError> {
    match others.find(|(mark, ..)| head.starts_with(mark)) {
        None => Ok(()),
        Some(&(_, found, advice)) => {
            Err(TextError::WrongKind { file: path.to_owned(), expected, found, advice })
        }
    }
}

/// Opens a file and reads its first bytes, to begin anew.
fn open(path: &Path) -> Result<(File, Vec<u8>), TextError> {
    let io = |source| TextError::Io { path: path.to_owned(), source };
    let longest = OTHERS.iter().map(|(mark, ..)| mark.len()).max().unwrap_or(0);
    let mut file = File::open(path).map_err(io)?;
    let mut head = Vec::with_capacity(longest);
    (&mut file).take(longest as u64).read_to_end(&mut head).map_err(io)?;
    file.rewind().map_err(io)?;
    Ok((file, head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.txt");
        for (mark, found, advice) in OTHERS {
            std::fs::write(&path, [mark, b" and more"].concat()).unwrap();
            let error = open_text(&path, "text").unwrap_err().to_string();
            assert!(error.contains(&format!("x.txt: expected text, found {found}; {advice}")), "{error}");
            assert_eq!(open_parquet(&path).is_ok(), mark == PARQUET);
        }
        for fine in ["", "P", "PAR1 is a gene", "PK", "BZh9 and so on"] {
            std::fs::write(&path, fine).unwrap();
            let mut read = String::new();
            open_text(&path, "text").unwrap().read_to_string(&mut read).unwrap();
            assert_eq!(read, fine, "read from the beginning");
        }
        std::fs::write(&path, "").unwrap();
        let error = open_parquet(&path).unwrap_err().to_string();
        assert!(error.contains("x.txt: expected Parquet, found an empty file"), "{error}");
    }
}
