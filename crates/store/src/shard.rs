//! One shard: its name, its footer, and row groups read from it.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, GenericListArray, OffsetSizeTrait, RecordBatch},
    buffer::Buffer,
    datatypes::{DataType, Float16Type, Float32Type, UInt32Type, UInt64Type},
};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
    },
    basic::{Encoding, Type},
    column::page::Page,
    errors::ParquetError,
    file::reader::SerializedPageReader,
};

use crate::{
    DOCUMENT, HookColumn, POSITION, StoreError, StoreSchema, TOKEN_ID,
    batches::Columns,
    row_group::{RowGroup, Token, Vectors},
};

const PREFIX: &str = "shard-";
const SUFFIX: &str = ".parquet";

/// The name of the shard numbered `index`, from 0.
pub(crate) fn name(index: usize) -> String {
    format!("{PREFIX}{index:05}{SUFFIX}")
}

/// The number of the shard named `file`; `None` if no shard has that name.
pub(crate) fn number(file: &str) -> Option<usize> {
    let digits = file.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    digits.parse().ok().filter(|&number| name(number) == file)
}

/// A shard whose footer was read and found right.
#[derive(Clone, Debug)]
pub(crate) struct Shard {
    path: PathBuf,
    schema: StoreSchema,
    footer: ArrowReaderMetadata,
}

impl Shard {
    pub(crate) fn open(path: PathBuf) -> Result<Self, StoreError> {
        let file = File::open(&path).map_err(StoreError::io(&path))?;
        let footer = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())
            .map_err(|e| StoreError::damaged(&path, e))?;
        let schema = StoreSchema::of_shard(&path, footer.schema())?;
        Ok(Self { path, schema, footer })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn schema(&self) -> &StoreSchema {
        &self.schema
    }

    pub(crate) fn tokens(&self) -> u64 {
        (0..self.row_groups()).map(|group| self.group_tokens(group) as u64).sum()
    }

    pub(crate) fn row_groups(&self) -> usize {
        self.footer.metadata().num_row_groups()
    }

    pub(crate) fn group_tokens(&self, group: usize) -> usize {
        usize::try_from(self.footer.metadata().row_group(group).num_rows()).unwrap_or(0)
    }

    /// Reads a row group: the tokens and the vectors of the columns.
    pub(crate) fn read(&self, group: usize, columns: Columns) -> Result<RowGroup, StoreError> {
        let mut rows = self.read_one(group, columns.first)?;
        if let Some(second) = columns.second {
            let [vectors, _] = self.read_one(group, second)?.vectors;
            rows.vectors[1] = vectors;
        }
        Ok(rows)
    }

    /// Reads a row group: the tokens and the vectors of `column`.
    fn read_one(&self, group: usize, column: HookColumn) -> Result<RowGroup, StoreError> {
        let damaged = |e: &dyn ToString| {
            StoreError::damaged(&self.path, format!("row group {group}: {}", e.to_string()))
        };
        let file = File::open(&self.path).map_err(StoreError::io(&self.path))?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.footer.clone());
        let name = column.hook.to_string();
        let root = |name: &str| builder.schema().index_of(name).map_err(|e| damaged(&e));
        let mut roots = vec![root(TOKEN_ID)?, root(DOCUMENT)?, root(POSITION)?];
        let plain = self.plain_pages(group, column, root(&name)?)?;
        let in_pages = plain.is_some();
        if !in_pages {
            roots.push(root(&name)?);
        }
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
        let n = self.group_tokens(group);
        let reader = builder
            .with_projection(mask)
            .with_row_groups(vec![group])
            .with_batch_size(n.max(1))
            .build()
            .map_err(|e| damaged(&e))?;
        let row_bytes = column.width * self.schema.dtype.bytes();
        let vectors = Vectors { pages: plain.unwrap_or_default(), row_bytes };
        let mut rows = RowGroup { tokens: Vec::with_capacity(n), vectors: [vectors, Vectors::default()] };
        for batch in reader {
            let batch = batch.map_err(|e| damaged(&e))?;
            rows.take_tokens(&batch).map_err(|e| damaged(&e))?;
            if !in_pages {
                rows.take_vectors(&batch, &name, column.width, &self.schema).map_err(|e| damaged(&e))?;
            }
        }
        if rows.tokens.len() != n {
            return Err(damaged(&format!("expected {n} rows, found {}", rows.tokens.len())));
        }
        Ok(rows)
    }

    /// The vectors of a row group as they lie in the pages of the column `root`, which saves copying them; `None` if
    /// they lie otherwise than plainly one after the other.
    fn plain_pages(
        &self,
        group: usize,
        column: HookColumn,
        root: usize,
    ) -> Result<Option<Vec<Buffer>>, StoreError> {
        let metadata = self.footer.metadata();
        let schema = metadata.file_metadata().schema_descr();
        let n = self.group_tokens(group);
        let row_bytes = column.width * self.schema.dtype.bytes();
        let Some(leaf) = (0..schema.num_columns()).find(|&leaf| {
            let column = schema.column(leaf);
            schema.get_column_root_idx(leaf) == root
                && column.physical_type() == Type::FIXED_LEN_BYTE_ARRAY
                && usize::try_from(column.type_length()) == Ok(row_bytes)
                && (column.max_def_level(), column.max_rep_level()) == (0, 0)
        }) else {
            return Ok(None);
        };
        let damaged = |e: ParquetError| StoreError::damaged(&self.path, format!("row group {group}: {e}"));
        let file = File::open(&self.path).map_err(StoreError::io(&self.path))?;
        let chunk = metadata.row_group(group).column(leaf);
        let mut pages = Vec::new();
        for page in SerializedPageReader::new(Arc::new(file), chunk, n, None).map_err(damaged)? {
            match page.map_err(damaged)? {
                Page::DataPage { buf, encoding: Encoding::PLAIN, .. }
                | Page::DataPageV2 { buf, encoding: Encoding::PLAIN, .. }
                    if buf.len() % row_bytes == 0 =>
                {
                    pages.push(Buffer::from(buf));
                }
                _ => return Ok(None),
            }
        }
        let found = pages.iter().map(Buffer::len).sum::<usize>();
        Ok((found == n * row_bytes).then_some(pages))
    }
}

impl RowGroup {
    fn take_tokens(&mut self, batch: &RecordBatch) -> Result<(), String> {
        let ids =
            column(batch, TOKEN_ID)?.as_primitive_opt::<UInt32Type>().ok_or_else(|| wrong_type(TOKEN_ID))?;
        let documents =
            column(batch, DOCUMENT)?.as_primitive_opt::<UInt64Type>().ok_or_else(|| wrong_type(DOCUMENT))?;
        let positions =
            column(batch, POSITION)?.as_primitive_opt::<UInt32Type>().ok_or_else(|| wrong_type(POSITION))?;
        let tokens = ids.values().iter().zip(positions.values()).zip(documents.values());
        self.tokens.extend(tokens.map(|((&id, &position), &document)| Token { id, position, document }));
        Ok(())
    }

    fn take_vectors(
        &mut self,
        batch: &RecordBatch,
        hook: &str,
        width: usize,
        schema: &StoreSchema,
    ) -> Result<(), String> {
        let bytes = vector_bytes(column(batch, hook)?, width).ok_or_else(|| wrong_type(hook))?;
        let expected = batch.num_rows() * width * schema.dtype.bytes();
        if bytes.len() != expected {
            return Err(format!("column `{hook}`: expected {expected} bytes, found {}", bytes.len()));
        }
        self.vectors[0].pages.push(bytes.clone());
        Ok(())
    }
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, String> {
    let column = batch.column_by_name(name).ok_or_else(|| format!("no column `{name}`"))?;
    if column.null_count() > 0 {
        return Err(format!("column `{name}` has nulls"));
    }
    Ok(column)
}

fn wrong_type(name: &str) -> String {
    format!("column `{name}` is not of the type that the footer says")
}

/// The numbers of a column of vectors of `width`, as they lie in memory; `None` if it is no such column.
fn vector_bytes(column: &ArrayRef, width: usize) -> Option<&Buffer> {
    let items = match column.data_type() {
        DataType::FixedSizeBinary(_) => return Some(column.as_fixed_size_binary().values()),
        DataType::FixedSizeList(_, _) => column.as_fixed_size_list().values(),
        DataType::List(_) => evenly(column.as_list::<i32>(), width)?,
        DataType::LargeList(_) => evenly(column.as_list::<i64>(), width)?,
        _ => return None,
    };
    if items.null_count() > 0 {
        return None;
    }
    let f32s = items.as_primitive_opt::<Float32Type>().map(|a| a.values().inner());
    f32s.or_else(|| items.as_primitive_opt::<Float16Type>().map(|a| a.values().inner()))
}

/// The items of lists that follow one another from 0 and are all of length `width`.
fn evenly<O: OffsetSizeTrait>(lists: &GenericListArray<O>, width: usize) -> Option<&ArrayRef> {
    let mut offsets = lists.value_offsets().iter().enumerate();
    let even = offsets.all(|(i, offset)| offset.as_usize() == i * width);
    even.then(|| lists.values())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_other_files() {
        assert_eq!(name(7), "shard-00007.parquet");
        assert_eq!((number(&name(0)), number(&name(123_456))), (Some(0), Some(123_456)));
        for other in [
            "shard-.parquet",
            "shard-1.parquet",
            "shard-000001.parquet",
            "shard-+0001.parquet",
            "shard-00001.parquet.bak",
            "my-shard-00001.parquet",
        ] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
