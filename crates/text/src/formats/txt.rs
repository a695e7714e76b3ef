//! Plain text: a file is one document, read whole.

use std::{fs, path::Path};

use super::{Fields, Format, Texts, file_bytes, strip_bom, utf8};
use crate::TextError;

pub(super) const FORMAT: Format = Format { name: "txt", endings: &["txt"], open, text_bytes: file_bytes };

fn open(path: &Path, _: &Fields) -> Result<Texts, TextError> {
    let path = path.to_owned();
    Ok(Box::new(std::iter::once_with(move || {
        let bytes = fs::read(&path).map_err(|source| TextError::Io { path: path.clone(), source })?;
        Ok(strip_bom(utf8(bytes, &path, 0)?))
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(contents: &[u8]) -> Result<String, TextError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        fs::write(&path, contents).unwrap();
        let fields = Fields { jsonl: "text".into(), parquet: "text".into() };
        open(&path, &fields)?.next().unwrap()
    }

    #[test]
    fn text_is_taken_as_it_is_but_for_a_byte_order_mark() {
        assert_eq!(read("\u{feff}naïve\r\n\u{feff}x".as_bytes()).unwrap(), "naïve\r\n\u{feff}x");
        assert_eq!(read(b"").unwrap(), "");
    }

    #[test]
    fn invalid_utf8_is_located() {
        let error = read(b"na\xefve").unwrap_err();
        assert!(matches!(error, TextError::NotUtf8 { offset: 2, .. }), "{error}");
        assert!(error.to_string().contains("a.txt: expected UTF-8"));
    }
}
