//! A model's configuration, read key by key, so that what was never read can be told.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::ModelError;

/// The keys of one configuration: a config.json, or those of one prefix in a GGUF file.
pub(crate) struct Settings {
    file: PathBuf,
    prefix: String,
    values: Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
}

impl Settings {
    /// `values` of `file`, whose keys there begin with `prefix`.
    pub(crate) fn new(file: &Path, prefix: &str, values: Map<String, Value>) -> Self {
        Self { file: file.to_owned(), prefix: prefix.to_owned(), values, read: RefCell::default() }
    }

    /// Where the values are from.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// The object at `key`, if it is there and not null.
    pub(crate) fn section(&self, key: &str) -> Result<Option<Self>, ModelError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(values)) => {
                Ok(Some(Self::new(&self.file, &format!("{}{key}.", self.prefix), values.clone())))
            }
            Some(other) => Err(self.expected(key, "an object", other)),
        }
    }

    /// A whole number above zero.
    pub(crate) fn count(&self, key: &str) -> Result<usize, ModelError> {
        self.count_if_any(key)?.ok_or_else(|| self.wrong(key, "expected a whole number, found none"))
    }

    /// As [`Settings::count`], `None` if it is missing or null. More than any model has is a damaged file's: two may be
    /// multiplied, and a few products added, without overflow.
    pub(crate) fn count_if_any(&self, key: &str) -> Result<Option<usize>, ModelError> {
        const MOST: usize = i32::MAX as usize;
        let Some(value) = self.get(key) else { return Ok(None) };
        let count = value.as_u64().filter(|&n| n > 0).and_then(|n| usize::try_from(n).ok());
        match count {
            None => Err(self.expected(key, "a whole number above 0", value)),
            Some(n) if n > MOST => {
                Err(self.wrong(key, format!("expected a whole number up to {MOST}, found {n}")))
            }
            count => Ok(count),
        }
    }

    /// A number of blocks. More than any model has is a damaged file's, for which there is no memory.
    pub(crate) fn layers(&self, key: &str) -> Result<usize, ModelError> {
        /// A hundred times those of the deepest models there are.
        const MOST: usize = 10_000;
        match self.count(key)? {
            n if n > MOST => {
                Err(self.wrong(key, format!("expected a number of blocks up to {MOST}, found {n}")))
            }
            n => Ok(n),
        }
    }

    /// A whole number, zero included; `None` if it is missing or null.
    pub(crate) fn whole_number_if_any(&self, key: &str) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let count = value.as_u64().and_then(|n| usize::try_from(n).ok());
        count.map(Some).ok_or_else(|| self.expected(key, "a whole number", value))
    }

    /// A value of any form, which `kind` describes; `None` if it is missing or null.
    pub(crate) fn parsed<T: DeserializeOwned>(&self, key: &str, kind: &str) -> Result<Option<T>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        serde_json::from_value(value.clone()).map(Some).map_err(|_| self.expected(key, kind, value))
    }

    /// A finite number above zero.
    pub(crate) fn positive(&self, key: &str) -> Result<f64, ModelError> {
        self.positive_if_any(key)?.ok_or_else(|| self.wrong(key, "expected a number above 0, found none"))
    }

    /// As [`Settings::positive`], `None` if it is missing or null.
    pub(crate) fn positive_if_any(&self, key: &str) -> Result<Option<f64>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_f64().filter(|x| x.is_finite() && *x > 0.0);
        number.map(Some).ok_or_else(|| self.expected(key, "a number above 0", value))
    }

    /// A finite number, `None` if it is missing or null.
    pub(crate) fn number_if_any(&self, key: &str) -> Result<Option<f64>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_f64().filter(|x| x.is_finite());
        number.map(Some).ok_or_else(|| self.expected(key, "a number", value))
    }

    /// A list of numbers.
    pub(crate) fn numbers(&self, key: &str) -> Result<Vec<f32>, ModelError> {
        let value = self.get(key).ok_or_else(|| self.wrong(key, "expected a list of numbers, found none"))?;
        let numbers = value.as_array().and_then(|all| all.iter().map(|x| Some(x.as_f64()? as f32)).collect());
        numbers.ok_or_else(|| self.expected(key, "a list of numbers", value))
    }

    /// True or false; `default` if it is missing or null.
    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, ModelError> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.expected(key, "true or false", value)),
        }
    }

    /// Text, `None` if it is missing or null.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>, ModelError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or_else(|| self.expected(key, "text", value)),
        }
    }

    /// Texts, none if the key is missing or null.
    pub(crate) fn texts(&self, key: &str) -> Result<Vec<&str>, ModelError> {
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(value) => {
                let texts = value.as_array().and_then(|a| a.iter().map(Value::as_str).collect());
                texts.ok_or_else(|| self.expected(key, "a list of texts", value))
            }
        }
    }

    /// Whether the key is there, null or not.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// Refuses the model if `key` is there and neither null, false nor one of `harmless`.
    pub(crate) fn refuse(&self, key: &str, harmless: &[Value], supported: &str) -> Result<(), ModelError> {
        match self.get(key) {
            None | Some(Value::Bool(false)) => Ok(()),
            Some(value) if harmless.contains(value) => Ok(()),
            Some(value) => Err(self.unsupported(format!("{}{key} = {value}", self.prefix), supported)),
        }
    }

    /// Says that what stands at `keys` has no effect in models of this family.
    pub(crate) fn without_effect(&self, keys: &[&str]) {
        self.read.borrow_mut().extend(keys.iter().map(|&key| key.to_owned()));
    }

    /// Warns of every key that is switched on, was never read and is not among `harmless`.
    pub(crate) fn warn_of_unread(&self, harmless: &[&str]) {
        for (key, _) in self.unread(harmless) {
            tracing::warn!("{}: {}{key} is not known and has no effect", self.file.display(), self.prefix);
        }
    }

    /// Refuses the model if one of the keys that [`Settings::warn_of_unread`] warns of begins with one of `prefixes`
    /// and is not 0: nothing there is without effect.
    pub(crate) fn refuse_unread(&self, prefixes: &[&str], harmless: &[&str]) -> Result<(), ModelError> {
        let of_them = |key: &str| prefixes.iter().any(|prefix| key.starts_with(prefix));
        match self
            .unread(harmless)
            .into_iter()
            .find(|(key, value)| of_them(key) && value.as_f64() != Some(0.0))
        {
            None => Ok(()),
            Some((key, value)) => {
                let what = format!("{}{key} = {value}", self.prefix);
                Err(self.unsupported(what, "expected no such key in models of this architecture"))
            }
        }
    }

    /// The keys that are switched on, were never read and are not among `harmless`.
    pub(crate) fn unread(&self, harmless: &[&str]) -> Vec<(&str, &Value)> {
        let read = self.read.borrow();
        let off = |value: &Value| value.is_null() || *value == Value::Bool(false);
        let known = |key: &str| read.contains(key) || harmless.contains(&key);
        let values = self.values.iter().map(|(key, value)| (key.as_str(), value));
        values.filter(|(key, value)| !off(value) && !known(key)).collect()
    }

    /// The error that `key` is wrong for `reason`.
    pub(crate) fn wrong(&self, key: &str, reason: impl Into<String>) -> ModelError {
        let key = format!("{}{key}", self.prefix);
        ModelError::Config { file: self.file.clone(), key, reason: reason.into() }
    }

    /// The error that `what` is not implemented.
    pub(crate) fn unsupported(&self, what: impl Into<String>, supported: impl Into<String>) -> ModelError {
        ModelError::Unsupported { file: self.file.clone(), what: what.into(), supported: supported.into() }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.read.borrow_mut().insert(key.to_owned());
        self.values.get(key).filter(|value| !value.is_null())
    }

    fn expected(&self, key: &str, kind: &str, found: &Value) -> ModelError {
        self.wrong(key, format!("expected {kind}, found {found}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(values: Value) -> Settings {
        Settings::new(Path::new("config.json"), "", values.as_object().unwrap().clone())
    }

    #[test]
    fn a_missing_or_wrong_value_is_named() {
        let s = settings(json!({"n": 0, "x": "1e-5", "z": -1.5, "on": 1, "nothing": null}));
        assert_eq!(
            s.count("n").unwrap_err().to_string(),
            "config.json: n: expected a whole number above 0, found 0"
        );
        assert_eq!(
            s.count("m").unwrap_err().to_string(),
            "config.json: m: expected a whole number, found none"
        );
        for (key, found) in [("x", "\"1e-5\""), ("n", "0"), ("z", "-1.5"), ("nothing", "none")] {
            assert_eq!(
                s.positive(key).unwrap_err().to_string(),
                format!("config.json: {key}: expected a number above 0, found {found}")
            );
        }
        assert!(s.flag("on", false).is_err());
        assert!(s.flag("nothing", true).unwrap());
        assert_eq!(s.count_if_any("nothing").unwrap(), None);
    }

    #[test]
    fn what_was_never_read_is_told() {
        let s = settings(json!({"a.x": 1, "a.y": 2, "b": 3, "off": false, "none": null, "known": 4}));
        s.count("a.x").unwrap();
        s.without_effect(&["known"]);
        let unread =
            |harmless: &[&str]| s.unread(harmless).iter().map(|x| x.0.to_owned()).collect::<Vec<_>>();
        assert_eq!(unread(&[]), ["a.y", "b"]);
        assert_eq!(unread(&["b"]), ["a.y"]);
        let refused = s.refuse_unread(&["a."], &["b"]).unwrap_err().to_string();
        assert!(refused.starts_with("config.json: a.y = 2 is not supported"), "{refused}");
        s.refuse_unread(&["a."], &["a.y"]).unwrap();
    }

    #[test]
    fn a_switch_that_is_on_is_refused() {
        let s = settings(json!({"a": false, "b": 1.0, "c": {"bits": 4}}));
        s.refuse("a", &[], "").unwrap();
        s.refuse("b", &[json!(1.0)], "").unwrap();
        let refused = s.refuse("c", &[], "fetch unquantised weights").unwrap_err().to_string();
        assert_eq!(refused, r#"config.json: c = {"bits":4} is not supported: fetch unquantised weights"#);
    }
}
