//! The file of a shard: rows, gathered in blocks, sorted, cut into row groups and written as Parquet.

use std::{fs::File, ops::Range, path::Path, sync::Arc};

use arrow::{
    array::{
        ArrayRef, FixedSizeBinaryArray, FixedSizeListArray, PrimitiveArray, RecordBatch, UInt32Array,
        UInt64Array,
    },
    buffer::{Buffer, ScalarBuffer},
    datatypes::{ArrowPrimitiveType, Float16Type, Float32Type, SchemaRef},
};
use monosema_core::{AtomicFile, Digest, digest_file};
use parquet::{
    arrow::ArrowWriter,
    basic,
    errors::ParquetError,
    file::properties::{EnabledStatistics, WriterProperties},
    schema::types::ColumnPath,
};

use crate::{Compression, Layout, Rows, StoreError, StoreSchema, VectorDtype, WriterOptions, order::Keys};

/// Bytes of vectors in a data page, roughly.
pub(crate) const PAGE_BYTES: usize = 1 << 20;

/// How the shards of a store are written.
pub(crate) struct ShardFormat {
    schema: StoreSchema,
    arrow: SchemaRef,
    row_group_tokens: usize,
    compression: Compression,
    work: Digest,
}

/// Some rows, encoded as they will lie.
pub(crate) struct Block {
    token_ids: Vec<u32>,
    documents: Vec<u64>,
    positions: Vec<u32>,
    /// Nothing where rows stay in their order.
    keys: Vec<u64>,
    /// A hook each.
    vectors: Vec<Vec<u8>>,
}

impl Block {
    /// Of this part of `rows`.
    pub(crate) fn new(rows: &Rows<'_>, part: Range<usize>, schema: &StoreSchema, keys: Option<Keys>) -> Self {
        let vectors = schema.hooks.iter().zip(rows.vectors).map(|(column, values)| {
            let mut bytes = Vec::new();
            schema.dtype.encode(&values[part.start * column.width..part.end * column.width], &mut bytes);
            bytes
        });
        let named = rows.documents[part.clone()].iter().zip(&rows.places[part.clone()]);
        let keys = keys.map(|keys| named.map(|(&document, &place)| keys.of(document, place)).collect());
        Self {
            token_ids: rows.token_ids[part.clone()].to_vec(),
            documents: rows.documents[part.clone()].to_vec(),
            positions: rows.positions[part.clone()].to_vec(),
            keys: keys.unwrap_or_default(),
            vectors: vectors.collect(),
        }
    }
}

/// A row of some blocks.
#[derive(Clone, Copy)]
struct Place {
    block: usize,
    row: usize,
}

impl ShardFormat {
    pub(crate) fn new(schema: StoreSchema, options: WriterOptions, work: Digest) -> Self {
        let arrow = Arc::new(schema.to_arrow());
        let row_group_tokens = usize::try_from(options.row_group_tokens).unwrap_or(usize::MAX);
        Self { schema, arrow, row_group_tokens, compression: options.compression, work }
    }

    pub(crate) fn schema(&self) -> &StoreSchema {
        &self.schema
    }

    /// Writes the rows of `blocks` to what becomes `path`, if it comes out as is expected.
    pub(crate) fn write(
        &self,
        path: &Path,
        blocks: &[Block],
        expected: Option<Digest>,
    ) -> Result<(), StoreError> {
        let rows = sorted(blocks);
        let bytes = rows.len() as u64 * self.schema.token_bytes();
        let failed = |source| StoreError::of_writing(path, bytes, source);
        let mut file = AtomicFile::create(path).map_err(failed)?;
        let handle = file.file_mut().try_clone().map_err(failed)?;
        let properties = self.properties(self.compression);
        let write = |handle: File| -> Result<(), ParquetError> {
            let mut writer = ArrowWriter::try_new(handle, self.arrow.clone(), Some(properties))?;
            for group in rows.chunks(self.row_group_tokens) {
                writer.write(&self.batch(blocks, group))?;
                writer.flush()?;
            }
            writer.close().map(drop)
        };
        write(handle).map_err(|error| failed(io_error(error)))?;
        if let Some(expected) = expected {
            let found = digest_file(file.temporary_path()).map_err(StoreError::io(path))?;
            if found != expected {
                return Err(StoreError::NotTheSame { file: path.to_owned(), expected, found });
            }
        }
        file.commit().map_err(failed)?;
        tracing::debug!("{}: {} tokens", path.display(), rows.len());
        Ok(())
    }

    /// These rows as Arrow has them.
    fn batch(&self, blocks: &[Block], rows: &[Place]) -> RecordBatch {
        let ints = |of: fn(&Block) -> &Vec<u32>| -> ArrayRef {
            Arc::new(rows.iter().map(|place| of(&blocks[place.block])[place.row]).collect::<UInt32Array>())
        };
        let longs = |of: fn(&Block) -> &Vec<u64>| -> ArrayRef {
            Arc::new(rows.iter().map(|place| of(&blocks[place.block])[place.row]).collect::<UInt64Array>())
        };
        let mut columns = vec![ints(|b| &b.token_ids), longs(|b| &b.documents), ints(|b| &b.positions)];
        if blocks.iter().any(|block| !block.keys.is_empty()) {
            columns.push(longs(|b| &b.keys));
        }
        for (hook, column) in self.schema.hooks.iter().enumerate() {
            let row_bytes = column.width * self.schema.dtype.bytes();
            let mut bytes = Vec::with_capacity(rows.len() * row_bytes);
            for &Place { block, row } in rows {
                bytes.extend_from_slice(&blocks[block].vectors[hook][row * row_bytes..(row + 1) * row_bytes]);
            }
            columns.push(vectors(bytes, &self.schema, column.width));
        }
        RecordBatch::try_new(self.arrow.clone(), columns)
            .expect("the columns were gathered after this schema")
    }

    fn properties(&self, compression: Compression) -> WriterProperties {
        let compression = match compression {
            Compression::None => basic::Compression::UNCOMPRESSED,
            Compression::Zstd => {
                basic::Compression::ZSTD(basic::ZstdLevel::try_new(1).expect("1 is a level of zstd"))
            }
        };
        let mut properties = WriterProperties::builder()
            .set_created_by(format!("monosema {}", env!("CARGO_PKG_VERSION")))
            .set_key_value_metadata(Some(self.schema.parquet_metadata(&self.work)))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            // Ids too lie as they are, so that all of a row is taken from where it is.
            .set_dictionary_enabled(false)
            .set_encoding(basic::Encoding::PLAIN)
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
                .set_column_statistics_enabled(path.clone(), EnabledStatistics::None)
                .set_column_compression(path, compression);
        }
        properties.build()
    }
}

/// The rows of `blocks` by their keys or, without any, as they come.
fn sorted(blocks: &[Block]) -> Vec<Place> {
    let places = blocks.iter().enumerate();
    let places = places.flat_map(|(block, b)| (0..b.token_ids.len()).map(move |row| Place { block, row }));
    let mut places: Vec<_> = places.collect();
    if blocks.iter().any(|block| !block.keys.is_empty()) {
        // As a merge of shards takes them.
        places.sort_by_key(|&Place { block, row }| {
            let block = &blocks[block];
            (block.keys[row], block.documents[row], block.positions[row])
        });
    }
    places
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

/// Parquet passes on what the disk says, packed up.
fn io_error(error: ParquetError) -> std::io::Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
            Ok(io) => *io,
            Err(other) => std::io::Error::other(other),
        },
        other => std::io::Error::other(other),
    }
}
