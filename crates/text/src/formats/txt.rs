//! Plain text: a file is one document, read whole. Cut into pieces it would have other tokens at the seams, and
//! which ones would depend on the tokenizer; so there is a limit instead.

use std::{io::Read, path::Path};

use super::{
    Format, MOST_BYTES, Settings, Texts, file_bytes,
    sniff::open_text,
    utf8::{decode, strip_bom},
};
use crate::TextError;

pub(super) const FORMAT: Format = Format { name: "txt", endings: &["txt"], whole: true, open, text_bytes };

/// How large the file is, unless it is too large. Asked when planning, so that nothing is begun in vain.
fn text_bytes(path: &Path, _: &Settings) -> Result<u64, TextError> {
    open_text(path, "text")?;
    match file_bytes(path)? {
        found if found > MOST_BYTES => {
            Err(TextError::TooLarge { file: path.to_owned(), most: MOST_BYTES, found })
        }
        bytes => Ok(bytes),
    }
}

fn open(path: &Path, settings: &Settings) -> Result<Texts, TextError> {
    text_bytes(path, settings)?;
    let (path, settings) = (path.to_owned(), settings.clone());
    Ok(Box::new(std::iter::once_with(move || {
        let mut bytes = Vec::new();
        let read = open_text(&path, "text")?.read_to_end(&mut bytes);
        read.map_err(|source| TextError::Io { path: path.clone(), source })?;
        let mut text = decode(bytes, &path, &settings, |offset| format!("byte {offset}"))?;
        strip_bom(&mut text.text);
        Ok(text)
    })))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{InvalidUtf8, formats::settings};

    fn read_as(contents: &[u8], policy: InvalidUtf8) -> Result<String, TextError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        fs::write(&path, contents).unwrap();
        open(&path, &settings("text", policy))?.next().unwrap().map(|text| text.text)
    }

    fn read(contents: &[u8]) -> Result<String, TextError> {
        read_as(contents, InvalidUtf8::Error)
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
        let settings = settings("text", InvalidUtf8::Error);
        // A hole: it takes no room on the disk.
        let file = fs::File::create(&path).unwrap();
        file.set_len(MOST_BYTES).unwrap();
        assert_eq!(text_bytes(&path, &settings).unwrap(), MOST_BYTES);
        file.set_len(MOST_BYTES + 1).unwrap();
        for error in [open(&path, &settings).err().unwrap(), text_bytes(&path, &settings).unwrap_err()] {
            assert!(
                error.to_string().contains("a.txt: expected at most 67108864 bytes, found 67108865"),
                "{error}"
            );
        }
    }

    #[test]
    fn invalid_utf8_is_located_or_replaced() {
        let error = read(b"na\xefve").unwrap_err().to_string();
        assert!(error.contains("a.txt: expected UTF-8, found an invalid sequence at byte 2"), "{error}");
        assert_eq!(read_as(b"\xef\xbb\xbfna\xefve", InvalidUtf8::Replace).unwrap(), "na\u{fffd}ve");
        // What is no text at all does not become one.
        let error = read_as(b"\x1f\x8b\x08\0\0", InvalidUtf8::Replace).unwrap_err();
        assert!(matches!(error, TextError::WrongKind { found: "gzip", .. }), "{error}");
    }
}
