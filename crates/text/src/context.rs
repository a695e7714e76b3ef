//! How a stream of tokens is cut into windows, and which of their positions count.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{Positions, TextError, TokenName, Tokenizer, counting};

/// The `[context]` section: windows as a user asks for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContextConfig {
    /// Tokens in a window, BOS included. Default 128.
    pub length: usize,
    /// Whether a window begins with the BOS token. Default `auto`.
    pub bos: Bos,
    /// What stands between two documents of one window. Default `auto`.
    pub separator: Separator,
    /// Whether a window may hold more than one document. Default true. If not, every document begins a
    /// window, and its last one may be short.
    pub span_documents: bool,
    /// How many positions at the beginning of each window (BOS included) are not counted. Default 1: in most
    /// language models position 0 carries a massive activation, whatever the token.
    pub skip_first: usize,
    /// Which positions of a window are counted, of those that `skip_first` leaves. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub positions: Option<Positions>,
    /// Whether BOS is not counted, wherever it stands. Default true. Where one token is both BOS and EOS, as in GPT-2, this
    /// key decides about it.
    pub skip_bos: bool,
    /// Whether special tokens other than BOS are not counted. Default true.
    pub skip_special: bool,
    /// The only tokens that are counted. Default: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only_tokens: Option<Vec<TokenName>>,
    /// Tokens that are not counted. Default: none.
    pub skip_tokens: Vec<TokenName>,
}

impl Default for ContextConfig {
    fn default() -> Self {
        Self {
            length: 128,
            bos: Bos::Auto,
            separator: Separator::Auto,
            span_documents: true,
            skip_first: 1,
            positions: None,
            skip_bos: true,
            skip_special: true,
            only_tokens: None,
            skip_tokens: Vec::new(),
        }
    }
}

/// Whether windows begin with the BOS token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bos {
    /// If the tokenizer itself begins texts with it.
    #[default]
    Auto,
    /// Yes.
    Always,
    /// No.
    Never,
}

/// What stands between two documents that share a window. A window never begins with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Separator {
    /// The EOS token if the tokenizer has one and windows span documents, else nothing.
    #[default]
    Auto,
    /// Nothing.
    None,
    /// The EOS token.
    Eos,
    /// The BOS token.
    Bos,
}

/// Windows as they are cut: [`ContextConfig`] with the tokenizer's tokens filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextPlan {
    /// Tokens in a window, BOS included.
    pub length: usize,
    /// The token every window begins with.
    pub bos: Option<u32>,
    /// The token between two documents of a window.
    pub separator: Option<u32>,
    /// Whether a window may hold more than one document.
    pub span_documents: bool,
    /// How many positions at the beginning of each window are not counted.
    pub skip_first: usize,
    /// Which of the others are counted; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub positions: Option<Positions>,
    /// Whether BOS is not counted.
    pub skip_bos: bool,
    /// Whether other special tokens are not counted.
    pub skip_special: bool,
    /// The only tokens that are counted; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only_tokens: Option<BTreeSet<u32>>,
    /// Tokens that are not counted.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub skip_tokens: BTreeSet<u32>,
}

impl ContextPlan {
    /// Checks `config` and fills in what `tokenizer` knows.
    ///
    /// # Errors
    /// A window that is too short to hold two tokens, or of which no position would count; a BOS or separator
    /// token, or one to count or not, that the tokenizer lacks; a separator for documents that never meet.
    pub fn new(config: &ContextConfig, tokenizer: &Tokenizer) -> Result<Self, TextError> {
        let bad = |key, reason: &str| TextError::BadContext { key, reason: reason.into() };
        let special = tokenizer.special();
        if config.length < 2 {
            return Err(bad("length", &format!("expected at least 2 tokens, found {}", config.length)));
        }
        if config.skip_first >= config.length {
            let reason = format!("expected less than length = {}, or nothing counts", config.length);
            return Err(bad("skip_first", &reason));
        }
        counting::check_positions(config)?;
        let has_bos =
            |key| special.bos.ok_or_else(|| bad(key, "the tokenizer has no BOS token; set another value"));
        let bos = match config.bos {
            Bos::Auto => special.bos.filter(|_| special.adds_bos),
            Bos::Always => Some(has_bos("bos")?),
            Bos::Never => None,
        };
        let separator = match config.separator {
            Separator::Auto => special.eos.filter(|_| config.span_documents),
            Separator::None => None,
            Separator::Eos => Some(
                special
                    .eos
                    .ok_or_else(|| bad("separator", "the tokenizer has no EOS token; set another value"))?,
            ),
            Separator::Bos => Some(has_bos("separator")?),
        };
        if separator.is_some() && !config.span_documents {
            return Err(bad("separator", "documents never meet with span_documents = false; leave it out"));
        }
        Ok(Self {
            length: config.length,
            bos,
            separator,
            span_documents: config.span_documents,
            skip_first: config.skip_first,
            positions: config.positions.clone(),
            skip_bos: config.skip_bos,
            skip_special: config.skip_special,
            only_tokens: counting::only_tokens(config, tokenizer)?,
            skip_tokens: counting::find_all("skip_tokens", &config.skip_tokens, tokenizer)?,
        })
    }

    /// Whether a model with a vocabulary of `d_vocab` can read such windows. A tokenizer may have more tokens than the
    /// model (many have some that were added later), as long as none of those comes up.
    ///
    /// # Errors
    /// A BOS or a separator that the model cannot embed.
    pub fn check_vocabulary(&self, tokenizer: &Tokenizer, d_vocab: usize) -> Result<(), TextError> {
        for (key, token) in [("bos", self.bos), ("separator", self.separator)] {
            if let Some(token) = token.filter(|&token| token as usize >= d_vocab) {
                let name = tokenizer.token(token).unwrap_or_default();
                let reason = format!(
                    "`{name}` is token {token}, and the model embeds {d_vocab} tokens; set another value, or use the \
                     model's own tokenizer"
                );
                return Err(TextError::BadContext { key, reason });
            }
        }
        let max_id = tokenizer.max_id() as usize;
        if max_id >= d_vocab {
            tracing::warn!(
                "the tokenizer has tokens up to {max_id}, and the model embeds {d_vocab}: text with one of the others in \
                 it will be refused"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SpecialTokens, special::tests};

    #[test]
    fn defaults_follow_the_tokenizer() {
        let plan =
            |adds_bos| ContextPlan::new(&ContextConfig::default(), &tests::tokenizer(adds_bos)).unwrap();
        let expected = ContextPlan {
            length: 128,
            bos: None,
            separator: Some(2),
            span_documents: true,
            skip_first: 1,
            positions: None,
            skip_bos: true,
            skip_special: true,
            only_tokens: None,
            skip_tokens: BTreeSet::new(),
        };
        assert_eq!(plan(false), expected);
        assert_eq!(plan(true), ContextPlan { bos: Some(1), ..expected.clone() });
        let alone = ContextConfig { span_documents: false, bos: Bos::Never, ..Default::default() };
        let plan = ContextPlan::new(&alone, &tests::tokenizer(true)).unwrap();
        assert_eq!(plan, ContextPlan { separator: None, span_documents: false, ..expected });
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let inner = tests::tokenizer(false).inner().clone();
        let bare = Tokenizer::new(inner, SpecialTokens::default());
        let refused = |config: ContextConfig| ContextPlan::new(&config, &bare).unwrap_err().to_string();
        let default = ContextConfig::default;
        assert!(refused(ContextConfig { length: 1, ..default() }).contains("length: expected at least 2"));
        let skip = refused(ContextConfig { skip_first: 128, ..default() });
        assert!(skip.contains("skip_first: expected less than length = 128"), "{skip}");
        assert!(
            refused(ContextConfig { bos: Bos::Always, ..default() })
                .contains("bos: the tokenizer has no BOS")
        );
        let separator = |separator| refused(ContextConfig { separator, ..default() });
        assert!(separator(Separator::Eos).contains("separator: the tokenizer has no EOS"));
        assert!(separator(Separator::Bos).contains("separator: the tokenizer has no BOS"));
        let config = ContextConfig { separator: Separator::Eos, span_documents: false, ..default() };
        let error = ContextPlan::new(&config, &tests::tokenizer(false)).unwrap_err().to_string();
        assert!(error.contains("never meet"), "{error}");
    }

    #[test]
    fn windows_must_begin_and_part_with_tokens_that_the_model_has() {
        let tokenizer = tests::tokenizer(true);
        let check = |config: &ContextConfig, d_vocab| {
            let plan = ContextPlan::new(config, &tokenizer).unwrap();
            plan.check_vocabulary(&tokenizer, d_vocab).map_err(|e| e.to_string())
        };
        // `<s>` is 1 and `</s>` 2; that words reach up to 5 shows when one of them is read.
        assert_eq!(check(&ContextConfig::default(), 3), Ok(()));
        let separator = check(&ContextConfig::default(), 2).unwrap_err();
        assert!(separator.contains("separator: `</s>` is token 2, and the model embeds 2"), "{separator}");
        let bos = check(&ContextConfig::default(), 1).unwrap_err();
        assert!(bos.contains("bos: `<s>` is token 1"), "{bos}");
        let none = ContextConfig { bos: Bos::Never, separator: Separator::None, ..ContextConfig::default() };
        assert_eq!(check(&none, 1), Ok(()));
    }

    #[test]
    fn unknown_keys_are_errors() {
        let error = serde_json::from_str::<ContextConfig>("{\"lenght\": 3}").unwrap_err().to_string();
        assert!(error.contains("lenght"), "{error}");
        let config: ContextConfig =
            serde_json::from_str("{\"bos\": \"never\", \"separator\": \"none\"}").unwrap();
        assert_eq!((config.bos, config.separator, config.length), (Bos::Never, Separator::None, 128));
    }
}
