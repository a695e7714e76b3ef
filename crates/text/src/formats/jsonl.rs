//! JSON lines: a line is one document, in a field of the line's object. Blank lines are skipped.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{Fields, Format, Texts, file_bytes, open_file, strip_bom, utf8};
use crate::TextError;

pub(super) const FORMAT: Format =
    Format { name: "jsonl", endings: &["jsonl", "ndjson"], whole: false, open, text_bytes };

/// Bytes of a file to read for a guess at how much of it is text.
const SAMPLE_BYTES: u64 = 1 << 16;

fn open(path: &Path, fields: &Fields) -> Result<Texts, TextError> {
    Ok(Box::new(lines(path, fields)?))
}

fn lines(path: &Path, fields: &Fields) -> Result<Lines, TextError> {
    let reader = BufReader::with_capacity(1 << 16, open_file(path)?);
    Ok(Lines { path: path.to_owned(), field: fields.jsonl.clone(), reader, line: 0, offset: 0 })
}

fn text_bytes(path: &Path, fields: &Fields) -> Result<u64, TextError> {
    let mut lines = lines(path, fields)?;
    let mut text = 0;
    while lines.offset < SAMPLE_BYTES {
        match lines.next() {
            Some(line) => text += line?.len() as u64,
            None => return Ok(text),
        }
    }
    let share = text as f64 / lines.offset as f64;
    Ok((share * file_bytes(path, fields)? as f64) as u64)
}

struct Lines {
    path: PathBuf,
    field: String,
    reader: BufReader<File>,
    /// The line last read, from 1, and where the next one begins.
    line: u64,
    offset: u64,
}

impl Lines {
    /// The next line that is not blank.
    fn read_line(&mut self) -> Result<Option<String>, TextError> {
        loop {
            let mut bytes = Vec::new();
            let read = self.reader.read_until(b'\n', &mut bytes);
            let length = read.map_err(|source| TextError::Io { path: self.path.clone(), source })?;
            if length == 0 {
                return Ok(None);
            }
            self.line += 1;
            let mut line = utf8(bytes, &self.path, self.offset)?;
            self.offset += length as u64;
            if self.line == 1 {
                line = strip_bom(line);
            }
            if !line.trim().is_empty() {
                return Ok(Some(line));
            }
        }
    }

    fn text(&self, line: &str) -> Result<String, TextError> {
        let bad = |reason: String| TextError::BadLine { file: self.path.clone(), line: self.line, reason };
        let value: Value = serde_json::from_str(line).map_err(|e| bad(format!("not JSON: {e}")))?;
        let Value::Object(mut object) = value else {
            return Err(bad("expected a JSON object".into()));
        };
        match object.remove(&self.field) {
            Some(Value::String(text)) => Ok(text),
            // An absent text, as dataset exports write it.
            Some(Value::Null) => Ok(String::new()),
            Some(_) => Err(bad(format!("field `{}`: expected a string", self.field))),
            None => {
                let others: Vec<_> = object.keys().map(|key| format!("`{key}`")).collect();
                let found = if others.is_empty() { "none".into() } else { others.join(", ") };
                Err(bad(format!("expected a field `{}`, found {found}; name it with `field`", self.field)))
            }
        }
    }
}

impl Iterator for Lines {
    type Item = Result<String, TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.read_line().transpose()?;
        Some(line.and_then(|line| self.text(&line)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(contents: &[u8], field: &str) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        std::fs::write(&path, contents).unwrap();
        let fields = Fields { jsonl: field.into(), parquet: "text".into() };
        open(&path, &fields).unwrap().collect::<Result<_, _>>().map_err(|e: TextError| e.to_string())
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
        let fields = Fields { jsonl: "t".into(), parquet: "text".into() };
        // 100 bytes a line, of which 20 are text.
        let line = format!("{{\"t\": \"{}\", \"other\": \"{}\"}}\n", "x".repeat(20), "y".repeat(57));
        assert_eq!(line.len(), 100);
        for n in [3, 10_000] {
            std::fs::write(&path, line.repeat(n)).unwrap();
            assert_eq!(text_bytes(&path, &fields).unwrap(), 20 * n as u64);
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
        assert!(utf8.contains("invalid sequence at byte 19"), "{utf8}");
    }
}
