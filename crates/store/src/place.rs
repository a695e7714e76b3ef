//! Where a store is: in a directory, or in an object store.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use monosema_core::{Digest, Files};
use monosema_remote::{Folder, RemoteError, RemoteFile, is_object};

use crate::StoreError;

/// A directory, or a place in an object store whose address is written where a path is: `s3://bucket/prefix`. What it holds is
/// listed once, when that is needed first.
#[derive(Clone, Debug)]
pub struct Place {
    path: PathBuf,
    elsewhere: Option<Elsewhere>,
}

#[derive(Clone, Debug)]
struct Elsewhere {
    folder: Folder,
    /// The files by name, and their sizes.
    files: Arc<OnceLock<BTreeMap<String, u64>>>,
}

impl Place {
    /// What `path` means.
    ///
    /// # Errors
    /// An address of no object store.
    pub fn at(path: &Path) -> Result<Self, StoreError> {
        let elsewhere = if Self::is_elsewhere(path) {
            let folder = Folder::open(&path.to_string_lossy())?;
            Some(Elsewhere { folder, files: Arc::default() })
        } else {
            None
        };
        Ok(Self { path: path.to_owned(), elsewhere })
    }

    /// Whether `path` is in an object store.
    pub fn is_elsewhere(path: &Path) -> bool {
        path.to_str().is_some_and(is_object)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The place `name` in this one.
    pub(crate) fn within(&self, name: &str) -> Self {
        let path = self.path.join(name);
        let elsewhere = self.elsewhere.as_ref();
        let elsewhere = elsewhere.map(|e| Elsewhere { folder: e.folder.within(name), files: Arc::default() });
        Self { path, elsewhere }
    }

    /// Makes it a place to write to.
    pub(crate) fn make(&self) -> Result<(), StoreError> {
        match self.elsewhere {
            Some(_) => Ok(()),
            None => fs::create_dir_all(&self.path).map_err(StoreError::io(&self.path)),
        }
    }

    /// The names of its files and of the places in it; none if it is not there.
    pub(crate) fn names(&self) -> Result<Names, StoreError> {
        let mut names = Names::default();
        match &self.elsewhere {
            Some(elsewhere) => {
                for name in elsewhere.files().map_err(StoreError::io(&self.path))?.keys() {
                    match name.split_once('/') {
                        None => names.files.insert(name.clone()),
                        Some((place, _)) => names.places.insert(place.to_owned()),
                    };
                }
            }
            None => {
                let io = StoreError::io(&self.path);
                let entries = match fs::read_dir(&self.path) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(names),
                    entries => entries.and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(io)?,
                };
                for entry in entries {
                    let kind = entry.file_type().map_err(StoreError::io(&self.path))?;
                    let Ok(name) = entry.file_name().into_string() else { continue };
                    if kind.is_file() {
                        names.files.insert(name);
                    } else {
                        names.places.insert(name);
                    }
                }
            }
        }
        Ok(names)
    }

    /// The file `name` to be read in ranges, if it is in an object store.
    pub(crate) fn remote(&self, name: &str) -> Result<Option<RemoteFile>, StoreError> {
        let Some(elsewhere) = &self.elsewhere else { return Ok(None) };
        let bytes = self.length(name).map_err(StoreError::io(&self.locate(name)))?;
        Ok(Some(elsewhere.folder.file(name, bytes)?))
    }

    /// Takes the file at `path` here as the file `name`; only for places elsewhere.
    pub(crate) fn take(&self, path: &Path, name: &str) -> Result<(), StoreError> {
        let elsewhere = self.elsewhere.as_ref().expect("what is written here is written where it belongs");
        Ok(elsewhere.folder.upload(name, path)?)
    }

    /// Keeps the file `name` under another name, which is returned; only for directories.
    pub(crate) fn set_aside(&self, name: &str) -> Result<PathBuf, StoreError> {
        let names = (1..).map(|i| {
            self.path.join(if i == 1 { format!("{name}.damaged") } else { format!("{name}.damaged-{i}") })
        });
        let aside = names.into_iter().find(|aside| !aside.exists()).expect("there are more names than files");
        fs::rename(self.path.join(name), &aside).map_err(StoreError::io(&aside))?;
        Ok(aside)
    }

    /// Removes the file `name`.
    pub(crate) fn remove(&self, name: &str) -> Result<(), StoreError> {
        match &self.elsewhere {
            Some(elsewhere) => Ok(elsewhere.folder.remove(name)?),
            None => fs::remove_file(self.path.join(name)).map_err(StoreError::io(&self.path.join(name))),
        }
    }
}

/// What a place holds.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) files: BTreeSet<String>,
    pub(crate) places: BTreeSet<String>,
}

impl Elsewhere {
    fn files(&self) -> io::Result<&BTreeMap<String, u64>> {
        if let Some(files) = self.files.get() {
            return Ok(files);
        }
        let files = self.folder.list().map_err(to_io)?.into_iter().collect();
        Ok(self.files.get_or_init(|| files))
    }
}

impl Files for Place {
    fn locate(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let Some(elsewhere) = &self.elsewhere else { return self.path.read(name) };
        elsewhere.folder.read(name).map_err(to_io)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn write(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        let Some(elsewhere) = &self.elsewhere else { return self.path.write(name, contents) };
        elsewhere.folder.write(name, contents.to_vec()).map_err(to_io)
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        let Some(elsewhere) = &self.elsewhere else { return self.path.length(name) };
        elsewhere.files()?.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn digest(&self, name: &str) -> io::Result<Digest> {
        let Some(elsewhere) = &self.elsewhere else { return self.path.digest(name) };
        Ok(elsewhere.folder.digest(name).map_err(to_io)?.0)
    }
}

fn to_io(error: RemoteError) -> io::Error {
    let kind = match error {
        RemoteError::NotFound { .. } => io::ErrorKind::NotFound,
        RemoteError::Denied { .. } => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
