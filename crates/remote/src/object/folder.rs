//! A place in an object store that holds files by their names, as a directory does.

use std::{fmt, fs::File, io::Read, path::Path as LocalPath, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use monosema_core::{Digest, Hasher};
use object_store::{Error, ObjectStore, ObjectStoreExt, WriteMultipart};

use super::{RemoteFile, url::Url};
use crate::{RemoteError, runtime};

/// What is put in one piece; of more, the pieces. Stores take 10,000 of them, of at least 5 MiB.
const PIECE_BYTES: usize = 32 << 20;

/// Pieces on their way at once.
const PIECES: usize = 4;

/// A place in an object store.
#[derive(Clone, Debug)]
pub struct Folder {
    store: Arc<dyn ObjectStore>,
    url: Url,
}

impl Folder {
    /// The place at `address`: `s3://bucket/prefix`. Nothing is asked.
    ///
    /// # Errors
    /// What is no address, or of a store that the environment does not say enough about.
    pub fn open(address: &str) -> Result<Self, RemoteError> {
        let url = Url::parse(address)?;
        Ok(Self { store: url.open()?, url })
    }

    /// The place called `name` within this one.
    #[must_use]
    pub fn within(&self, name: &str) -> Self {
        Self { store: self.store.clone(), url: self.url.within(name) }
    }

    /// The names of all files here and in places within, and their sizes; none where nothing is.
    ///
    /// # Errors
    /// A store that does not answer, or not us.
    pub fn list(&self) -> Result<Vec<(String, u64)>, RemoteError> {
        let prefix = self.url.object()?;
        let listed = async { Ok(self.store.list(Some(&prefix)).try_collect::<Vec<_>>().await) };
        let metas = match runtime::wait(listed)? {
            Ok(metas) => metas,
            // Of stores that have directories.
            Err(Error::NotFound { .. }) => Vec::new(),
            Err(error) => return Err(self.url.explain(error)),
        };
        let mut files: Vec<_> = metas
            .into_iter()
            .filter_map(|meta| {
                let name = meta.location.prefix_match(&prefix)?.map(|part| part.as_ref().to_owned());
                Some((name.collect::<Vec<_>>().join("/"), meta.size))
            })
            .collect();
        files.sort();
        Ok(files)
    }

    /// What the file `name` holds; `None` if there is none.
    ///
    /// # Errors
    /// A store that does not answer, or not us.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, RemoteError> {
        let url = self.url.within(name);
        let object = url.object()?;
        let read = async { Ok(async { self.store.get(&object).await?.bytes().await }.await) };
        match runtime::wait(read)? {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(url.explain(error)),
        }
    }

    /// Makes `contents` the file `name`, whole or not at all.
    ///
    /// # Errors
    /// A store that does not take it.
    pub fn write(&self, name: &str, contents: Vec<u8>) -> Result<(), RemoteError> {
        let url = self.url.within(name);
        let object = url.object()?;
        let put = async { Ok(self.store.put(&object, contents.into()).await) };
        runtime::wait(put)?.map(drop).map_err(|error| url.explain(error))
    }

    /// Makes what the file at `path` holds the file `name`, whole or not at all.
    ///
    /// # Errors
    /// A file that cannot be read, or a store that does not take it.
    pub fn upload(&self, name: &str, path: &LocalPath) -> Result<(), RemoteError> {
        let url = self.url.within(name);
        let object = url.object()?;
        let mut file = File::open(path).map_err(RemoteError::io(path))?;
        let bytes = file.metadata().map_err(RemoteError::io(path))?.len();
        if bytes <= PIECE_BYTES as u64 {
            let contents = piece(&mut file).map_err(RemoteError::io(path))?;
            return self.write(name, contents);
        }
        let put = async {
            let started = self.store.put_multipart(&object).await.map_err(|error| url.explain(error))?;
            let mut upload = WriteMultipart::new_with_chunk_size(started, PIECE_BYTES);
            let sent = send(&mut upload, &mut file, path, &url).await;
            match sent {
                Ok(()) => upload.finish().await.map(drop).map_err(|error| url.explain(error)),
                Err(error) => {
                    // What was put is not to be paid for. If that fails too, the first error is what matters.
                    let _ = upload.abort().await;
                    Err(error)
                }
            }
        };
        runtime::wait(put)
    }

    /// Removes the file `name`, if there is one.
    ///
    /// # Errors
    /// A store that does not let us.
    pub fn remove(&self, name: &str) -> Result<(), RemoteError> {
        let url = self.url.within(name);
        let object = url.object()?;
        match runtime::wait(async { Ok(self.store.delete(&object).await) })? {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(url.explain(error)),
        }
    }

    /// The file `name`, which has so many bytes, to be read in ranges. Nothing is asked.
    ///
    /// # Errors
    /// What is no name.
    pub fn file(&self, name: &str, bytes: u64) -> Result<RemoteFile, RemoteError> {
        let url = self.url.within(name);
        Ok(RemoteFile::new(self.store.clone(), url.object()?, url.to_string(), bytes))
    }

    /// The digest of the file `name`, read as a stream, and how many bytes it has.
    ///
    /// # Errors
    /// A file that is not there, or a store that does not answer.
    pub fn digest(&self, name: &str) -> Result<(Digest, u64), RemoteError> {
        let url = self.url.within(name);
        let object = url.object()?;
        let read = async {
            let (mut hasher, mut bytes) = (Hasher::default(), 0);
            let mut stream = self.store.get(&object).await?.into_stream();
            while let Some(piece) = stream.next().await {
                let piece = piece?;
                hasher.update(&piece);
                bytes += piece.len() as u64;
            }
            Ok((hasher.finish(), bytes))
        };
        runtime::wait(async { read.await.map_err(|error| url.explain(error)) })
    }

    /// In memory, for tests.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        Self {
            store: Arc::new(object_store::memory::InMemory::new()),
            url: Url::parse("s3://bucket/acts").unwrap(),
        }
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

async fn send(
    upload: &mut WriteMultipart,
    file: &mut File,
    path: &LocalPath,
    url: &Url,
) -> Result<(), RemoteError> {
    loop {
        upload.wait_for_capacity(PIECES).await.map_err(|error| url.explain(error))?;
        let piece = piece(file).map_err(RemoteError::io(path))?;
        if piece.is_empty() {
            return Ok(());
        }
        upload.put(Bytes::from(piece));
    }
}

/// The next piece of `file`; empty at its end.
fn piece(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut piece = Vec::new();
    file.take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
    Ok(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(folder: &Folder) {
        assert_eq!(folder.list().unwrap(), []);
        assert_eq!(folder.read("manifest.json").unwrap(), None);
        folder.write("part-1/b.parquet", b"two".to_vec()).unwrap();
        folder.write("manifest.json", b"{}".to_vec()).unwrap();
        assert_eq!(
            folder.list().unwrap(),
            [("manifest.json".to_owned(), 2), ("part-1/b.parquet".to_owned(), 3)]
        );
        assert_eq!(folder.read("part-1/b.parquet").unwrap().unwrap(), b"two");
        assert_eq!(folder.within("part-1").list().unwrap(), [("b.parquet".to_owned(), 3)]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shard");
        // Of one piece, and of three.
        for n in [10, 2 * PIECE_BYTES + 10] {
            let bytes: Vec<u8> = (0..n).map(|i| (i / 1000) as u8).collect();
            std::fs::write(&path, &bytes).unwrap();
            folder.upload("shard", &path).unwrap();
            assert!(folder.read("shard").unwrap().unwrap() == bytes);
            let digest = monosema_core::digest_bytes(&bytes);
            assert_eq!(folder.digest("shard").unwrap(), (digest, n as u64));
        }
        folder.remove("shard").unwrap();
        folder.remove("shard").unwrap();
        assert_eq!(folder.read("shard").unwrap(), None);
        let error = folder.digest("shard").unwrap_err().to_string();
        assert!(error.contains(&format!("{folder}/shard: not found")), "{error}");
        let error = folder.upload("shard", &dir.path().join("nothing")).unwrap_err().to_string();
        assert!(error.contains("nothing"), "{error}");
    }

    #[test]
    fn files_are_kept_by_their_names() {
        check(&Folder::in_memory());
        let dir = tempfile::tempdir().unwrap();
        check(&Folder::open(&format!("file://{}/acts", dir.path().display())).unwrap());
    }
}
