//! What a Hugging Face directory says about its beginning- and end-of-sequence tokens.

use std::{fs, io, path::Path};

use serde_json::Value;

use crate::{SpecialTokens, TextError};

/// Reads the special tokens of the model in `dir`; `inner` is its `tokenizer.json`.
pub(crate) fn read(dir: &Path, inner: &tokenizers::Tokenizer) -> Result<SpecialTokens, TextError> {
    let bos = find(dir, inner, "bos")?;
    let eos = find(dir, inner, "eos")?;
    let said = match object(dir, "tokenizer_config.json")?.get("add_bos_token") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(said)) => Some(*said),
        Some(other) => {
            return Err(bad(
                dir,
                "tokenizer_config.json",
                format!("add_bos_token: expected true or false, found {other}"),
            ));
        }
    };
    if said == Some(true) && bos.is_none() {
        let reason = "add_bos_token is true, but no bos_token is named".to_owned();
        return Err(bad(dir, "tokenizer_config.json", reason));
    }
    let adds_bos = match said {
        Some(said) => said,
        None => bos.is_some() && first_of_empty(dir, inner)? == bos,
    };
    Ok(SpecialTokens { bos, eos, adds_bos, ..SpecialTokens::default() })
}

/// The id of the `bos` or `eos` token: by content in `tokenizer_config.json`, by id in the model's own files.
fn find(dir: &Path, inner: &tokenizers::Tokenizer, which: &str) -> Result<Option<u32>, TextError> {
    let file = "tokenizer_config.json";
    let key = format!("{which}_token");
    match object(dir, file)?.get(&key) {
        None => {}
        // Said to have none, which is an answer (Qwen has no BOS, for instance).
        Some(Value::Null) => return Ok(None),
        Some(value) => {
            let content = value.as_str().or_else(|| value.get("content")?.as_str());
            let Some(content) = content else {
                return Err(bad(dir, file, format!("{key}: expected a token, found {value}")));
            };
            let unknown =
                || bad(dir, file, format!("{key}: `{content}` is not in the vocabulary of tokenizer.json"));
            return inner.token_to_id(content).map(Some).ok_or_else(unknown);
        }
    }
    let key = format!("{which}_token_id");
    for file in ["config.json", "generation_config.json"] {
        let config = object(dir, file)?;
        let id = match config.get(&key) {
            None | Some(Value::Null) => continue,
            // Several tokens may end a sequence; the first is the one that ends a document.
            Some(Value::Array(ids)) => ids.first().cloned().unwrap_or(Value::Null),
            Some(value) => value.clone(),
        };
        let Some(id) = id.as_u64().and_then(|id| u32::try_from(id).ok()) else {
            return Err(bad(dir, file, format!("{key}: expected a token id, found {id}")));
        };
        if inner.id_to_token(id).is_some() {
            return Ok(Some(id));
        }
        // Common in fine-tunes whose config was never adapted; not worth refusing the model.
        tracing::warn!("{}: {key} {id} is not a token of tokenizer.json; ignored", dir.join(file).display());
    }
    Ok(None)
}

/// The first token that the post-processor makes of an empty text.
fn first_of_empty(dir: &Path, inner: &tokenizers::Tokenizer) -> Result<Option<u32>, TextError> {
    let encoding = inner
        .encode_fast("", true)
        .map_err(|e| bad(dir, "tokenizer.json", format!("cannot tokenise an empty text: {e}")))?;
    Ok(encoding.get_ids().first().copied())
}

/// A JSON object, empty if there is no such file.
fn object(dir: &Path, file: &str) -> Result<serde_json::Map<String, Value>, TextError> {
    let path = dir.join(file);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(serde_json::Map::new()),
        Err(source) => return Err(TextError::Io { path, source }),
    };
    serde_json::from_slice(&bytes).map_err(|e| bad(dir, file, format!("expected a JSON object: {e}")))
}

fn bad(dir: &Path, file: &str, reason: String) -> TextError {
    TextError::BadTokenizer { file: dir.join(file), reason }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Tokenizer;
    use serde_json::json;

    /// Six words: `<unk>` 0, `<s>` 1, `</s>` 2, `a` 3, `b` 4, `c` 5; split at white space.
    pub(crate) fn tokenizer_json(adds_bos: bool) -> Value {
        let special = |id: u32, content: &str| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        };
        let post = json!({"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}});
        json!({"version": "1.0", "truncation": null, "padding": null,
            "added_tokens": [special(1, "<s>"), special(2, "</s>")],
            "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": if adds_bos { post } else { Value::Null }, "decoder": null,
            "model": {"type": "WordLevel", "unk_token": "<unk>",
                "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4, "c": 5}}})
    }

    pub(crate) fn write(dir: &Path, file: &str, json: &Value) {
        fs::write(dir.join(file), json.to_string()).unwrap();
    }

    /// The tokenizer of [`tokenizer_json`] with its BOS and EOS.
    pub(crate) fn tokenizer(adds_bos: bool) -> Tokenizer {
        let inner = tokenizers::Tokenizer::from_bytes(tokenizer_json(adds_bos).to_string()).unwrap();
        Tokenizer::new(inner, SpecialTokens { bos: Some(1), eos: Some(2), adds_bos, ..Default::default() })
    }

    /// Writes `files` beside a tokenizer and returns `(bos, eos, adds_bos)` or the error.
    fn read_with(
        adds_bos: bool,
        files: &[(&str, Value)],
    ) -> Result<(Option<u32>, Option<u32>, bool), String> {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "tokenizer.json", &tokenizer_json(adds_bos));
        for (file, json) in files {
            write(dir.path(), file, json);
        }
        let tokenizer = Tokenizer::from_dir(dir.path()).map_err(|e| e.to_string())?;
        let special = tokenizer.special();
        Ok((special.bos, special.eos, special.adds_bos))
    }

    #[test]
    fn sources_are_asked_in_order() {
        let config = ("config.json", json!({"bos_token_id": 2, "eos_token_id": [2, 1]}));
        assert_eq!(read_with(true, &[]), Ok((None, None, false)));
        assert_eq!(read_with(false, std::slice::from_ref(&config)), Ok((Some(2), Some(2), false)));
        let tokens = ("tokenizer_config.json", json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}}));
        assert_eq!(read_with(false, &[config.clone(), tokens.clone()]), Ok((Some(1), Some(2), false)));
        let none = ("tokenizer_config.json", json!({"bos_token": null}));
        assert_eq!(read_with(false, &[config, none]), Ok((None, Some(2), false)));
        let generation = ("generation_config.json", json!({"eos_token_id": 2, "bos_token_id": 99}));
        assert_eq!(read_with(false, &[generation]), Ok((None, Some(2), false)));
    }

    #[test]
    fn whether_bos_is_added_is_what_the_tokenizer_does_unless_said_otherwise() {
        let tokens = |extra: Value| {
            let mut config = json!({"bos_token": "<s>"});
            config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            ("tokenizer_config.json", config)
        };
        let adds = |really: bool, extra: Value| read_with(really, &[tokens(extra)]).unwrap().2;
        assert!(adds(true, json!({})));
        assert!(!adds(false, json!({})));
        assert!(!adds(true, json!({"add_bos_token": false})));
        assert!(adds(false, json!({"add_bos_token": true})));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let config = |json: Value| read_with(false, &[("tokenizer_config.json", json)]).unwrap_err();
        assert!(config(json!({"bos_token": "<bos>"})).contains("`<bos>` is not in the vocabulary"));
        assert!(config(json!({"eos_token": 3})).contains("eos_token: expected a token, found 3"));
        assert!(config(json!({"add_bos_token": "yes"})).contains("expected true or false"));
        assert!(config(json!({"add_bos_token": true})).contains("no bos_token is named"));
        assert!(config(json!([])).contains("tokenizer_config.json: expected a JSON object"));
    }
}
