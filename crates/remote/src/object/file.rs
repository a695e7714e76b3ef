//! A file in an object store that is read in ranges, front to back in a few places at once, as the columns of a Parquet file are.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use tokio::task::JoinHandle;

use super::failure;
use crate::{RemoteError, runtime};

/// What is asked for at least: as much comes in the time of an answer.
const LEAST_BYTES: u64 = 1 << 16;

/// What of the next stretch a look at it may need.
const HEADER_BYTES: u64 = 1 << 12;

/// A file in an object store. Copies share what was fetched.
#[derive(Clone, Debug)]
pub struct RemoteFile {
    store: Arc<dyn ObjectStore>,
    path: Path,
    name: String,
    bytes: u64,
    /// The one that was used last is at the back.
    stretches: Arc<Mutex<VecDeque<Stretch>>>,
}

/// Some of the file.
#[derive(Debug)]
struct Stretch {
    range: Range<u64>,
    bytes: Come,
}

#[derive(Debug)]
enum Come {
    Here(Bytes),
    Soon(JoinHandle<Result<Bytes, object_store::Error>>),
}

impl Drop for Come {
    fn drop(&mut self) {
        if let Self::Soon(task) = self {
            task.abort();
        }
    }
}

impl RemoteFile {
    /// Stretches that are kept or on their way, of twice what is read at once at most: of a shard's ids, which are read ahead of its
    /// vectors, and of its vectors, with what follows on each.
    pub const STRETCHES: u64 = 6;

    pub(super) fn new(store: Arc<dyn ObjectStore>, path: Path, name: String, bytes: u64) -> Self {
        Self { store, path, name, bytes, stretches: Arc::default() }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// These bytes, which it has; and lets what follows come, as much again: what is read next.
    ///
    /// # Errors
    /// A store that does not answer, or that has less.
    pub fn read(&self, range: Range<u64>) -> Result<Bytes, RemoteError> {
        let found = self.stretch(range.clone())?;
        let next = range.end
            ..(range.end + (range.end - range.start).max(LEAST_BYTES) + HEADER_BYTES).min(self.bytes);
        // The end of the file is where its footer is, behind which nothing comes.
        if next.end - next.start > HEADER_BYTES {
            self.begin(next)?;
        }
        Ok(found)
    }

    /// At least a few thousand bytes from `start` on, where there are as many.
    ///
    /// # Errors
    /// A store that does not answer, or that has less.
    pub fn look(&self, start: u64) -> Result<Bytes, RemoteError> {
        self.stretch(start..(start + HEADER_BYTES).min(self.bytes))
    }

    /// Lets the end of the file come, where the footer of a Parquet file is.
    ///
    /// # Errors
    /// What keeps threads from being started.
    pub fn begin_end(&self) -> Result<(), RemoteError> {
        self.begin(self.bytes.saturating_sub(LEAST_BYTES)..self.bytes)
    }

    /// Lets so many bytes from `start` on come, as far as there are as many.
    ///
    /// # Errors
    /// What keeps threads from being started.
    pub fn begin_at(&self, start: u64, bytes: u64) -> Result<(), RemoteError> {
        self.begin(start..start.saturating_add(bytes).min(self.bytes))
    }

    /// A stretch that holds `range`, from its start on.
    fn stretch(&self, range: Range<u64>) -> Result<Bytes, RemoteError> {
        let mut stretches = self.stretches.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |stretch: &Stretch| stretch.range.start <= range.start && range.end <= stretch.range.end;
        let (wanted, come) = match stretches.iter().position(holds).and_then(|place| stretches.remove(place))
        {
            Some(Stretch { range, bytes }) => (range, bytes),
            None => {
                let end = range.end.max((range.start + LEAST_BYTES).min(self.bytes));
                // Of the end of the file, all that may be asked for.
                let start = range.start.min(end.saturating_sub(LEAST_BYTES));
                (start..end, self.fetch(start..end)?)
            }
        };
        drop(stretches);
        let bytes = self.wait(come)?;
        if bytes.len() as u64 != wanted.end - wanted.start {
            let reason = format!(
                "expected {} bytes, found fewer: it is not what it was when it was sealed",
                self.bytes
            );
            return Err(RemoteError::Damaged { what: self.name.clone(), reason });
        }
        let at = |byte: u64| usize::try_from(byte - wanted.start).unwrap_or(usize::MAX);
        let found = bytes.slice(at(range.start)..at(range.end));
        self.keep(Stretch { range: wanted, bytes: Come::Here(bytes) });
        Ok(found)
    }

    /// Lets `range` come, unless it is here or on its way.
    fn begin(&self, range: Range<u64>) -> Result<(), RemoteError> {
        if range.is_empty() {
            return Ok(());
        }
        let stretches = self.stretches.lock().unwrap_or_else(PoisonError::into_inner);
        // It may end a little earlier: then what is missing is fetched when it is asked for.
        let comes = stretches.iter().any(|stretch| {
            stretch.range.contains(&range.start) && stretch.range.end + HEADER_BYTES > range.end
        });
        drop(stretches);
        if !comes {
            let bytes = self.fetch(range.clone())?;
            self.keep(Stretch { range, bytes });
        }
        Ok(())
    }

    fn keep(&self, stretch: Stretch) {
        let mut stretches = self.stretches.lock().unwrap_or_else(PoisonError::into_inner);
        stretches.push_back(stretch);
        while stretches.len() as u64 > Self::STRETCHES {
            stretches.pop_front();
        }
    }

    fn fetch(&self, range: Range<u64>) -> Result<Come, RemoteError> {
        let (store, path) = (self.store.clone(), self.path.clone());
        runtime::begin(async move { store.get_range(&path, range).await }).map(Come::Soon)
    }

    fn wait(&self, mut come: Come) -> Result<Bytes, RemoteError> {
        match &mut come {
            Come::Here(bytes) => Ok(bytes.clone()),
            Come::Soon(task) => runtime::wait(async {
                let broken = |e: tokio::task::JoinError| object_store::Error::JoinError { source: e };
                let come = task.await.map_err(broken).and_then(|come| come);
                come.map_err(|error| failure::explain(&self.name, error))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Folder;

    fn bytes(n: usize) -> Vec<u8> {
        (0..n).map(|i| (i * 7 + i / 253) as u8).collect()
    }

    fn file(n: usize) -> (Folder, RemoteFile) {
        let folder = Folder::in_memory();
        folder.write("x", bytes(n)).unwrap();
        let file = folder.file("x", n as u64).unwrap();
        (folder, file)
    }

    #[test]
    fn any_range_is_the_files() {
        let n = 1_000_000;
        let (_, file) = file(n);
        let all = bytes(n);
        let mut starts: Vec<u64> = (0..200).map(|i| i * 7919 * 613 % n as u64).collect();
        starts.extend([0, n as u64 - 1, n as u64 - 8, 0]);
        for (i, start) in starts.into_iter().enumerate() {
            let end = (start + 1 + (i as u64 * 7841) % 150_000).min(n as u64);
            assert!(file.read(start..end).unwrap() == all[start as usize..end as usize]);
            let looked = file.look(start).unwrap();
            assert!(looked.len() as u64 == HEADER_BYTES.min(n as u64 - start));
            assert!(looked == all[start as usize..start as usize + looked.len()]);
            assert!(file.stretches.lock().unwrap().len() <= RemoteFile::STRETCHES as usize);
        }
        assert_eq!(file.read(5..5).unwrap().len(), 0);
    }

    #[test]
    fn what_follows_is_on_its_way_before_it_is_asked_for() {
        let (_, file) = file(1_000_000);
        file.look(100).unwrap();
        file.read(150..200_150).unwrap();
        let comes = |start: u64, end: u64| {
            let stretches = file.stretches.lock().unwrap();
            stretches.iter().any(|stretch| stretch.range.start <= start && end <= stretch.range.end)
        };
        // The header and the page that come next.
        assert!(comes(200_150, 400_200));
        file.look(200_150).unwrap();
        file.read(200_200..400_200).unwrap();
        assert!(comes(400_200, 600_250));
    }

    #[test]
    fn a_file_that_is_not_what_it_was_is_told() {
        let (folder, file) = file(100_000);
        folder.write("x", bytes(50_000)).unwrap();
        let error = file.read(40_000..90_000).unwrap_err().to_string();
        assert!(error.contains("s3://bucket/acts/x"), "{error}");
        folder.remove("x").unwrap();
        let error = file.read(0..10).unwrap_err().to_string();
        assert!(error.contains("s3://bucket/acts/x: not found"), "{error}");
    }
}
