//! Plain text: a file is one document, read whole. Cut into pieces it would have other tokens at the seams, and
//! which ones would depend on the tokenizer; so there is a limit instead.

use std::{fs, path::Path};

use super::{Fields, Format, Texts, file_bytes, strip_bom, utf8};
use crate::TextError;

pub(super) const FORMAT: Format = Format { name: "txt", endings: &["txt"], whole: true, open, text_bytes };

/// Tokenised whole, this takes 6 GB (see [`Corpus::tokenizing_bytes`](crate::Corpus::tokenizing_bytes)).
const MOST_BYTES: u64 = 64 << 20;

/// How large the file is, unless it is too large. Asked when planning, so that nothing is begun in vain.
fn text_bytes(path: &Path, fields: &Fields) -> Result<u64, TextError> {
    match file_bytes(path, fields)? {
        found if found > MOST_BYTES => {
            Err(TextError::TooLarge { file: path.to_owned(), most: MOST_BYTES, found })
        }
        bytes => Ok(bytes),
    }
}

fn open(path: &Path, fields: &Fields) -> Result<Texts, TextError> {
    text_bytes(path, fields)?;
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
    fn what_is_too_large_is_refused_unread() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        let fields = Fields { jsonl: "text".into(), parquet: "text".into() };
        // A hole: it takes no room on the disk.
        let file = fs::File::create(&path).unwrap();
        file.set_len(MOST_BYTES).unwrap();
        assert_eq!(text_bytes(&path, &fields).unwrap(), MOST_BYTES);
        file.set_len(MOST_BYTES + 1).unwrap();
        for error in [open(&path, &fields).err().unwrap(), text_bytes(&path, &fields).unwrap_err()] {
            assert!(
                error.to_string().contains("a.txt: expected at most 67108864 bytes, found 67108865"),
                "{error}"
            );
        }
    }

    #[test]
    fn invalid_utf8_is_located() {
        let error = read(b"na\xefve").unwrap_err();
        assert!(matches!(error, TextError::NotUtf8 { offset: 2, .. }), "{error}");
        assert!(error.to_string().contains("a.txt: expected UTF-8"));
    }
}
