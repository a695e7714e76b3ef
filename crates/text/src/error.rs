//! What can be wrong with text, tokenizers and context settings.

use std::{io, path::PathBuf};

use monosema_remote::RemoteError;

/// Text that cannot be read, tokenised or packed.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// `files` names nothing that can be read.
    #[error("text `{entry}`: {reason}")]
    NoFiles {
        /// The entry of `files`, as written.
        entry: String,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A file that is elsewhere and cannot be had.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// What is wrong with a file that was fetched.
    #[error("{}: {source}", name.display())]
    Fetched {
        /// Where it is from.
        name: PathBuf,
        /// What is wrong with it, by the path to which it was fetched.
        source: Box<TextError>,
    },
    /// A file that was asked for by name, of a kind that this program does not read.
    #[error("{}: expected a text file ending in {known}; rename or convert it", file.display())]
    UnknownFormat {
        /// The file.
        file: PathBuf,
        /// The endings known.
        known: String,
    },
    /// A document too large to be tokenised whole.
    #[error(
        "{}: expected at most {most} bytes, found {found}: a .txt file is one document, and tokenised whole; split it, \
         or make it .jsonl with a line for each document",
        file.display()
    )]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// Bytes that it may have.
        most: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// The disk failed.
    #[error("{}: cannot be read", path.display())]
    Io {
        /// What was read.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file that holds something else than its name says.
    #[error("{}: expected {expected}, found {found}; {advice}", file.display())]
    WrongKind {
        /// The file.
        file: PathBuf,
        /// What a file of this name holds.
        expected: &'static str,
        /// What it begins as.
        found: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// Bytes that are not UTF-8.
    #[error(
        "{}: expected UTF-8, found an invalid sequence at {place}; convert the file (for instance `iconv -f latin1 -t \
         utf-8`), or read U+FFFD in its place: invalid_utf8 = \"replace\"",
        file.display()
    )]
    NotUtf8 {
        /// The file.
        file: PathBuf,
        /// Where the first invalid sequence begins.
        place: String,
    },
    /// A line of a `.jsonl` file without usable text.
    #[error("{}:{line}: {reason}", file.display())]
    BadLine {
        /// The file.
        file: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// Expected and found.
        reason: String,
    },
    /// A Parquet file without usable text.
    #[error("{}: {reason}", file.display())]
    BadParquet {
        /// The file.
        file: PathBuf,
        /// Expected and found.
        reason: String,
    },
    /// A tokenizer that cannot be used.
    #[error("{}: {reason}", file.display())]
    BadTokenizer {
        /// The file.
        file: PathBuf,
        /// Expected and found.
        reason: String,
    },
    /// The tokenizer failed.
    #[error("{text}: the tokenizer failed: {reason}")]
    Tokenize {
        /// What was being tokenised.
        text: String,
        /// Why it failed.
        reason: String,
    },
    /// A `[context]` setting that cannot work.
    #[error("[context] {key}: {reason}")]
    BadContext {
        /// The setting.
        key: &'static str,
        /// Expected and found.
        reason: String,
    },
    /// All documents together hold no window of two tokens.
    #[error(
        "the text holds {tokens} token(s) in {documents} document(s), which is not enough for one context \
         window (at least 2 tokens); is the right file, field or column named?"
    )]
    NoContexts {
        /// Documents read.
        documents: u64,
        /// Tokens in them.
        tokens: u64,
    },
    /// A token that the model has no embedding for.
    #[error(
        "document {document}: token {token} is outside the model's vocabulary of {d_vocab}; either it is one that was \
         added to the tokenizer, which stands spelt out in the text (take it out of there), or the tokenizer is not this \
         model's"
    )]
    OutsideVocabulary {
        /// The document's number.
        document: u64,
        /// The token's id.
        token: u32,
        /// Ids that the model knows: below this.
        d_vocab: usize,
    },
}
