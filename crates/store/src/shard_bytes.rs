//! Where the bytes of a shard are: in a map of its file, or in an object store.

use std::{fs::File, os::unix::fs::MetadataExt, path::Path, sync::Arc};

use bytes::Bytes;
use memmap2::{Advice, Mmap};
use monosema_remote::RemoteFile;
use parquet::{
    errors::{ParquetError, Result as ParquetResult},
    file::reader::{ChunkReader, Length},
};

use crate::StoreError;

/// Fewer bytes are not worth a call of the system: they come with their neighbours.
const ADVISED_BYTES: usize = 1 << 17;

/// The bytes of a shard.
#[derive(Clone, Debug)]
pub(crate) enum ShardBytes {
    /// Parts of it are views of the map, and nothing is copied.
    Mapped {
        bytes: Bytes,
        map: Arc<Mmap>,
        /// Whether the system tells what of it is in memory: of other people's files it says that all is.
        told: bool,
    },
    /// Parts of it are fetched, and what follows on them is on its way.
    Elsewhere(RemoteFile),
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
        let metadata = file.metadata().map_err(StoreError::io(path))?;
        let found = metadata.len();
        if found != expected {
            let reason = format!("expected {expected} bytes, found {found}");
            return Err(StoreError::damaged(path, reason));
        }
        // SAFETY: the contract of mapped files: nobody may shorten or write to a sealed shard while it is read. Shards are
        // replaced by renaming, which leaves what is mapped as it is.
        let map = Arc::new(unsafe { Mmap::map(&file) }.map_err(StoreError::io(path))?);
        // SAFETY: it only tells who runs this.
        let told = metadata.uid() == unsafe { libc::geteuid() };
        Ok(Self::Mapped { bytes: Bytes::from_owner(Mapped(map.clone())), map, told })
    }

    /// Lets the system read ahead of who begins with a page, if it is a part of this: what lies behind it comes next.
    pub(crate) fn fetch(&self, page: &[u8]) {
        let Self::Mapped { map, told, .. } = self else { return };
        let (start, length) = ((page.as_ptr() as usize).wrapping_sub(map.as_ptr() as usize), page.len());
        if length < ADVISED_BYTES || start > map.len() || length > map.len() - start {
            return;
        }
        let behind = start + length;
        let coming = length.min(map.len() - behind);
        // To ask for what is there takes a fifth of the time of using it. (What a shard ends with was read when it was opened.)
        if coming > 0 && !(*told && is_in_memory(&map[behind + coming / 2])) {
            // Advice that is not taken costs nothing but time.
            let _ = map.advise_range(Advice::WillNeed, behind, coming);
        }
    }
}

/// Whether a byte of a map need not be read from a disk.
fn is_in_memory(byte: &u8) -> bool {
    let mut found = 0_u8;
    // SAFETY: a number that the system knows.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    let start = std::ptr::from_ref(byte).map_addr(|address| address & !(page - 1));
    // SAFETY: the page of a byte that is mapped, and room for the answer about one page.
    let failed = unsafe { libc::mincore(start.cast_mut().cast(), 1, (&raw mut found).cast()) };
    failed == 0 && found & 1 == 1
}

impl Length for ShardBytes {
    fn len(&self) -> u64 {
        match self {
            Self::Mapped { bytes, .. } => bytes.len() as u64,
            Self::Elsewhere(file) => file.bytes(),
        }
    }
}

impl ChunkReader for ShardBytes {
    type T = <Bytes as ChunkReader>::T;

    /// Of what is elsewhere as much as a header takes: that is what Parquet's reader wants it for.
    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        match self {
            Self::Mapped { bytes, .. } => bytes.get_read(start),
            Self::Elsewhere(file) => file.look(start).map_err(external)?.get_read(0),
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let end = start.checked_add(length as u64).filter(|&end| end <= self.len());
        let Some(end) = end else {
            let found = self.len();
            return Err(ParquetError::EOF(format!("{length} bytes from byte {start} on, of {found}")));
        };
        match self {
            // What is mapped has addresses.
            Self::Mapped { bytes, .. } => Ok(bytes.slice(end as usize - length..end as usize)),
            Self::Elsewhere(file) => file.read(start..end).map_err(external),
        }
    }
}

fn external(error: monosema_remote::RemoteError) -> ParquetError {
    ParquetError::External(Box::new(error))
}
