//! Text on disk as a stream of documents.

use std::{
    collections::BTreeSet,
    fs,
    ops::AddAssign,
    path::{Path, PathBuf},
};

use monosema_core::{Digest, digest_bytes, digest_file};
use serde::{Deserialize, Serialize};

use crate::{
    TextError,
    formats::{self, Format, Settings, Text, Texts},
};

/// Which text to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// Files (`.txt`, `.jsonl`, `.parquet`), directories (searched through, hidden files aside) or globs
    /// (`data/19[0-8]*.txt`), read in this order, each sorted by path. A file named twice is read once. A `.txt`
    /// file is one document, which is held and tokenised whole: at most 64 MiB, and so are a line and a row of the other
    /// two. More text belongs in several documents.
    pub files: Vec<String>,
    /// The field of a `.jsonl` line that holds the text. Default `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The column of a `.parquet` file that holds the text. Default `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// Stop after so many documents. Default: read them all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_documents: Option<u64>,
    /// What to do with bytes that are not UTF-8. Default `error`.
    #[serde(default)]
    pub invalid_utf8: InvalidUtf8,
}

impl TextConfig {
    /// All of `files`, everything else as by default.
    pub fn new(files: Vec<String>) -> Self {
        Self { files, field: None, column: None, max_documents: None, invalid_utf8: InvalidUtf8::default() }
    }
}

/// What to do with bytes that are not UTF-8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvalidUtf8 {
    /// Refuse the file.
    #[default]
    Error,
    /// Put U+FFFD in the place of each invalid sequence, as Python's `errors="replace"` does, and count them.
    Replace,
}

/// What there was in a text that is seldom meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flaws {
    /// Invalid sequences that U+FFFD stands for.
    pub invalid_utf8: u64,
    /// NUL characters. They are kept as they are: a tokenizer has tokens for them, or one for what it does not know.
    pub nul: u64,
}

impl AddAssign for Flaws {
    fn add_assign(&mut self, other: Self) {
        self.invalid_utf8 += other.invalid_utf8;
        self.nul += other.nul;
    }
}

/// One text of a corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its number within the corpus, from 0.
    pub id: u64,
    /// The file it came from.
    pub source: PathBuf,
    /// The text. A byte order mark at the beginning of a file is not part of it.
    pub text: String,
    /// What there was in it that is seldom meant.
    pub flaws: Flaws,
}

/// Files of text, found and in order, not yet read.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// All of a known format.
    files: Vec<PathBuf>,
    settings: Settings,
    max_documents: Option<u64>,
    bytes: u64,
}

impl Corpus {
    /// Finds the files that `config` names.
    ///
    /// # Errors
    /// An entry that matches no file, or a file of unknown kind that is named outright.
    pub fn open(config: &TextConfig) -> Result<Self, TextError> {
        let mut files = Vec::new();
        let mut seen = BTreeSet::new();
        for entry in &config.files {
            files.extend(expand(entry)?.into_iter().filter(|path| seen.insert(path.clone())));
        }
        if files.is_empty() {
            let reason = "no file is named; list files, directories or globs".to_owned();
            return Err(TextError::NoFiles { entry: "files".into(), reason });
        }
        if config.max_documents == Some(0) {
            let reason = "expected at least 1; leave the key out to read every document".to_owned();
            return Err(TextError::NoFiles { entry: "max_documents = 0".into(), reason });
        }
        let mut bytes = 0;
        for path in &files {
            bytes += fs::metadata(path).map_err(|source| TextError::Io { path: path.clone(), source })?.len();
        }
        let settings = Settings {
            field: config.field.clone().unwrap_or_else(|| "text".into()),
            column: config.column.clone().unwrap_or_else(|| "text".into()),
            invalid_utf8: config.invalid_utf8,
        };
        Ok(Self { files, settings, max_documents: config.max_documents, bytes })
    }

    /// Reads the documents, one after the other. A file is opened when its turn comes; after an error the
    /// stream ends.
    pub fn documents(&self) -> Documents {
        Documents { corpus: self.clone(), next_file: 0, next_id: 0, open: None, failed: false }
    }

    /// The size of the files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The files in the order in which they are read.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// A digest of the contents and order of the files, wherever they lie. Reads them all.
    pub fn digest(&self) -> Result<Digest, TextError> {
        let mut text = String::new();
        for path in &self.files {
            let digest = digest_file(path).map_err(|source| TextError::Io { path: path.clone(), source })?;
            text.push_str(&format!("{digest} {}\n", format_of(path).name));
        }
        Ok(digest_bytes(text.as_bytes()))
    }

    /// As this corpus, but of one of its files.
    pub(crate) fn only(&self, file: usize) -> Self {
        Self { files: vec![self.files[file].clone()], ..self.clone() }
    }

    /// About how many bytes of text there are, `max_documents` aside.
    pub(crate) fn text_bytes(&self, file: usize) -> Result<u64, TextError> {
        let path = &self.files[file];
        (format_of(path).text_bytes)(path, &self.settings)
    }

    /// The size of the largest file that is one document; 0 if there is none. Documents within other files are taken
    /// to be small.
    pub(crate) fn largest_document(&self) -> u64 {
        let whole = self.files.iter().filter(|path| format_of(path).whole);
        whole.filter_map(|path| Some(path.metadata().ok()?.len())).max().unwrap_or(0)
    }

    pub(crate) fn max_documents(&self) -> Option<u64> {
        self.max_documents
    }
}

/// The documents of a [`Corpus`].
pub struct Documents {
    corpus: Corpus,
    next_file: usize,
    next_id: u64,
    open: Option<(PathBuf, Texts)>,
    failed: bool,
}

impl Documents {
    fn try_next(&mut self) -> Result<Option<Document>, TextError> {
        if self.corpus.max_documents == Some(self.next_id) {
            return Ok(None);
        }
        loop {
            if let Some((source, texts)) = &mut self.open
                && let Some(text) = texts.next()
            {
                let Text { text, flaws } = text?;
                let document = Document { id: self.next_id, source: source.clone(), text, flaws };
                self.next_id += 1;
                return Ok(Some(document));
            }
            let Some(path) = self.corpus.files.get(self.next_file) else { return Ok(None) };
            self.next_file += 1;
            self.open = Some((path.clone(), (format_of(path).open)(path, &self.corpus.settings)?));
        }
    }
}

impl Iterator for Documents {
    type Item = Result<Document, TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.try_next();
        self.failed = next.is_err();
        next.transpose()
    }
}

/// The format of a file of a corpus.
fn format_of(path: &Path) -> &'static Format {
    formats::of(path).expect("a corpus holds files of known formats only")
}

/// The files of one entry of `files`, all of known formats, sorted.
fn expand(entry: &str) -> Result<Vec<PathBuf>, TextError> {
    let none = |reason: &str| TextError::NoFiles { entry: entry.into(), reason: reason.into() };
    let path = Path::new(entry);
    let mut files = Vec::new();
    // A path that exists is meant as it stands, even if it has a `[` in it.
    if path.is_dir() {
        walk(path, &mut files)?;
    } else if path.exists() {
        if formats::of(path).is_none() {
            return Err(TextError::UnknownFormat { file: path.to_owned(), known: formats::endings() });
        }
        return Ok(vec![path.to_owned()]);
    } else if entry.contains(['*', '?', '[']) {
        let matches = glob::glob(entry).map_err(|e| none(&format!("not a glob: {e}")))?;
        for found in matches {
            let found = found.map_err(|e| TextError::Io { path: e.path().to_owned(), source: e.into() })?;
            if found.is_file() {
                files.push(found);
            }
        }
    } else {
        return Err(none("no such file or directory (a relative path begins at the working directory)"));
    }
    files.sort();
    let found = files.len();
    let known: Vec<_> = files.into_iter().filter(|path| formats::of(path).is_some()).collect();
    match (found, known.len()) {
        (0, _) => Err(none("no file there")),
        (_, 0) => Err(none(&format!("none of its {found} file(s) ends in {}", formats::endings()))),
        (found, known_files) => {
            if found > known_files {
                tracing::info!("text `{entry}`: {} file(s) of other kinds are left out", found - known_files);
            }
            Ok(known)
        }
    }
}

/// Every file below `directory`, hidden ones aside. Linked directories are not followed: links may be circular.
fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), TextError> {
    let io = |source| TextError::Io { path: directory.to_owned(), source };
    for entry in fs::read_dir(directory).map_err(io)? {
        let entry = entry.map_err(io)?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type().map_err(io)?.is_dir() {
            walk(&path, files)?;
        } else if path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(files: &[String]) -> TextConfig {
        TextConfig::new(files.to_vec())
    }

    fn corpus_dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        for (name, text) in [
            ("b.txt", "bee"),
            ("a.txt", "ay"),
            ("sub/c.TXT", "see"),
            (".hidden.txt", "no"),
            ("notes.md", "no"),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        fs::write(dir.path().join("d.jsonl"), "{\"text\": \"dee\"}\n{\"text\": \"dee two\"}\n").unwrap();
        dir
    }

    fn texts(config: &TextConfig) -> Vec<(u64, String)> {
        let corpus = Corpus::open(config).unwrap();
        corpus.documents().map(|d| d.map(|d| (d.id, d.text)).unwrap()).collect()
    }

    #[test]
    fn a_directory_is_read_sorted_and_whole() {
        let dir = corpus_dir();
        let mut config = config(&[dir.path().display().to_string()]);
        let expected = ["ay", "bee", "dee", "dee two", "see"];
        assert_eq!(texts(&config), (0..).zip(expected.map(String::from)).collect::<Vec<_>>());
        assert_eq!(Corpus::open(&config).unwrap().bytes(), 2 + 3 + 16 + 20 + 3);
        config.max_documents = Some(3);
        assert_eq!(texts(&config).len(), 3);
    }

    #[test]
    fn entries_keep_their_order_and_a_file_is_read_once() {
        let dir = corpus_dir();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let config = config(&[path("b.txt"), path("[a-b].txt")]);
        assert_eq!(texts(&config), [(0, "bee".to_owned()), (1, "ay".to_owned())]);
    }

    #[test]
    fn the_digest_is_of_contents_in_order() {
        let dir = corpus_dir();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let digest = |files: &[String]| Corpus::open(&config(files)).unwrap().digest().unwrap();
        let ab = digest(&[path("a.txt"), path("b.txt")]);
        assert_eq!(ab, digest(&[path("a.txt"), path("b.txt")]));
        assert_ne!(ab, digest(&[path("b.txt"), path("a.txt")]));
        fs::copy(path("a.txt"), path("moved.txt")).unwrap();
        assert_eq!(ab, digest(&[path("moved.txt"), path("b.txt")]));
        fs::write(path("a.txt"), "changed").unwrap();
        assert_ne!(ab, digest(&[path("a.txt"), path("b.txt")]));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let dir = corpus_dir();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let error = |entry: String| Corpus::open(&config(&[entry])).unwrap_err().to_string();
        assert!(error(path("x.txt")).contains("x.txt`: no such file"));
        assert!(error(path("*.csv")).contains("*.csv`: no file there"));
        assert!(error(path("*.md")).contains("none of its 1 file(s) ends in .txt"));
        assert!(error(path("notes.md")).contains("expected a text file ending in .txt"));
        assert!(error(path("[")).contains("not a glob"));
        assert!(Corpus::open(&config(&[])).unwrap_err().to_string().contains("no file is named"));
    }

    #[test]
    fn an_error_ends_the_stream() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.jsonl");
        fs::write(&path, "{\"text\": \"one\"}\nnot json\n{\"text\": \"three\"}\n").unwrap();
        let corpus = Corpus::open(&config(&[path.display().to_string()])).unwrap();
        let all: Vec<_> = corpus.documents().collect();
        assert_eq!(all.len(), 2);
        assert!(all[1].as_ref().unwrap_err().to_string().contains("x.jsonl:2: "));
    }
}
