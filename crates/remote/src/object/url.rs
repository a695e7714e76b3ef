//! `s3://bucket/path` and the like: which store, which bucket, which object.

use std::{fmt, sync::Arc, time::Duration};

use object_store::{
    ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder,
    local::LocalFileSystem,
    path::Path,
};

use super::failure;
use crate::RemoteError;

/// A kind of object store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    S3,
    Google,
    Azure,
    File,
}

const SCHEMES: [(&str, Scheme); 4] =
    [("s3://", Scheme::S3), ("gs://", Scheme::Google), ("az://", Scheme::Azure), ("file://", Scheme::File)];

/// Whether `name` names something in an object store.
pub fn is_object(name: &str) -> bool {
    SCHEMES.iter().any(|(scheme, _)| name.starts_with(scheme))
}

/// An address in an object store.
#[derive(Clone, Debug)]
pub(crate) struct Url {
    scheme: Scheme,
    bucket: String,
    /// The object, what several have in front, or a glob; may be empty.
    pub(super) path: String,
}

impl Url {
    pub(crate) fn parse(text: &str) -> Result<Self, RemoteError> {
        let bad =
            |reason: &str| RemoteError::BadAddress { address: text.to_owned(), reason: reason.to_owned() };
        let found = SCHEMES.iter().find_map(|(prefix, scheme)| Some((*scheme, text.strip_prefix(prefix)?)));
        let (scheme, rest) = found.ok_or_else(|| bad("expected s3://, gs://, az:// or file://"))?;
        let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() != (scheme == Scheme::File) {
            return Err(bad(
                "expected s3://BUCKET/path, gs://BUCKET/path, az://CONTAINER/path or file:///path",
            ));
        }
        let url = Self { scheme, bucket: bucket.to_owned(), path: path.trim_end_matches('/').to_owned() };
        url.object()?;
        Ok(url)
    }

    /// The store, by what the environment says of it.
    pub(crate) fn open(&self) -> Result<Arc<dyn ObjectStore>, RemoteError> {
        // A minute of trying: servers may restart, but a cluster's thousand jobs should not hang on a typing error.
        let retry =
            RetryConfig { max_retries: 6, retry_timeout: Duration::from_secs(60), ..RetryConfig::default() };
        let built: Result<Arc<dyn ObjectStore>, _> = match self.scheme {
            Scheme::S3 => {
                let mut builder =
                    AmazonS3Builder::from_env().with_bucket_name(&self.bucket).with_retry(retry);
                // Whoever says http:// means it.
                let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
                if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
                    builder = builder.with_allow_http(true);
                }
                builder.build().map(|store| Arc::new(store) as _)
            }
            Scheme::Google => {
                let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(&self.bucket);
                builder.with_retry(retry).build().map(|store| Arc::new(store) as _)
            }
            Scheme::Azure => {
                let builder = MicrosoftAzureBuilder::from_env().with_container_name(&self.bucket);
                builder.with_retry(retry).build().map(|store| Arc::new(store) as _)
            }
            Scheme::File => Ok(Arc::new(LocalFileSystem::new()) as _),
        };
        built.map_err(|error| self.explain(error))
    }

    /// What is called `name` there.
    pub(super) fn within(&self, name: &str) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}/{name}", self.path) };
        Self { path, ..self.clone() }
    }

    /// `s3://bucket`.
    pub(crate) fn place(&self) -> String {
        let scheme = SCHEMES.iter().find(|(_, scheme)| *scheme == self.scheme).map_or("", |(name, _)| name);
        format!("{scheme}{}", self.bucket)
    }

    /// Its path, in the store's own terms.
    pub(super) fn object(&self) -> Result<Path, RemoteError> {
        self.path_of(&self.path)
    }

    pub(super) fn path_of(&self, path: &str) -> Result<Path, RemoteError> {
        Path::parse(path).map_err(|error| self.bad(&format!("not a name of an object: {error}")))
    }

    pub(super) fn bad(&self, reason: &str) -> RemoteError {
        RemoteError::BadAddress { address: self.to_string(), reason: reason.to_owned() }
    }

    pub(super) fn explain(&self, error: object_store::Error) -> RemoteError {
        failure::explain(&self.to_string(), error)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())?;
        if self.path.is_empty() { Ok(()) } else { write!(f, "/{}", self.path) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_written() {
        for (text, full) in [
            ("s3://bucket/a/*.jsonl", "s3://bucket/a/*.jsonl"),
            ("gs://bucket", "gs://bucket"),
            ("az://container/a/", "az://container/a"),
            ("file:///data/x.txt", "file:///data/x.txt"),
        ] {
            assert!(is_object(text));
            assert_eq!(Url::parse(text).unwrap().to_string(), full);
        }
        assert!(!is_object("s3/bucket") && !is_object("hf:a/b"));
        for text in ["s3:///x", "file://host/x", "gs://", "s3://bucket/a//b"] {
            let error = Url::parse(text).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }
}
