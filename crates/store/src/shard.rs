//! One shard: its name, its footer, and row groups read from it.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use arrow::{
    array::{Array, ArrayRef, AsArray, GenericListArray, OffsetSizeTrait, RecordBatch},
    datatypes::{DataType, Float16Type, Float32Type, UInt32Type, UInt64Type},
};
use parquet::arrow::{
    ProjectionMask,
    arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
};

use crate::{DOCUMENT, HookColumn, POSITION, StoreError, StoreSchema, TOKEN_ID};

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

/// Tokens and their vectors of one hook, as bytes in the store's dtype.
#[derive(Debug, Default)]
pub(crate) struct RawRows {
    pub(crate) token_ids: Vec<u32>,
    pub(crate) documents: Vec<u64>,
    pub(crate) positions: Vec<u32>,
    pub(crate) vectors: Vec<u8>,
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

    /// Reads a row group: the ids and the vectors of `column`.
    pub(crate) fn read(&self, group: usize, column: HookColumn) -> Result<RawRows, StoreError> {
        let damaged = |e: &dyn ToString| {
            StoreError::damaged(&self.path, format!("row group {group}: {}", e.to_string()))
        };
        let file = File::open(&self.path).map_err(StoreError::io(&self.path))?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.footer.clone());
        let name = column.hook.to_string();
        let roots = [TOKEN_ID, DOCUMENT, POSITION, &name].map(|n| builder.schema().index_of(n));
        let roots: Result<Vec<usize>, _> = roots.into_iter().collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots.map_err(|e| damaged(&e))?);
        let n = self.group_tokens(group);
        let reader = builder
            .with_projection(mask)
            .with_row_groups(vec![group])
            .with_batch_size(n.max(1))
            .build()
            .map_err(|e| damaged(&e))?;
        let mut rows = RawRows::default();
        for batch in reader {
            rows.take(&batch.map_err(|e| damaged(&e))?, &name, column.width, &self.schema)
                .map_err(|e| damaged(&e))?;
        }
        if rows.token_ids.len() != n {
            return Err(damaged(&format!("expected {n} rows, found {}", rows.token_ids.len())));
        }
        Ok(rows)
    }
}

impl RawRows {
    fn take(
        &mut self,
        batch: &RecordBatch,
        hook: &str,
        width: usize,
        schema: &StoreSchema,
    ) -> Result<(), String> {
        let column = |name: &str| {
            let column = batch.column_by_name(name).ok_or_else(|| format!("no column `{name}`"))?;
            if column.null_count() > 0 {
                return Err(format!("column `{name}` has nulls"));
            }
            Ok(column)
        };
        let wrong = |name: &str| format!("column `{name}` is not of the type that the footer says");
        let ids = column(TOKEN_ID)?.as_primitive_opt::<UInt32Type>().ok_or_else(|| wrong(TOKEN_ID))?;
        let documents = column(DOCUMENT)?.as_primitive_opt::<UInt64Type>().ok_or_else(|| wrong(DOCUMENT))?;
        let positions = column(POSITION)?.as_primitive_opt::<UInt32Type>().ok_or_else(|| wrong(POSITION))?;
        let vectors = column(hook)?;
        let bytes = vector_bytes(vectors, width).ok_or_else(|| wrong(hook))?;
        let expected = batch.num_rows() * width * schema.dtype.bytes();
        if bytes.len() != expected {
            return Err(format!("column `{hook}`: expected {expected} bytes, found {}", bytes.len()));
        }
        self.token_ids.extend_from_slice(ids.values());
        self.documents.extend_from_slice(documents.values());
        self.positions.extend_from_slice(positions.values());
        self.vectors.extend_from_slice(bytes);
        Ok(())
    }
}

/// The numbers of a column of vectors of `width`, as they lie in memory; `None` if it is no such column.
fn vector_bytes(column: &ArrayRef, width: usize) -> Option<&[u8]> {
    let items = match column.data_type() {
        DataType::FixedSizeBinary(_) => return Some(column.as_fixed_size_binary().value_data()),
        DataType::FixedSizeList(_, _) => column.as_fixed_size_list().values(),
        DataType::List(_) => evenly(column.as_list::<i32>(), width)?,
        DataType::LargeList(_) => evenly(column.as_list::<i64>(), width)?,
        _ => return None,
    };
    if items.null_count() > 0 {
        return None;
    }
    let f32s = items.as_primitive_opt::<Float32Type>().map(|a| a.values().inner().as_slice());
    f32s.or_else(|| items.as_primitive_opt::<Float16Type>().map(|a| a.values().inner().as_slice()))
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
