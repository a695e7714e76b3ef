//! What is written is what is read, whatever the dtype, the layout and the way it is cut up.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, Float32Builder, ListBuilder, RecordBatch, UInt32Array, UInt64Array},
    datatypes::{DataType, Field, Schema},
};
use common::{hook, schema, store, tokens_of, vector, write};
use monosema_store::{Activations, Compression, Layout, Store, VectorDtype, WriterOptions};
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::Encoding,
    file::{
        metadata::KeyValue,
        properties::{WriterProperties, WriterVersion},
    },
};

#[test]
fn every_dtype_layout_and_cut() {
    let kinds = [
        (VectorDtype::F32, Layout::Binary),
        (VectorDtype::F16, Layout::Binary),
        (VectorDtype::BF16, Layout::Binary),
        (VectorDtype::F32, Layout::List),
        (VectorDtype::F16, Layout::List),
    ];
    // Tokens, tokens a part, a shard, a row group, a batch.
    let cuts = [(1, 1, 1, 1, 1), (257, 100, 64, 16, 10), (257, 3, 50, 64, 1000), (300, 300, 1 << 16, 7, 150)];
    for (dtype, layout) in kinds {
        for (n, part, shard_tokens, row_group_tokens, batch_tokens) in cuts {
            for compression in [Compression::None, Compression::Zstd] {
                let dir = tempfile::tempdir().unwrap();
                let schema = schema(&[5, 700], dtype, layout);
                let options = WriterOptions { shard_tokens, row_group_tokens, compression };
                let shards = write(dir.path(), &schema, options, n, part);
                assert_eq!(shards.len(), n.div_ceil(shard_tokens as usize));
                let store = Store::open(dir.path()).unwrap();
                assert_eq!((store.schema(), store.tokens()), (&schema, n as u64));
                store.verify().unwrap();
                for layer in 0..2 {
                    let batches: Vec<_> =
                        store.sequential(hook(layer), batch_tokens).collect::<Result<_, _>>().unwrap();
                    assert_eq!(batches.len(), n.div_ceil(batch_tokens));
                    let tokens: Vec<_> = batches.iter().flat_map(|b| tokens_of(b, layer)).collect();
                    assert_eq!(tokens, (0..n).collect::<Vec<_>>());
                }
            }
        }
    }
}

#[test]
fn shards_are_read_by_number_not_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let options = WriterOptions { shard_tokens: 10, ..Default::default() };
    let schema = schema(&[3], VectorDtype::F32, Layout::Binary);
    let shards = write(dir.path(), &schema, options, 20, 20);
    let late = ["shard-99999.parquet", "shard-100000.parquet"].map(String::from);
    for (from, to) in shards.iter().zip(&late) {
        fs::rename(dir.path().join(from), dir.path().join(to)).unwrap();
    }
    fs::remove_file(dir.path().join("manifest.json")).unwrap();
    common::seal(dir.path(), 20, &late);
    let batches = Store::open(dir.path()).unwrap().sequential(hook(0), 20);
    let tokens: Vec<_> = batches.flat_map(|batch| tokens_of(&batch.unwrap(), 0)).collect();
    assert_eq!(tokens, (0..20).collect::<Vec<_>>());
}

#[test]
fn f32_is_exact_and_16_bits_round_to_nearest() {
    for (dtype, relative) in
        [(VectorDtype::F32, 0.0), (VectorDtype::F16, 1.0 / 2048.0), (VectorDtype::BF16, 1.0 / 256.0)]
    {
        let dir = tempfile::tempdir().unwrap();
        let schema = schema(&[64], dtype, Layout::Binary);
        let values: Vec<f32> = (0..640).map(|i| (i as f32 * 0.7).sin() * 1234.5).collect();
        let mut writer =
            monosema_store::Writer::create(dir.path(), schema, WriterOptions::default(), &common::work(0))
                .unwrap();
        let rows = monosema_store::Rows {
            token_ids: &[1; 10],
            documents: &[u64::MAX; 10],
            positions: &[u32::MAX; 10],
            places: &[0; 10],
            vectors: &[&values],
        };
        writer.append(rows).unwrap();
        common::seal(dir.path(), 10, &writer.finish().unwrap().shards);
        let batch = Store::open(dir.path()).unwrap().sequential(hook(0), 10).next().unwrap().unwrap();
        assert_eq!((batch.documents[9], batch.positions[9]), (u64::MAX, u32::MAX));
        for (back, value) in batch.x.iter().zip(&values) {
            assert!((back - value).abs() <= value.abs() * relative, "{dtype}: {value} became {back}");
        }
    }
}

#[test]
fn a_shard_says_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path(), 250);
    let file = File::open(dir.path().join("shard-00002.parquet")).unwrap();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    assert_eq!(builder.metadata().file_metadata().num_rows(), 50);
    // 250 tokens in shards of 100 and row groups of 16: the last shard holds 16 + 16 + 16 + 2.
    assert_eq!(builder.metadata().num_row_groups(), 4);
    let metadata = builder.schema().metadata();
    for (key, value) in [
        ("monosema.version", "2"),
        ("monosema.dtype", "f32"),
        ("monosema.layout", "binary"),
        ("monosema.order", "text"),
        ("monosema.work", &common::work(0).digest().to_string()),
        ("monosema.hooks", r#"[{"hook":"blocks.0.hook_resid_post","width":3}]"#),
    ] {
        assert_eq!(metadata.get(key).map(String::as_str), Some(value));
    }
    let column = builder.metadata().row_group(0).column(3);
    let encodings: Vec<_> = column.encodings().map(|e| e.to_string()).collect();
    assert!(!encodings.iter().any(|e| e.contains("DICTIONARY")), "{encodings:?}");
}

/// Other programs write ordinary lists, nullable columns, and columns in another order; this one of version 1, too.
#[test]
fn shards_that_other_programs_rewrote_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (n, width) = (20, 4);
    rewritten(&dir.path().join("shard-00000.parquet"), n, width, |_| width);
    common::seal(dir.path(), n as u64, &["shard-00000.parquet".to_owned()]);
    let store = Store::open(dir.path()).unwrap();
    let batch = store.sequential(hook(0), n).next().unwrap().unwrap();
    assert_eq!(tokens_of(&batch, 0), (0..n).collect::<Vec<_>>());
}

/// Pages are taken as they lie in the file only where that is what they say: not from a dictionary, nor with room for nulls.
#[test]
fn binary_shards_that_other_programs_rewrote_are_read() {
    for (nullable, dictionary) in [(false, false), (false, true), (true, false), (true, true)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shard-00000.parquet");
        let schema = schema(&[4], VectorDtype::F32, Layout::Binary);
        write(dir.path(), &schema, WriterOptions::default(), 300, 300);
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
        let metadata = reader.schema().metadata().clone();
        let batches: Vec<_> = reader.with_batch_size(7).build().unwrap().map(Result::unwrap).collect();
        let fields = batches[0]
            .schema()
            .fields()
            .iter()
            .map(|f| f.as_ref().clone().with_nullable(nullable))
            .collect::<Vec<_>>();
        let arrow = Arc::new(Schema::new_with_metadata(fields, metadata));
        let options = WriterProperties::builder()
            .set_dictionary_enabled(dictionary)
            .set_data_page_row_count_limit(50)
            .set_write_batch_size(10)
            .set_writer_version(if nullable {
                WriterVersion::PARQUET_2_0
            } else {
                WriterVersion::PARQUET_1_0
            })
            .set_encoding(Encoding::PLAIN);
        let mut writer =
            ArrowWriter::try_new(File::create(&path).unwrap(), arrow.clone(), Some(options.build())).unwrap();
        for batch in batches {
            writer.write(&RecordBatch::try_new(arrow.clone(), batch.columns().to_vec()).unwrap()).unwrap();
        }
        writer.close().unwrap();
        common::seal(dir.path(), 300, &["shard-00000.parquet".to_owned()]);
        let store = Store::open(dir.path()).unwrap();
        let batch = store.sequential(hook(0), 300).next().unwrap().unwrap();
        assert_eq!(
            tokens_of(&batch, 0),
            (0..300).collect::<Vec<_>>(),
            "nullable {nullable}, dictionary {dictionary}"
        );
    }
}

#[test]
fn lists_of_uneven_length_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    // The total is right, the rows are not.
    rewritten(&dir.path().join("shard-00000.parquet"), 20, 4, |i| match i {
        3 => 5,
        4 => 3,
        _ => 4,
    });
    common::seal(dir.path(), 20, &["shard-00000.parquet".to_owned()]);
    let store = Store::open(dir.path()).unwrap();
    let error = store.sequential(hook(0), 20).next().unwrap().unwrap_err().to_string();
    assert!(error.contains("shard-00000.parquet") && error.contains("blocks.0.hook_resid_post"), "{error}");
}

fn rewritten(path: &Path, n: usize, width: usize, length: impl Fn(usize) -> usize) {
    let mut lists = ListBuilder::new(Float32Builder::new());
    for i in 0..n {
        let values = vector(i, 0, width).into_iter().chain([0.0; 3]).take(length(i));
        lists.append_value(values.map(Some));
    }
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    let fields = vec![
        Field::new("blocks.0.hook_resid_post", DataType::List(item), true),
        Field::new("position", DataType::UInt32, true),
        Field::new("document", DataType::UInt64, true),
        Field::new("token_id", DataType::UInt32, true),
        Field::new("note", DataType::UInt32, true),
    ];
    let ids = || 0..n as u32;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(lists.finish()),
        Arc::new(ids().map(|i| i % 10).collect::<UInt32Array>()),
        Arc::new(ids().map(|i| u64::from(i / 10)).collect::<UInt64Array>()),
        Arc::new(ids().collect::<UInt32Array>()),
        Arc::new(ids().collect::<UInt32Array>()),
    ];
    let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    let hooks = format!(r#"[{{"hook":"blocks.0.hook_resid_post","width":{width}}}]"#);
    for (key, value) in [
        ("monosema.version", "1"),
        ("monosema.dtype", "f32"),
        ("monosema.layout", "list"),
        ("monosema.hooks", &hooks),
    ] {
        writer.append_key_value_metadata(KeyValue::new(key.to_owned(), value.to_owned()));
    }
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}
