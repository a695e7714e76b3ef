//! Stores in an object store: the same bytes, read by ranges. A directory plays its part, through the same code.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::{append, hook, work};
use monosema_core::{Manifest, Seed, Stage, digest_file};
use monosema_store::{
    Activations, Batch, BatchPlan, Compression, Layout, Order, Part, Place, Store, StoreError, StoreSchema,
    VectorDtype, Writer, WriterOptions, join,
};

/// Rows, documents of ten. Of `WIDTH` they take several pages in a row group.
const N: usize = 1230;

const WIDTH: usize = 900;

fn schema(layout: Layout, order: Order) -> StoreSchema {
    StoreSchema { order, ..common::schema(&[WIDTH, 3], VectorDtype::F32, layout) }
}

fn options(compression: Compression) -> WriterOptions {
    WriterOptions { shard_tokens: 500, row_group_tokens: 400, compression }
}

/// `directory` as an object store.
fn address(directory: &Path) -> PathBuf {
    PathBuf::from(format!("file://{}", directory.display()))
}

fn plan(order: Order, delivered: u64) -> BatchPlan {
    BatchPlan {
        hook: hook(0),
        hook_out: Some(hook(1)),
        batch_tokens: 64,
        buffer_tokens: if order == Order::Text { 200 } else { 64 },
        seed: Seed(3),
        tokens: 2 * N as u64,
        delivered,
    }
}

fn read(store: &Store, plan: BatchPlan) -> Vec<Batch> {
    store.batches(plan).collect::<Result<_, _>>().unwrap()
}

#[test]
fn a_store_elsewhere_is_the_same_store() {
    for (layout, order, compression) in [
        (Layout::Binary, Order::Shuffled, Compression::None),
        (Layout::Binary, Order::Shuffled, Compression::Zstd),
        (Layout::List, Order::Shuffled, Compression::None),
        (Layout::Binary, Order::Text, Compression::None),
        (Layout::List, Order::Text, Compression::Zstd),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (here, there) = (dir.path().join("here"), dir.path().join("there"));
        let (schema, options) = (schema(layout, order), options(compression));
        common::write(&here, &schema, options, N, 37);
        common::write(&address(&there), &schema, options, N, 37);
        let [here, there] = [here, address(&there)].map(|place| Store::open(&place).unwrap());
        assert_eq!(here.manifest().files, there.manifest().files);
        assert_eq!((here.digest(), here.tokens()), (there.digest(), there.tokens()));
        for delivered in [0, 640] {
            assert!(
                read(&here, plan(order, delivered)) == read(&there, plan(order, delivered)),
                "{layout:?} {order:?}"
            );
        }
        let all = |store: &Store| store.sequential(hook(0), 100).collect::<Result<Vec<_>, _>>().unwrap();
        assert!(all(&here) == all(&there));
        assert!(there.reading_bytes() > here.reading_bytes());
        there.manifest().verify(&Place::at(there.directory()).unwrap()).unwrap();
    }
}

#[test]
fn what_was_interrupted_elsewhere_goes_on_and_what_is_lost_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (schema, options) = (schema(Layout::Binary, Order::Shuffled), options(Compression::None));
    let whole = dir.path().join("whole");
    let shards = common::write(&whole, &schema, options, N, 37);
    let files = dir.path().join("there");
    let there = address(&files);
    let mut writer = Writer::create(&there, schema.clone(), options, &work(0)).unwrap();
    append(&mut writer, &schema, 0..600).unwrap();
    drop(writer);
    assert!(files.join(&shards[0]).exists() && !files.join(&shards[1]).exists());
    assert!(matches!(Store::open(&there), Err(StoreError::Manifest(_))), "no manifest, no store");
    let other = Writer::create(&there, schema.clone(), options, &work(1)).err().unwrap();
    assert!(matches!(other, StoreError::OtherWork { .. }), "{other}");

    let mut writer = Writer::create(&there, schema.clone(), options, &work(0)).unwrap();
    assert!(writer.stored().covers(0..500) && !writer.stored().covers(500..501));
    writer.skip(500);
    append(&mut writer, &schema, 500..N).unwrap();
    let written = writer.finish().unwrap();
    // Nothing is fetched for its digest that was just sent.
    assert_eq!(written.files.keys().collect::<Vec<_>>(), [&shards[1], &shards[2]]);
    for name in &shards {
        let digest = digest_file(&whole.join(name)).unwrap();
        assert_eq!(digest_file(&files.join(name)).unwrap(), digest);
        assert!(written.files.get(name).is_none_or(|file| file.sha256 == digest));
    }
    common::seal(&there, N as u64, &shards);
    let error = Writer::create(&there, schema.clone(), options, &work(0)).err().unwrap();
    assert!(matches!(error, StoreError::Sealed { .. }), "{error}");

    fs::remove_file(files.join(&shards[1])).unwrap();
    let error = Store::open(&there).unwrap_err().to_string();
    assert!(error.contains(&format!("{}/{}", there.display(), shards[1])), "{error}");
    let mut writer = Writer::create(&there, schema.clone(), options, &work(0)).unwrap();
    append(&mut writer, &schema, 0..N).unwrap();
    writer.finish().unwrap();
    Store::open(&there).unwrap();
    // Nothing stays of what was on its way.
    let left = fs::read_dir(&files).unwrap().count();
    assert_eq!(left, shards.len() + 1);
}

#[test]
fn damage_elsewhere_is_named_and_a_silent_store_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("there");
    let there = address(&files);
    let (schema, options) = (schema(Layout::Binary, Order::Shuffled), options(Compression::None));
    let shards = common::write(&there, &schema, options, N, 37);
    let store = Store::open(&there).unwrap();
    // Shortened after it was opened.
    let shard = files.join(&shards[2]);
    let bytes = fs::read(&shard).unwrap();
    fs::write(&shard, &bytes[..1000]).unwrap();
    let error = store.batches(plan(Order::Shuffled, 0)).find_map(Result::err).unwrap().to_string();
    assert!(error.contains(&shards[2]), "{error}");
    assert!(Store::open(&there).unwrap_err().to_string().contains("expected"));
    fs::remove_file(&shard).unwrap();
    let error = store.batches(plan(Order::Shuffled, 0)).find_map(Result::err).unwrap();
    assert!(matches!(&error, StoreError::Remote(_)), "{error}");
    assert!(error.to_string().contains(&format!("{}: not found", shards[2])), "{error}");
    let mut damaged = bytes.clone();
    damaged[5000] ^= 1;
    fs::write(&shard, damaged).unwrap();
    let place = Place::at(&there).unwrap();
    let error = Manifest::read(&place, Stage::Harvest).unwrap().verify(&place).unwrap_err().to_string();
    assert!(error.contains(&shards[2]) && error.contains("expected sha256"), "{error}");
}

#[test]
fn parts_elsewhere_are_joined() {
    let dir = tempfile::tempdir().unwrap();
    let (schema, options) = (schema(Layout::Binary, Order::Shuffled), options(Compression::None));
    common::write(&dir.path().join("whole"), &schema, options, N, 37);
    let whole = Store::open(&dir.path().join("whole")).unwrap();
    let there = address(&dir.path().join("there"));
    assert!(join(&there, work(0)).unwrap_err().to_string().contains("found none"));
    for part in Part::all(2) {
        let mut work = work(0);
        work.config["part"] = serde_json::json!(part);
        let place = there.join(part.directory());
        let mut writer = Writer::create(&place, schema.clone(), options, &work).unwrap();
        for document in (0..N / 10).filter(|&document| part.takes(document as u64)) {
            append(&mut writer, &schema, 10 * document..10 * document + 10).unwrap();
        }
        let written = writer.finish().unwrap();
        let counts = [("tokens".to_owned(), written.tokens)].into();
        let manifest = Manifest { files: written.files, ..Manifest::new(work, "cpu") };
        manifest.seal(&Place::at(&place).unwrap(), counts, &written.shards).unwrap();
        let open = Store::open(&there).unwrap_err().to_string();
        assert!(open.contains("of 2), not joined"), "{open}");
    }
    join(&there, work(0)).unwrap();
    let joined = Store::open(&there).unwrap();
    assert!(read(&joined, plan(Order::Shuffled, 0)) == read(&whole, plan(Order::Shuffled, 0)));
}
