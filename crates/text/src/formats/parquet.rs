//! Parquet: a row is one document, in a column of strings. Read some rows at a time.
//!
//! The bytes are taken as they are stored, without Arrow, which would refuse a file for one invalid sequence and not say
//! where it is.

use std::{
    collections::VecDeque,
    fs::File,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
};

use parquet::{
    basic::{ConvertedType, LogicalType, Type},
    column::reader::ColumnReader,
    data_type::ByteArray,
    errors::ParquetError,
    file::reader::{FileReader, SerializedFileReader},
    schema::types::ColumnDescriptor,
};

use super::{Format, MOST_BYTES, Settings, Text, Texts, sniff::open_parquet, utf8::decode};
use crate::TextError;

pub(super) const FORMAT: Format =
    Format { name: "parquet", endings: &["parquet"], whole: false, open, text_bytes };

/// Rows read at once. Documents may be long, so few.
const BATCH_ROWS: usize = 256;

fn open(path: &Path, settings: &Settings) -> Result<Texts, TextError> {
    let (file, leaf) = open_column(path, &settings.column)?;
    Ok(Box::new(Rows {
        path: path.to_owned(),
        settings: settings.clone(),
        file,
        leaf,
        next_group: 0,
        column: None,
        rows: VecDeque::new(),
        row: 0,
    }))
}

fn text_bytes(path: &Path, settings: &Settings) -> Result<u64, TextError> {
    let (file, leaf) = open_column(path, &settings.column)?;
    let sizes = file.metadata().row_groups().iter().map(|g| g.column(leaf).uncompressed_size());
    Ok(sizes.map(|size| size.max(0).unsigned_abs()).fold(0, u64::saturating_add))
}

/// Reads the footer and finds the column of strings named `column`.
fn open_column(path: &Path, column: &str) -> Result<(SerializedFileReader<File>, usize), TextError> {
    let file = open_parquet(path)?;
    let file = guarded(|| SerializedFileReader::new(file)).map_err(|e| damaged(path, &e))?;
    let schema = file.metadata().file_metadata().schema_descr();
    let fields = schema.root_schema().get_fields();
    if !fields.iter().any(|field| field.name() == column) {
        let found: Vec<_> = fields.iter().map(|field| format!("`{}`", field.name())).collect();
        let found = found.join(", ");
        return Err(bad(path, format!("expected a column `{column}`, found {found}; name it with `column`")));
    }
    let leaf = schema.columns().iter().position(|c| c.path().parts() == [column]);
    let Some(leaf) = leaf.filter(|&leaf| schema.column(leaf).max_rep_level() == 0) else {
        return Err(bad(
            path,
            format!("column `{column}`: expected one string a row, found lists or groups"),
        ));
    };
    let found = schema.column(leaf);
    if !is_string(&found) {
        let found = found.physical_type();
        return Err(bad(path, format!("column `{column}`: expected strings, found {found}")));
    }
    Ok((file, leaf))
}

fn is_string(column: &ColumnDescriptor) -> bool {
    let logical = matches!(column.logical_type_ref(), Some(LogicalType::String | LogicalType::Json));
    let converted = matches!(column.converted_type(), ConvertedType::UTF8 | ConvertedType::JSON);
    column.physical_type() == Type::BYTE_ARRAY && (logical || converted)
}

struct Rows {
    path: PathBuf,
    settings: Settings,
    file: SerializedFileReader<File>,
    leaf: usize,
    next_group: usize,
    /// Of the row group that is being read.
    column: Option<ColumnReader>,
    /// Read, and not yet handed out. A null is an absent text.
    rows: VecDeque<Option<ByteArray>>,
    /// The number of the next one, from 0.
    row: u64,
}

impl Rows {
    /// No row may be lost.
    fn check_rows(&self) -> Result<(), TextError> {
        let (found, expected) = (self.row, self.file.metadata().file_metadata().num_rows());
        if i64::try_from(found) == Ok(expected) {
            return Ok(());
        }
        let error = ParquetError::General(format!("expected {expected} rows, found {found}"));
        Err(damaged(&self.path, &error))
    }

    fn try_next(&mut self) -> Result<Option<Text>, TextError> {
        while self.rows.is_empty() {
            let Some(column) = &mut self.column else {
                if self.next_group == self.file.num_row_groups() {
                    return self.check_rows().map(|()| None);
                }
                let column =
                    guarded(|| self.file.get_row_group(self.next_group)?.get_column_reader(self.leaf));
                self.column = Some(column.map_err(|e| damaged(&self.path, &e))?);
                self.next_group += 1;
                continue;
            };
            self.rows = read(column).map_err(|e| damaged(&self.path, &e))?;
            if self.rows.is_empty() {
                self.column = None;
            }
        }
        let row = self.row;
        self.row += 1;
        let Some(Some(bytes)) = self.rows.pop_front() else { return Ok(Some(Text::default())) };
        let bytes = bytes.data();
        if bytes.len() as u64 > MOST_BYTES {
            let found = bytes.len();
            return Err(bad(
                &self.path,
                format!(
                    "row {row}: expected at most {MOST_BYTES} bytes, found {found}: a row is one document; cut it into \
                     several"
                ),
            ));
        }
        let place = |offset| format!("byte {offset} of row {row} (from 0)");
        decode(bytes.to_vec(), &self.path, &self.settings, place).map(Some)
    }
}

/// What `read` returns. The parquet crate goes by what a file says of itself, and panics where that is not so; nothing that was
/// being read then is used again.
fn guarded<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    panic::catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err(ParquetError::General("something in it is not what it says".into())))
}

/// The next rows of a column; none at its end.
fn read(column: &mut ColumnReader) -> Result<VecDeque<Option<ByteArray>>, ParquetError> {
    let ColumnReader::ByteArrayColumnReader(column) = column else {
        return Err(ParquetError::General("a row group has another type than the file".into()));
    };
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let records = || column.read_records(BATCH_ROWS, Some(&mut levels), None, &mut values);
    let (n, ..) = guarded(records)?;
    if levels.is_empty() {
        return Ok(values.into_iter().map(Some).collect());
    }
    // A level of 1 is a value, and 0 a null.
    let mut values = values.into_iter();
    Ok(levels.into_iter().take(n).map(|level| if level > 0 { values.next() } else { None }).collect())
}

impl Iterator for Rows {
    type Item = Result<Text, TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.try_next().transpose()
    }
}

fn damaged(path: &Path, error: &ParquetError) -> TextError {
    bad(path, format!("not Parquet, or damaged or cut short: {error}; write or fetch it again"))
}

fn bad(path: &Path, reason: String) -> TextError {
    TextError::BadParquet { file: path.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::{
        array::{
            ArrayRef, BinaryArray, DictionaryArray, Int32Array, LargeStringArray, ListArray, RecordBatch,
            StringArray, StringViewArray,
        },
        datatypes::Int32Type,
    };
    use parquet::{
        arrow::ArrowWriter,
        data_type::ByteArrayType,
        file::{properties::WriterProperties, writer::SerializedFileWriter},
        schema::parser::parse_message_type,
    };
    use std::sync::Arc;

    use crate::{Flaws, InvalidUtf8, formats::settings};

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

    fn read_as(path: &Path, column: &str, policy: InvalidUtf8) -> Result<Vec<Text>, String> {
        let texts = open(path, &settings(column, policy)).map_err(|e| e.to_string())?;
        texts.collect::<Result<_, _>>().map_err(|e: TextError| e.to_string())
    }

    fn read(path: &Path, column: &str) -> Result<Vec<String>, String> {
        let texts = read_as(path, column, InvalidUtf8::Error)?;
        Ok(texts.into_iter().map(|text| text.text).collect())
    }

    /// Strings as they are, valid or not.
    fn write_bytes(path: &Path, rows: &[&[u8]]) {
        let schema = parse_message_type("message m { required binary text (UTF8); }").unwrap();
        let mut writer =
            SerializedFileWriter::new(File::create(path).unwrap(), Arc::new(schema), Arc::default()).unwrap();
        for rows in rows.chunks(2) {
            let mut group = writer.next_row_group().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            let values: Vec<_> = rows.iter().map(|row| ByteArray::from(row.to_vec())).collect();
            column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
            column.close().unwrap();
            group.close().unwrap();
        }
        writer.close().unwrap();
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
        let nulls: ArrayRef =
            Arc::new((0..700).map(|i| (i % 3 != 1).then_some("a")).collect::<StringArray>());
        write(&path, vec![("body", nulls)]);
        let expected: Vec<_> = (0..700).map(|i| if i % 3 == 1 { "" } else { "a" }).collect();
        assert_eq!(read(&path, "body").unwrap(), expected);
        write_bytes(&path, &[b"a", b"", b"b"]);
        assert_eq!(read(&path, "text").unwrap(), ["a", "", "b"]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)])]);
        write(
            &path,
            vec![
                ("n", Arc::new(Int32Array::from(vec![1])) as ArrayRef),
                ("image", Arc::new(BinaryArray::from_iter_values([b"\xff"]))),
                ("lists", Arc::new(lists)),
            ],
        );
        let error = |column| read(&path, column).unwrap_err();
        let missing = error("text");
        assert!(missing.contains("a.parquet: expected a column `text`, found `n`, `image`"), "{missing}");
        assert!(error("n").contains("column `n`: expected strings, found INT32"), "{}", error("n"));
        assert!(error("image").contains("column `image`: expected strings, found BYTE_ARRAY"));
        assert!(error("lists").contains("column `lists`: expected one string a row"));
    }

    #[test]
    fn invalid_utf8_is_located_or_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        // One ends within a character and the next begins within one: together they would be valid.
        write_bytes(&path, &[b"fine", b"caf\xc3", b"\xa9 \0", b"fine"]);
        let error = read(&path, "text").unwrap_err();
        assert!(error.contains("a.parquet: expected UTF-8") && error.contains("byte 3 of row 1 "), "{error}");
        let texts = read_as(&path, "text", InvalidUtf8::Replace).unwrap();
        let found: Vec<_> = texts.iter().map(|text| text.text.as_str()).collect();
        assert_eq!(found, ["fine", "caf\u{fffd}", "\u{fffd} \0", "fine"]);
        assert_eq!(texts[2].flaws, Flaws { invalid_utf8: 1, nul: 1 });
    }

    #[test]
    fn what_is_damaged_is_told_and_never_panics() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        let texts: Vec<String> = (0..300).map(|i| format!("document number {i}")).collect();
        let array: ArrayRef = Arc::new(StringArray::from_iter_values(&texts));
        write(&path, vec![("text", array)]);
        let whole = std::fs::read(&path).unwrap();
        for length in [0, 1, 4, 100, whole.len() / 2, whole.len() - 9, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = read(&path, "text").unwrap_err();
            assert!(error.contains("a.parquet: ") && error.contains("again"), "{length}: {error}");
        }
        std::fs::write(&path, "no such thing as a Parquet file").unwrap();
        let error = read(&path, "text").unwrap_err();
        assert!(error.contains("a.parquet: not Parquet, or damaged or cut short"), "{error}");
        // Changed bytes may give other texts, or an error.
        let mut told = 0;
        for place in (0..whole.len()).step_by(17) {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x55;
            std::fs::write(&path, bytes).unwrap();
            told += usize::from(read(&path, "text").is_err());
        }
        assert!(told > 20, "{told}");
    }
}
