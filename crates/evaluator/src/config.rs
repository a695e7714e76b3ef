//! The `[eval]` section: what to measure on, and how much of it.

use std::collections::BTreeSet;

use monosema_text::{InvalidUtf8, TextConfig};
use serde::{Deserialize, Serialize};

use crate::{
    conventions::Convention,
    labelled::{ConceptsConfig, ProbesConfig},
    metrics::Ablation,
};

/// The `[eval]` section as a user writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalConfig {
    /// The held-out texts, each with a name of its own in the report.
    pub texts: Vec<NamedText>,
    /// Stop in each text after so many counted tokens. Default: read it all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// How often documents are resampled for the confidence intervals; 0: there are none. Default 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resamples: Option<u32>,
    /// What to put in the place of activations besides reconstructions, each in a further pass from the hook on. Figures of what is not
    /// asked for are `null`. Default: zero, the mean, and another token's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ablations: Option<BTreeSet<Ablation>>,
    /// Whose figures of the same windows to give too, under their conventions. Each takes two further passes from the hook on. Default:
    /// nobody's.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub conventions: BTreeSet<Convention>,
    /// How many context windows go through the model at once, or more if they are short. Default: about 1024 tokens
    /// of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_contexts: Option<usize>,
    /// Texts with labelled spans: whether there are latents for what those say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub concepts: Vec<ConceptsConfig>,
    /// Texts of labelled documents: how much of a label a few latents tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<ProbesConfig>,
}

/// One `[[eval.texts]]`: a name, and the fields of [`TextConfig`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedText {
    /// What the report calls it.
    pub name: String,
    /// See [`TextConfig::files`].
    pub files: Vec<String>,
    /// See [`TextConfig::field`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// See [`TextConfig::column`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// See [`TextConfig::max_documents`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_documents: Option<u64>,
    /// See [`TextConfig::invalid_utf8`].
    #[serde(default)]
    pub invalid_utf8: InvalidUtf8,
}

impl NamedText {
    /// The text without its name. (serde cannot both flatten a struct and refuse unknown keys.)
    pub fn text(&self) -> TextConfig {
        let Self { name: _, files, field, column, max_documents, invalid_utf8 } = self.clone();
        TextConfig { files, field, column, max_documents, invalid_utf8 }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use monosema_core::config::parse;

    use super::*;

    fn config(text: &str) -> Result<EvalConfig, String> {
        parse(Path::new("x.toml"), text, &[]).map_err(|e| e.to_string())
    }

    #[test]
    fn texts_take_the_fields_of_a_text() {
        let parsed = config(
            "tokens = 100\n[[texts]]\nname = 'a'\nfiles = ['a.jsonl']\nfield = 'story'\nmax_documents = 3\n\
             invalid_utf8 = 'replace'\n",
        );
        let parsed = parsed.unwrap();
        assert_eq!((parsed.tokens, parsed.resamples, parsed.batch_contexts), (Some(100), None, None));
        let expected = TextConfig {
            files: vec!["a.jsonl".into()],
            field: Some("story".into()),
            column: None,
            max_documents: Some(3),
            invalid_utf8: InvalidUtf8::Replace,
        };
        assert_eq!(parsed.texts[0].text(), expected);
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let error = config("token = 100\ntexts = []\n").unwrap_err();
        assert!(error.contains("did you mean `tokens`?"), "{error}");
        let error = config("[[texts]]\nname = 'a'\nfile = []\n").unwrap_err();
        assert!(error.contains("did you mean `files`?"), "{error}");
    }
}
