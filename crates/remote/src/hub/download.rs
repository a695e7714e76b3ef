//! One file into the cache: continued where it broke off, checked, and only then given its name.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::StreamExt;
use hf_hub::{HFError, repository::download::HFByteStream};
use monosema_core::digest_file;
use sha1::{Digest as _, Sha1};
use tokio::time::{sleep, timeout};

use super::{Entry, Repository, address::Kind, failure::is_passing};
use crate::RemoteError;

/// How often in a row a download that brings nothing is tried.
const ATTEMPTS: u32 = 5;

/// A connection that says nothing for so long is taken for broken.
const SILENCE: Duration = Duration::from_secs(60);

/// The variable that names another place for the cache.
const INSTEAD: &str = "HF_HUB_CACHE";

/// Is told how many bytes of a file are there, as they come.
pub type Meter<'a> = dyn FnMut(u64) + Send + 'a;

/// How a download ended early.
enum Broken {
    /// It may go on where it is.
    Passing(RemoteError),
    Final(RemoteError),
}

impl Repository {
    pub(crate) async fn download(&self, file: &Entry, meter: &mut Meter<'_>) -> Result<PathBuf, RemoteError> {
        let link = self.directory().join(&file.path);
        if self.has(file) {
            meter(file.bytes);
            return Ok(link);
        }
        let what = self.address.file(&file.path);
        let (Some(oid), false) = (&file.oid, self.hub.offline) else {
            let reason = "this file was never fetched; fetch it once without HF_HUB_OFFLINE".to_owned();
            let cache = self.hub.cache.clone();
            return Err(RemoteError::Offline { what: what.to_string(), cache, reason });
        };
        let blobs = self.hub.cache.join(self.address.folder()).join("blobs");
        fs::create_dir_all(&blobs).map_err(RemoteError::io(&blobs))?;
        let _lock = self.lock(oid).await?;
        if self.has(file) {
            // Another process was faster.
            return Ok(link);
        }
        let linked = |blob: &Path| point(&link, blob).map_err(RemoteError::writing(&link, &what, 0, INSTEAD));
        if let Some(blob) = self.hub.of_another_commit(&self.address, file) {
            linked(&blob)?;
            meter(file.bytes);
            return Ok(link);
        }
        let partial = blobs.join(format!("{oid}.incomplete"));
        let mut attempts = 0;
        loop {
            let before = length(&partial);
            let Err(broken) = self.continue_to(&partial, file, meter).await else { break };
            let error = match broken {
                Broken::Final(error) => return Err(error),
                Broken::Passing(error) => error,
            };
            attempts = if length(&partial) > before { 1 } else { attempts + 1 };
            if attempts == ATTEMPTS {
                return Err(error);
            }
            tracing::debug!("{error}; trying again");
            sleep(self.hub.pause * 2_u32.pow(attempts - 1)).await;
        }
        let blob = blobs.join(self.checked(&partial, file, oid)?);
        // Synced before it has its name: after a power failure a file of this name is this file.
        let keep = || File::open(&partial)?.sync_all().and_then(|()| fs::rename(&partial, &blob));
        keep().map_err(RemoteError::writing(&blob, &what, 0, INSTEAD))?;
        linked(&blob)?;
        Ok(link)
    }

    /// One connection's worth of what `partial` lacks of `file`.
    async fn continue_to(&self, partial: &Path, file: &Entry, meter: &mut Meter<'_>) -> Result<(), Broken> {
        let what = self.address.file(&file.path);
        let io = |source| Broken::Final(RemoteError::io(partial)(source));
        let mut output = OpenOptions::new().create(true).append(true).open(partial).map_err(io)?;
        let mut have = output.metadata().map_err(io)?.len();
        if have > file.bytes {
            output.set_len(0).map_err(io)?;
            have = 0;
        }
        if have == file.bytes {
            return Ok(());
        }
        let explain = |error: HFError| {
            let passing = is_passing(&error);
            let error = self.hub.explain(&what, error);
            if passing { Broken::Passing(error) } else { Broken::Final(error) }
        };
        let silent = |_| {
            let (what, place) = (what.to_string(), self.hub.client.endpoint().to_owned());
            let reason = format!("nothing came for {} s; run the command again to go on", SILENCE.as_secs());
            Broken::Passing(RemoteError::Unreachable { what, place, reason })
        };
        let (length, mut stream) =
            timeout(SILENCE, self.stream(file, have)).await.map_err(silent)?.map_err(explain)?;
        if have > 0 && length != Some(file.bytes - have) {
            // Asked for the rest, this server sends all of it again, or does not say what it sends.
            tracing::debug!("{what}: the server does not continue files; it is fetched from its beginning");
            output.set_len(0).map_err(io)?;
            have = 0;
            if length != Some(file.bytes) {
                stream = timeout(SILENCE, self.stream(file, 0)).await.map_err(silent)?.map_err(explain)?.1;
            }
        }
        meter(have);
        while let Some(piece) = timeout(SILENCE, stream.next()).await.map_err(silent)? {
            let piece = piece.map_err(explain)?;
            let left = file.bytes - have;
            if piece.len() as u64 > left {
                return Err(self.unlike(partial, file, "more bytes than that"));
            }
            output
                .write_all(&piece)
                .map_err(RemoteError::writing(partial, &what, left, INSTEAD))
                .map_err(Broken::Final)?;
            have += piece.len() as u64;
            meter(have);
        }
        if have == file.bytes {
            return Ok(());
        }
        let reason = format!("expected {} bytes, found {have}: the connection ended early", file.bytes);
        Err(Broken::Passing(RemoteError::Damaged { what: what.to_string(), reason }))
    }

    /// The rest of `file` from byte `have` on, and how long the server says it is.
    async fn stream(&self, file: &Entry, have: u64) -> Result<(Option<u64>, HFByteStream), HFError> {
        let range = (have > 0).then_some(have..file.bytes);
        let (commit, address) = (self.commit(), &self.address);
        let client = &self.hub.client;
        match address.kind {
            Kind::Model => {
                let repository = client.model(&address.owner, &address.name);
                let stream = repository.download_file_stream().filename(&file.path).revision(commit);
                stream.maybe_range(range).send().await
            }
            Kind::Dataset => {
                let repository = client.dataset(&address.owner, &address.name);
                let stream = repository.download_file_stream().filename(&file.path).revision(commit);
                stream.maybe_range(range).send().await
            }
        }
    }

    /// The name under which the cache keeps `partial`, if it is what the repository knows by `oid`.
    fn checked(&self, partial: &Path, file: &Entry, oid: &str) -> Result<String, RemoteError> {
        let io = RemoteError::io(partial);
        let (found, name) = if file.lfs {
            let sha256 = digest_file(partial).map_err(io)?;
            (git_hash(pointer(sha256.as_str(), file.bytes).as_bytes()), sha256.to_string())
        } else {
            let hash = git_hash_of_file(partial).map_err(io)?;
            (hash.clone(), hash)
        };
        if found == oid {
            return Ok(name);
        }
        match self.unlike(partial, file, &format!("other contents (git's hash is {found} in place of {oid})"))
        {
            Broken::Final(error) | Broken::Passing(error) => Err(error),
        }
    }

    /// What came is not the file, so it is not kept.
    fn unlike(&self, partial: &Path, file: &Entry, found: &str) -> Broken {
        let what = self.address.file(&file.path).to_string();
        if let Err(source) = fs::remove_file(partial) {
            return Broken::Final(RemoteError::io(partial)(source));
        }
        let reason = format!(
            "expected {} bytes of what the repository has, found {found}; it was thrown away; run the command again",
            file.bytes
        );
        Broken::Final(RemoteError::Damaged { what, reason })
    }

    /// Keeps other processes from fetching the same at the same time.
    async fn lock(&self, oid: &str) -> Result<File, RemoteError> {
        let directory = self.hub.cache.join(".locks").join(self.address.folder());
        let path = directory.join(format!("{oid}.lock"));
        let open = || {
            fs::create_dir_all(&directory)?;
            OpenOptions::new().create(true).truncate(false).write(true).open(&path)
        };
        let file = open().map_err(RemoteError::io(&path))?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {
                    if !told {
                        tracing::info!("{}: another process is fetching a file of it; waiting", self.address);
                        told = true;
                    }
                    sleep(Duration::from_millis(200)).await;
                }
                Err(TryLockError::Error(source)) => return Err(RemoteError::io(&path)(source)),
            }
        }
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

/// Makes `link` lead to `blob`, as the hub's own programs do.
fn point(link: &Path, blob: &Path) -> std::io::Result<()> {
    let parent = link.parent().expect("a file of the cache lies in it");
    fs::create_dir_all(parent)?;
    if fs::symlink_metadata(link).is_ok() {
        fs::remove_file(link)?;
    }
    #[cfg(unix)]
    return std::os::unix::fs::symlink(relative(parent, blob), link);
    #[cfg(not(unix))]
    fs::copy(blob, link).map(|_| ())
}

/// `blob` as it is called from `directory`; both lie in the folder of a repository.
#[cfg(unix)]
fn relative(directory: &Path, blob: &Path) -> PathBuf {
    let shared = directory.components().zip(blob.components()).take_while(|(a, b)| a == b).count();
    let up = directory.components().skip(shared).map(|_| std::path::Component::ParentDir);
    up.chain(blob.components().skip(shared)).collect()
}

/// What git holds in place of a large file (<https://git-lfs.com>, the specification's canonical form).
fn pointer(sha256: &str, bytes: u64) -> String {
    format!("version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {bytes}\n")
}

/// The name git gives to `contents`.
fn git_hash(contents: &[u8]) -> String {
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", contents.len()));
    hasher.update(contents);
    hex(&hasher.finalize())
}

/// The name git gives to a file, read as a stream.
fn git_hash_of_file(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let bytes = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {bytes}\0"));
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_gits() {
        // `echo 'hello' | git hash-object --stdin`, and of nothing at all.
        assert_eq!(git_hash(b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(git_hash(b""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, b"hello\n").unwrap();
        assert_eq!(git_hash_of_file(&path).unwrap(), git_hash(b"hello\n"));
    }

    #[cfg(unix)]
    #[test]
    fn links_are_relative() {
        let snapshot = Path::new("/c/models--o--n/snapshots/abc/data");
        let blob = Path::new("/c/models--o--n/blobs/123");
        assert_eq!(relative(snapshot, blob), Path::new("../../../blobs/123"));
    }
}
