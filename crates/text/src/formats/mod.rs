//! Kinds of text file. A kind is one file here and one line in [`FORMATS`].

mod jsonl;
mod parquet;
mod txt;

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use crate::TextError;

/// Every kind of text file that can be read.
const FORMATS: &[&Format] = &[&txt::FORMAT, &jsonl::FORMAT, &parquet::FORMAT];

/// The texts of one file, in order.
pub(crate) type Texts = Box<dyn Iterator<Item = Result<String, TextError>> + Send>;

/// Where structured files hold their text.
#[derive(Clone, Debug)]
pub(crate) struct Fields {
    pub(crate) jsonl: String,
    pub(crate) parquet: String,
}

/// A kind of text file.
#[derive(Debug)]
pub(crate) struct Format {
    /// Its name, which goes into digests.
    pub(crate) name: &'static str,
    /// How its files end, in lower case and without the dot.
    endings: &'static [&'static str],
    /// Opens a file.
    pub(crate) open: fn(&Path, &Fields) -> Result<Texts, TextError>,
    /// Whether a file is one document.
    pub(crate) whole: bool,
    /// About how many bytes of text a file holds, without reading it.
    pub(crate) text_bytes: fn(&Path, &Fields) -> Result<u64, TextError>,
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

fn open_file(path: &Path) -> Result<File, TextError> {
    File::open(path).map_err(|source| TextError::Io { path: path.to_owned(), source })
}

fn file_bytes(path: &Path, _: &Fields) -> Result<u64, TextError> {
    let metadata = path.metadata().map_err(|source| TextError::Io { path: path.to_owned(), source })?;
    Ok(metadata.len())
}

/// `bytes` as text; `start` is where they lie in `file`.
fn utf8(bytes: Vec<u8>, file: &Path, start: u64) -> Result<String, TextError> {
    String::from_utf8(bytes).map_err(|e| {
        let offset = start + e.utf8_error().valid_up_to() as u64;
        TextError::NotUtf8 { file: PathBuf::from(file), offset }
    })
}

/// Takes a byte order mark off the beginning of a file.
fn strip_bom(mut text: String) -> String {
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    text
}
