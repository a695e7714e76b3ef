//! Text on disk as a stream of documents.

use std::{
    collections::BTreeSet,
    ops::AddAssign,
    path::{Path, PathBuf},
};

use monosema_core::{Digest, digest_bytes, manifest::Input};
use monosema_remote::{Fetched, Fetching, SourceFile};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    TextError,
    find::{expand, identity},
    formats::{self, Format, Settings, Text, Texts},
};

/// Which text to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// Files (`.txt`, `.jsonl`, `.parquet`), directories (searched through, hidden files aside) or globs
    /// (`data/19[0-8]*.txt`), read in this order, each sorted by path. A file named twice, however it is spelt, is read once. A `.txt`
    /// file is one document, which is held and tokenised whole: at most 64 MiB, and so are a line and a row of the other
    /// two. More text belongs in several documents. Files may be elsewhere: `hf:datasets/owner/name@revision` (of a repository the
    /// Parquet files, or else the `.jsonl`, or else the `.txt`) or a file, directory or glob within it
    /// (`hf:datasets/owner/name/data/train-*.parquet`), and `s3://bucket/prefix/*.jsonl`, `gs://…`, `az://…`. They are
    /// fetched one by one as their turn comes, one ahead.
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
    /// What to do with bytes that are not UTF-8, and with lone surrogates in JSON (`\ud83d`). Default `error`.
    #[serde(default)]
    pub invalid_utf8: InvalidUtf8,
}

impl TextConfig {
    /// All of `files`, everything else as by default.
    pub fn new(files: Vec<String>) -> Self {
        Self { files, field: None, column: None, max_documents: None, invalid_utf8: InvalidUtf8::default() }
    }
}

/// What to do with bytes that are not UTF-8, and with what JSON writes of no character: half a surrogate pair (`\ud83d`).
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
    /// What stands beside the text, of documents that were [asked for with it](Corpus::with_fields).
    pub beside: Option<Beside>,
}

/// The other fields of the line of a `.jsonl` file that a text is a field of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside {
    /// The line's number in its file, from 1.
    pub line: u64,
    /// All fields but the text's.
    pub fields: Map<String, Value>,
}

/// Files of text, found and in order, not yet read.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// All of a known format.
    files: Vec<SourceFile>,
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
            files.extend(expand(entry)?.into_iter().filter(|file| seen.insert(identity(file))));
        }
        if files.is_empty() {
            let reason = "no file is named; list files, directories or globs".to_owned();
            return Err(TextError::NoFiles { entry: "files".into(), reason });
        }
        if config.max_documents == Some(0) {
            let reason = "expected at least 1; leave the key out to read every document".to_owned();
            return Err(TextError::NoFiles { entry: "max_documents = 0".into(), reason });
        }
        let bytes = files.iter().map(SourceFile::bytes).sum();
        let settings = Settings {
            field: config.field.clone().unwrap_or_else(|| "text".into()),
            column: config.column.clone().unwrap_or_else(|| "text".into()),
            invalid_utf8: config.invalid_utf8,
            beside: false,
        };
        Ok(Self { files, settings, max_documents: config.max_documents, bytes })
    }

    /// Reads the documents, one after the other. A file is opened when its turn comes; after an error the
    /// stream ends.
    pub fn documents(&self) -> Documents {
        Documents { corpus: self.clone(), next_file: 0, next_id: 0, open: None, coming: None, failed: false }
    }

    /// The same documents, each with what [stands beside](Document::beside) its text.
    ///
    /// # Errors
    /// A file that is not JSON lines: nothing stands beside the text of others.
    pub fn with_fields(mut self) -> Result<Self, TextError> {
        if let Some(file) = self.files.iter().find(|file| format_of(file.path()).name != "jsonl") {
            return Err(TextError::UnknownFormat { file: file.name(), known: ".jsonl, .ndjson".into() });
        }
        self.settings.beside = true;
        Ok(self)
    }

    /// The size of the files.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The files in the order in which they are read.
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// A digest of the contents and order of the files, wherever they lie. Reads those that are here; those elsewhere
    /// are known by what the hub or the object store knows them by.
    pub fn digest(&self) -> Result<Digest, TextError> {
        let mut text = String::new();
        for file in &self.files {
            text.push_str(&format!("{} {}\n", file.identity()?, format_of(file.path()).name));
        }
        Ok(digest_bytes(text.as_bytes()))
    }

    /// The text as an input of a stage's work; `config` names it.
    pub fn input(&self, config: &TextConfig) -> Result<Input, TextError> {
        let resolved: BTreeSet<_> = self.files.iter().filter_map(SourceFile::resolved).collect();
        let resolved = (!resolved.is_empty()).then(|| resolved.into_iter().collect::<Vec<_>>().join(", "));
        Ok(Input { name: config.files.join(", "), sha256: self.digest()?, resolved })
    }

    /// As much of this corpus as can be looked into at little cost: the files that are here or, if none is, the first of them,
    /// fetched, for as long as it is held.
    pub(crate) fn here(&self) -> Result<(Self, Option<Fetched>), TextError> {
        let mut files: Vec<_> = self.files.iter().filter(|file| !file.is_remote()).cloned().collect();
        let mut held = None;
        if files.is_empty() {
            let (fetched, bytes) = (self.files[0].fetch()?, self.files[0].bytes());
            files.push(SourceFile::Local { path: fetched.to_path_buf(), bytes });
            held = Some(fetched);
        }
        let bytes = files.iter().map(SourceFile::bytes).sum();
        Ok((Self { files, bytes, ..self.clone() }, held))
    }

    /// As this corpus, but of one of its files.
    pub(crate) fn only(&self, file: usize) -> Self {
        Self { files: vec![self.files[file].clone()], ..self.clone() }
    }

    /// About how many bytes of text there are in a file that is here, `max_documents` aside.
    pub(crate) fn text_bytes(&self, file: usize) -> Result<u64, TextError> {
        let path = self.files[file].path();
        (format_of(path).text_bytes)(path, &self.settings)
    }

    /// The size of the largest file that is one document; 0 if there is none. Documents within other files are taken
    /// to be small.
    pub(crate) fn largest_document(&self) -> u64 {
        let whole = self.files.iter().filter(|file| format_of(file.path()).whole);
        whole.map(SourceFile::bytes).max().unwrap_or(0)
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
    /// The file that is read: what it is called, what it holds, and what keeps it here.
    open: Option<(SourceFile, Texts, Fetched)>,
    /// The next one, on its way.
    coming: Option<Fetching>,
    failed: bool,
}

impl Documents {
    fn try_next(&mut self) -> Result<Option<Document>, TextError> {
        if self.corpus.max_documents == Some(self.next_id) {
            return Ok(None);
        }
        loop {
            if let Some((file, texts, _)) = &mut self.open
                && let Some(text) = texts.next()
            {
                let Text { text, flaws, beside } = text.map_err(|error| in_file(file, error))?;
                let document = Document { id: self.next_id, source: file.name(), text, flaws, beside };
                self.next_id += 1;
                return Ok(Some(document));
            }
            let Some(file) = self.corpus.files.get(self.next_file) else { return Ok(None) };
            self.next_file += 1;
            // What was read gives its room to what comes.
            self.open = None;
            let fetched = self.coming.take().unwrap_or_else(|| file.begin()).wait()?;
            self.coming = self.corpus.files.get(self.next_file).map(SourceFile::begin);
            let texts = (format_of(&fetched).open)(&fetched, &self.corpus.settings);
            self.open = Some((file.clone(), texts.map_err(|error| in_file(file, error))?, fetched));
        }
    }
}

/// `error` in `file`, by the name under which the user knows it.
fn in_file(file: &SourceFile, error: TextError) -> TextError {
    if file.is_remote() { TextError::Fetched { name: file.name(), source: error.into() } } else { error }
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
pub(crate) fn format_of(path: &Path) -> &'static Format {
    formats::of(path).expect("a corpus holds files of known formats only")
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        let config = config(&["b.txt", "sub/../b.txt", "[a-b].txt", "./a.txt"].map(path));
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
    fn fields_stand_beside_the_text_where_they_are_asked_for() {
        let dir = corpus_dir();
        let path = dir.path().join("e.jsonl");
        fs::write(&path, "\n{\"text\": \"one\", \"label\": 3}\n").unwrap();
        let corpus = Corpus::open(&config(&[path.display().to_string()])).unwrap();
        assert_eq!(corpus.documents().next().unwrap().unwrap().beside, None);
        let document = corpus.with_fields().unwrap().documents().next().unwrap().unwrap();
        let beside = document.beside.unwrap();
        assert_eq!((document.text.as_str(), beside.line), ("one", 2));
        assert_eq!(serde_json::to_string(&beside.fields).unwrap(), "{\"label\":3}");
        let all = Corpus::open(&config(&[dir.path().display().to_string()])).unwrap();
        let error = all.with_fields().unwrap_err().to_string();
        assert!(error.contains("a.txt: expected a text file ending in .jsonl"), "{error}");
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

    #[test]
    fn text_elsewhere_is_the_same_text() {
        let dir = corpus_dir();
        let here = [dir.path().display().to_string()];
        let there = [format!("file://{}", here[0])];
        assert_eq!(texts(&config(&there)), texts(&config(&here)));
        let glob = [format!("file://{}/*.txt", here[0])];
        assert_eq!(texts(&config(&glob)), [(0, "ay".to_owned()), (1, "bee".to_owned())]);
        let corpus = Corpus::open(&config(&glob)).unwrap();
        assert_eq!(corpus.bytes(), 5);
        let source = corpus.documents().next().unwrap().unwrap().source;
        assert_eq!(source.to_str().unwrap(), format!("file://{}/a.txt", here[0]));
        // Known by what the place knows it by: the same until it is written.
        let digest = || Corpus::open(&config(&glob)).unwrap().digest().unwrap();
        let before = digest();
        assert_eq!(before, digest());
        fs::write(dir.path().join("a.txt"), "changed").unwrap();
        assert_ne!(before, digest());
    }

    #[test]
    fn what_is_wrong_elsewhere_is_said_by_its_name_there() {
        let dir = corpus_dir();
        fs::write(dir.path().join("x.jsonl"), "{\"text\": \"one\"}\nnot json\n").unwrap();
        let at = |name: &str| format!("file://{}/{name}", dir.path().display());
        let corpus = Corpus::open(&config(&[at("x.jsonl")])).unwrap();
        let all: Vec<_> = corpus.documents().collect();
        let error = all[1].as_ref().unwrap_err().to_string();
        assert!(error.starts_with(&at("x.jsonl")) && error.contains(":2: not JSON"), "{error}");
        let error = |entry| Corpus::open(&config(&[entry])).unwrap_err().to_string();
        assert!(error(at("y.txt")).contains("y.txt: not found"));
        assert!(error(at("notes.md")).contains("none of its 1 file(s) ends in .txt"));
        assert!(error("hf:datasets/nobody".into()).contains("expected hf:datasets/owner/name"));
    }

    #[test]
    fn a_file_that_is_fetched_is_gone_when_it_was_read() {
        let dir = corpus_dir();
        let mut documents =
            Corpus::open(&config(&[format!("file://{}/*.txt", dir.path().display())])).unwrap().documents();
        documents.next().unwrap().unwrap();
        let fetched = documents.open.as_ref().unwrap().2.to_path_buf();
        assert!(fetched.exists() && documents.coming.is_some());
        documents.next().unwrap().unwrap();
        assert!(!fetched.exists());
    }
}
