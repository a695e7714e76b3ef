//! Writing a store: rows are gathered into row groups, row groups into shards, shards appear whole or not at all.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{
        ArrayRef, FixedSizeBinaryArray, FixedSizeListArray, PrimitiveArray, RecordBatch, UInt32Array,
        UInt64Array,
    },
    buffer::{Buffer, ScalarBuffer},
    datatypes::{ArrowPrimitiveType, Float16Type, Float32Type, SchemaRef},
};
use monosema_core::{AtomicFile, manifest};
use parquet::{
    arrow::ArrowWriter,
    basic,
    errors::ParquetError,
    file::properties::{EnabledStatistics, WriterProperties},
    schema::types::ColumnPath,
};
use serde::{Deserialize, Serialize};

use crate::{Layout, StoreError, StoreSchema, VectorDtype, shard};

/// Bytes of vectors in a data page, roughly.
const PAGE_BYTES: usize = 1 << 20;

/// How the vectors are compressed. (Ids are dictionary-encoded and next to nothing.)
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
    /// Tokens in a shard. Default 262,144.
    pub shard_tokens: u64,
    /// Tokens in a row group: what is read at once, and held while it is written. Default 4096.
    pub row_group_tokens: u64,
    /// How vectors are compressed.
    pub compression: Compression,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self { shard_tokens: 1 << 18, row_group_tokens: 1 << 12, compression: Compression::None }
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
    /// For each hook of the schema, in its order, the vectors `[n, width]`.
    pub vectors: &'a [&'a [f32]],
}

/// What a finished [`Writer`] wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Names of the shards within the directory, in order.
    pub shards: Vec<String>,
    /// Tokens in them.
    pub tokens: u64,
}

/// Writes the shards of a store. It does not seal the directory: who knows how the rows came about does.
pub struct Writer {
    directory: PathBuf,
    schema: StoreSchema,
    arrow: SchemaRef,
    options: WriterOptions,
    pending: Pending,
    shard: Option<Shard>,
    written: Written,
}

impl Writer {
    /// Begins a store in `directory`, which is made if need be. What an interrupted run left there (unfinished
    /// files and shards) is removed, and nothing else.
    ///
    /// # Errors
    /// A directory that is sealed; a schema or options that cannot be written; a disk that fails.
    pub fn create(directory: &Path, schema: StoreSchema, options: WriterOptions) -> Result<Self, StoreError> {
        schema.check()?;
        options.check()?;
        if directory.join(manifest::FILE_NAME).exists() {
            return Err(StoreError::Sealed { directory: directory.to_owned() });
        }
        fs::create_dir_all(directory).map_err(StoreError::io(directory))?;
        sweep(directory)?;
        let arrow = Arc::new(schema.to_arrow());
        let pending = Pending::new(schema.hooks.len());
        let written = Written { shards: Vec::new(), tokens: 0 };
        Ok(Self { directory: directory.to_owned(), schema, arrow, options, pending, shard: None, written })
    }

    /// Appends tokens. They reach the disk a row group at a time.
    ///
    /// # Errors
    /// Parts of unequal length; a number that is not finite or that the dtype cannot hold, in which case nothing
    /// of `rows` is appended; a disk that fails.
    pub fn append(&mut self, rows: Rows<'_>) -> Result<(), StoreError> {
        self.schema.check_rows(&rows)?;
        let n = rows.token_ids.len();
        let mut done = 0;
        while done < n {
            let take = (n - done).min(self.group_room());
            let part = done..done + take;
            self.pending.token_ids.extend_from_slice(&rows.token_ids[part.clone()]);
            self.pending.documents.extend_from_slice(&rows.documents[part.clone()]);
            self.pending.positions.extend_from_slice(&rows.positions[part.clone()]);
            for (i, column) in self.schema.hooks.iter().enumerate() {
                let vectors = &rows.vectors[i][part.start * column.width..part.end * column.width];
                self.schema.dtype.encode(vectors, &mut self.pending.vectors[i]);
            }
            done += take;
            if self.group_room() == 0 {
                self.write_group()?;
            }
        }
        Ok(())
    }

    /// Writes what is pending and finishes the last shard.
    pub fn finish(mut self) -> Result<Written, StoreError> {
        self.write_group()?;
        self.close_shard()?;
        Ok(self.written)
    }

    /// How many tokens the pending row group still takes: it ends where the shard ends.
    fn group_room(&self) -> usize {
        let pending = self.pending.token_ids.len() as u64;
        let in_shard = self.shard.as_ref().map_or(0, |shard| shard.tokens);
        let room = self.options.row_group_tokens.min(self.options.shard_tokens - in_shard) - pending;
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    fn write_group(&mut self) -> Result<(), StoreError> {
        let n = self.pending.token_ids.len() as u64;
        if n == 0 {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.pending, Pending::new(self.schema.hooks.len()));
        let batch = full.into_batch(&self.schema, &self.arrow);
        let mut shard = match self.shard.take() {
            Some(shard) => shard,
            None => self.open_shard()?,
        };
        let written = shard.writer.write(&batch).and_then(|()| shard.writer.flush());
        written.map_err(|e| failed(&shard.path, e))?;
        shard.tokens += n;
        self.written.tokens += n;
        let full = shard.tokens >= self.options.shard_tokens;
        self.shard = Some(shard);
        if full { self.close_shard() } else { Ok(()) }
    }

    fn open_shard(&self) -> Result<Shard, StoreError> {
        let name = shard::name(self.written.shards.len());
        let path = self.directory.join(&name);
        let io = |source| StoreError::Io { path: path.clone(), source };
        let mut file = AtomicFile::create(&path).map_err(io)?;
        let handle = file.file_mut().try_clone().map_err(io)?;
        let writer = ArrowWriter::try_new(handle, self.arrow.clone(), Some(self.properties()))
            .map_err(|e| failed(&path, e))?;
        Ok(Shard { name, path, file, writer, tokens: 0 })
    }

    fn close_shard(&mut self) -> Result<(), StoreError> {
        let Some(shard) = self.shard.take() else { return Ok(()) };
        shard.writer.close().map_err(|e| failed(&shard.path, e))?;
        shard.file.commit().map_err(StoreError::io(&shard.path))?;
        tracing::debug!("{}: {} tokens", shard.path.display(), shard.tokens);
        self.written.shards.push(shard.name);
        Ok(())
    }

    fn properties(&self) -> WriterProperties {
        let compression = match self.options.compression {
            Compression::None => basic::Compression::UNCOMPRESSED,
            Compression::Zstd => {
                basic::Compression::ZSTD(basic::ZstdLevel::try_new(1).expect("1 is a level of zstd"))
            }
        };
        let mut properties = WriterProperties::builder()
            .set_created_by(format!("monosema {}", env!("CARGO_PKG_VERSION")))
            .set_key_value_metadata(Some(self.schema.parquet_metadata()))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            // Row groups are flushed by hand.
            .set_max_row_group_row_count(None)
            .set_data_page_size_limit(PAGE_BYTES);
        if self.schema.layout == Layout::Binary {
            // The size of a page is looked at once a write batch, which by default is 1024 rows.
            let widest =
                self.schema.hooks.iter().map(|h| h.width * self.schema.dtype.bytes()).max().unwrap_or(1);
            properties = properties.set_write_batch_size((PAGE_BYTES / 4 / widest).clamp(1, 1024));
        }
        for column in &self.schema.hooks {
            let mut parts = vec![column.hook.to_string()];
            if self.schema.layout == Layout::List {
                parts.extend(["list".to_owned(), "element".to_owned()]);
            }
            let path = ColumnPath::new(parts);
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path.clone(), basic::Encoding::PLAIN)
                .set_column_statistics_enabled(path.clone(), EnabledStatistics::None)
                .set_column_compression(path, compression);
        }
        properties.build()
    }
}

/// A shard being written.
struct Shard {
    name: String,
    path: PathBuf,
    file: AtomicFile,
    writer: ArrowWriter<File>,
    tokens: u64,
}

/// A row group being gathered; vectors are encoded already.
struct Pending {
    token_ids: Vec<u32>,
    documents: Vec<u64>,
    positions: Vec<u32>,
    vectors: Vec<Vec<u8>>,
}

impl Pending {
    fn new(n_hooks: usize) -> Self {
        let vectors = (0..n_hooks).map(|_| Vec::new()).collect();
        Self { token_ids: Vec::new(), documents: Vec::new(), positions: Vec::new(), vectors }
    }

    fn into_batch(self, schema: &StoreSchema, arrow: &SchemaRef) -> RecordBatch {
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from(self.token_ids)),
            Arc::new(UInt64Array::from(self.documents)),
            Arc::new(UInt32Array::from(self.positions)),
        ];
        for (column, bytes) in schema.hooks.iter().zip(self.vectors) {
            columns.push(vectors(bytes, schema, column.width));
        }
        RecordBatch::try_new(arrow.clone(), columns).expect("the columns were gathered after this schema")
    }
}

/// Encoded vectors as an Arrow column.
fn vectors(bytes: Vec<u8>, schema: &StoreSchema, width: usize) -> ArrayRef {
    let fits = "checked: a vector is smaller than 2 GiB";
    let row_bytes = width * schema.dtype.bytes();
    match (schema.layout, schema.dtype) {
        (Layout::Binary, _) => {
            let size = i32::try_from(row_bytes).expect(fits);
            Arc::new(FixedSizeBinaryArray::new(size, Buffer::from_vec(bytes), None))
        }
        (Layout::List, dtype) => {
            let n = bytes.len() / dtype.bytes();
            let values: ArrayRef = match dtype {
                VectorDtype::F32 => floats::<Float32Type>(bytes, n),
                VectorDtype::F16 | VectorDtype::BF16 => floats::<Float16Type>(bytes, n),
            };
            let size = i32::try_from(width).expect(fits);
            Arc::new(FixedSizeListArray::new(Arc::new(schema.list_item()), size, values, None))
        }
    }
}

fn floats<T: ArrowPrimitiveType>(bytes: Vec<u8>, n: usize) -> ArrayRef {
    // Copied, because the bytes need not lie as floats must.
    let values = ScalarBuffer::<T::Native>::new(Buffer::from(bytes.as_slice()), 0, n);
    Arc::new(PrimitiveArray::<T>::new(values, None))
}

/// Removes what an interrupted run left.
fn sweep(directory: &Path) -> Result<(), StoreError> {
    let mut removed = AtomicFile::sweep(directory).map_err(StoreError::io(directory))?;
    for entry in fs::read_dir(directory).map_err(StoreError::io(directory))? {
        let entry = entry.map_err(StoreError::io(directory))?;
        let is_file = entry.file_type().map_err(StoreError::io(directory))?.is_file();
        if is_file && entry.file_name().to_str().and_then(shard::number).is_some() {
            fs::remove_file(entry.path()).map_err(StoreError::io(&entry.path()))?;
            removed += 1;
        }
    }
    if removed > 0 {
        tracing::info!("{}: removed {removed} file(s) of an interrupted run", directory.display());
    }
    Ok(())
}

/// Parquet passes on what the disk says, packed up.
fn failed(path: &Path, error: ParquetError) -> StoreError {
    let source = match error {
        ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
            Ok(io) => *io,
            Err(other) => std::io::Error::other(other),
        },
        other => std::io::Error::other(other),
    };
    StoreError::Io { path: path.to_owned(), source }
}
