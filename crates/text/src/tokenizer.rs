//! A Hugging Face tokenizer together with what its special tokens mean.

use std::{collections::BTreeSet, fs, path::Path};

use crate::{TextError, merges::check_json, special};

/// The special tokens of a tokenizer, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// The token that begins a sequence.
    pub bos: Option<u32>,
    /// The token that ends a document.
    pub eos: Option<u32>,
    /// Whether the model's own tokenisation begins every sequence with `bos`.
    pub adds_bos: bool,
    /// Every special token, `bos` and `eos` among them.
    pub special: BTreeSet<u32>,
}

/// A tokenizer. It never truncates and never pads, whatever its file says.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: SpecialTokens,
    max_id: u32,
}

impl Tokenizer {
    /// Wraps `inner`. Tokens that `inner` itself marks as special join `special.special`, and so do `bos` and
    /// `eos`.
    pub fn new(mut inner: tokenizers::Tokenizer, mut special: SpecialTokens) -> Self {
        inner.with_padding(None);
        inner.with_truncation(None).expect("only given truncation parameters are checked");
        let marked = inner.get_added_tokens_decoder();
        special.special.extend(marked.iter().filter(|(_, token)| token.special).map(|(&id, _)| id));
        special.special.extend(special.bos.into_iter().chain(special.eos));
        let max_id = inner.get_vocab(true).into_values().max().unwrap_or(0);
        Self { inner, special, max_id }
    }

    /// Reads `tokenizer.json` of a Hugging Face model directory, and what BOS and EOS are from
    /// `tokenizer_config.json`, `config.json` or `generation_config.json`, the first that says.
    ///
    /// Whether BOS is added is taken from `add_bos_token` of `tokenizer_config.json`, and where that is
    /// silent from what the tokenizer does to an empty text.
    ///
    /// # Errors
    /// A file that is missing or malformed, or that names a token which the vocabulary lacks.
    pub fn from_dir(dir: &Path) -> Result<Self, TextError> {
        let file = dir.join("tokenizer.json");
        let bad = |reason: String| TextError::BadTokenizer { file: file.clone(), reason };
        if !file.is_file() {
            let hint = if dir.join("tokenizer.model").exists() {
                "only a SentencePiece tokenizer.model is there; convert it with \
                 `AutoTokenizer.from_pretrained(dir).save_pretrained(dir)` of transformers"
            } else {
                "copy it from where the model came from"
            };
            return Err(bad(format!("expected the model's tokenizer, found no such file; {hint}")));
        }
        let bytes = fs::read(&file).map_err(|source| TextError::Io { path: file.clone(), source })?;
        let json = serde_json::from_slice(&bytes).map_err(|e| bad(format!("not a tokenizer: {e}")))?;
        check_json(&json).map_err(bad)?;
        let inner = tokenizers::Tokenizer::from_bytes(&bytes);
        let inner = inner.map_err(|e| bad(format!("not a tokenizer: {e}")))?;
        let special = special::read(dir, &inner)?;
        Ok(Self::new(inner, special))
    }

    /// The tokens of `text`, with no special token added. (Special tokens spelt out in the text are taken
    /// as such, as transformers does.)
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let encoding = self.inner.encode_fast(text, false).map_err(|e| failed("text", &e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// As [`Tokenizer::encode`], of many texts at once and on all cores.
    pub fn encode_batch(&self, texts: Vec<&str>) -> Result<Vec<Vec<u32>>, TextError> {
        let encodings = self.inner.encode_batch_fast(texts, false).map_err(|e| failed("text", &e))?;
        Ok(encodings.into_iter().map(|e| e.get_ids().to_vec()).collect())
    }

    /// The text of `ids`, special tokens written out.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TextError> {
        self.inner.decode(ids, false).map_err(|e| failed("ids", &e))
    }

    /// One token as the vocabulary spells it (byte-level tokenizers write a space as `Ġ`).
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of the token that the vocabulary spells `token`.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token that the vocabulary spells most like `text`.
    pub(crate) fn nearest(&self, text: &str) -> Option<String> {
        let alike = |(token, id): (String, u32)| (strsim::jaro_winkler(text, &token), id, token);
        // Of equally near ones the first.
        let nearer = |a: &(f64, u32, String), b: &(f64, u32, String)| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1));
        self.inner.get_vocab(true).into_iter().map(alike).max_by(nearer).map(|(_, _, token)| token)
    }

    /// How many tokens there are, added ones included. Ids may have gaps: see [`Tokenizer::max_id`].
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The largest id. A model whose vocabulary is not larger cannot embed every token.
    pub fn max_id(&self) -> u32 {
        self.max_id
    }

    /// Whether `id` is a special token.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.special.contains(&id)
    }

    /// The special tokens.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// The tokenizer itself.
    pub fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }
}

fn failed(text: &str, reason: &tokenizers::Error) -> TextError {
    TextError::Tokenize { text: text.into(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::special::tests::{tokenizer_json, write};
    use serde_json::json;

    #[test]
    fn encodes_decodes_and_knows_its_ids() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "tokenizer.json", &tokenizer_json(false));
        let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
        assert_eq!(tokenizer.encode("a c b nothing").unwrap(), [3, 5, 4, 0]);
        assert_eq!(tokenizer.encode_batch(vec!["a", "", "b a"]).unwrap(), [vec![3], vec![], vec![4, 3]]);
        assert_eq!(tokenizer.decode(&[1, 3, 4]).unwrap(), "<s> a b");
        assert_eq!((tokenizer.token(5).as_deref(), tokenizer.token(6)), (Some("c"), None));
        assert_eq!((tokenizer.vocab_size(), tokenizer.max_id()), (6, 5));
        assert!(tokenizer.is_special(1) && tokenizer.is_special(2) && !tokenizer.is_special(3));
    }

    #[test]
    fn truncation_and_padding_of_the_file_are_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let mut json = tokenizer_json(false);
        json["truncation"] =
            json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
        json["padding"] = json!({"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"});
        write(dir.path(), "tokenizer.json", &json);
        let tokenizer = Tokenizer::from_dir(dir.path()).unwrap();
        assert_eq!(tokenizer.encode("a b c").unwrap(), [3, 4, 5]);
    }

    #[test]
    fn a_missing_or_broken_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = Tokenizer::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json: expected the model's tokenizer"), "{error}");
        std::fs::write(dir.path().join("tokenizer.json"), "{").unwrap();
        let error = Tokenizer::from_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json: not a tokenizer"), "{error}");
    }

    #[test]
    fn merges_that_yield_no_token_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let load = |merges: &[&str]| {
            let model = json!({"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": merges});
            let json = json!({"version": "1.0", "added_tokens": [], "model": model});
            write(dir.path(), "tokenizer.json", &json);
            Tokenizer::from_dir(dir.path())
        };
        assert_eq!(load(&["a b"]).unwrap().encode("ab").unwrap(), [2]);
        let error = load(&["a b", "ab ab"]).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json: merge 1, `ab` and `ab`: expected"), "{error}");
    }
}
