//! Rebuilds a tokenizer from the metadata of a GGUF file. llama.cpp keeps vocabulary, merges or scores, and a
//! name for the rules by which text is split before that; the rest of a tokenizer.json is implied by it.

use std::collections::{BTreeSet, HashMap};

use monosema_text::{SpecialTokens, Tokenizer, check_merges};
use serde_json::{Map, Value};
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior,
    decoders::{
        byte_fallback::ByteFallback, fuse::Fuse, sequence::Sequence as DecoderSequence, strip::Strip,
    },
    models::bpe::BPE,
    normalizers::{NFC, Prepend, Replace, Sequence as NormalizerSequence},
    pre_tokenizers::{
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

/// How Llama 3 splits text (its tokenizer.json).
const LLAMA3_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How Qwen 2, 2.5 and 3 do: digits are split one by one.
const QWEN2_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How Mistral NeMo does: capitals begin words.
const TEKKEN_SPLIT: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The names of rules (`tokenizer.ggml.pre`) that a GGUF file's byte-level tokenizer can be rebuilt by.
pub const GGUF_SPLITS: &str = "gpt-2, olmo, smollm, llama-bpe, dbrx, qwen2 or tekken";

/// `token_type` of a token that text never produces.
const CONTROL: u64 = 3;
/// `token_type` of a token that is found in text before anything else.
const USER_DEFINED: u64 = 4;

/// SentencePiece's mark of a space.
const SPACE: &str = "▁";

/// The tokenizer of a file with this metadata. Errors say expected and found.
pub(super) fn build(metadata: &Map<String, Value>) -> Result<Tokenizer, String> {
    let file = Vocabulary::read(metadata)?;
    let (mut inner, adds_bos) = match file.text("model").unwrap_or("none") {
        "gpt2" => byte_level(&file)?,
        "llama" => sentence_piece(&file)?,
        other => return Err(format!("expected tokenizer.ggml.model gpt2 or llama, found {other}")),
    };
    let bos = file.token_id("bos_token_id")?;
    let eos = file.token_id("eos_token_id")?;
    let adds_bos = file.flag("add_bos_token")?.unwrap_or(adds_bos);
    if adds_bos && bos.is_none() {
        return Err(
            "tokenizer.ggml.add_bos_token is true, but there is no tokenizer.ggml.bos_token_id".into()
        );
    }
    let mut special = BTreeSet::new();
    let mut added = Vec::new();
    for (id, (token, &kind)) in file.tokens.iter().zip(&file.kinds).enumerate() {
        if kind == CONTROL {
            special.insert(id as u32);
        }
        if kind == CONTROL || kind == USER_DEFINED {
            added.push(AddedToken::from(token.to_string(), kind == CONTROL).normalized(false));
        }
    }
    inner.add_tokens(added).map_err(|e| format!("its special tokens: {e}"))?;
    Ok(Tokenizer::new(inner, SpecialTokens { bos, eos, adds_bos, special }))
}

/// The `tokenizer.ggml.` part of the metadata.
struct Vocabulary<'a> {
    metadata: &'a Map<String, Value>,
    tokens: Vec<&'a str>,
    kinds: Vec<u64>,
}

impl<'a> Vocabulary<'a> {
    fn read(metadata: &'a Map<String, Value>) -> Result<Self, String> {
        let mut file = Self { metadata, tokens: Vec::new(), kinds: Vec::new() };
        file.tokens = file
            .list("tokens", "texts", Value::as_str)?
            .ok_or("expected tokenizer.ggml.tokens, found none")?;
        file.kinds =
            file.list("token_type", "numbers", Value::as_u64)?.unwrap_or_else(|| vec![1; file.tokens.len()]);
        if file.kinds.len() != file.tokens.len() {
            let (tokens, kinds) = (file.tokens.len(), file.kinds.len());
            return Err(format!(
                "expected a tokenizer.ggml.token_type for each of {tokens} tokens, found {kinds}"
            ));
        }
        Ok(file)
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.metadata.get(&format!("tokenizer.ggml.{key}"))
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.get(key).and_then(Value::as_str)
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        let wrong = |found| format!("tokenizer.ggml.{key}: expected true or false, found {found}");
        self.get(key).map(|value| value.as_bool().ok_or_else(|| wrong(value))).transpose()
    }

    fn token_id(&self, key: &str) -> Result<Option<u32>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let id = value.as_u64().filter(|&id| id < self.tokens.len() as u64);
        let wrong =
            || format!("tokenizer.ggml.{key}: expected an id below {}, found {value}", self.tokens.len());
        id.map(|id| Some(id as u32)).ok_or_else(wrong)
    }

    fn list<T>(
        &self,
        key: &str,
        of: &str,
        f: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, String> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let items = value.as_array().and_then(|items| items.iter().map(f).collect());
        items.map(Some).ok_or_else(|| format!("tokenizer.ggml.{key}: expected a list of {of}"))
    }

    fn ids(&self) -> Result<HashMap<String, u32>, String> {
        let mut ids = HashMap::with_capacity(self.tokens.len());
        for (id, token) in self.tokens.iter().enumerate() {
            if let Some(other) = ids.insert((*token).to_owned(), id as u32) {
                return Err(format!("tokenizer.ggml.tokens: {token:?} is token {other} and token {id}"));
            }
        }
        Ok(ids)
    }
}

/// Byte-level BPE as GPT-2 introduced it, and whether BOS is added unless the file says.
fn byte_level(file: &Vocabulary) -> Result<(tokenizers::Tokenizer, bool), String> {
    let Rules { pre_tokenizer, composed, whole_first } = Rules::named(file.text("pre").unwrap_or("none"))?;
    let merges =
        file.list("merges", "texts", Value::as_str)?.ok_or("expected tokenizer.ggml.merges, found none")?;
    let pair = |merge: &str| {
        let (a, b) = merge.split_once(' ')?;
        Some((a.to_owned(), b.to_owned()))
    };
    let merges: Option<Vec<_>> = merges.into_iter().map(pair).collect();
    let merges = merges.ok_or("tokenizer.ggml.merges: expected two tokens with a space between")?;
    check_merges(file.tokens.iter().copied(), merges.iter().map(|(a, b)| (a.as_str(), b.as_str())), "")
        .map_err(|e| format!("tokenizer.ggml.merges: {e}"))?;
    let model = BPE::builder()
        .vocab_and_merges(file.ids()?.into_iter().collect::<tokenizers::models::bpe::Vocab>(), merges)
        .ignore_merges(whole_first)
        .build();
    let mut inner = tokenizers::Tokenizer::new(model.map_err(|e| e.to_string())?);
    if composed {
        inner.with_normalizer(Some(NFC)).map_err(|e| e.to_string())?;
    }
    inner.with_pre_tokenizer(Some(pre_tokenizer));
    inner.with_decoder(Some(ByteLevel::default()));
    // llama.cpp adds BOS for the same ones unless told otherwise.
    Ok((inner, whole_first))
}

/// What the name at `tokenizer.ggml.pre` stands for: what the tokenizer.json says that llama.cpp knows by it.
struct Rules {
    pre_tokenizer: PreTokenizerWrapper,
    /// Whether accents are composed with their letters before (NFC).
    composed: bool,
    /// Whether a piece that is a token is that token, whatever merges make of it.
    whole_first: bool,
}

impl Rules {
    fn named(pre: &str) -> Result<Self, String> {
        let gpt2 = ByteLevel::new(false, true, true);
        let by_pattern = |pattern: &str| {
            let pattern = SplitPattern::Regex(pattern.into());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
            let split = split.map_err(|e| e.to_string())?;
            let bytes = ByteLevel::new(false, true, false);
            Ok::<PreTokenizerWrapper, String>(Sequence::new(vec![split.into(), bytes.into()]).into())
        };
        let (pre_tokenizer, composed, whole_first) = match pre {
            "gpt-2" | "gpt2" => (gpt2.into(), false, false),
            "olmo" => (gpt2.into(), true, false),
            "smollm" => (Sequence::new(vec![Digits::new(true).into(), gpt2.into()]).into(), false, false),
            "llama-bpe" | "llama-v3" | "llama3" => (by_pattern(LLAMA3_SPLIT)?, false, true),
            "dbrx" => (by_pattern(LLAMA3_SPLIT)?, false, false),
            "qwen2" => (by_pattern(QWEN2_SPLIT)?, true, false),
            "tekken" => (by_pattern(TEKKEN_SPLIT)?, false, true),
            other => {
                return Err(format!(
                    "expected tokenizer.ggml.pre {GGUF_SPLITS}, found {other}; use the model's Hugging Face directory \
                     instead"
                ));
            }
        };
        Ok(Self { pre_tokenizer, composed, whole_first })
    }
}

/// SentencePiece's BPE with byte fallback (Llama 1 and 2, Mistral, Gemma, Phi-3), and whether BOS is added unless the file says.
fn sentence_piece(file: &Vocabulary) -> Result<(tokenizers::Tokenizer, bool), String> {
    if file.flag("remove_extra_whitespaces")?.unwrap_or(false) {
        return Err("tokenizer.ggml.remove_extra_whitespaces is not supported".into());
    }
    let scores =
        file.list("scores", "numbers", Value::as_f64)?.ok_or("expected tokenizer.ggml.scores, found none")?;
    if scores.len() != file.tokens.len() {
        return Err(format!("expected {} tokenizer.ggml.scores, found {}", file.tokens.len(), scores.len()));
    }
    let unknown = file.token_id("unknown_token_id")?.map(|id| file.tokens[id as usize].to_owned());
    let merges = merges_by_score(&file.tokens, &scores);
    let vocabulary = file.ids()?.into_iter().collect::<tokenizers::models::bpe::Vocab>();
    let mut model = BPE::builder().vocab_and_merges(vocabulary, merges).byte_fallback(true).fuse_unk(true);
    if let Some(unknown) = unknown {
        model = model.unk_token(unknown);
    }
    let mut inner = tokenizers::Tokenizer::new(model.build().map_err(|e| e.to_string())?);

    let prefixed = file.flag("add_space_prefix")?.unwrap_or(true);
    let replace = |from: &str, to: &str| Replace::new(from, to).map_err(|e| e.to_string());
    let mut normalizers: Vec<NormalizerWrapper> = Vec::new();
    let mut decoders: Vec<DecoderWrapper> =
        vec![replace(SPACE, " ")?.into(), ByteFallback::new().into(), Fuse::new().into()];
    if prefixed {
        normalizers.push(Prepend::new(SPACE.into()).into());
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    normalizers.push(replace(" ", SPACE)?.into());
    inner.with_normalizer(Some(NormalizerSequence::new(normalizers))).map_err(|e| e.to_string())?;
    inner.with_decoder(Some(DecoderSequence::new(decoders)));
    Ok((inner, true))
}

/// The merges that do what SentencePiece does with `scores`: of all neighbours whose union is a token, join
/// those of the best score first. As transformers converts such vocabularies (`generate_merges`).
fn merges_by_score(tokens: &[&str], scores: &[f64]) -> Vec<(String, String)> {
    let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(id, token)| (*token, id)).collect();
    let mut merges = Vec::new();
    for (token, &score) in tokens.iter().zip(scores) {
        let splits = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let mut of_token: Vec<_> =
            splits.filter_map(|(a, b)| Some(((*ids.get(a)?, *ids.get(b)?), (a, b, score)))).collect();
        of_token.sort_by_key(|(ids, _)| *ids);
        merges.extend(of_token.into_iter().map(|(_, merge)| merge));
    }
    let length = |text: &str| text.chars().count();
    // Best first; among equals the longer left part, then the longer right part, then the order above.
    merges.sort_by(|a, b| {
        b.2.total_cmp(&a.2).then(length(b.0).cmp(&length(a.0))).then(length(b.1).cmp(&length(a.1)))
    });
    merges.into_iter().map(|(a, b, _)| (a.to_owned(), b.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata(own: Value) -> Map<String, Value> {
        own.as_object().unwrap().iter().map(|(k, v)| (format!("tokenizer.ggml.{k}"), v.clone())).collect()
    }

    fn byte_level_metadata(pre: &str) -> Map<String, Value> {
        metadata(json!({"model": "gpt2", "pre": pre,
            "tokens": ["<|end|>", "a", "b", "1", "2", "Ġ", "ab", "12", "Ġa", "B", "aB", "Ã", "©"],
            "token_type": [3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], "eos_token_id": 0, "bos_token_id": 0,
            "merges": ["a b", "1 2", "Ġ a", "a B"]}))
    }

    #[test]
    fn byte_level_vocabularies_split_as_their_name_says() {
        let encode = |pre: &str| {
            let tokenizer = build(&byte_level_metadata(pre)).unwrap();
            let ids = tokenizer.encode("ab12 a").unwrap();
            assert_eq!(tokenizer.decode(&ids).unwrap(), "ab12 a");
            ids
        };
        assert_eq!(encode("gpt-2"), [6, 7, 8]);
        assert_eq!(encode("smollm"), [6, 3, 4, 8]);
        for name in ["llama-bpe", "dbrx", "olmo"] {
            assert_eq!(encode(name), [6, 7, 8], "{name}");
        }
        for name in ["qwen2", "tekken"] {
            assert_eq!(encode(name), [6, 3, 4, 8], "{name}");
        }
    }

    #[test]
    fn capitals_begin_words_and_accents_are_composed_where_the_name_says_so() {
        let encode = |pre: &str, text: &str| build(&byte_level_metadata(pre)).unwrap().encode(text).unwrap();
        assert_eq!([encode("qwen2", "aB"), encode("tekken", "aB")], [vec![10], vec![1, 9]]);
        for composed in ["qwen2", "olmo"] {
            assert_eq!(encode(composed, "e\u{301}"), [11, 12], "{composed}");
        }
        assert!(encode("gpt-2", "e\u{301}").is_empty(), "the vocabulary has neither of the two");
    }

    #[test]
    fn special_tokens_are_found_in_text_and_known_as_special() {
        let tokenizer = build(&byte_level_metadata("gpt-2")).unwrap();
        assert_eq!(tokenizer.encode("a<|end|>b").unwrap(), [1, 0, 2]);
        assert!(tokenizer.is_special(0) && !tokenizer.is_special(1));
        assert_eq!((tokenizer.special().eos, tokenizer.special().adds_bos), (Some(0), false));
        for (name, adds_bos) in [("llama-bpe", true), ("tekken", true), ("dbrx", false), ("qwen2", false)] {
            assert_eq!(build(&byte_level_metadata(name)).unwrap().special().adds_bos, adds_bos, "{name}");
        }
    }

    #[test]
    fn sentence_piece_joins_by_score_and_falls_back_to_bytes() {
        let mut tokens = vec!["<unk>".to_owned(), "<s>".into(), "</s>".into()];
        tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
        tokens.extend(["▁", "a", "b", "c", "ab", "bc", "▁a"].map(str::to_owned));
        let (mut kinds, mut scores) = (vec![1u64; tokens.len()], vec![0.0; tokens.len()]);
        kinds[..3].copy_from_slice(&[2, 3, 3]);
        kinds[3..259].fill(6);
        // `bc` is better than `ab`, and `ab` than `▁a`.
        scores[259..].copy_from_slice(&[-9.0, -9.0, -9.0, -9.0, -2.0, -1.0, -3.0]);
        let tokenizer = build(&metadata(json!({"model": "llama", "tokens": tokens, "token_type": kinds,
            "scores": scores, "unknown_token_id": 0, "bos_token_id": 1, "eos_token_id": 2})))
        .unwrap();
        let tokens = |text: &str| -> Vec<String> {
            tokenizer.encode(text).unwrap().iter().map(|&id| tokenizer.token(id).unwrap()).collect()
        };
        assert_eq!(tokens("abc"), ["▁a", "bc"]);
        assert_eq!(tokens("ab a"), ["▁", "ab", "▁a"]);
        assert_eq!(tokens("é"), ["▁", "<0xC3>", "<0xA9>"]);
        assert_eq!(tokenizer.decode(&tokenizer.encode("abc é").unwrap()).unwrap(), "abc é");
        assert!(tokenizer.special().adds_bos);
    }

    #[test]
    fn what_cannot_be_rebuilt_is_said() {
        let error = |own: Value| build(&metadata(own)).unwrap_err();
        assert!(error(json!({"model": "gpt2"})).contains("tokenizer.ggml.tokens"));
        assert!(error(json!({"model": "bert", "tokens": ["a"]})).contains("found bert"));
        let unknown = json!({"model": "gpt2", "pre": "viking", "tokens": ["a"], "merges": []});
        assert!(error(unknown).contains("found viking"));
        let twice = json!({"model": "gpt2", "pre": "gpt-2", "tokens": ["a", "a"], "merges": []});
        assert!(error(twice).contains("\"a\" is token 0 and token 1"));
        let beyond =
            json!({"model": "gpt2", "pre": "gpt-2", "tokens": ["a"], "merges": [], "bos_token_id": 1});
        assert!(error(beyond).contains("expected an id below 1, found 1"));
        let longer =
            error(json!({"model": "gpt2", "pre": "gpt-2", "tokens": ["a", "b"], "merges": ["a b", "b b"]}));
        assert!(longer.starts_with("tokenizer.ggml.merges: merge 0, `a` and `b`: expected"), "{longer}");
    }
}
