//! Interrupted writers, damaged shards, numbers that cannot be stored: a clear error, and nothing lost.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs::{self, File},
    path::Path,
};

use common::{append, hook, schema, store, work};
use monosema_core::Seed;
use monosema_store::{
    Activations, BatchPlan, Layout, Order, Rows, Store, StoreError, StoreSchema, VectorDtype, Writer,
    WriterOptions,
};
use parquet::file::reader::{FileReader, SerializedFileReader};

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_interrupted_store_goes_on_and_a_finished_one_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let dir = dir.path().join("acts");
    for order in [Order::Text, Order::Shuffled] {
        let schema = StoreSchema { order, ..schema(&[3], VectorDtype::F32, Layout::Binary) };
        let options = WriterOptions { shard_tokens: 40, row_group_tokens: 10, ..Default::default() };
        let shards = common::write(&whole, &schema, options, 130, 7);
        let mut writer = Writer::create(&dir, schema.clone(), options, &work(0)).unwrap();
        append(&mut writer, &schema, 0..95).unwrap();
        drop(writer);
        // As if it had been killed while a shard was written; and others' files.
        fs::write(dir.join(".unfinished-1.tmp"), "half").unwrap();
        for kept in ["notes.txt", "shard-x.parquet"] {
            fs::write(dir.join(kept), "mine").unwrap();
        }
        fs::create_dir(dir.join("shard-00099.parquet")).unwrap();
        assert!(matches!(Store::open(&dir), Err(StoreError::Manifest(_))), "no manifest, no store");
        let other = Writer::create(&dir, schema.clone(), options, &work(1)).err().unwrap();
        assert!(matches!(other, StoreError::OtherWork { .. }), "{other}");
        assert!(dir.join(".unfinished-1.tmp").exists(), "who is refused touches nothing");

        // What is named like a shard and is none was cut short by the disk, or is anybody's: it is kept.
        let foreign = dir.join("shard-00042.parquet");
        for kept in ["shard-00042.parquet.damaged", "shard-00042.parquet.damaged-2"] {
            fs::write(&foreign, kept).unwrap();
            drop(Writer::create(&dir, schema.clone(), options, &work(0)).unwrap());
            assert!(!foreign.exists());
            assert_eq!(fs::read_to_string(dir.join(kept)).unwrap(), kept);
            fs::remove_file(dir.join(kept)).unwrap_or_default();
            fs::write(dir.join("shard-00042.parquet.damaged"), "another").unwrap();
        }
        fs::remove_file(dir.join("shard-00042.parquet.damaged")).unwrap();

        let mut writer = Writer::create(&dir, schema.clone(), options, &work(0)).unwrap();
        let stored = writer.stored().clone();
        assert!(stored.covers(0..80) && stored.covers(79..80) && stored.covers(80..80));
        assert!(!stored.covers(0..81) && !stored.covers(90..100));
        let modified = |name: &str| fs::metadata(dir.join(name)).unwrap().modified().unwrap();
        let before = modified("shard-00000.parquet");
        // Rows that are there may come again, or be passed by.
        append(&mut writer, &schema, 0..30).unwrap();
        writer.skip(45);
        append(&mut writer, &schema, 75..130).unwrap();
        assert_eq!(writer.finish().unwrap().shards, shards);
        assert_eq!(modified("shard-00000.parquet"), before);
        for name in &shards {
            assert!(
                fs::read(dir.join(name)).unwrap() == fs::read(whole.join(name)).unwrap(),
                "{order:?} {name}"
            );
        }
        common::seal(&dir, 130, &shards);
        let error = Writer::create(&dir, schema, options, &work(0)).err().unwrap();
        assert!(matches!(error, StoreError::Sealed { .. }), "{error}");
        let mut expected = shards.clone();
        expected.extend(
            ["manifest.json", "notes.txt", "shard-00099.parquet", "shard-x.parquet"].map(String::from),
        );
        expected.sort();
        assert_eq!(names(&dir), expected);
        fs::remove_dir_all(&dir).unwrap();
        fs::remove_dir_all(&whole).unwrap();
    }
}

#[test]
fn shards_that_a_sealed_store_lost_are_made_anew_and_must_be_what_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let schema = StoreSchema { order: Order::Shuffled, ..schema(&[3], VectorDtype::F32, Layout::Binary) };
    let options = WriterOptions { shard_tokens: 40, row_group_tokens: 10, ..Default::default() };
    let shards = common::write(dir, &schema, options, 130, 130);
    let read = || shards.iter().map(|name| fs::read(dir.join(name)).unwrap()).collect::<Vec<_>>();
    let (expected, manifest) = (read(), fs::read(dir.join("manifest.json")).unwrap());
    let lose = || {
        fs::remove_file(dir.join(&shards[1])).unwrap();
        File::options().write(true).open(dir.join(&shards[3])).unwrap().set_len(100).unwrap();
    };
    lose();
    assert!(Store::open(dir).unwrap_err().to_string().contains("run the harvest stage again"));
    let other = Writer::create(dir, schema.clone(), options, &work(1)).err().unwrap();
    assert!(matches!(other, StoreError::Sealed { .. }), "{other}");
    let mut writer = Writer::create(dir, schema.clone(), options, &work(0)).unwrap();
    assert!(writer.stored().covers(0..40) && !writer.stored().covers(39..41));
    append(&mut writer, &schema, 0..130).unwrap();
    writer.finish().unwrap();
    assert!(read() == expected && fs::read(dir.join("manifest.json")).unwrap() == manifest);
    Store::open(dir).unwrap().verify().unwrap();

    // Other numbers are refused, and so are fewer.
    lose();
    let mut writer = Writer::create(dir, schema.clone(), options, &work(0)).unwrap();
    append(&mut writer, &schema, 1..41).unwrap();
    let error = append(&mut writer, &schema, 0..130).and_then(|()| writer.finish().map(drop)).unwrap_err();
    writer_found_another(&error, &shards[1]);
    assert!(!dir.join(&shards[1]).exists());
    let mut writer = Writer::create(dir, schema.clone(), options, &work(0)).unwrap();
    append(&mut writer, &schema, 0..120).unwrap();
    let error = writer.finish().unwrap_err().to_string();
    assert!(error.contains("other work"), "{error}");
}

fn writer_found_another(error: &StoreError, name: &str) {
    let text = error.to_string();
    assert!(matches!(error, StoreError::NotTheSame { .. }) && text.contains(name), "{text}");
    assert!(text.contains("when it was made anew") && text.contains("--overwrite"), "{text}");
}

#[test]
fn a_dropped_writer_leaves_whole_shards_only() {
    let dir = tempfile::tempdir().unwrap();
    let schema = schema(&[3], VectorDtype::F32, Layout::Binary);
    let options = WriterOptions { shard_tokens: 40, row_group_tokens: 10, ..Default::default() };
    let mut writer = Writer::create(dir.path(), schema.clone(), options, &work(0)).unwrap();
    append(&mut writer, &schema, 0..95).unwrap();
    drop(writer);
    assert_eq!(names(dir.path()), ["shard-00000.parquet", "shard-00001.parquet"]);
}

#[test]
fn numbers_that_cannot_be_stored_are_located() {
    let dir = tempfile::tempdir().unwrap();
    let write = |dtype, value: f32| {
        let schema = schema(&[2, 4], dtype, Layout::Binary);
        let mut writer = Writer::create(dir.path(), schema, WriterOptions::default(), &work(0)).unwrap();
        let (small, mut large) = (vec![0.5; 6], vec![0.5; 12]);
        large[9] = value;
        let rows = Rows {
            token_ids: &[1, 2, 3],
            documents: &[7, 7, 8],
            positions: &[10, 11, 0],
            places: &[10, 11, 0],
            vectors: &[&small, &large],
        };
        writer.append(rows).map_err(|e| e.to_string())
    };
    let overflow = write(VectorDtype::F16, -70_000.0).unwrap_err();
    for part in
        ["blocks.1.hook_resid_post: found -70000 at position 0 of document 8", "f16 ends at 65504", "bf16"]
    {
        assert!(overflow.contains(part), "{part:?} is not in {overflow:?}");
    }
    write(VectorDtype::F16, 65504.0).unwrap();
    write(VectorDtype::BF16, -70_000.0).unwrap();
    assert!(write(VectorDtype::BF16, f32::MAX).unwrap_err().contains("dtype = \"f32\""));
    for (dtype, value) in [
        (VectorDtype::F32, f32::NAN),
        (VectorDtype::F16, f32::INFINITY),
        (VectorDtype::BF16, f32::NEG_INFINITY),
    ] {
        let error = write(dtype, value).unwrap_err();
        assert!(error.contains(&format!("found {value} at position 0 of document 8")), "{error}");
    }
}

#[test]
fn rows_must_match() {
    let dir = tempfile::tempdir().unwrap();
    let schema = schema(&[2], VectorDtype::F32, Layout::Binary);
    let mut writer = Writer::create(dir.path(), schema, WriterOptions::default(), &work(0)).unwrap();
    let ok: &[&[f32]] = &[&[1.0, 2.0]];
    let rows = Rows { token_ids: &[1], documents: &[1], positions: &[1], places: &[1], vectors: ok };
    writer.append(rows).unwrap();
    for (rows, message) in [
        (Rows { documents: &[], ..rows }, "document should hold 1 values, but holds 0"),
        (Rows { positions: &[1, 2], ..rows }, "position should hold 1 values, but holds 2"),
        (Rows { places: &[], ..rows }, "places should hold 1 values, but holds 0"),
        (Rows { vectors: &[], ..rows }, "vectors should hold 1 values, but holds 0"),
        (Rows { vectors: &[&[1.0]], ..rows }, "blocks.0.hook_resid_post should hold 2 values, but holds 1"),
    ] {
        let error = writer.append(rows).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_truncated_shard_is_named() {
    let dir = tempfile::tempdir().unwrap();
    store(dir.path(), 250);
    let path = dir.path().join("shard-00001.parquet");
    let bytes = fs::read(&path).unwrap();
    for length in [bytes.len() - 1, bytes.len() / 2, 0] {
        fs::write(&path, &bytes[..length]).unwrap();
        let error = Store::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("shard-00001.parquet: expected"), "{error}");
        // Even if the manifest did not know.
        let shards = [0, 1, 2].map(|i| format!("shard-0000{i}.parquet"));
        common::seal(dir.path(), 250, &shards);
        let error = Store::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("shard-00001.parquet: damaged, or not Parquet"), "{error}");
        fs::write(&path, &bytes).unwrap();
        common::seal(dir.path(), 250, &shards);
        assert_eq!(Store::open(dir.path()).unwrap().tokens(), 250);
    }
}

#[test]
fn a_shard_damaged_inside_is_found_when_read_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), 250);
    let path = dir.path().join("shard-00001.parquet");
    let whole = fs::read(&path).unwrap();
    let footer = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
    // The first page header of the ids, and that of the vectors.
    for column in [0, 3] {
        let start = footer.metadata().row_group(0).column(column).byte_range().0 as usize;
        let mut bytes = whole.clone();
        bytes[start..start + 12].fill(0xff);
        fs::write(&path, &bytes).unwrap();
        let opened = Store::open(dir.path()).unwrap();
        assert!(opened.verify().unwrap_err().to_string().contains("shard-00001.parquet: expected sha256"));
        let plan = BatchPlan {
            hook: hook(0),
            hook_out: None,
            batch_tokens: 10,
            buffer_tokens: 20,
            seed: Seed(0),
            tokens: 1000,
            delivered: 0,
        };
        for batches in [store.sequential(hook(0), 10), store.batches(plan)] {
            let results: Vec<_> = batches.collect();
            let (last, before) = results.split_last().unwrap();
            assert!(before.iter().all(Result::is_ok), "an error ends the stream");
            let error = last.as_ref().unwrap_err().to_string();
            assert!(error.contains("shard-00001.parquet: damaged, or not Parquet: row group 0"), "{error}");
        }
    }
}

#[test]
fn shards_of_another_store_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    store(dir.path(), 150);
    let options = WriterOptions { shard_tokens: 100, ..Default::default() };
    common::write(other.path(), &schema(&[4], VectorDtype::F32, Layout::Binary), options, 150, 150);
    let second = "shard-00001.parquet".to_owned();
    fs::copy(other.path().join(&second), dir.path().join(&second)).unwrap();
    let shards = ["shard-00000.parquet".to_owned(), second];
    common::seal(dir.path(), 150, &shards);
    let error = Store::open(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("shard-00001.parquet: its hooks, dtype, layout or order are not those of"),
        "{error}"
    );

    common::seal(dir.path(), 100, &[]);
    assert!(
        Store::open(dir.path())
            .unwrap_err()
            .to_string()
            .contains("expected shards of activations, found none")
    );
    common::seal(dir.path(), 99, &shards[..1]);
    let error = Store::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("expected 99 tokens, found 100 in the shards"), "{error}");
}
