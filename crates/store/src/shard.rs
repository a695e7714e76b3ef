//! One shard: its name, its footer, and where its columns are.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use monosema_core::Files;
use monosema_remote::RemoteFile;

use arrow::{
    array::{Array, ArrayRef, AsArray, GenericListArray, OffsetSizeTrait, RecordBatch},
    buffer::Buffer,
    datatypes::{DataType, Float16Type, Float32Type, UInt32Type, UInt64Type},
};
use parquet::{
    arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions},
    basic::Compression,
    errors::ParquetError,
    file::{reader::ChunkReader, statistics::Statistics},
};

use crate::{
    DOCUMENT, HookColumn, Layout, ORDER, POSITION, StoreError, StoreSchema, TOKEN_ID,
    batches::Columns,
    place::Place,
    row_group::{RowGroup, Token, Vectors},
    schema::WORK_KEY,
    shard_bytes::ShardBytes,
    values::Values,
};

const PREFIX: &str = "shard-";
const SUFFIX: &str = ".parquet";

/// Shards of which something is on its way at once, where many are begun.
pub(crate) const BEGUN: usize = 64;

/// The ids of a row group, and some vectors.
const BEGINNING_BYTES: u64 = 1 << 18;

/// The name of the shard numbered `index`, from 0.
pub(crate) fn name(index: usize) -> String {
    format!("{PREFIX}{index:05}{SUFFIX}")
}

/// The number of the shard named `file`; `None` if no shard has that name.
pub fn number(file: &str) -> Option<usize> {
    let digits = file.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
    digits.parse().ok().filter(|&number| name(number) == file)
}

/// A shard whose footer was read and found right.
#[derive(Debug)]
pub(crate) struct Shard {
    path: PathBuf,
    bytes: u64,
    schema: StoreSchema,
    footer: ArrowReaderMetadata,
    /// Mapped when it is needed first, if it is not elsewhere.
    contents: OnceLock<ShardBytes>,
    /// The vectors of other hooks of the same rows, where every hook has files of its own.
    siblings: Vec<Arc<Shard>>,
}

/// A column of a shard.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// Its place among the columns.
    pub(crate) root: usize,
    /// Bytes of a value.
    pub(crate) bytes: usize,
    /// Numbers in a vector; `None` for a column of ids.
    width: Option<usize>,
}

impl Shard {
    /// The shard `name` in `place`.
    pub(crate) fn open(place: &Place, name: &str) -> Result<Self, StoreError> {
        match place.remote(name)? {
            Some(file) => Self::elsewhere(place.locate(name), file),
            None => {
                let path = place.locate(name);
                let bytes = fs::metadata(&path).map_err(StoreError::io(&path))?.len();
                let file = File::open(&path).map_err(StoreError::io(&path))?;
                Self::with_footer(path, bytes, &file, OnceLock::new())
            }
        }
    }

    /// The shards of these names, in their order.
    pub(crate) fn open_all(place: &Place, names: &[&String]) -> Result<Vec<Self>, StoreError> {
        let mut shards = Vec::new();
        for some in names.chunks(BEGUN) {
            let files: Vec<_> = some.iter().map(|name| place.remote(name)).collect::<Result<_, _>>()?;
            files.iter().flatten().try_for_each(RemoteFile::begin_end)?;
            for (name, file) in some.iter().zip(files) {
                shards.push(match file {
                    Some(file) => Self::elsewhere(place.locate(name), file)?,
                    None => Self::open(place, name)?,
                });
            }
        }
        Ok(shards)
    }

    fn elsewhere(path: PathBuf, file: RemoteFile) -> Result<Self, StoreError> {
        let (bytes, contents) = (file.bytes(), ShardBytes::Elsewhere(file));
        Self::with_footer(path, bytes, &contents.clone(), contents.into())
    }

    fn with_footer(
        path: PathBuf,
        bytes: u64,
        reader: &impl ChunkReader,
        contents: OnceLock<ShardBytes>,
    ) -> Result<Self, StoreError> {
        let footer = ArrowReaderMetadata::load(reader, ArrowReaderOptions::new())
            .map_err(|e| StoreError::reading(&path, e, |e| e.to_string()))?;
        let schema = StoreSchema::of_shard(&path, footer.schema())?;
        Ok(Self { path, bytes, schema, footer, contents, siblings: Vec::new() })
    }

    /// As one with others, which hold other hooks of the same rows.
    pub(crate) fn with(mut self, siblings: Vec<Self>) -> Result<Self, StoreError> {
        let cuts = |shard: &Self| (0..shard.row_groups()).map(|g| shard.group_tokens(g)).collect::<Vec<_>>();
        for sibling in siblings {
            if cuts(&sibling) != cuts(&self) {
                let reason = format!("its rows are not those of {}", self.path.display());
                return Err(StoreError::WrongShard { file: sibling.path, reason });
            }
            self.siblings.push(Arc::new(sibling));
        }
        Ok(self)
    }

    /// Whether siblings differ in nothing but their hooks.
    pub(crate) fn is_alike(&self) -> bool {
        let alike = |other: &Self| StoreSchema { hooks: self.schema.hooks.clone(), ..other.schema.clone() };
        self.siblings.iter().all(|sibling| alike(sibling) == self.schema)
    }

    /// All hooks of these rows.
    pub(crate) fn all_hooks(&self) -> Vec<HookColumn> {
        let siblings = self.siblings.iter().flat_map(|sibling| &sibling.schema.hooks);
        self.schema.hooks.iter().chain(siblings).copied().collect()
    }

    /// The sibling that holds the vectors of a hook, if it is not this one.
    pub(crate) fn sibling(&self, of: HookColumn) -> Option<&Arc<Self>> {
        self.siblings.iter().find(|sibling| sibling.schema.hooks.contains(&of))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn schema(&self) -> &StoreSchema {
        &self.schema
    }

    pub(crate) fn footer(&self) -> &ArrowReaderMetadata {
        &self.footer
    }

    /// The digest of the work that made it, as it says itself.
    pub(crate) fn work(&self) -> Option<&str> {
        self.footer.schema().metadata().get(WORK_KEY).map(String::as_str)
    }

    pub(crate) fn contents(&self) -> Result<&ShardBytes, StoreError> {
        if let Some(contents) = self.contents.get() {
            return Ok(contents);
        }
        let map = ShardBytes::map(&self.path, self.bytes)?;
        Ok(self.contents.get_or_init(|| map))
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

    /// An error of Parquet's reader in a row group.
    pub(crate) fn failed(&self, group: usize, e: ParquetError) -> StoreError {
        StoreError::reading(&self.path, e, |e| format!("row group {group}: {e}"))
    }

    /// An error of what is in a row group.
    pub(crate) fn damaged(&self, group: usize, e: &(impl ToString + ?Sized)) -> StoreError {
        StoreError::damaged(&self.path, format!("row group {group}: {}", e.to_string()))
    }

    fn column(&self, name: &str, bytes: usize, width: Option<usize>) -> Result<Column, StoreError> {
        let root = self.footer.schema().index_of(name).map_err(|e| StoreError::damaged(&self.path, e))?;
        Ok(Column { name: name.to_owned(), root, bytes, width })
    }

    pub(crate) fn token_ids(&self) -> Result<Column, StoreError> {
        self.column(TOKEN_ID, 4, None)
    }

    pub(crate) fn documents(&self) -> Result<Column, StoreError> {
        self.column(DOCUMENT, 8, None)
    }

    pub(crate) fn positions(&self) -> Result<Column, StoreError> {
        self.column(POSITION, 4, None)
    }

    pub(crate) fn order(&self) -> Result<Column, StoreError> {
        self.column(ORDER, 8, None)
    }

    pub(crate) fn vectors(&self, of: HookColumn) -> Result<Column, StoreError> {
        self.column(&of.hook.to_string(), of.width * self.schema.dtype.bytes(), Some(of.width))
    }

    /// Lets the rows from `row` on come, if they are elsewhere: it is where reading begins.
    pub(crate) fn begin(&self, mut row: usize) -> Result<(), StoreError> {
        let Some(ShardBytes::Elsewhere(file)) = self.contents.get() else { return Ok(()) };
        for (group, metadata) in self.footer.metadata().row_groups().iter().enumerate() {
            if row < self.group_tokens(group) {
                let starts = metadata.columns().iter().map(|chunk| chunk.byte_range().0);
                return Ok(file.begin_at(starts.min().unwrap_or(0), BEGINNING_BYTES)?);
            }
            row -= self.group_tokens(group);
        }
        Ok(())
    }

    /// Whether it is in an object store.
    pub(crate) fn is_elsewhere(&self) -> bool {
        matches!(self.contents.get(), Some(ShardBytes::Elsewhere(_)))
    }

    /// Whether vectors lie as they are, so that they need no decoding.
    pub(crate) fn is_plain(&self) -> bool {
        let metadata = self.footer.metadata();
        let mut chunks = metadata.row_groups().iter().flat_map(|group| group.columns());
        self.schema.layout == Layout::Binary
            && chunks.all(|c| c.compression() == Compression::UNCOMPRESSED)
            && self.siblings.iter().all(|sibling| sibling.is_plain())
    }

    /// The smallest and the largest key of a row group, if its statistics say so.
    pub(crate) fn stated_keys(&self, group: usize) -> Option<(u64, u64)> {
        let column = self.order().ok()?;
        let metadata = self.footer.metadata();
        let schema = metadata.file_metadata().schema_descr();
        let leaf = (0..schema.num_columns()).find(|&leaf| schema.get_column_root_idx(leaf) == column.root)?;
        match metadata.row_group(group).column(leaf).statistics()? {
            // Parquet has no unsigned numbers but in name.
            Statistics::Int64(keys) => Some((*keys.min_opt()? as u64, *keys.max_opt()? as u64)),
            _ => None,
        }
    }

    /// The smallest and the largest key of a row group, as its statistics say or, without any, the column itself.
    pub(crate) fn keys(&self, group: usize) -> Result<(u64, u64), StoreError> {
        if let Some(keys) = self.stated_keys(group) {
            return Ok(keys);
        }
        let keys = self.group_keys(group)?;
        Ok((keys.first().copied().unwrap_or(0), keys.last().copied().unwrap_or(0)))
    }

    /// The keys of a row group.
    pub(crate) fn group_keys(&self, group: usize) -> Result<Vec<u64>, StoreError> {
        let pages = Values::of_group(self, &self.order()?, group)?;
        Ok(pages.iter().flat_map(|page| page.as_chunks().0).map(|&key| u64::from_le_bytes(key)).collect())
    }

    /// The documents of the tokens of a row group.
    pub(crate) fn group_documents(&self, group: usize) -> Result<Vec<u64>, StoreError> {
        let pages = Values::of_group(self, &self.documents()?, group)?;
        Ok(pages.iter().flat_map(|page| page.as_chunks().0).map(|&n| u64::from_le_bytes(n)).collect())
    }

    /// Reads a row group: the tokens and the vectors of the columns.
    pub(crate) fn read(&self, group: usize, columns: Columns) -> Result<RowGroup, StoreError> {
        let ids = Values::of_group(self, &self.token_ids()?, group)?;
        let positions = Values::of_group(self, &self.positions()?, group)?;
        let documents = self.group_documents(group)?;
        let numbers = |pages: &[Buffer]| -> Vec<u32> {
            pages.iter().flat_map(|page| page.as_chunks().0).map(|&n| u32::from_le_bytes(n)).collect()
        };
        let ids = numbers(&ids).into_iter().zip(numbers(&positions)).zip(documents);
        let tokens = ids.map(|((id, position), document)| Token { id, position, document }).collect();
        let mut rows = RowGroup { tokens, ..RowGroup::default() };
        for (vectors, of) in rows.vectors.iter_mut().zip([Some(columns.first), columns.second]) {
            if let Some(of) = of {
                let shard = self.sibling(of).map_or(self, Arc::as_ref);
                let column = shard.vectors(of)?;
                *vectors =
                    Vectors { pages: Values::of_group(shard, &column, group)?, row_bytes: column.bytes };
            }
        }
        Ok(rows)
    }
}

/// The values of `column`, of which `batch` holds nothing else, one after the other.
pub(crate) fn column_bytes(batch: &RecordBatch, column: &Column) -> Result<Buffer, String> {
    let Column { name, bytes, width, .. } = column;
    let values = batch.column_by_name(name).ok_or_else(|| format!("no column `{name}`"))?;
    if values.null_count() > 0 {
        return Err(format!("column `{name}` has nulls"));
    }
    let buffer = match width {
        Some(width) => vector_bytes(values, *width),
        None => {
            let longs = values.as_primitive_opt::<UInt64Type>().map(|a| a.values().inner());
            longs.or_else(|| values.as_primitive_opt::<UInt32Type>().map(|a| a.values().inner()))
        }
    };
    let buffer = buffer.ok_or_else(|| format!("column `{name}` is not of the type that the footer says"))?;
    let expected = batch.num_rows() * bytes;
    if buffer.len() != expected {
        return Err(format!("column `{name}`: expected {expected} bytes, found {}", buffer.len()));
    }
    Ok(buffer.clone())
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
