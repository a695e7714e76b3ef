//! Where the bytes of a shard are: in a map of its file.

use std::{fs::File, path::Path, sync::Arc};

use bytes::Bytes;
use memmap2::{Advice, Mmap};
use parquet::{
    errors::{ParquetError, Result as ParquetResult},
    file::reader::{ChunkReader, Length},
};

use crate::StoreError;

/// Fewer bytes are not worth a call of the system: they come with their neighbours.
const ADVISED_BYTES: usize = 1 << 17;

/// The bytes of a shard: parts of it are views of the map, and nothing is copied.
#[derive(Clone, Debug)]
pub(crate) struct ShardBytes {
    bytes: Bytes,
    map: Arc<Mmap>,
}

/// An owner that [`Bytes`] takes.
struct Mapped(Arc<Mmap>);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl ShardBytes {
    /// Of a file that was found to have `expected` bytes.
    pub(crate) fn map(path: &Path, expected: u64) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(StoreError::io(path))?;
        let found = file.metadata().map_err(StoreError::io(path))?.len();
        if found != expected {
            let reason = format!("expected {expected} bytes, found {found}");
            return Err(StoreError::damaged(path, reason));
        }
        // SAFETY: the contract of mapped files: nobody may shorten or write to a sealed shard while it is read. Shards are
        // replaced by renaming, which leaves what is mapped as it is.
        let map = Arc::new(unsafe { Mmap::map(&file) }.map_err(StoreError::io(path))?);
        Ok(Self { bytes: Bytes::from_owner(Mapped(map.clone())), map })
    }

    /// Lets the system read ahead of who begins with a page, if it is a part of this: what lies behind it comes next.
    pub(crate) fn fetch(&self, page: &[u8]) {
        let (start, length) = ((page.as_ptr() as usize).wrapping_sub(self.map.as_ptr() as usize), page.len());
        if length < ADVISED_BYTES || start > self.map.len() || length > self.map.len() - start {
            return;
        }
        // Advice that is not taken costs nothing but time.
        let behind = start + length;
        let _ = self.map.advise_range(Advice::WillNeed, behind, length.min(self.map.len() - behind));
    }
}

impl Length for ShardBytes {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
}

impl ChunkReader for ShardBytes {
    type T = <Bytes as ChunkReader>::T;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        self.bytes.get_read(start)
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let end = usize::try_from(start).ok().and_then(|start| start.checked_add(length));
        let Some(end) = end.filter(|&end| end <= self.bytes.len()) else {
            let found = self.bytes.len();
            return Err(ParquetError::EOF(format!("{length} bytes from byte {start} on, of {found}")));
        };
        Ok(self.bytes.slice(end - length..end))
    }
}
