//! How a stream of tokens is cut into windows, and which of their positions count.

use serde::{Deserialize, Serialize};

use crate::{TextError, Tokenizer};

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
    /// Whether special tokens are not counted. Default true.
    pub skip_special: bool,
}

impl Default for ContextConfig {
    fn default() -> Self {
        Self {
            length: 128,
            bos: Bos::Auto,
            separator: Separator::Auto,
            span_documents: true,
            skip_first: 1,
            skip_special: true,
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
    /// Whether special tokens are not counted.
    pub skip_special: bool,
}

impl ContextPlan {
    /// Checks `config` and fills in what `tokenizer` knows.
    ///
    /// # Errors
    /// A window that is too short to hold two tokens, or of which no position would count; a BOS or separator
    /// token that the tokenizer lacks; a separator for documents that never meet.
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
            skip_special: config.skip_special,
        })
    }

    /// Whether the token at `position` of a window counts.
    pub(crate) fn counts(&self, position: usize, token: u32, tokenizer: &Tokenizer) -> bool {
        position >= self.skip_first && !(self.skip_special && tokenizer.is_special(token))
    }
}

/// One window of tokens. All three lists have the same length, at least 2 and at most the plan's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The tokens; a token's position is its index.
    pub tokens: Vec<u32>,
    /// The document each token belongs to: for BOS that of the token after it, for a separator that of the
    /// document it ends.
    pub documents: Vec<u64>,
    /// Whether each token counts: what is harvested and evaluated.
    pub counted: Vec<bool>,
    /// How many tokens its first document has in windows before this one.
    pub before: u64,
}

impl Context {
    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are none, which no window is.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// How many tokens count.
    pub fn n_counted(&self) -> usize {
        self.counted.iter().filter(|&&counts| counts).count()
    }

    /// The place of each token within its document, from 0 on through all of its windows, BOS and separators included: together
    /// with the document's number it names the token, whatever it is batched with and whoever reads other documents.
    pub fn places(&self) -> impl Iterator<Item = u64> {
        let mut last: Option<(u64, u64)> = None;
        self.documents.iter().map(move |&document| {
            let place = match last {
                None => self.before,
                Some((same, place)) if same == document => place + 1,
                Some(_) => 0,
            };
            last = Some((document, place));
            place
        })
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
            skip_special: true,
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
    fn unknown_keys_are_errors() {
        let error = serde_json::from_str::<ContextConfig>("{\"lenght\": 3}").unwrap_err().to_string();
        assert!(error.contains("lenght"), "{error}");
        let config: ContextConfig =
            serde_json::from_str("{\"bos\": \"never\", \"separator\": \"none\"}").unwrap();
        assert_eq!((config.bos, config.separator, config.length), (Bos::Never, Separator::None, 128));
    }
}
