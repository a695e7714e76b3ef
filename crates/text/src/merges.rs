//! Merges of byte-pair encodings, checked before they are handed on: tokenizers' BPE trusts that they yield tokens, and
//! panics at one that yields something longer than every token.

use std::collections::HashSet;

use serde_json::Value;

/// Checks that every merge joins two tokens to a third. `prefix` (`continuing_subword_prefix`) is what the right one loses
/// when it is joined.
///
/// # Errors
/// The first that does not: which it is, expected and found.
pub fn check_merges<'a>(
    tokens: impl IntoIterator<Item = &'a str>,
    merges: impl IntoIterator<Item = (&'a str, &'a str)>,
    prefix: &str,
) -> Result<(), String> {
    let tokens: HashSet<&str> = tokens.into_iter().collect();
    for (number, (a, b)) in merges.into_iter().enumerate() {
        let bad = |found: String| {
            format!("merge {number}, `{a}` and `{b}`: expected tokens that join to a token, found {found}")
        };
        if let Some(unknown) = [a, b].into_iter().find(|token| !tokens.contains(token)) {
            return Err(bad(format!("that `{unknown}` is not in the vocabulary")));
        }
        let Some(rest) = b.get(prefix.len()..) else {
            return Err(bad(format!("that `{b}` lacks the continuing_subword_prefix `{prefix}`")));
        };
        let joined = format!("{a}{rest}");
        if !tokens.contains(joined.as_str()) {
            return Err(bad(format!("that `{joined}` is not in the vocabulary")));
        }
    }
    Ok(())
}

/// As [`check_merges`], of a tokenizer.json; of other models than BPE, and of what is malformed in other ways, nothing is said.
pub(crate) fn check_json(tokenizer: &Value) -> Result<(), String> {
    let model = &tokenizer["model"];
    let (Some(vocabulary), Some(merges)) = (model["vocab"].as_object(), model["merges"].as_array()) else {
        return Ok(());
    };
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or_default();
    check_merges(vocabulary.keys().map(String::as_str), merges.iter().filter_map(pair), prefix)
}

/// Of `"a b"`, or of `["a", "b"]` as newer files have it.
fn pair(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        // merges.txt begins with its version, and some files took that over.
        Value::String(merge) if merge.starts_with("#version") => None,
        Value::String(merge) => merge.split_once(' '),
        merge => merge[0].as_str().zip(merge[1].as_str()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merges_join_tokens_to_tokens() {
        let check = |merges: Value, prefix: Value| {
            let vocab = json!({"a": 0, "b": 1, "##b": 2, "ab": 3, "#": 4});
            check_json(
                &json!({"model": {"vocab": vocab, "merges": merges, "continuing_subword_prefix": prefix}}),
            )
        };
        assert_eq!(check(json!(["#version: 0.2", "a b"]), Value::Null), Ok(()));
        assert_eq!(check(json!([["a", "b"]]), Value::Null), Ok(()));
        assert_eq!(check(json!([["a", "##b"]]), json!("##")), Ok(()));
        let error = |merges: Value| check(merges, Value::Null).unwrap_err();
        let longer = error(json!(["a b", ["ab", "ab"]]));
        assert!(longer.starts_with("merge 1, `ab` and `ab`: expected tokens that join"), "{longer}");
        assert!(longer.ends_with("that `abab` is not in the vocabulary"), "{longer}");
        assert!(error(json!(["a c"])).ends_with("that `c` is not in the vocabulary"));
        let short = check(json!(["a #"]), json!("##")).unwrap_err();
        assert!(short.ends_with("that `#` lacks the continuing_subword_prefix `##`"), "{short}");
        assert_eq!(check_json(&json!({"model": {"type": "Unigram", "vocab": [["a", 0.0]]}})), Ok(()));
    }
}
