//! A file that may be anywhere, and is fetched when its turn comes.

use std::{
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
};

use glob::{MatchOptions, Pattern};
use monosema_core::digest_file;
use tempfile::TempPath;
use tokio::task::JoinHandle;

use crate::{
    RemoteError,
    hub::{Address, Entry, Hub, Repository, is_hub},
    object::{self, Object},
    runtime,
};

/// Whether `name` names something that is not in a directory here.
pub fn is_remote(name: &str) -> bool {
    is_hub(name) || object::is_object(name)
}

/// A file that may be anywhere.
#[derive(Clone, Debug)]
pub enum SourceFile {
    /// On a disk of this machine.
    Local {
        /// Where.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// On the Hugging Face hub.
    Hub {
        /// Its repository at a commit.
        repository: Arc<Repository>,
        /// Which file of it.
        entry: Entry,
    },
    /// In an object store.
    Object(Object),
}

/// Files that were found by one name.
#[derive(Clone, Debug)]
pub struct Sources {
    /// By their names.
    pub files: Vec<SourceFile>,
    /// Whether the name was one of a whole place, and these are all that is there.
    pub whole: bool,
}

impl Sources {
    /// The files that `entry` names: `hf:datasets/owner/name`, `s3://bucket/prefix`, a file there or a glob.
    ///
    /// # Errors
    /// A place that is not there, or not for us.
    pub fn find(entry: &str) -> Result<Self, RemoteError> {
        if !is_hub(entry) {
            let (objects, whole) = object::find(entry)?;
            return Ok(Self { files: objects.into_iter().map(SourceFile::Object).collect(), whole });
        }
        Self::on_hub(&Hub::from_env()?, &Address::parse(entry)?)
    }

    /// The files of `address`.
    ///
    /// # Errors
    /// A repository that is not there, or not for us.
    pub fn on_hub(hub: &Hub, address: &Address) -> Result<Self, RemoteError> {
        let repository = Arc::new(hub.open(address)?);
        let paths = repository.files().iter().map(|entry| entry.path.as_str());
        let chosen = Chosen::new(address.path.as_deref(), paths)
            .map_err(|reason| RemoteError::BadAddress { address: address.to_string(), reason })?;
        let entries = repository.files().iter().filter(|entry| chosen.takes(&entry.path)).cloned();
        let files = entries.map(|entry| SourceFile::Hub { repository: repository.clone(), entry }).collect();
        Ok(Self { files, whole: chosen.is_whole() })
    }
}

impl SourceFile {
    /// What it is called: a path, or an address. It ends as the file's name does, but for a revision.
    pub fn name(&self) -> PathBuf {
        match self {
            Self::Local { path, .. } => path.clone(),
            Self::Hub { repository, entry } => repository.address().file(&entry.path).to_string().into(),
            Self::Object(object) => object.name().into(),
        }
    }

    /// Its path where it is: what tells its kind by its ending.
    pub fn path(&self) -> &Path {
        match self {
            Self::Local { path, .. } => path,
            Self::Hub { entry, .. } => Path::new(&entry.path),
            Self::Object(object) => Path::new(object.path()),
        }
    }

    /// Its size, known without fetching it.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Local { bytes, .. } => *bytes,
            Self::Hub { entry, .. } => entry.bytes,
            Self::Object(object) => object.bytes(),
        }
    }

    /// Whether it has to be fetched.
    pub fn is_remote(&self) -> bool {
        !matches!(self, Self::Local { .. })
    }

    /// What its contents are known by: a digest of them here, git's hash on the hub, what the object store has for it
    /// (entity tag, size, version). Nothing is fetched for it; a file here is read.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn identity(&self) -> Result<String, RemoteError> {
        match self {
            Self::Local { path, .. } => Ok(digest_file(path).map_err(RemoteError::io(path))?.to_string()),
            Self::Hub { entry, .. } => Ok(format!("git:{}", entry.oid.as_deref().unwrap_or_default())),
            Self::Object(object) => Ok(object.identity()),
        }
    }

    /// The repository at a commit that it is of, if it is on the hub.
    pub fn resolved(&self) -> Option<String> {
        match self {
            Self::Hub { repository, .. } => Some(repository.address().to_string()),
            _ => None,
        }
    }

    /// Begins to fetch it. Whoever drops the result breaks off.
    pub fn begin(&self) -> Fetching {
        let begun = match self.clone() {
            Self::Local { path, .. } => return Fetching::Done(Ok(Fetched { path, temporary: None })),
            Self::Hub { repository, entry } => runtime::begin(async move {
                if !repository.has(&entry) {
                    tracing::info!(
                        "fetching {}, {} bytes",
                        repository.address().file(&entry.path),
                        entry.bytes
                    );
                }
                let path = repository.download(&entry, &mut |_| {}).await?;
                Ok(Fetched { path, temporary: None })
            }),
            Self::Object(object) => runtime::begin(async move {
                tracing::info!("fetching {}, {} bytes", object.name(), object.bytes());
                let temporary = object.download().await?;
                Ok(Fetched { path: temporary.to_path_buf(), temporary: Some(temporary) })
            }),
        };
        begun.map_or_else(|error| Fetching::Done(Err(error)), Fetching::Running)
    }

    /// Fetches it.
    ///
    /// # Errors
    /// A file that cannot be had.
    pub fn fetch(&self) -> Result<Fetched, RemoteError> {
        self.begin().wait()
    }
}

/// A file that is on its way.
#[derive(Debug)]
pub enum Fetching {
    /// It is here, or never will be.
    Done(Result<Fetched, RemoteError>),
    /// It comes.
    Running(JoinHandle<Result<Fetched, RemoteError>>),
}

impl Fetching {
    /// Waits until it is here.
    ///
    /// # Errors
    /// A file that could not be had.
    pub fn wait(mut self) -> Result<Fetched, RemoteError> {
        let nothing = || RemoteError::Failed { what: "a fetch".into(), reason: "it was broken off".into() };
        match &mut self {
            Self::Done(result) => std::mem::replace(result, Err(nothing())),
            Self::Running(task) => runtime::wait(async { task.await.unwrap_or_else(|_| Err(nothing())) }),
        }
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        if let Self::Running(task) = self {
            task.abort();
        }
    }
}

/// A file that is here: as a path, and for as long as this lives.
#[derive(Debug)]
pub struct Fetched {
    path: PathBuf,
    /// Removed with this.
    #[expect(dead_code, reason = "held for its destructor")]
    temporary: Option<TempPath>,
}

impl Deref for Fetched {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

/// What a path within a place stands for.
pub(crate) enum Chosen {
    Whole,
    File(String),
    Below(String),
    Glob(Pattern),
}

impl Chosen {
    /// `path` among `paths`. A file that is there is meant as it stands, even if it has a `[` in it.
    pub(crate) fn new<'a>(
        path: Option<&str>,
        mut paths: impl Iterator<Item = &'a str>,
    ) -> Result<Self, String> {
        let Some(path) = path.filter(|path| !path.is_empty()) else { return Ok(Self::Whole) };
        if paths.any(|found| found == path) {
            return Ok(Self::File(path.to_owned()));
        }
        if path.contains(['*', '?', '[']) {
            return Ok(Self::Glob(Pattern::new(path).map_err(|e| format!("not a glob: {e}"))?));
        }
        Ok(Self::Below(format!("{}/", path.trim_end_matches('/'))))
    }

    pub(crate) fn takes(&self, path: &str) -> bool {
        // As in the file system's globs: a `*` stands for names, a `**` for directories.
        let options = MatchOptions { require_literal_separator: true, ..MatchOptions::new() };
        match self {
            Self::Whole => true,
            Self::File(file) => path == file,
            Self::Below(directory) => path.starts_with(directory),
            Self::Glob(pattern) => pattern.matches_with(path, options),
        }
    }

    pub(crate) fn is_whole(&self) -> bool {
        matches!(self, Self::Whole | Self::Below(_))
    }
}
