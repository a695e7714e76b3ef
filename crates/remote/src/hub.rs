//! The Hugging Face hub: models and text by `hf:owner/name@revision`, through its ordinary cache.
//!
//! Requests are made by the `hf-hub` crate, as are the rules of HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and the token's file.
//! Its own download to the cache (1.0) begins a broken file anew and takes an error's body for the file,
//! so what it streams is written here (`download.rs`): continued where it broke off, and held against the hash by which
//! the repository knows it before it gets its name.

mod address;
mod download;
mod failure;
mod listing;
mod model;
mod repository;

use std::{path::PathBuf, time::Duration};

use hf_hub::HFClient;

pub use address::{Address, is_hub};
pub use download::Meter;
pub(crate) use failure::chain;
pub use model::ModelFiles;
pub use repository::{Entry, Repository};

use crate::RemoteError;

/// A hub, and the cache of what came from it.
#[derive(Clone, Debug)]
pub struct Hub {
    client: HFClient,
    cache: PathBuf,
    offline: bool,
    /// What is waited before a broken download goes on, the first time; doubled each time.
    pause: Duration,
}

impl Hub {
    /// The hub and the cache that the environment names.
    ///
    /// # Errors
    /// An HF_ENDPOINT that is no address.
    pub fn from_env() -> Result<Self, RemoteError> {
        let offline = std::env::var("HF_HUB_OFFLINE")
            .is_ok_and(|value| ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str()));
        Self::build(hf_hub::HFClientBuilder::new(), offline, Duration::from_secs(1))
    }

    /// A hub at `endpoint` with a cache at `cache`, whatever the environment says, that is not waited for.
    ///
    /// # Errors
    /// An endpoint that is no address.
    pub fn at(endpoint: &str, cache: impl Into<PathBuf>, offline: bool) -> Result<Self, RemoteError> {
        let pause = Duration::from_millis(1);
        let builder = hf_hub::HFClientBuilder::new().endpoint(endpoint).cache_dir(cache);
        Self::build(builder.retry_max_attempts(1).retry_base_delay(pause), offline, pause)
    }

    fn build(builder: hf_hub::HFClientBuilder, offline: bool, pause: Duration) -> Result<Self, RemoteError> {
        let agent = concat!("monosema/", env!("CARGO_PKG_VERSION"));
        let client = builder.user_agent(agent).build().map_err(|error| RemoteError::Failed {
            what: "the Hugging Face hub".into(),
            reason: format!("{error}; is HF_ENDPOINT an address such as https://huggingface.co?"),
        })?;
        let cache = client.cache_dir().to_owned();
        Ok(Self { client, cache, offline, pause })
    }
}
