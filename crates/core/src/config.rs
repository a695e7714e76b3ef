//! Strict TOML: what a file says and this program does not know is an error, with the nearest known key.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use toml_edit::{DocumentMut, Item, Table, Value};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot read the configuration: {reason}", file.display())]
    Unreadable {
        /// The configuration file.
        file: PathBuf,
        /// Why it cannot be read.
        reason: std::io::Error,
    },
    /// The text is not TOML, or not what the configuration may hold.
    #[error("{}: {message}", file.display())]
    Invalid {
        /// The configuration file.
        file: PathBuf,
        /// Place, expected and found, over several lines.
        message: String,
    },
    /// A `--set` argument that is not `key.path=value`.
    #[error("--set {argument}: {reason}")]
    BadOverride {
        /// The argument as given.
        argument: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads `file`, applies `overrides` (`"train.lr=1e-4"`; the value is TOML, or a bare string), and parses
/// the result. `T` and everything in it must be `#[serde(deny_unknown_fields)]`.
pub fn read<T: DeserializeOwned>(file: &Path, overrides: &[String]) -> Result<T, ConfigError> {
    let text = fs::read_to_string(file)
        .map_err(|reason| ConfigError::Unreadable { file: file.to_owned(), reason })?;
    parse(file, &text, overrides)
}

/// As [`read`], of a text already in memory; `file` is its name in errors.
pub fn parse<T: DeserializeOwned>(file: &Path, text: &str, overrides: &[String]) -> Result<T, ConfigError> {
    let invalid = |message: String| ConfigError::Invalid { file: file.to_owned(), message };
    if overrides.is_empty() {
        return toml::from_str(text).map_err(|e| invalid(with_nearest_key(&e)));
    }
    let mut document: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| invalid(e.to_string()))?;
    for argument in overrides {
        set(&mut document, argument)
            .map_err(|reason| ConfigError::BadOverride { argument: argument.clone(), reason })?;
    }
    let text = document.to_string();
    toml::from_str(&text).map_err(|e| invalid(format!("(with --set applied) {}", with_nearest_key(&e))))
}

fn set(document: &mut DocumentMut, argument: &str) -> Result<(), String> {
    let (path, value) =
        argument.split_once('=').ok_or("expected key.path=value, for instance train.lr=1e-4")?;
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    let last = keys.pop().filter(|k| !k.is_empty()).ok_or("the key is empty")?;
    // `--set model.path=data/x` should not need quotes inside quotes.
    let value = value.trim();
    let value: Value = value.parse().unwrap_or_else(|_| Value::from(value));
    let mut table: &mut dyn toml_edit::TableLike = document.as_table_mut();
    for key in keys {
        let item = table.entry(key).or_insert_with(|| Item::Table(Table::new()));
        table = item.as_table_like_mut().ok_or_else(|| format!("`{key}` is a value, not a section"))?;
    }
    table.insert(last, Item::Value(value));
    Ok(())
}

/// Above this, a known word is likely to be the one that was meant.
const ALIKE: f64 = 0.75;

/// serde lists what it would have taken: `unknown field `lrr`, expected one of `lr`, `steps``, and likewise for the
/// variants of an enum.
fn with_nearest_key(error: &toml::de::Error) -> String {
    let text = error.to_string();
    let listed = ["unknown field `", "unknown variant `"];
    let Some(listed) = listed.iter().find_map(|prefix| error.message().strip_prefix(prefix)) else {
        return text;
    };
    let mut names = listed.split('`');
    let Some(found) = names.next() else { return text };
    let expected = names.skip(1).step_by(2).map(|known| (strsim::jaro_winkler(found, known), known));
    let is_key = error.message().starts_with("unknown field");
    let nearest = match expected.max_by(|(a, _), (b, _)| a.total_cmp(b)) {
        Some((likeness, known)) if likeness >= ALIKE => format!("did you mean `{known}`?"),
        Some((_, known)) if is_key => format!("the nearest key that is known here is `{known}`"),
        _ => return text,
    };
    format!("{}\n{nearest}", text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Experiment {
        name: String,
        train: Train,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Train {
        lr: f64,
        steps: u64,
    }

    const TEXT: &str = "name = 'a'\n[train]\nlr = 5e-5\nsteps = 10\n";

    fn parse_with(text: &str, overrides: &[&str]) -> Result<Experiment, String> {
        let overrides: Vec<_> = overrides.iter().map(|&s| s.to_owned()).collect();
        parse(Path::new("x.toml"), text, &overrides).map_err(|e| e.to_string())
    }

    #[test]
    fn an_unknown_key_names_file_line_and_the_nearest_key() {
        let error = parse_with("name = 'a'\n[train]\nlr = 1.0\nstps = 10\n", &[]).unwrap_err();
        for part in ["x.toml", "line 4", "`stps`", "did you mean `steps`?"] {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }

    #[test]
    fn a_value_that_is_no_choice_names_the_nearest() {
        #[derive(Debug, Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Layout {
            Binary,
            List,
        }
        #[derive(Debug, Deserialize)]
        #[allow(dead_code, reason = "only its parsing is tested")]
        struct Store {
            layout: Layout,
        }
        let error = parse::<Store>(Path::new("x.toml"), "layout = 'binry'", &[]).unwrap_err().to_string();
        assert!(error.contains("did you mean `binary`?"), "{error}");
        let error = parse::<Store>(Path::new("x.toml"), "layout = 'x'", &[]).unwrap_err().to_string();
        assert!(!error.contains("nearest") && !error.contains("did you mean"), "{error}");
    }

    #[test]
    fn overrides_take_toml_values_and_bare_strings() {
        let experiment = parse_with(TEXT, &["train.lr=1e-4", "name=runs/b c"]).unwrap();
        assert_eq!(experiment, Experiment { name: "runs/b c".into(), train: Train { lr: 1e-4, steps: 10 } });
    }

    #[test]
    fn bad_overrides_are_refused() {
        for (argument, part) in
            [("train.lr", "expected key.path=value"), ("name.x=1", "not a section"), ("train.lrx=1", "`lr`")]
        {
            let error = parse_with(TEXT, &[argument]).unwrap_err();
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }
}
