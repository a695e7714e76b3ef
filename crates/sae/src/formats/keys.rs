//! The keys of a JSON configuration, taken one after the other: what is wrong with one is told by its name.

use std::{fs, path::Path, path::PathBuf};

use monosema_core::{HookPoint, UnknownHook};
use serde_json::{Map, Value};

use crate::SaeError;

/// The keys of one JSON object that nobody has taken yet.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    file: PathBuf,
    prefix: String,
    /// What is left.
    pub(super) keys: Map<String, Value>,
}

impl Keys {
    /// Of the object in `file`.
    pub(super) fn read(file: &Path) -> Result<Self, SaeError> {
        let not_json = |reason: String| SaeError::NotJson { file: file.to_owned(), reason };
        let text = fs::read(file).map_err(|source| SaeError::Io { path: file.to_owned(), source })?;
        let value: Value = serde_json::from_slice(&text).map_err(|e| not_json(e.to_string()))?;
        let Value::Object(keys) = value else { return Err(not_json("it is another JSON value".into())) };
        Ok(Self { file: file.to_owned(), prefix: String::new(), keys })
    }

    /// Of nothing, where there is no file.
    pub(super) fn none(file: &Path) -> Self {
        Self { file: file.to_owned(), prefix: String::new(), keys: Map::new() }
    }

    pub(super) fn error(&self, key: &str, expected: &str, found: impl ToString) -> SaeError {
        SaeError::Config {
            file: self.file.clone(),
            key: format!("{}{key}", self.prefix),
            expected: expected.to_owned(),
            found: found.to_string(),
        }
    }

    /// `None` if the key is absent or null.
    pub(super) fn take<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, SaeError> {
        match self.keys.remove(key).filter(|v| !v.is_null()) {
            None => Ok(None),
            Some(value) => read(&value).map(Some).ok_or_else(|| self.error(key, expected, value)),
        }
    }

    pub(super) fn take_string_if_any(&mut self, key: &str) -> Result<Option<String>, SaeError> {
        self.take(key, "a string", |v| v.as_str().map(str::to_owned))
    }

    pub(super) fn take_string(&mut self, key: &str) -> Result<String, SaeError> {
        let value = self.take_string_if_any(key)?;
        value.ok_or_else(|| self.error(key, "a string", "none"))
    }

    pub(super) fn take_bool(&mut self, key: &str) -> Result<Option<bool>, SaeError> {
        self.take(key, "true or false", Value::as_bool)
    }

    pub(super) fn take_size_if_any(&mut self, key: &str) -> Result<Option<usize>, SaeError> {
        self.take(key, "a number from 1 on", |v| as_usize(v).filter(|&n| n > 0))
    }

    pub(super) fn take_size(&mut self, key: &str) -> Result<usize, SaeError> {
        let value = self.take_size_if_any(key)?;
        value.ok_or_else(|| self.error(key, "a number from 1 on", "none"))
    }

    pub(super) fn take_hook(&mut self, key: &str) -> Result<HookPoint, SaeError> {
        self.take_string(key)?
            .parse()
            .map_err(|e: UnknownHook| self.error(key, "the name of a hook point", e))
    }

    /// A key that must be `"none"`.
    pub(super) fn take_none(&mut self, key: &str, otherwise: &str) -> Result<(), SaeError> {
        match self.take_string(key)? {
            value if value == "none" => Ok(()),
            value => Err(self.error(key, &format!("\"none\" ({otherwise})"), format!("\"{value}\""))),
        }
    }

    pub(super) fn take_section(&mut self, key: &str) -> Result<Keys, SaeError> {
        if self.keys.get(key).is_none() {
            return Err(self.error(key, "an object", "none"));
        }
        self.take_section_if_any(key)
    }

    /// Empty if it is absent or null.
    pub(super) fn take_section_if_any(&mut self, key: &str) -> Result<Keys, SaeError> {
        let keys = self.take(key, "an object", |v| v.as_object().cloned())?.unwrap_or_default();
        Ok(Keys { file: self.file.clone(), prefix: format!("{}{key}.", self.prefix), keys })
    }
}

pub(super) fn as_usize(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok())
}
