//! Parquet: a row is one document, in a column of strings. Read a row group at a time.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use arrow::{
    array::{Array, AsArray, LargeStringArray},
    compute::cast,
    datatypes::DataType,
};
use parquet::arrow::{
    ProjectionMask,
    arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
};

use super::{Fields, Format, Texts, open_file};
use crate::TextError;

pub(super) const FORMAT: Format =
    Format { name: "parquet", endings: &["parquet"], whole: false, open, text_bytes };

/// Rows decoded at once. Documents may be long, so few.
const BATCH_ROWS: usize = 256;

fn open(path: &Path, fields: &Fields) -> Result<Texts, TextError> {
    let (builder, leaf) = builder(path, &fields.parquet)?;
    let mask = ProjectionMask::leaves(builder.parquet_schema(), [leaf]);
    let reader = builder
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(|e| bad(path, format!("not readable as Parquet: {e}")))?;
    Ok(Box::new(Rows { path: path.to_owned(), reader, batch: LargeStringArray::new_null(0), next: 0 }))
}

fn text_bytes(path: &Path, fields: &Fields) -> Result<u64, TextError> {
    let (builder, leaf) = builder(path, &fields.parquet)?;
    let sizes = builder.metadata().row_groups().iter().map(|g| g.column(leaf).uncompressed_size());
    Ok(sizes.map(|size| size.max(0).unsigned_abs()).sum())
}

/// Reads the footer and finds the column of strings named `column`.
fn builder(path: &Path, column: &str) -> Result<(ParquetRecordBatchReaderBuilder<File>, usize), TextError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(open_file(path)?)
        .map_err(|e| bad(path, format!("not readable as Parquet: {e}")))?;
    let schema = builder.schema();
    let Some((_, field)) = schema.column_with_name(column) else {
        let found: Vec<_> = schema.fields().iter().map(|f| format!("`{}`", f.name())).collect();
        let found = found.join(", ");
        return Err(bad(path, format!("expected a column `{column}`, found {found}; name it with `column`")));
    };
    if !is_string(field.data_type()) {
        return Err(bad(path, format!("column `{column}`: expected strings, found {}", field.data_type())));
    }
    let columns = builder.parquet_schema().columns();
    let leaf = columns.iter().position(|c| c.path().parts() == [column]);
    let leaf = leaf.ok_or_else(|| bad(path, format!("column `{column}`: expected plain strings")))?;
    Ok((builder, leaf))
}

fn is_string(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_string(values),
        _ => false,
    }
}

struct Rows {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    batch: LargeStringArray,
    next: usize,
}

impl Rows {
    fn try_next(&mut self) -> Result<Option<String>, TextError> {
        while self.next == self.batch.len() {
            let Some(batch) = self.reader.next() else { return Ok(None) };
            let batch = batch.map_err(|e| bad(&self.path, format!("damaged: {e}")))?;
            let column = cast(batch.column(0), &DataType::LargeUtf8)
                .map_err(|e| bad(&self.path, format!("not readable as strings: {e}")))?;
            self.batch = column.as_string::<i64>().clone();
            self.next = 0;
        }
        let row = self.next;
        self.next += 1;
        // A null is an absent text.
        let text = if self.batch.is_null(row) { "" } else { self.batch.value(row) };
        Ok(Some(text.to_owned()))
    }
}

impl Iterator for Rows {
    type Item = Result<String, TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.try_next().transpose()
    }
}

fn bad(path: &Path, reason: String) -> TextError {
    TextError::BadParquet { file: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::{
        array::{ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray, StringViewArray},
        datatypes::Int32Type,
    };
    use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};
    use std::sync::Arc;

    fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap();
        // Several row groups and pages.
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(100)).build();
        let mut writer =
            ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    fn read(path: &Path, column: &str) -> Result<Vec<String>, String> {
        let fields = Fields { jsonl: "text".into(), parquet: column.into() };
        let texts = open(path, &fields).map_err(|e| e.to_string())?;
        texts.collect::<Result<_, _>>().map_err(|e: TextError| e.to_string())
    }

    #[test]
    fn every_string_type_and_row_group_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        let texts: Vec<String> = (0..700).map(|i| format!("document {}", i % 7)).collect();
        let strings = || texts.iter().map(String::as_str);
        let number: ArrayRef = Arc::new(Int32Array::from_iter_values(0..700));
        let arrays: [ArrayRef; 4] = [
            Arc::new(StringArray::from_iter_values(strings())),
            Arc::new(LargeStringArray::from_iter_values(strings())),
            Arc::new(StringViewArray::from_iter_values(strings())),
            Arc::new(strings().collect::<DictionaryArray<Int32Type>>()),
        ];
        for array in arrays {
            write(&path, vec![("n", number.clone()), ("body", array)]);
            assert_eq!(read(&path, "body").unwrap(), texts);
        }
        let nulls: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
        write(&path, vec![("body", nulls)]);
        assert_eq!(read(&path, "body").unwrap(), ["a", ""]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        write(&path, vec![("n", Arc::new(Int32Array::from(vec![1])) as ArrayRef)]);
        let missing = read(&path, "text").unwrap_err();
        assert!(missing.contains("a.parquet: expected a column `text`, found `n`"), "{missing}");
        let kind = read(&path, "n").unwrap_err();
        assert!(kind.contains("column `n`: expected strings, found Int32"), "{kind}");
        std::fs::write(&path, b"PAR1 nothing").unwrap();
        let damaged = read(&path, "text").unwrap_err();
        assert!(damaged.contains("a.parquet: not readable as Parquet"), "{damaged}");
    }
}
