//! Stories and their labels as files.

use std::{path::Path, sync::Arc};

use anyhow::Context;
use arrow::{
    array::{ArrayRef, StringBuilder, UInt32Array, UInt64Array},
    record_batch::RecordBatch,
};
use monosema_core::AtomicFile;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use serde::Serialize;

use crate::{
    factors::{Factor, Span},
    story::Story,
};

/// A line of a story file.
#[derive(Serialize)]
struct Line<'a> {
    id: u64,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    spans: Option<Vec<Span>>,
}

/// The line of story `id`: `{"id": …, "text": …, "spans": [[start, end, factor, value], …]}`, `start` and `end` in bytes,
/// which are characters here: stories are ASCII.
pub(crate) fn line(id: u64, story: &Story, with_spans: bool) -> String {
    let spans = with_spans.then(|| story.record.spans(story.text.len()));
    serde_json::to_string(&Line { id, text: &story.text, spans }).expect("strings and numbers serialise")
}

/// Writes the labels of every token of `stories` under `tokenizer` as Parquet: a row a token, with `document`,
/// `position` (of the token in its story, from 0), `token_id`, `start` and `end` (bytes of the story), and a column of
/// values for every factor, null while it is unknown. A token has the values that hold once it has been read.
///
/// # Errors
/// If a story cannot be tokenised or the file cannot be written.
pub(crate) fn write_token_labels(
    file: &Path,
    stories: &[Story],
    tokenizer: &tokenizers::Tokenizer,
) -> anyhow::Result<usize> {
    let (mut documents, mut positions, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    let mut values: Vec<StringBuilder> = Factor::ALL.iter().map(|_| StringBuilder::new()).collect();
    for (document, story) in stories.iter().enumerate() {
        let encoding = tokenizer.encode(story.text.as_str(), false).map_err(anyhow::Error::from_boxed)?;
        for (position, (&id, &(start, end))) in
            encoding.get_ids().iter().zip(encoding.get_offsets()).enumerate()
        {
            documents.push(document as u64);
            positions.push(position as u32);
            ids.push(id);
            starts.push(start as u32);
            ends.push(end as u32);
            for (factor, column) in Factor::ALL.into_iter().zip(&mut values) {
                column.append_option(story.record.value(factor, end).map(|v| factor.values()[v]));
            }
        }
    }
    let rows = ids.len();
    let mut columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("document", Arc::new(UInt64Array::from(documents)), false),
        ("position", Arc::new(UInt32Array::from(positions)), false),
        ("token_id", Arc::new(UInt32Array::from(ids)), false),
        ("start", Arc::new(UInt32Array::from(starts)), false),
        ("end", Arc::new(UInt32Array::from(ends)), false),
    ];
    for (factor, column) in Factor::ALL.into_iter().zip(&mut values) {
        columns.push((factor.name(), Arc::new(column.finish()), true));
    }
    let batch = RecordBatch::try_from_iter_with_nullable(columns)?;
    let compression = Compression::ZSTD(ZstdLevel::try_new(3)?);
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut out = AtomicFile::create(file).with_context(|| file.display().to_string())?;
    let mut writer = ArrowWriter::try_new(out.file_mut(), batch.schema(), Some(properties))?;
    writer.write(&batch)?;
    writer.close()?;
    out.commit().with_context(|| file.display().to_string())?;
    Ok(rows)
}
