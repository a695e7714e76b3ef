//! Tokens as a configuration names them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::Tokenizer;

/// A token: its id, or its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum TokenName {
    /// Its id.
    Id(u32),
    /// As the vocabulary spells it (`Ġthe`), or a text that is this one token (` the`).
    Text(String),
}

impl TokenName {
    /// The token's id, or why there is none.
    pub(crate) fn find(&self, tokenizer: &Tokenizer) -> Result<u32, String> {
        match self {
            Self::Id(id) if tokenizer.token(*id).is_some() => Ok(*id),
            Self::Id(id) => {
                Err(format!("the tokenizer has no token {id}; its ids end at {}", tokenizer.max_id()))
            }
            Self::Text(text) => find(text, tokenizer),
        }
    }
}

fn find(text: &str, tokenizer: &Tokenizer) -> Result<u32, String> {
    if let Some(id) = tokenizer.id(text) {
        return Ok(id);
    }
    let ids = tokenizer.encode(text).map_err(|e| e.to_string())?;
    // A text that the vocabulary lacks may be one token too: the one for what is unknown.
    if let [id] = ids[..]
        && tokenizer.decode(&[id]).map_err(|e| e.to_string())? == text
    {
        return Ok(id);
    }
    let mut reason = format!("`{text}` is no token of the tokenizer");
    if ids.len() > 1 {
        let parts: Vec<_> =
            ids.iter().filter_map(|&id| tokenizer.token(id)).map(|token| format!("`{token}`")).collect();
        reason += &format!(" but several: {}", parts.join(", "));
    }
    if let Some(nearest) = tokenizer.nearest(text) {
        reason += &format!("; the nearest token is `{nearest}`");
    }
    Err(reason)
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for TokenName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

struct Visitor;

impl de::Visitor<'_> for Visitor {
    type Value = TokenName;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token: its text, or its id")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<TokenName, E> {
        Ok(TokenName::Text(text.to_owned()))
    }

    fn visit_i64<E: de::Error>(self, id: i64) -> Result<TokenName, E> {
        u32::try_from(id)
            .map(TokenName::Id)
            .map_err(|_| E::invalid_value(de::Unexpected::Signed(id), &"the id of a token"))
    }

    fn visit_u64<E: de::Error>(self, id: u64) -> Result<TokenName, E> {
        u32::try_from(id)
            .map(TokenName::Id)
            .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(id), &"the id of a token"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::special::tests::tokenizer;

    #[test]
    fn tokens_are_found_by_text_and_by_id() {
        let tokenizer = tokenizer(false);
        let find = |name: TokenName| name.find(&tokenizer);
        assert_eq!(find(TokenName::Id(4)), Ok(4));
        assert_eq!(find(TokenName::Text("</s>".into())), Ok(2));
        // No token is spelt so, but it is read as one.
        assert_eq!(find(TokenName::Text("b".into())), Ok(4));
        let none = |name: TokenName| find(name).unwrap_err();
        assert!(none(TokenName::Id(6)).contains("no token 6; its ids end at 5"));
        let several = none(TokenName::Text("a b".into()));
        assert!(several.contains("`a b` is no token") && several.contains("several: `a`, `b`"), "{several}");
        // One token, but that of unknown words.
        let unknown = none(TokenName::Text("<S>".into()));
        assert!(
            unknown.contains("`<S>` is no token") && unknown.contains("nearest token is `<s>`"),
            "{unknown}"
        );
    }

    #[test]
    fn names_are_texts_or_numbers() {
        let names: Vec<TokenName> = serde_json::from_str("[\"a\", 7]").unwrap();
        assert_eq!(names, [TokenName::Text("a".into()), TokenName::Id(7)]);
        assert_eq!(serde_json::to_string(&names).unwrap(), "[\"a\",7]");
        for bad in ["-1", "1.5", "4294967296", "true"] {
            let error = serde_json::from_str::<TokenName>(bad).unwrap_err().to_string();
            assert!(error.contains("token"), "{error}");
        }
    }
}
