//! JSON lines: a line is one document, in a field of the line's object. Blank lines are skipped.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    Format, MOST_BYTES, Settings, Text, Texts, file_bytes,
    sniff::open_text,
    surrogates,
    utf8::{decode, nuls, strip_bom},
};
use crate::{Beside, Flaws, InvalidUtf8, TextError};

pub(super) const FORMAT: Format =
    Format { name: "jsonl", endings: &["jsonl", "ndjson"], whole: false, open, text_bytes };

/// Bytes of a file to read for a guess at how much of it is text.
const SAMPLE_BYTES: u64 = 1 << 16;

fn open(path: &Path, settings: &Settings) -> Result<Texts, TextError> {
    Ok(Box::new(lines(path, settings)?))
}

fn lines(path: &Path, settings: &Settings) -> Result<Lines<impl Read + use<>>, TextError> {
    Ok(Lines::new(open_text(path, "JSON lines")?, path, settings))
}

fn text_bytes(path: &Path, settings: &Settings) -> Result<u64, TextError> {
    let mut lines = lines(path, settings)?;
    let mut text = 0;
    while lines.offset < SAMPLE_BYTES {
        match lines.next() {
            Some(line) => text += line?.text.len() as u64,
            None => return Ok(text),
        }
    }
    let share = text as f64 / lines.offset as f64;
    Ok((share * file_bytes(path)? as f64) as u64)
}

struct Lines<R> {
    path: PathBuf,
    settings: Settings,
    reader: BufReader<R>,
    /// The line last read, from 1, and where the next one begins.
    line: u64,
    offset: u64,
}

impl<R: Read> Lines<R> {
    fn new(reader: R, path: &Path, settings: &Settings) -> Self {
        let reader = BufReader::with_capacity(1 << 16, reader);
        Self { path: path.to_owned(), settings: settings.clone(), reader, line: 0, offset: 0 }
    }

    /// The next line that is not blank. Of one that is too long no more is read than a line may have.
    fn read_line(&mut self) -> Result<Option<Text>, TextError> {
        loop {
            let mut bytes = Vec::new();
            let read = (&mut self.reader).take(MOST_BYTES + 1).read_until(b'\n', &mut bytes);
            let length = read.map_err(|source| TextError::Io { path: self.path.clone(), source })? as u64;
            if length == 0 {
                return Ok(None);
            }
            self.line += 1;
            if length > MOST_BYTES {
                return Err(self.bad(format!(
                    "expected at most {MOST_BYTES} bytes in a line, found more: a line is one document; cut it into \
                     several, each on a line of its own"
                )));
            }
            let (start, number) = (self.offset, self.line);
            let place = |offset| format!("byte {}, in line {number}", start + offset as u64);
            let mut line = decode(bytes, &self.path, &self.settings, place)?;
            self.offset += length;
            if self.line == 1 {
                strip_bom(&mut line.text);
            }
            if !line.text.trim().is_empty() {
                return Ok(Some(line));
            }
        }
    }

    fn bad(&self, reason: String) -> TextError {
        TextError::BadLine { file: self.path.clone(), line: self.line, reason }
    }

    /// What a line says. Lone surrogates, which serde_json refuses, are dealt with as bytes that are not UTF-8 are.
    fn value(&self, line: &mut Text) -> Result<Value, TextError> {
        let mut parsed = serde_json::from_str(&line.text);
        let lone = if parsed.is_err() { surrogates::lone(&line.text) } else { Vec::new() };
        if let Some(first) = lone.first() {
            if self.settings.invalid_utf8 == InvalidUtf8::Error {
                let found = &line.text[first.clone()];
                return Err(self.bad(format!(
                    "expected characters, found half a surrogate pair, `{found}`, without the other; put \
                     both or neither there, or read U+FFFD in its place: invalid_utf8 = \"replace\""
                )));
            }
            line.flaws.invalid_utf8 += lone.len() as u64;
            lone.into_iter().for_each(|escape| line.text.replace_range(escape, "\\ufffd"));
            parsed = serde_json::from_str(&line.text);
        }
        parsed.map_err(|e| self.bad(format!("not JSON: {e}; each line has to be one whole JSON object")))
    }

    fn text(&self, mut line: Text) -> Result<Text, TextError> {
        let Value::Object(mut object) = self.value(&mut line)? else {
            return Err(self.bad("expected a JSON object on each line, found another value".into()));
        };
        let field = &self.settings.field;
        let text = match object.remove(field) {
            Some(Value::String(text)) => text,
            // An absent text, as dataset exports write it.
            Some(Value::Null) => String::new(),
            Some(_) => return Err(self.bad(format!("field `{field}`: expected a string"))),
            None => {
                let others: Vec<_> = object.keys().map(|key| format!("`{key}`")).collect();
                let found = if others.is_empty() { "none".into() } else { others.join(", ") };
                return Err(
                    self.bad(format!("expected a field `{field}`, found {found}; name it with `field`"))
                );
            }
        };
        // Those of the whole line, as it was read; NUL is written `\u0000` there.
        let flaws = Flaws { invalid_utf8: line.flaws.invalid_utf8, nul: nuls(&text) };
        let beside = self.settings.beside.then(|| Beside { line: self.line, fields: object });
        Ok(Text { text, flaws, beside })
    }
}

impl<R: Read> Iterator for Lines<R> {
    type Item = Result<Text, TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.read_line().transpose()?;
        Some(line.and_then(|line| self.text(line)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::formats::settings;

    fn read_as(contents: &[u8], field: &str, policy: InvalidUtf8) -> Result<Vec<Text>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, contents).unwrap();
        let texts = open(&path, &settings(field, policy)).map_err(|e| e.to_string())?;
        texts.collect::<Result<_, _>>().map_err(|e| e.to_string())
    }

    fn read(contents: &[u8], field: &str) -> Result<Vec<String>, String> {
        Ok(read_as(contents, field, InvalidUtf8::Error)?.into_iter().map(|text| text.text).collect())
    }

    #[test]
    fn lines_become_texts() {
        let contents =
            "\u{feff}{\"id\": 1, \"t\": \"a\\nb\"}\r\n\n{\"t\": null}\n{\"t\": \"\"}\n{\"t\": \"last\"}";
        assert_eq!(read(contents.as_bytes(), "t").unwrap(), ["a\nb", "", "", "last"]);
        assert!(read(b"", "t").unwrap().is_empty());
    }

    #[test]
    fn how_much_is_text_is_guessed_from_the_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let settings = settings("t", InvalidUtf8::Error);
        // 100 bytes a line, of which 20 are text.
        let line = format!("{{\"t\": \"{}\", \"other\": \"{}\"}}\n", "x".repeat(20), "y".repeat(57));
        assert_eq!(line.len(), 100);
        for n in [3, 10_000] {
            std::fs::write(&path, line.repeat(n)).unwrap();
            assert_eq!(text_bytes(&path, &settings).unwrap(), 20 * n as u64);
        }
    }

    #[test]
    fn bad_lines_are_located() {
        let good = b"{\"t\": \"x\"}\n".as_slice();
        let error = |line: &[u8]| read(&[good, b"\n", line].concat(), "t").unwrap_err();
        assert!(error(b"{\"t\": \"x\"").contains("a.jsonl:3: not JSON"));
        assert!(error(b"[1]").contains("a.jsonl:3: expected a JSON object"));
        assert!(error(b"{\"t\": 5}").contains("a.jsonl:3: field `t`: expected a string"));
        let missing = error(b"{\"id\": 5, \"content\": \"x\"}");
        assert!(missing.contains("a.jsonl:3: expected a field `t`, found `id`, `content`"), "{missing}");
        // 11 bytes of the good line, 1 blank, then 7 more.
        let utf8 = error(b"{\"t\": \"\xff\"}");
        assert!(utf8.contains("invalid sequence at byte 19, in line 3"), "{utf8}");
    }

    #[test]
    fn flaws_are_counted() {
        let line = b"{\"id\": \"\xff\", \"t\": \"a\xfe\\u0000 b\"}\n{\"t\": \"c\"}\n";
        let texts = read_as(line, "t", InvalidUtf8::Replace).unwrap();
        assert_eq!(texts[0].text, "a\u{fffd}\0 b");
        assert_eq!((texts[0].flaws, texts[1].flaws), (Flaws { invalid_utf8: 2, nul: 1 }, Flaws::default()));
    }

    #[test]
    fn lone_surrogates_are_located_or_replaced() {
        // As Python's json writes "a\ud83d" and "\U0001f600".
        let lines = br#"{"t": "a\ud83d \ud83d\ude00 \\ud83d", "id": "\udc00"}
{"t": "b"}"#;
        let texts = read_as(lines, "t", InvalidUtf8::Replace).unwrap();
        assert_eq!(texts[0].text, "a\u{fffd} \u{1f600} \\ud83d");
        assert_eq!((texts[0].flaws, texts[1].flaws), (Flaws { invalid_utf8: 2, nul: 0 }, Flaws::default()));
        let error = read_as(lines, "t", InvalidUtf8::Error).unwrap_err();
        assert!(
            error.contains(r"a.jsonl:1: expected characters, found half a surrogate pair, `\ud83d`"),
            "{error}"
        );
        assert!(error.contains("invalid_utf8 = \"replace\""), "{error}");
        // Whatever else is wrong is still said.
        let cut = read_as(br#"{"t": "\ud83d"#, "t", InvalidUtf8::Replace).unwrap_err();
        assert!(cut.contains("a.jsonl:1: not JSON"), "{cut}");
    }

    #[test]
    fn of_an_endless_line_no_more_is_read_than_a_line_may_have() {
        struct Endless<'a>(&'a AtomicU64);
        impl Read for Endless<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                buffer.fill(b'x');
                self.0.fetch_add(buffer.len() as u64, Ordering::Relaxed);
                Ok(buffer.len())
            }
        }
        let read = AtomicU64::new(0);
        let first = b"{\"t\": \"one\"}\n".as_slice();
        let settings = settings("t", InvalidUtf8::Error);
        let mut lines = Lines::new(first.chain(Endless(&read)), Path::new("a.jsonl"), &settings);
        assert_eq!(lines.next().unwrap().unwrap().text, "one");
        let error = lines.next().unwrap().unwrap_err().to_string();
        assert!(error.contains("a.jsonl:2: expected at most 67108864 bytes in a line"), "{error}");
        let read = read.into_inner();
        assert!(read <= MOST_BYTES + (1 << 17), "{read}");
    }

    #[test]
    fn a_line_may_have_as_much_as_it_says() {
        let text = "x".repeat(MOST_BYTES as usize - 9);
        let line = format!("{{\"t\":\"{text}\"}}\n");
        assert_eq!(line.len() as u64, MOST_BYTES);
        let settings = settings("t", InvalidUtf8::Error);
        let mut lines = Lines::new(line.as_bytes(), Path::new("a.jsonl"), &settings);
        assert_eq!(lines.next().unwrap().unwrap().text.len(), text.len());
    }
}
