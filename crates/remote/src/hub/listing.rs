//! Which files a repository has at a commit: asked for once, and kept in the cache, for a commit never changes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use futures_util::{StreamExt, pin_mut};
use hf_hub::{HFError, HFRepository, RepoType, repository::RepoTreeEntry};
use monosema_core::AtomicFile;
use serde::{Deserialize, Serialize};

use super::{
    Address, Hub,
    address::{Kind, is_within},
};
use crate::RemoteError;

/// Beside the hub's own `blobs`, `refs` and `snapshots`.
const FOLDER: &str = ".monosema";

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its path in the repository.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// The hash by which git knows it: of the file, or of what stands for it (`lfs`). Known by heart once a list was fetched;
    /// not if the files were found in a cache that others filled.
    pub oid: Option<String>,
    /// Whether git holds its SHA-256 in place of the file.
    #[serde(default)]
    pub lfs: bool,
}

impl Hub {
    /// The commit that `address` means now, and its files.
    pub(super) fn list(&self, address: &Address) -> Result<(String, Vec<Entry>), RemoteError> {
        let known = self.known_commit(address);
        if let Some(commit) = known.as_deref().filter(|_| self.offline || address.is_pinned())
            && let Some(files) = self.known_files(address, commit)
        {
            return Ok((commit.to_owned(), files));
        }
        if self.offline {
            return self.found_files(address, known);
        }
        match crate::runtime::wait(async { Ok(self.ask(address).await) })? {
            Ok((commit, files)) => {
                for file in &files {
                    if !is_within(&file.path) {
                        let reason =
                            format!("the hub lists a file {:?}, which lies outside of it", file.path);
                        return Err(RemoteError::Damaged { what: address.to_string(), reason });
                    }
                }
                self.remember(address, &commit, &files)?;
                Ok((commit, files))
            }
            Err(error) => {
                let error = self.explain(address, error);
                // What was there the last time will do, if nobody can say what is there now.
                if let (RemoteError::Unreachable { .. }, Some(commit)) = (&error, known)
                    && let Some(files) = self.known_files(address, &commit)
                {
                    tracing::warn!("{error}; going on with commit {commit}, which the cache has");
                    return Ok((commit, files));
                }
                Err(error)
            }
        }
    }

    async fn ask(&self, address: &Address) -> Result<(String, Vec<Entry>), HFError> {
        let expand = Some(vec!["sha".to_owned()]);
        let revision = &address.revision;
        let (sha, files) = match address.kind {
            Kind::Model => {
                let repository = self.client.model(&address.owner, &address.name);
                let sha = repository.info().revision(revision).maybe_expand(expand).send().await?.sha;
                (sha.clone(), tree(&repository, sha).await?)
            }
            Kind::Dataset => {
                let repository = self.client.dataset(&address.owner, &address.name);
                let sha = repository.info().revision(revision).maybe_expand(expand).send().await?.sha;
                (sha.clone(), tree(&repository, sha).await?)
            }
        };
        let sha = sha.filter(|sha| address.at(sha).is_pinned());
        Ok((sha.ok_or_else(|| HFError::malformed_response("the commit"))?, files))
    }

    /// What `address` meant when it was last asked about.
    fn known_commit(&self, address: &Address) -> Option<String> {
        if address.is_pinned() {
            return Some(address.revision.clone());
        }
        let file = self.cache.join(address.folder()).join("refs").join(&address.revision);
        let commit = fs::read_to_string(file).ok()?.trim().to_owned();
        address.at(&commit).is_pinned().then_some(commit)
    }

    /// The list that is in the cache. One that cannot be read is fetched again.
    fn known_files(&self, address: &Address, commit: &str) -> Option<Vec<Entry>> {
        let json = fs::read(self.list_file(address, commit)).ok()?;
        let files: Vec<Entry> = serde_json::from_slice(&json).ok()?;
        files.iter().all(|file| is_within(&file.path)).then_some(files)
    }

    /// The files that others have put into the cache. Which ones the repository has beside them is not known, so this
    /// will do for what is whole or visibly not, as a model is.
    fn found_files(
        &self,
        address: &Address,
        commit: Option<String>,
    ) -> Result<(String, Vec<Entry>), RemoteError> {
        let offline = |reason: &str| RemoteError::Offline {
            what: address.to_string(),
            cache: self.cache.clone(),
            reason: format!("{reason}; fetch it once without HF_HUB_OFFLINE"),
        };
        let commit = commit.ok_or_else(|| offline("the revision was never asked for"))?;
        let snapshot = self.snapshot(address, &commit);
        let mut files = Vec::new();
        walk(&snapshot, "", &mut files).map_err(RemoteError::io(&snapshot))?;
        if address.kind == Kind::Dataset || files.is_empty() {
            return Err(offline("the list of its files was never fetched"));
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok((commit, files))
    }

    fn remember(&self, address: &Address, commit: &str, files: &[Entry]) -> Result<(), RemoteError> {
        let write = |file: PathBuf, contents: &[u8]| {
            let parent = file.parent().expect("a file of the cache lies in it");
            fs::create_dir_all(parent)
                .and_then(|()| AtomicFile::write(&file, contents))
                .map_err(RemoteError::writing(&file, address, contents.len() as u64, "HF_HUB_CACHE"))
        };
        let json = serde_json::to_vec(files).expect("a list has string keys only");
        write(self.list_file(address, commit), &json)?;
        if !address.is_pinned() {
            write(self.cache.join(address.folder()).join("refs").join(&address.revision), commit.as_bytes())?;
        }
        Ok(())
    }

    /// The same contents, fetched for another commit of the repository.
    pub(super) fn of_another_commit(&self, address: &Address, file: &Entry) -> Option<PathBuf> {
        let lists = fs::read_dir(self.cache.join(address.folder()).join(FOLDER)).ok()?;
        lists.flatten().find_map(|list| {
            let commit = list.path().file_stem()?.to_str()?.to_owned();
            let files = self.known_files(address, &commit)?;
            let same = files.iter().filter(|other| (&other.oid, other.bytes) == (&file.oid, file.bytes));
            let links = same.map(|other| self.snapshot(address, &commit).join(&other.path));
            links.filter_map(|link| fs::canonicalize(link).ok()).find(|blob| length(blob) == Some(file.bytes))
        })
    }

    fn list_file(&self, address: &Address, commit: &str) -> PathBuf {
        self.cache.join(address.folder()).join(FOLDER).join(format!("{commit}.json"))
    }

    /// Where the files of a commit lie by their names.
    pub(super) fn snapshot(&self, address: &Address, commit: &str) -> PathBuf {
        self.cache.join(address.folder()).join("snapshots").join(commit)
    }
}

async fn tree<T: RepoType>(repository: &HFRepository<T>, sha: Option<String>) -> Result<Vec<Entry>, HFError> {
    let entries = repository.list_tree().maybe_revision(sha).recursive(true).send()?;
    pin_mut!(entries);
    let mut files = Vec::new();
    while let Some(entry) = entries.next().await {
        if let RepoTreeEntry::File { oid, size, path, lfs, .. } = entry? {
            files.push(Entry { path, bytes: size, oid: Some(oid), lfs: lfs.is_some() });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn length(path: &Path) -> Option<u64> {
    Some(fs::metadata(path).ok()?.len())
}

/// The files below `directory`, by their paths from where this began.
fn walk(directory: &Path, within: &str, files: &mut Vec<Entry>) -> std::io::Result<()> {
    if !directory.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = if within.is_empty() { name } else { format!("{within}/{name}") };
        match fs::metadata(entry.path()) {
            Ok(metadata) if metadata.is_dir() => walk(&entry.path(), &path, files)?,
            Ok(metadata) => files.push(Entry { path, bytes: metadata.len(), oid: None, lfs: false }),
            // A link to what was removed.
            Err(_) => {}
        }
    }
    Ok(())
}
