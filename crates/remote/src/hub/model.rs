//! The files of a model, and no others.

use std::{collections::BTreeSet, fs, path::PathBuf};

use monosema_core::Progress;
use serde::Deserialize;

use super::{Address, Entry, Hub, Repository, address::Kind};
use crate::RemoteError;

/// What a directory needs to be a model.
const CONFIG: &str = "config.json";

/// What it may have beside.
const ALSO: [&str; 2] = ["generation_config.json", "special_tokens_map.json"];

/// Weights, best first: one file, or an index of several.
const WEIGHTS: [(&str, &str); 2] = [
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
];

const MEGABYTE: u64 = 1_000_000;

/// A model that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFiles {
    /// A directory, or a single file of the repository.
    pub path: PathBuf,
    /// `owner/name`.
    pub name: String,
    /// The address with the commit in it: it means these files for ever.
    pub resolved: String,
}

/// Which file holds which weight; of these, the names.
#[derive(Deserialize)]
struct Index {
    weight_map: std::collections::BTreeMap<String, String>,
}

impl Hub {
    /// Fetches what a checkpoint needs of the model at `address`, unless the cache has it: its configuration, tokenizer
    /// and weights, or the one file that is named.
    ///
    /// # Errors
    /// A repository that is not there or holds no model, or files that cannot be fetched.
    pub fn model(&self, address: &Address) -> Result<ModelFiles, RemoteError> {
        if address.kind != Kind::Model {
            let reason = "expected a model, found data; text belongs in `files`".to_owned();
            return Err(RemoteError::BadAddress { address: address.to_string(), reason });
        }
        let repository = self.open(address)?;
        let path = match &address.path {
            None => repository.checkpoint()?,
            Some(path) => {
                let file = repository.file(path).ok_or_else(|| repository.lacks(path))?;
                repository.fetch_all(&[file])?;
                repository.directory().join(path)
            }
        };
        Ok(ModelFiles { path, name: address.repository(), resolved: repository.address.to_string() })
    }
}

impl Repository {
    fn checkpoint(&self) -> Result<PathBuf, RemoteError> {
        if self.file(CONFIG).is_none() {
            return Err(self.no_model());
        }
        let small = self.files().iter().filter(|file| {
            let name = file.path.as_str();
            name == CONFIG
                || ALSO.contains(&name)
                || (name.starts_with("tokenizer") && name.ends_with(".json"))
        });
        self.fetch_all(&small.collect::<Vec<_>>())?;
        self.fetch_all(&self.weights()?)?;
        Ok(self.directory())
    }

    /// The files of the weights.
    fn weights(&self) -> Result<Vec<&Entry>, RemoteError> {
        for (single, index) in WEIGHTS {
            if let Some(file) = self.file(single) {
                return Ok(vec![file]);
            }
            if let Some(file) = self.file(index) {
                let fetched = self.fetch_all(&[file])?;
                let shards =
                    self.shards(file, &fs::read(&fetched[0]).map_err(RemoteError::io(&fetched[0]))?)?;
                return shards
                    .iter()
                    .map(|shard| self.file(shard).ok_or_else(|| self.lacks(shard)))
                    .collect();
            }
        }
        Err(self.no_model())
    }

    fn shards(&self, index: &Entry, json: &[u8]) -> Result<BTreeSet<String>, RemoteError> {
        let index: Index = serde_json::from_slice(json).map_err(|error| RemoteError::Damaged {
            what: self.address.file(&index.path).to_string(),
            reason: format!("expected an object with `weight_map`: {error}"),
        })?;
        Ok(index.weight_map.into_values().collect())
    }

    fn fetch_all(&self, files: &[&Entry]) -> Result<Vec<PathBuf>, RemoteError> {
        let lacking: Vec<_> = files.iter().filter(|file| !self.has(file)).collect();
        if !lacking.is_empty() {
            let mb = lacking.iter().map(|file| file.bytes).sum::<u64>().div_ceil(MEGABYTE);
            let (n, to) = (lacking.len(), self.directory());
            tracing::info!("fetching {n} file(s), {mb} MB, of {} to {}", self.address, to.display());
        }
        let total: u64 = files.iter().map(|file| file.bytes).sum();
        let mut progress = (!lacking.is_empty()).then(|| Progress::start("fetch", "MB", total / MEGABYTE));
        let (mut before, mut shown, mut fetched) = (0, 0, Vec::new());
        for file in files {
            let mut meter = |bytes: u64| {
                let now = (before + bytes) / MEGABYTE;
                if let Some(progress) = progress.as_mut().filter(|_| now > shown) {
                    progress.advance(now - shown, || file.path.clone());
                    shown = now;
                }
            };
            fetched.push(self.fetch(file, &mut meter)?);
            before += file.bytes;
        }
        Ok(fetched)
    }

    fn lacks(&self, path: &str) -> RemoteError {
        // Of what others put into the cache it is not known what is missing.
        if self.hub.offline {
            let reason = "this file was never fetched; fetch it once without HF_HUB_OFFLINE".to_owned();
            let (what, cache) = (self.address.file(path).to_string(), self.hub.cache.clone());
            return RemoteError::Offline { what, cache, reason };
        }
        let reason = format!("the repository has no such file; {}", self.others());
        RemoteError::NotFound { what: self.address.file(path).to_string(), reason }
    }

    fn no_model(&self) -> RemoteError {
        let expected = "expected config.json and model.safetensors, its shards, or pytorch_model.bin";
        let reason = format!("{expected}; {}", self.others());
        RemoteError::NotFound { what: self.address.to_string(), reason }
    }

    /// What could have been meant.
    fn others(&self) -> String {
        let gguf: Vec<_> = self
            .files()
            .iter()
            .map(|file| file.path.as_str())
            .filter(|path| path.ends_with(".gguf"))
            .collect();
        if gguf.is_empty() {
            let names: Vec<_> = self.files().iter().take(12).map(|file| file.path.as_str()).collect();
            return format!("found {}", names.join(", "));
        }
        let example = self.address.file(gguf[0]);
        format!("found GGUF files: {}; name one of them: {example}", gguf.join(", "))
    }
}
