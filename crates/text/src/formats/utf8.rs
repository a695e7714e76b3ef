//! Bytes to text, and what to do with those that are none.

use std::path::Path;

use super::{Settings, Text};
use crate::{Flaws, InvalidUtf8, TextError};

/// `bytes` of `file` as text; `place` says where the byte of an offset lies.
pub(super) fn decode(
    bytes: Vec<u8>,
    file: &Path,
    settings: &Settings,
    place: impl FnOnce(usize) -> String,
) -> Result<Text, TextError> {
    let error = match String::from_utf8(bytes) {
        Ok(text) => {
            return Ok(Text { flaws: Flaws { invalid_utf8: 0, nul: nuls(&text) }, text, beside: None });
        }
        Err(error) => error,
    };
    if settings.invalid_utf8 == InvalidUtf8::Error {
        let place = place(error.utf8_error().valid_up_to());
        return Err(TextError::NotUtf8 { file: file.to_owned(), place });
    }
    let bytes = error.into_bytes();
    let (mut text, mut invalid_utf8) = (String::with_capacity(bytes.len()), 0);
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
            invalid_utf8 += 1;
        }
    }
    Ok(Text { flaws: Flaws { invalid_utf8, nul: nuls(&text) }, text, beside: None })
}

pub(super) fn nuls(text: &str) -> u64 {
    text.bytes().filter(|&byte| byte == 0).count() as u64
}

/// Takes a byte order mark off the beginning of a file.
pub(super) fn strip_bom(text: &mut String) {
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::settings;

    fn read(bytes: &[u8], policy: InvalidUtf8) -> Result<Text, TextError> {
        let place = |offset| format!("byte {offset}");
        decode(bytes.to_vec(), Path::new("x.txt"), &settings("text", policy), place)
    }

    #[test]
    fn invalid_sequences_are_replaced_as_python_replaces_them() {
        // Of CPython 3.11: `bytes.decode(errors="replace")`, and `count("\ufffd")` of that.
        for (bytes, text, n) in [
            (&b"a\xff\xfe b"[..], "a\u{fffd}\u{fffd} b", 2),
            (b"\xf0\x9f\x98 cut", "\u{fffd} cut", 1),
            (b"\xed\xa0\x80 surrogate", "\u{fffd}\u{fffd}\u{fffd} surrogate", 3),
            (b"\xc0\x80 overlong", "\u{fffd}\u{fffd} overlong", 2),
            (b"end \xe2\x82", "end \u{fffd}", 1),
            (b"\xf4\x90\x80\x80", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}", 4),
        ] {
            let read = read(bytes, InvalidUtf8::Replace).unwrap();
            assert_eq!(
                (read.text.as_str(), read.flaws),
                (text, Flaws { invalid_utf8: n, nul: 0 }),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn what_is_valid_is_kept_to_the_byte() {
        // One that stands there already is no flaw, and NUL is a character.
        let text = "na\u{ef}ve \u{fffd} \0\0";
        for policy in [InvalidUtf8::Error, InvalidUtf8::Replace] {
            let read = read(text.as_bytes(), policy).unwrap();
            assert_eq!((read.text.as_str(), read.flaws), (text, Flaws { invalid_utf8: 0, nul: 2 }));
        }
        let error = read(b"na\xefve", InvalidUtf8::Error).unwrap_err().to_string();
        assert!(error.contains("x.txt: expected UTF-8, found an invalid sequence at byte 2"), "{error}");
        assert!(error.contains("invalid_utf8 = \"replace\""), "{error}");
    }
}
