//! Writing a store: rows are gathered into shards, and shards appear whole or not at all.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
};

use monosema_core::{
    AtomicFile, Digest, Files, digest_file,
    manifest::{FileEntry, Work},
};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::{
    Order, Place, StoreError, StoreSchema, Stored,
    order::Keys,
    shard,
    shard_file::{Block, ShardFormat},
};

/// How the vectors are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all. Activations hardly compress, and reading them is limited by decoding, not by the disk.
    #[default]
    None,
    /// zstd, level 1.
    Zstd,
}

/// How a store is cut into files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WriterOptions {
    /// Tokens in a shard. Default 65,536: two are held in memory, one
    /// that is gathered and one that is written.
    pub shard_tokens: u64,
    /// Tokens in a row group: what is read at once where rows are in the order of the text. Default 4096.
    pub row_group_tokens: u64,
    /// How vectors are compressed.
    pub compression: Compression,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { shard_tokens: 1 << 16, row_group_tokens: 1 << 12, compression: Compression::None }
    }
}

impl WriterOptions {
    /// Checks that shards can be cut so.
    ///
    /// # Errors
    /// A shard or a row group without a token.
    pub fn check(&self) -> Result<(), StoreError> {
        for (key, value) in [("shard_tokens", self.shard_tokens), ("row_group_tokens", self.row_group_tokens)]
        {
            if value == 0 {
                return Err(StoreError::BadSchema { key, reason: "expected at least 1, found 0".into() });
            }
        }
        Ok(())
    }
}

/// Tokens to append: `n` of everything.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Token ids `[n]`.
    pub token_ids: &'a [u32],
    /// Document numbers `[n]`.
    pub documents: &'a [u64],
    /// Positions in their context windows `[n]`.
    pub positions: &'a [u32],
    /// Places in their documents `[n]`: with the document's number each names its row, and no two are the same.
    pub places: &'a [u64],
    /// For each hook of the schema, in its order, the vectors `[n, width]`.
    pub vectors: &'a [&'a [f32]],
}

/// What a finished [`Writer`] wrote, or found written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Names of the shards within the directory, in order.
    pub shards: Vec<String>,
    /// What is known of some of them: those that went to an object store, and need not be fetched for their digests.
    pub files: BTreeMap<String, FileEntry>,
    /// Tokens in them.
    pub tokens: u64,
}

/// What is known of a shard that went elsewhere; nothing of one that is here.
type Sent = Option<(String, FileEntry)>;

/// Writes the shards of a store, each on a thread of its own while the next is gathered. It does not seal the directory: who
/// knows how the rows came about does.
pub struct Writer {
    place: Place,
    /// Where shards of a store elsewhere are written before they go there.
    workshop: Option<TempDir>,
    format: Arc<ShardFormat>,
    keys: Option<Keys>,
    shard_tokens: u64,
    stored: Stored,
    /// What is gathered for the next shard.
    blocks: Vec<Block>,
    /// Rows that have come.
    rows: u64,
    writing: Option<JoinHandle<Result<Sent, StoreError>>>,
    /// What is known of shards that went elsewhere.
    files: BTreeMap<String, FileEntry>,
}

impl Writer {
    /// Begins the store of `work` in `directory`, which is made if need be, or goes on with it: shards that are there and whole
    /// stay, and rows of theirs that come again are passed by. What is half written is removed, and nothing else.
    ///
    /// # Errors
    /// A directory that is sealed and whole, or holds what other work made; a schema or options that cannot be written; a disk
    /// that fails.
    pub fn create(
        directory: &Path,
        schema: StoreSchema,
        options: WriterOptions,
        work: &Work,
    ) -> Result<Self, StoreError> {
        schema.check()?;
        options.check()?;
        let place = Place::at(directory)?;
        place.make()?;
        let stored = Stored::find(&place, &schema, options.shard_tokens, work)?;
        let workshop = if Place::is_elsewhere(directory) {
            let there = std::env::temp_dir();
            Some(
                tempfile::Builder::new()
                    .prefix("monosema-")
                    .tempdir_in(&there)
                    .map_err(StoreError::io(&there))?,
            )
        } else {
            AtomicFile::sweep(directory).map_err(StoreError::io(directory))?;
            None
        };
        let keys = (schema.order == Order::Shuffled).then(|| Keys::new(work.seed));
        Ok(Self {
            place,
            workshop,
            format: Arc::new(ShardFormat::new(schema, options, work.digest())),
            keys,
            shard_tokens: options.shard_tokens,
            stored,
            blocks: Vec::new(),
            rows: 0,
            writing: None,
            files: BTreeMap::new(),
        })
    }

    /// What is there already.
    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    /// Appends rows. They reach the disk a shard at a time.
    ///
    /// # Errors
    /// Parts of unequal length; a number that is not finite or that the dtype cannot hold, in which case nothing
    /// of `rows` is appended; a disk that fails, also of what was appended before.
    pub fn append(&mut self, rows: Rows<'_>) -> Result<(), StoreError> {
        self.format.schema().check_rows(&rows)?;
        let n = rows.token_ids.len();
        let mut done = 0;
        while done < n {
            let room = self.shard_tokens - self.rows % self.shard_tokens;
            let part = done..n.min(done.saturating_add(usize::try_from(room).unwrap_or(usize::MAX)));
            if !self.stored.has(self.shard()) {
                self.blocks.push(Block::new(&rows, part.clone(), self.format.schema(), self.keys));
            }
            self.rows += part.len() as u64;
            done = part.end;
            if self.rows.is_multiple_of(self.shard_tokens) {
                self.close_shard()?;
            }
        }
        Ok(())
    }

    /// Passes by `n` rows that are [stored](Stored::covers) already, as if they had been appended.
    pub fn skip(&mut self, n: u64) {
        debug_assert!(self.stored.covers(self.rows..self.rows + n));
        self.rows += n;
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// A disk that fails; shards that were there and are none of what came.
    pub fn finish(mut self) -> Result<Written, StoreError> {
        self.close_shard()?;
        self.wait()?;
        let n = self.rows.div_ceil(self.shard_tokens) as usize;
        let expected = self.stored.manifest.as_ref().map(|manifest| manifest.counts.get("tokens").copied());
        if self.stored.last() >= Some(n) || expected.is_some_and(|tokens| tokens != Some(self.rows)) {
            return Err(StoreError::OtherWork { directory: self.place.path().to_owned() });
        }
        let files = std::mem::take(&mut self.files);
        Ok(Written { shards: (0..n).map(shard::name).collect(), files, tokens: self.rows })
    }

    /// The number of the shard that the next row belongs to.
    fn shard(&self) -> usize {
        (self.rows / self.shard_tokens) as usize
    }

    /// Lets what is gathered be written, once the shard before is.
    fn close_shard(&mut self) -> Result<(), StoreError> {
        self.wait()?;
        let blocks = std::mem::take(&mut self.blocks);
        if blocks.is_empty() {
            return Ok(());
        }
        let number = (self.rows - 1) / self.shard_tokens;
        let name = shard::name(number as usize);
        let format = self.format.clone();
        let expected: Option<Digest> = self.stored.expected(&name);
        let elsewhere =
            self.workshop.as_ref().map(|workshop| (workshop.path().join(&name), self.place.clone()));
        let path = self.place.locate(&name);
        self.writing = Some(thread::spawn(move || {
            let Some((path, place)) = elsewhere else {
                return format.write(&path, &blocks, expected).map(|()| None);
            };
            format.write(&path, &blocks, expected)?;
            let bytes = fs::metadata(&path).map_err(StoreError::io(&path))?.len();
            let sha256 = digest_file(&path).map_err(StoreError::io(&path))?;
            place.take(&path, &name)?;
            fs::remove_file(&path).map_err(StoreError::io(&path))?;
            Ok(Some((name, FileEntry { bytes, sha256 })))
        }));
        Ok(())
    }

    fn wait(&mut self) -> Result<(), StoreError> {
        let Some(writing) = self.writing.take() else { return Ok(()) };
        let written = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        self.files.extend(written?);
        Ok(())
    }
}

/// A shard that is complete is finished, whatever became of the harvest.
impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(writing) = self.writing.take() {
            // Whoever drops a writer has a reason of its own to tell.
            let _ = writing.join();
        }
    }
}
