//! `hf:owner/name@revision`, `hf:owner/name/FILE@revision`, `hf:datasets/owner/name/GLOB@revision`.

use std::{
    fmt,
    path::{Component, Path},
};

use crate::RemoteError;

const SCHEME: &str = "hf:";
const DATASETS: &str = "datasets/";
const DEFAULT_REVISION: &str = "main";

/// Whether `name` names something on the hub.
pub fn is_hub(name: &str) -> bool {
    name.starts_with(SCHEME)
}

/// What a repository holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Model,
    Dataset,
}

/// A repository at a revision, and perhaps files within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub(crate) kind: Kind,
    pub(crate) owner: String,
    pub(crate) name: String,
    /// A file or a glob.
    pub(crate) path: Option<String>,
    /// A branch, a tag or a commit.
    pub(crate) revision: String,
}

impl Address {
    /// Reads what the user wrote.
    ///
    /// # Errors
    /// What is no address on the hub.
    pub fn parse(text: &str) -> Result<Self, RemoteError> {
        let bad =
            |reason: &str| RemoteError::BadAddress { address: text.to_owned(), reason: reason.to_owned() };
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| bad("expected hf:owner/name@revision"))?;
        let (place, revision) = rest.rsplit_once('@').unwrap_or((rest, DEFAULT_REVISION));
        let (kind, place) = match place.strip_prefix(DATASETS) {
            Some(place) => (Kind::Dataset, place),
            None => (Kind::Model, place),
        };
        let mut parts = place.splitn(3, '/');
        let (owner, name, path) =
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next());
        if !is_name(owner) || !is_name(name) {
            let reason = match kind {
                Kind::Model => {
                    "expected hf:owner/name or hf:owner/name@revision (the old names without an owner have \
                                one: hf:openai-community/gpt2)"
                }
                Kind::Dataset => "expected hf:datasets/owner/name, a file or a glob within it, and @revision",
            };
            return Err(bad(reason));
        }
        let path = path.map(|path| path.trim_end_matches('/')).filter(|path| !path.is_empty());
        if path.is_some_and(|path| !is_within(path)) {
            return Err(bad("expected a path within the repository"));
        }
        if !is_within(revision) || revision.contains(['*', '?', '[']) {
            return Err(bad("expected a branch, a tag or a commit after the @, at the very end"));
        }
        let [owner, name, revision] = [owner, name, revision].map(str::to_owned);
        Ok(Self { kind, owner, name, path: path.map(str::to_owned), revision })
    }

    /// The repository alone: `owner/name`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// The same at a commit.
    pub(crate) fn at(&self, commit: &str) -> Self {
        Self { revision: commit.to_owned(), ..self.clone() }
    }

    /// One file of the same repository.
    pub(crate) fn file(&self, path: &str) -> Self {
        Self { path: Some(path.to_owned()), ..self.clone() }
    }

    /// Of the repository in the cache: what the hub's own programs call it.
    pub(crate) fn folder(&self) -> String {
        let kind = match self.kind {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        };
        format!("{kind}--{}--{}", self.owner, self.name)
    }

    /// Whether the revision is a commit, which never changes.
    pub(crate) fn is_pinned(&self) -> bool {
        self.revision.len() == 40 && self.revision.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    /// The address in a browser, below the hub's own.
    pub(crate) fn page(&self) -> String {
        let datasets = if self.kind == Kind::Dataset { DATASETS } else { "" };
        format!("{datasets}{}/{}", self.owner, self.name)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.page())?;
        if let Some(path) = &self.path {
            write!(f, "/{path}")?;
        }
        write!(f, "@{}", self.revision)
    }
}

/// Whether the hub could call an owner or a repository so.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Whether `path` stays within a directory that it is joined to.
pub(crate) fn is_within(path: &str) -> bool {
    !path.is_empty()
        && !path.contains(['\\', '\0'])
        && Path::new(path).components().all(|component| matches!(component, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_written() {
        for (text, full, folder, path) in [
            ("hf:o/n", "hf:o/n@main", "models--o--n", None),
            ("hf:o/n@v1.0", "hf:o/n@v1.0", "models--o--n", None),
            ("hf:o/n/a/b.gguf@v1", "hf:o/n/a/b.gguf@v1", "models--o--n", Some("a/b.gguf")),
            ("hf:datasets/o/n/", "hf:datasets/o/n@main", "datasets--o--n", None),
            (
                "hf:datasets/o/n/data/t-*.parquet@refs/convert/parquet",
                "hf:datasets/o/n/data/t-*.parquet@refs/convert/parquet",
                "datasets--o--n",
                Some("data/t-*.parquet"),
            ),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.to_string(), full);
            assert_eq!(address.folder(), folder);
            assert_eq!(address.path.as_deref(), path);
        }
        assert!(!Address::parse("hf:o/n").unwrap().is_pinned());
        assert!(Address::parse(&format!("hf:o/n@{}", "0a".repeat(20))).unwrap().is_pinned());
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for (text, reason) in [
            ("hf:gpt2", "hf:openai-community/gpt2"),
            ("hf:", "expected hf:owner/name"),
            ("hf:/n", "expected hf:owner/name"),
            ("hf:o/..", "expected hf:owner/name"),
            ("hf:datasets/o", "expected hf:datasets/owner/name"),
            ("hf:o/n/../../x", "within the repository"),
            ("hf:o/n@", "after the @"),
            ("hf:o/n@../..", "after the @"),
            ("hf:datasets/o/n@main/*.parquet", "at the very end"),
        ] {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(text), "{error}");
        }
    }
}
