//! Kinds of text file. A kind is one file here and one line in [`FORMATS`].

mod jsonl;
mod parquet;
mod txt;

mod sniff;
mod surrogates;
mod utf8;

use std::path::Path;

use crate::{Beside, Flaws, InvalidUtf8, TextError};

/// Every kind of text file that can be read.
const FORMATS: &[&Format] = &[&txt::FORMAT, &jsonl::FORMAT, &parquet::FORMAT];

/// Bytes of one document at most, wherever it stands. Tokenised whole, so many take 6 GB (see
/// [`Corpus::tokenizing_bytes`](crate::Corpus::tokenizing_bytes)).
const MOST_BYTES: u64 = 64 << 20;

/// One document's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) flaws: Flaws,
    /// What stands beside the text, if it was asked for and there is room for it.
    pub(crate) beside: Option<Beside>,
}

/// The texts of one file, in order.
pub(crate) type Texts = Box<dyn Iterator<Item = Result<Text, TextError>> + Send>;

/// How files are read.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where a `.jsonl` line holds its text.
    pub(crate) field: String,
    /// Where a `.parquet` row does.
    pub(crate) column: String,
    pub(crate) invalid_utf8: InvalidUtf8,
    /// Whether to keep what stands beside the text.
    pub(crate) beside: bool,
}

/// A kind of text file.
#[derive(Debug)]
pub(crate) struct Format {
    /// Its name, which goes into digests.
    pub(crate) name: &'static str,
    /// How its files end, in lower case and without the dot.
    endings: &'static [&'static str],
    /// Opens a file.
    pub(crate) open: fn(&Path, &Settings) -> Result<Texts, TextError>,
    /// Whether a file is one document.
    pub(crate) whole: bool,
    /// About how many bytes of text a file holds, without reading it.
    pub(crate) text_bytes: fn(&Path, &Settings) -> Result<u64, TextError>,
}

/// The kind of file that `path` is by its ending.
pub(crate) fn of(path: &Path) -> Option<&'static Format> {
    let ending = path.extension()?.to_str()?.to_ascii_lowercase();
    FORMATS.iter().copied().find(|format| format.endings.contains(&ending.as_str()))
}

/// Which kind to read where the same text is there in several: the least. What is later in the list has more structure.
pub(crate) fn preference(format: &Format) -> usize {
    FORMATS.iter().rev().position(|known| known.name == format.name).unwrap_or(FORMATS.len())
}

/// The known endings, for messages.
pub(crate) fn endings() -> String {
    let endings: Vec<_> = FORMATS.iter().flat_map(|f| f.endings).map(|e| format!(".{e}")).collect();
    endings.join(", ")
}

fn file_bytes(path: &Path) -> Result<u64, TextError> {
    let metadata = path.metadata().map_err(|source| TextError::Io { path: path.to_owned(), source })?;
    Ok(metadata.len())
}

#[cfg(test)]
fn settings(name: &str, invalid_utf8: InvalidUtf8) -> Settings {
    Settings { field: name.into(), column: name.into(), invalid_utf8, beside: false }
}
