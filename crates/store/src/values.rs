//! The values of one column of a shard, from front to back, as they lie in its pages.

use arrow::buffer::Buffer;
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
    },
    basic::{Encoding, Type},
    column::page::{Page, PageReader},
    file::reader::SerializedPageReader,
};
use std::sync::Arc;

use crate::{
    StoreError,
    shard::{Column, Shard, column_bytes},
    shard_bytes::ShardBytes,
};

/// Bytes that are decoded at once, where they have to be.
const DECODED_BYTES: usize = 1 << 18;

/// The values of a column that follow on one another. They are those of one row after the other.
pub(crate) struct Values {
    shard: Arc<Shard>,
    column: Column,
    /// The group whose pages are read.
    group: usize,
    pages: Pages,
    /// Rows of the group in pages that are still to come.
    coming: usize,
    page: Buffer,
    /// Where in the page the next value begins.
    at: usize,
}

/// Stretches of whole values.
enum Pages {
    /// As they lie in the file, or decompressed.
    Plain(Box<SerializedPageReader<ShardBytes>>),
    /// Out of lists, dictionaries, or whatever other programs made of them.
    Decoded(ParquetRecordBatchReader),
}

impl Values {
    /// From `row` of the shard on, which it has.
    pub(crate) fn from_row(shard: Arc<Shard>, column: Column, mut row: usize) -> Result<Self, StoreError> {
        let mut group = 0;
        while row >= shard.group_tokens(group) {
            row -= shard.group_tokens(group);
            group += 1;
        }
        let (pages, coming) = (Pages::of(&shard, &column, group)?, shard.group_tokens(group));
        let mut values = Self { shard, column, group, pages, coming, page: Buffer::default(), at: 0 };
        // What comes before within the group is passed by.
        values.turn_page()?;
        while row * values.column.bytes >= values.page.len() {
            row -= values.page.len() / values.column.bytes;
            values.turn_page()?;
        }
        values.at = row * values.column.bytes;
        values.shard.contents()?.fetch(&values.page);
        Ok(values)
    }

    /// Bytes of a value.
    pub(crate) fn value_bytes(&self) -> usize {
        self.column.bytes
    }

    /// The next values that lie together, at least one: there must be some.
    pub(crate) fn stretch(&mut self) -> Result<&[u8], StoreError> {
        if self.at == self.page.len() {
            self.turn_page()?;
            self.shard.contents()?.fetch(&self.page);
        }
        Ok(&self.page[self.at..])
    }

    /// Goes on by so many, all of them in the stretch.
    pub(crate) fn pass(&mut self, values: usize) {
        self.at += values * self.column.bytes;
    }

    /// All values of a group.
    pub(crate) fn of_group(shard: &Shard, column: &Column, group: usize) -> Result<Vec<Buffer>, StoreError> {
        let mut pages = Pages::of(shard, column, group)?;
        let (mut found, mut coming) = (Vec::new(), shard.group_tokens(group));
        while coming > 0 {
            let page = pages.next(shard, column, group, &mut coming)?;
            shard.contents()?.fetch(&page);
            found.push(page);
        }
        Ok(found)
    }

    fn turn_page(&mut self) -> Result<(), StoreError> {
        while self.coming == 0 {
            self.group += 1;
            self.coming = self.shard.group_tokens(self.group);
            self.pages = Pages::of(&self.shard, &self.column, self.group)?;
        }
        self.page = self.pages.next(&self.shard, &self.column, self.group, &mut self.coming)?;
        self.at = 0;
        Ok(())
    }
}

impl Pages {
    fn of(shard: &Shard, column: &Column, group: usize) -> Result<Self, StoreError> {
        let damaged = |e: &dyn ToString| shard.damaged(group, e);
        let metadata = shard.footer().metadata();
        let schema = metadata.file_metadata().schema_descr();
        let rows = shard.group_tokens(group);
        let contents = shard.contents()?;
        let leaf = (0..schema.num_columns()).find(|&leaf| schema.get_column_root_idx(leaf) == column.root);
        let leaf = leaf.ok_or_else(|| damaged(&format!("no column `{}`", column.name)))?;
        let (descriptor, chunk) = (schema.column(leaf), metadata.row_group(group).column(leaf));
        let bytes = match descriptor.physical_type() {
            Type::INT32 | Type::FLOAT => 4,
            Type::INT64 | Type::DOUBLE => 8,
            Type::FIXED_LEN_BYTE_ARRAY => usize::try_from(descriptor.type_length()).unwrap_or(0),
            _ => 0,
        };
        let flat = (descriptor.max_def_level(), descriptor.max_rep_level()) == (0, 0);
        // Levels, of which there are none here, are told as run-length encoded.
        let plain = chunk.encodings().all(|e| matches!(e, Encoding::PLAIN | Encoding::RLE))
            && chunk.dictionary_page_offset().is_none();
        if flat && plain && bytes == column.bytes {
            let reader = SerializedPageReader::new(Arc::new(contents.clone()), chunk, rows, None);
            return Ok(Self::Plain(Box::new(reader.map_err(|e| shard.failed(group, e))?)));
        }
        let builder =
            ParquetRecordBatchReaderBuilder::new_with_metadata(contents.clone(), shard.footer().clone());
        let mask = ProjectionMask::roots(builder.parquet_schema(), [column.root]);
        let reader = builder
            .with_projection(mask)
            .with_row_groups(vec![group])
            .with_batch_size((DECODED_BYTES / column.bytes).clamp(1, rows.max(1)))
            .build();
        Ok(Self::Decoded(reader.map_err(|e| shard.failed(group, e))?))
    }

    /// The next stretch, of at least one value, of the `coming` that are left in the group.
    fn next(
        &mut self,
        shard: &Shard,
        column: &Column,
        group: usize,
        coming: &mut usize,
    ) -> Result<Buffer, StoreError> {
        let damaged = |e: &dyn ToString| shard.damaged(group, e);
        loop {
            let page = match self {
                Self::Plain(reader) => match reader.get_next_page().map_err(|e| shard.failed(group, e))? {
                    Some(
                        Page::DataPage { buf, encoding: Encoding::PLAIN, .. }
                        | Page::DataPageV2 { buf, encoding: Encoding::PLAIN, .. },
                    ) => Some(Buffer::from(buf)),
                    Some(_) => return Err(damaged(&"a page is not what the footer says")),
                    None => None,
                },
                Self::Decoded(reader) => match reader.next().transpose().map_err(|e| damaged(&e))? {
                    Some(batch) => Some(column_bytes(&batch, column).map_err(|e| damaged(&e))?),
                    None => None,
                },
            };
            let rows = shard.group_tokens(group);
            let Some(page) = page else {
                return Err(damaged(&format!("expected {rows} rows, found {}", rows - *coming)));
            };
            let found = page.len() / column.bytes;
            if page.len() % column.bytes != 0 || found > *coming {
                return Err(damaged(&format!("expected {rows} rows, found a page of {} bytes", page.len())));
            }
            if found > 0 {
                *coming -= found;
                return Ok(page);
            }
        }
    }
}
