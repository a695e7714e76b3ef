//! How many tokens a corpus holds, from a sample of it.

use serde::{Deserialize, Serialize};

use crate::{Context, ContextPlan, Corpus, TextError, Tokenizer, contexts};

/// Files to sample, spread evenly over the corpus.
const SAMPLE_FILES: usize = 8;

/// Bytes of text to tokenise from each of them, at least.
const SAMPLE_BYTES: usize = 1 << 16;

/// Bytes of one document to tokenise, at most.
const DOCUMENT_BYTES: usize = 1 << 20;

/// A guess from a sample: good for planning disk and time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Tokens in windows, BOS and separators included.
    pub tokens: u64,
    /// Those of them that count.
    pub counted: u64,
}

impl Corpus {
    /// Estimates how many tokens the windows of this corpus hold, by packing a few documents of a few files.
    /// The estimate depends on the corpus, the tokenizer and the plan alone.
    ///
    /// # Errors
    /// A sampled document that cannot be read or tokenised.
    pub fn estimate(&self, tokenizer: &Tokenizer, plan: &ContextPlan) -> Result<Estimate, TextError> {
        let (here, _held) = self.here()?;
        let n_files = here.files().len();
        let mut text_bytes = 0;
        for file in 0..n_files {
            text_bytes += here.text_bytes(file)?;
        }
        let total_bytes = text_bytes as f64 * (self.bytes() as f64 / here.bytes().max(1) as f64);
        let mut sample = Vec::new();
        let mut whole_bytes = 0;
        let sampled_files = n_files.min(SAMPLE_FILES);
        for i in 0..sampled_files {
            let mut bytes = 0;
            for document in here.only(i * n_files / sampled_files).documents() {
                let mut document = document?;
                whole_bytes += document.text.len();
                document.text.truncate(document.text.floor_char_boundary(DOCUMENT_BYTES));
                bytes += document.text.len();
                sample.push(document);
                if bytes >= SAMPLE_BYTES {
                    break;
                }
            }
        }
        let n_sampled = sample.len() as u64;
        let sampled_bytes: usize = sample.iter().map(|document| document.text.len()).sum();
        let packed: Result<Vec<Context>, TextError> =
            contexts(sample.into_iter().map(Ok), tokenizer, plan).collect();
        let packed = match packed {
            // That there is nothing at all is for the harvest to find out; here it is a sample.
            Err(TextError::NoContexts { .. }) => Vec::new(),
            packed => packed?,
        };
        let by_bytes = total_bytes / sampled_bytes.max(1) as f64;
        let cut = whole_bytes as f64 / sampled_bytes.max(1) as f64;
        let by_documents = self.max_documents().map(|n| cut * n as f64 / n_sampled.max(1) as f64);
        let factor = by_documents.map_or(by_bytes, |n| n.min(by_bytes));
        let scaled = |n: usize| (n as f64 * factor).round() as u64;
        Ok(Estimate {
            tokens: scaled(packed.iter().map(Context::len).sum()),
            counted: scaled(packed.iter().map(Context::n_counted).sum()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContextConfig, Separator, TextConfig, special::tests::tokenizer};

    fn estimate(config: &TextConfig) -> Estimate {
        let context = ContextConfig { length: 10, separator: Separator::None, ..Default::default() };
        let tokenizer = tokenizer(false);
        let plan = ContextPlan::new(&context, &tokenizer).unwrap();
        Corpus::open(config).unwrap().estimate(&tokenizer, &plan).unwrap()
    }

    #[test]
    fn an_even_corpus_is_estimated_well() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..20 {
            std::fs::write(dir.path().join(format!("{i:02}.txt")), "a b c a b ".repeat(10_000)).unwrap();
        }
        let files = vec![dir.path().display().to_string()];
        let mut config = TextConfig::new(files);
        // 20 documents of 50,000 tokens each; 1 of 10 positions does not count.
        assert_eq!(estimate(&config), Estimate { tokens: 1_000_000, counted: 900_000 });
        config.max_documents = Some(3);
        assert_eq!(estimate(&config), Estimate { tokens: 150_000, counted: 135_000 });
    }

    #[test]
    fn a_corpus_elsewhere_is_estimated_from_its_first_file() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..20 {
            std::fs::write(dir.path().join(format!("{i:02}.txt")), "a b c a b ".repeat(10_000)).unwrap();
        }
        let files = vec![format!("file://{}", dir.path().display())];
        let config = TextConfig::new(files);
        assert_eq!(estimate(&config), Estimate { tokens: 1_000_000, counted: 900_000 });
    }

    #[test]
    fn a_long_document_is_estimated_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.txt"), "a b c a b ".repeat(1_000_000)).unwrap();
        let files = vec![dir.path().display().to_string()];
        let mut config = TextConfig::new(files);
        for max_documents in [None, Some(1)] {
            config.max_documents = max_documents;
            let tokens = estimate(&config).tokens;
            assert!(tokens.abs_diff(5_000_000) < 100, "{tokens}");
        }
    }

    #[test]
    fn nothing_is_estimated_as_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        std::fs::write(&path, " ").unwrap();
        let files = vec![path.display().to_string()];
        let config = TextConfig::new(files);
        assert_eq!(estimate(&config), Estimate { tokens: 0, counted: 0 });
    }
}
