//! `[[eval.concepts]]` and `[[eval.probes]]`: text of which it is known what holds where.

use std::collections::BTreeSet;

use monosema_core::manifest::Input;
use monosema_text::{Corpus, InvalidUtf8, TextConfig};
use serde::{Deserialize, Serialize};

use crate::{dictionary::DictionaryShape, error::EvalError};

/// Counted tokens of a labelled text that are read, unless the configuration says otherwise.
const TOKENS: u64 = 20_000;

/// Tokens with and without a value that each half must have, unless the configuration says otherwise.
const MIN_TOKENS: u64 = 50;

/// Documents that are read for probes, unless the configuration says otherwise: as many as SAEBench has.
const MAX_DOCUMENTS: u64 = 5_000;

/// One `[[eval.concepts]]`: text whose spans are labelled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConceptsConfig {
    /// What the report calls it.
    pub name: String,
    /// `.jsonl` files; see [`TextConfig::files`].
    pub files: Vec<String>,
    /// The field of a line that holds the text. Default `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The field of a line that holds `[[start, end, factor, value], …]`, in characters of the text. Default `spans`.
    #[serde(default = "spans")]
    pub spans: String,
    /// Stop after so many counted tokens; so many activations are held in memory. Default 20,000.
    #[serde(default = "tokens")]
    pub tokens: u64,
    /// Leave out values that fewer tokens have, or have not, in either half of the documents. Default 50.
    #[serde(default = "min_tokens")]
    pub min_tokens: u64,
}

/// One `[[eval.probes]]`: text whose documents are labelled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbesConfig {
    /// What the report calls it.
    pub name: String,
    /// `.jsonl` files; see [`TextConfig::files`].
    pub files: Vec<String>,
    /// The field of a line that holds the text. Default `text`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The field of a line that holds its class: a string, a boolean or a whole number. Default `label`.
    #[serde(default = "label")]
    pub label: String,
    /// Stop after so many documents. Default 5,000.
    #[serde(default = "max_documents")]
    pub max_documents: u64,
}

fn spans() -> String {
    "spans".into()
}

fn label() -> String {
    "label".into()
}

fn tokens() -> u64 {
    TOKENS
}

fn min_tokens() -> u64 {
    MIN_TOKENS
}

fn max_documents() -> u64 {
    MAX_DOCUMENTS
}

impl ConceptsConfig {
    /// The text without its labels.
    pub fn text(&self) -> TextConfig {
        let Self { files, field, .. } = self.clone();
        TextConfig { files, field, column: None, max_documents: None, invalid_utf8: InvalidUtf8::Error }
    }
}

impl ProbesConfig {
    /// The text without its labels.
    pub fn text(&self) -> TextConfig {
        let Self { files, field, max_documents, .. } = self.clone();
        let max_documents = Some(max_documents);
        TextConfig { files, field, column: None, max_documents, invalid_utf8: InvalidUtf8::Error }
    }
}

/// Refuses what cannot work, and files that are not there or hold no fields.
pub(crate) fn check(concepts: &[ConceptsConfig], probes: &[ProbesConfig]) -> Result<(), EvalError> {
    let numbers = concepts.iter().flat_map(|text| [("tokens", text.tokens), ("min_tokens", text.min_tokens)]);
    let sections = [
        ("concepts", concepts.iter().map(|text| &text.name).collect::<Vec<_>>()),
        ("probes", probes.iter().map(|text| &text.name).collect()),
    ];
    for (section, names) in sections {
        let bad = |reason: String| Err(EvalError::BadConfig { key: section.into(), reason });
        let mut seen = BTreeSet::new();
        for name in names {
            if name.trim().is_empty() {
                return bad("expected a name for each text, found an empty one".into());
            }
            if !seen.insert(name) {
                return bad(format!("the name `{name}` is there twice; choose another"));
            }
        }
    }
    for (key, number) in numbers {
        if number == 0 {
            let reason = "expected at least 1; leave the key out for the default".into();
            return Err(EvalError::BadConfig { key: format!("concepts.{key}"), reason });
        }
    }
    texts(concepts, probes).try_for_each(|(section, name, text)| open(section, name, &text).map(|_| ()))
}

/// The labelled texts as inputs of the work.
pub(crate) fn inputs(
    concepts: &[ConceptsConfig],
    probes: &[ProbesConfig],
) -> Result<Vec<(String, Input)>, EvalError> {
    let input = |(section, name, text): (&'static str, &str, TextConfig)| {
        let input = open(section, name, &text)?.input(&text);
        let input = input.map_err(|source| EvalError::Labelled { section, name: name.to_owned(), source })?;
        Ok((format!("{section} {name}"), input))
    };
    texts(concepts, probes).map(input).collect()
}

/// Every labelled text: its section, its name, and where it is.
fn texts<'a>(
    concepts: &'a [ConceptsConfig],
    probes: &'a [ProbesConfig],
) -> impl Iterator<Item = (&'static str, &'a str, TextConfig)> {
    let concepts = concepts.iter().map(|text| ("concepts", text.name.as_str(), text.text()));
    concepts.chain(probes.iter().map(|text| ("probes", text.name.as_str(), text.text())))
}

fn open(section: &'static str, name: &str, text: &TextConfig) -> Result<Corpus, EvalError> {
    let corpus = Corpus::open(text).and_then(Corpus::with_fields);
    corpus.map_err(|source| EvalError::Labelled { section, name: name.to_owned(), source })
}

/// Bytes that the largest labelled text takes: activations on the host, on the device and as the operands of a probe. What latents take depends on how many are
/// active, and is taken for as much as the activations themselves.
pub(crate) fn memory(
    concepts: &[ConceptsConfig],
    probes: &[ProbesConfig],
    dictionary: &DictionaryShape,
) -> u64 {
    let rows = concepts.iter().map(|text| text.tokens).chain(probes.iter().map(|text| text.max_documents));
    let row = 4 * 6 * dictionary.d_in as u64;
    rows.max().unwrap_or(0).saturating_mul(row)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use monosema_core::config::parse;

    use super::*;

    #[test]
    fn what_is_left_out_is_filled_in() {
        let concepts: ConceptsConfig =
            parse(Path::new("x.toml"), "name = 'a'\nfiles = ['a.jsonl']\n", &[]).unwrap();
        assert_eq!((concepts.spans.as_str(), concepts.tokens, concepts.min_tokens), ("spans", 20_000, 50));
        let probes: ProbesConfig =
            parse(Path::new("x.toml"), "name = 'a'\nfiles = ['a.jsonl']\nlabel = 'c'\n", &[]).unwrap();
        assert_eq!((probes.label.as_str(), probes.text().max_documents), ("c", Some(5_000)));
    }
}
