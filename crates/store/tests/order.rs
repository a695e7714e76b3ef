//! Stores that are shuffled on disk: one random order of all rows, the same however they are cut into shards.

#![allow(clippy::unwrap_used)]

mod common;

use std::{fs, path::Path, sync::Arc};

use common::{hook, tokens_of};
use monosema_core::{Manifest, Seed};
use monosema_store::{
    Activations, Batch, BatchPlan, Compression, Layout, Order, Part, Store, StoreSchema, VectorDtype, Writer,
    WriterOptions, join, shuffled,
};

/// Rows, documents of ten.
const N: usize = 533;

fn schema() -> StoreSchema {
    StoreSchema { order: Order::Shuffled, ..common::schema(&[5, 3], VectorDtype::F16, Layout::Binary) }
}

fn options(shard_tokens: u64, row_group_tokens: u64) -> WriterOptions {
    WriterOptions { shard_tokens, row_group_tokens, ..WriterOptions::default() }
}

/// A sealed store of `n` rows in the order that `seed` draws.
fn store(dir: &Path, schema: &StoreSchema, options: WriterOptions, n: usize, seed: u64) -> Store {
    common::write_seeded(dir, schema, options, n, 37, seed);
    Store::open(dir).unwrap()
}

fn plan(batch_tokens: usize, seed: u64, tokens: u64) -> BatchPlan {
    BatchPlan {
        hook: hook(0),
        hook_out: Some(hook(1)),
        batch_tokens,
        buffer_tokens: batch_tokens,
        seed: Seed(seed),
        tokens,
        delivered: 0,
    }
}

fn read(store: &Store, plan: BatchPlan) -> Vec<Batch> {
    store.batches(plan).collect::<Result<_, _>>().unwrap()
}

fn tokens(batches: &[Batch]) -> Vec<usize> {
    batches.iter().flat_map(|batch| tokens_of(batch, 0)).collect()
}

#[test]
fn the_order_is_the_same_however_rows_are_cut_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let expected =
        read(&store(&dir.path().join("one"), &schema(), options(1 << 16, 4096), N, 0), plan(50, 3, 1200));
    assert_eq!(expected.len(), 24);
    assert!(tokens(&expected).windows(2).filter(|w| w[1] == w[0] + 1).count() < 20);
    for (name, shard_tokens, row_group_tokens) in [("a", 100, 16), ("b", 1, 1), ("c", 7, 3), ("d", 400, 1000)]
    {
        let store = store(&dir.path().join(name), &schema(), options(shard_tokens, row_group_tokens), N, 0);
        assert!(read(&store, plan(50, 3, 1200)) == expected, "shards of {shard_tokens}");
    }
    // Lists, and what is compressed, are decoded; the rows are the same.
    for (name, layout, compression) in [
        ("list", Layout::List, Compression::None),
        ("zstd", Layout::Binary, Compression::Zstd),
        ("both", Layout::List, Compression::Zstd),
    ] {
        let schema = StoreSchema { layout, ..schema() };
        let options = WriterOptions { compression, ..options(100, 16) };
        let store = store(&dir.path().join(name), &schema, options, N, 0);
        assert!(store.reading_bytes() > 0);
        assert!(read(&store, plan(50, 3, 1200)) == expected, "{name}");
    }
}

#[test]
fn every_row_comes_once_an_epoch_and_epochs_begin_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), &schema(), options(100, 16), N, 0);
    assert_eq!(store.reading_bytes(), 0);
    let all = tokens(&read(&store, plan(64, 1, 3 * N as u64)));
    let epochs: Vec<&[usize]> = all.chunks(N).collect();
    for epoch in &epochs {
        let mut sorted = epoch.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..N).collect::<Vec<_>>());
    }
    // One circle, entered at three places.
    let turned = |epoch: &[usize]| {
        let first = epoch.iter().position(|&token| token == 0).unwrap();
        [&epoch[first..], &epoch[..first]].concat()
    };
    assert_eq!(turned(epochs[0]), turned(epochs[1]));
    assert_eq!(turned(epochs[0]), turned(epochs[2]));
    assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2] && epochs[0] != epochs[2]);
    // Another training begins elsewhere on the same circle; another harvest's circle is another.
    let other = tokens(&read(&store, plan(64, 2, N as u64)));
    assert!(other != epochs[0] && turned(&other) == turned(epochs[0]));
    assert_eq!(tokens(&read(&store, plan(64, 1, 333))), all[..333]);
    let elsewhere = tempfile::tempdir().unwrap();
    let store = self::store(elsewhere.path(), &schema(), options(100, 16), N, 1);
    assert_ne!(turned(&tokens(&read(&store, plan(64, 1, N as u64)))), turned(epochs[0]));
}

#[test]
fn the_order_of_a_seed_stays_what_it_was() {
    // Stores outlive versions: an order may not change.
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), &schema(), options(100, 16), N, 0);
    assert_eq!(tokens(&read(&store, plan(8, 1, 8))), ORDER_OF_SEED_1);
}

/// The rows of the test above.
const ORDER_OF_SEED_1: [usize; 8] = [331, 95, 248, 491, 492, 159, 106, 412];

#[test]
fn a_stream_is_taken_up_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    for (name, schema) in [("binary", schema()), ("list", StoreSchema { layout: Layout::List, ..schema() })] {
        let store = store(&dir.path().join(name), &schema, options(64, 16), N, 0);
        let plan = plan(10, 1, 2 * N as u64 + 9);
        let whole = read(&store, plan);
        for done in 0..whole.len() {
            let rest = read(&store, BatchPlan { delivered: 10 * done as u64, ..plan });
            assert!(rest == whole[done..], "{name}, after {done} batches");
        }
    }
}

#[test]
fn sums_are_in_the_order_of_the_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), &schema(), options(100, 16), N, 0);
    let plan = plan(50, 1, N as u64);
    let visited = shuffled(Arc::new(store.clone()), plan, |x, y| {
        x.iter_mut().for_each(|x| *x *= 2.0);
        f64::from(x[0] + y[0])
    });
    for (batch, plain) in visited.zip(read(&store, plan)) {
        let batch = batch.unwrap();
        assert!(batch.x.iter().zip(&plain.x).all(|(x, plain)| *x == 2.0 * plain));
        let pairs = batch.x.chunks(5).zip(batch.y.chunks(3));
        assert_eq!(batch.sum, pairs.map(|(x, y)| f64::from(x[0] + y[0])).sum::<f64>());
        assert_eq!(batch.y, plain.y);
    }
}

#[test]
fn what_is_read_is_what_the_column_says() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), &schema(), options(100, 16), N, 0);
    let read = tokens(&read(&store, plan(64, 1, N as u64)));
    let circle = circle(&store);
    let first = circle.iter().position(|&row| row == read[0]).unwrap();
    assert_eq!(read, [&circle[first..], &circle[..first]].concat());
}

/// More rows than are sorted at once, in batches that are and that are not larger than the cache.
#[test]
fn many_rows_come_in_the_same_order() {
    let dir = tempfile::tempdir().unwrap();
    let n = 20_003;
    for (dtype, width) in [(VectorDtype::F32, 64), (VectorDtype::BF16, 64), (VectorDtype::F32, 63)] {
        let schema =
            StoreSchema { order: Order::Shuffled, ..common::schema(&[width, 4], dtype, Layout::Binary) };
        let dir = dir.path().join(format!("{dtype}-{width}"));
        let store = store(&dir, &schema, options(3000, 700), n, 0);
        let circle = circle(&store);
        let whole = tokens(&read(&store, plan(5000, 1, 2 * n as u64)));
        let turned = |first: usize| [&circle[first..], &circle[..first]].concat();
        for epoch in whole.chunks(n) {
            assert!(epoch == turned(circle.iter().position(|&row| row == epoch[0]).unwrap()));
        }
        assert!(tokens(&read(&store, plan(100, 1, 2 * n as u64))) == whole);
        for delivered in [100, 12_300, 20_000, 20_100, 39_900] {
            let rest = read(&store, BatchPlan { delivered, ..plan(100, 1, 2 * n as u64) });
            assert!(tokens(&rest) == whole[delivered as usize..], "after {delivered}");
        }
        let visited = shuffled(Arc::new(store), plan(5000, 1, n as u64), |x, y| {
            x.iter_mut().chain(y).for_each(|value| *value += 1.0);
            0.0
        });
        let visited: Vec<_> = visited.map(Result::unwrap).collect();
        let ids = visited.iter().flat_map(|batch| &batch.token_ids).map(|&id| id as usize);
        assert!(ids.eq(whole[..n].iter().copied()));
        for batch in &visited {
            for (row, x) in batch.x.chunks(width).enumerate() {
                let plain = common::vector(batch.token_ids[row] as usize, 0, width);
                assert!(x.iter().zip(plain).all(|(x, plain)| *x == plain + 1.0));
            }
        }
    }
}

/// Gives the rows of every shard other keys, as a program might that knows nothing of ours but how they are sorted.
fn with_keys(dir: &Path, key: impl Fn(u64) -> u64) -> Store {
    use arrow::{
        array::{ArrayRef, AsArray, UInt32Array, UInt64Array},
        compute::{concat_batches, take_record_batch},
        datatypes::{UInt32Type, UInt64Type},
    };
    use parquet::{
        arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
        file::properties::WriterProperties,
    };
    let store = Store::open(dir).unwrap();
    for name in store.manifest().files.keys() {
        let path = dir.join(name);
        let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(&path).unwrap()).unwrap();
        let schema = reader.schema().clone();
        let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
        let rows = concat_batches(&schema, &batches).unwrap();
        let ids = rows["token_id"].as_primitive::<UInt32Type>().values();
        let keys: Vec<u64> = ids.iter().map(|&id| key(id.into())).collect();
        let documents = rows["document"].as_primitive::<UInt64Type>().values();
        let positions = rows["position"].as_primitive::<UInt32Type>().values();
        let mut order: Vec<u32> = (0..keys.len() as u32).collect();
        order.sort_by_key(|&row| {
            let row = row as usize;
            (keys[row], documents[row], positions[row])
        });
        let mut columns = rows.columns().to_vec();
        columns[schema.index_of("order").unwrap()] = Arc::new(UInt64Array::from(keys)) as ArrayRef;
        let rows = arrow::array::RecordBatch::try_new(schema.clone(), columns).unwrap();
        let rows = take_record_batch(&rows, &UInt32Array::from(order)).unwrap();
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(16)).build();
        let mut writer =
            ArrowWriter::try_new(fs::File::create(&path).unwrap(), schema, Some(properties)).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
    }
    let names: Vec<_> = store.manifest().files.keys().cloned().collect();
    fs::remove_file(dir.join("manifest.json")).unwrap();
    common::seal(dir, store.tokens(), &names);
    Store::open(dir).unwrap()
}

#[test]
fn keys_of_other_programs_are_followed_whatever_they_are() {
    let n = 240_u64;
    type Key = fn(u64) -> u64;
    let keys: [(&str, Key); 6] = [
        ("few", |i| [0, 5, u64::MAX][(i * i % 7 % 3) as usize]),
        ("one", |_| 9),
        ("none left", |_| u64::MAX),
        ("small", |i| i * 77 % 240),
        ("one far off", |i| if i == 100 { u64::MAX } else { i * 77 % 240 }),
        ("uneven", |i| 1 << (i % 64)),
    ];
    for (name, key) in keys {
        let dir = tempfile::tempdir().unwrap();
        store(dir.path(), &schema(), options(50, 16), n as usize, 0);
        let store = with_keys(dir.path(), key);
        let mut expected: Vec<u64> = (0..n).collect();
        // Documents of ten, so that numbers tell documents and positions apart.
        expected.sort_by_key(|&i| (key(i), i));
        let whole = tokens(&read(&store, plan(1, 4, 2 * n)));
        for epoch in whole.chunks(n as usize) {
            let first = expected.iter().position(|&i| i as usize == epoch[0]).unwrap();
            let turned = expected[first..].iter().chain(&expected[..first]);
            assert!(epoch.iter().eq(turned.map(|&i| i as usize).collect::<Vec<_>>().iter()), "{name}");
        }
        for delivered in 0..2 * n {
            let one = BatchPlan { delivered, ..plan(1, 4, delivered + 1) };
            assert_eq!(tokens(&read(&store, one)), whole[delivered as usize..=delivered as usize], "{name}");
        }
    }
}

/// The rows of `store` in the order of their keys, read as other programs would.
fn circle(store: &Store) -> Vec<usize> {
    use arrow::{
        array::AsArray,
        datatypes::{UInt32Type, UInt64Type},
    };
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    let mut rows = Vec::new();
    for name in store.manifest().files.keys() {
        let file = fs::File::open(store.directory().join(name)).unwrap();
        let first = rows.len();
        for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
            let batch = batch.unwrap();
            let keys = batch["order"].as_primitive::<UInt64Type>().values().to_vec();
            let ids = batch["token_id"].as_primitive::<UInt32Type>().values().to_vec();
            rows.extend(keys.into_iter().zip(ids));
        }
        assert!(rows[first..].is_sorted(), "each shard is sorted");
    }
    rows.sort_unstable();
    rows.into_iter().map(|(_, id)| id as usize).collect()
}

#[test]
fn batches_hold_no_more_of_a_document_than_chance() {
    let dir = tempfile::tempdir().unwrap();
    let n = 20_000;
    let shuffled = store(&dir.path().join("shuffled"), &schema(), options(3000, 500), n, 0);
    let quality = shuffled.quality().unwrap().unwrap();
    assert_eq!((quality.batch_tokens, quality.batches), (1250, 16));
    // Documents of ten.
    assert!((quality.chance - 9.0 / 19_999.0).abs() < 1e-12);
    let read = quality.as_read;
    assert!(read.excess.abs() < 4.0 * read.standard_error, "{quality:?}");
    assert!(read.standard_error < 0.05, "{quality:?}");
    // A batch of 125 whole documents.
    let exact = 9.0 / 1249.0 / quality.chance - 1.0;
    assert!((quality.as_harvested.excess - exact).abs() < 0.3, "{quality:?}");

    let text = StoreSchema { order: Order::Text, ..schema() };
    let text = store(&dir.path().join("text"), &text, options(3000, 500), n, 0);
    let buffered = text.quality().unwrap().unwrap();
    assert!(
        buffered.as_read.excess.abs() < 4.0 * buffered.as_read.standard_error,
        "all fits into the buffer"
    );
    assert!((buffered.as_harvested.excess - exact).abs() < 1e-9, "{buffered:?}");
}

#[test]
fn a_shard_that_is_not_sorted_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let schema = schema();
    store(dir.path(), &schema, options(1 << 16, 16), 64, 0);
    // The first keys of two row groups change places.
    let path = dir.path().join("shard-00000.parquet");
    let mut bytes = fs::read(&path).unwrap();
    let footer = parquet::file::reader::SerializedFileReader::new(fs::File::open(&path).unwrap()).unwrap();
    let metadata = parquet::file::reader::FileReader::metadata(&footer);
    let ends = [0, 1].map(|group| {
        let (start, length) = metadata.row_group(group).column(3).byte_range();
        (start + length) as usize
    });
    for byte in 0..8 {
        bytes.swap(ends[0] - 128 + byte, ends[1] - 128 + byte);
    }
    fs::write(&path, bytes).unwrap();
    let store = Store::open(dir.path()).unwrap();
    let error = store.batches(plan(64, 1, 64)).find_map(Result::err).unwrap().to_string();
    assert!(error.contains("shard-00000.parquet") && error.contains("not sorted by `order`"), "{error}");
}

/// Writes the documents that `part` takes, as a harvest of it does.
fn write_part(dir: &Path, part: Part, n: usize) -> Manifest {
    let mut work = common::work(0);
    work.config["part"] = serde_json::json!(part);
    let dir = dir.join(part.directory());
    let mut writer = Writer::create(&dir, schema(), options(64, 16), &work).unwrap();
    let mut tokens = 0;
    for document in (0..n / 10).filter(|&document| part.takes(document as u64)) {
        common::append(&mut writer, &schema(), 10 * document..10 * document + 10).unwrap();
        tokens += 10;
    }
    let written = writer.finish().unwrap();
    let counts = [("tokens".to_owned(), tokens)].into();
    Manifest::new(work, "cpu").seal(&dir, counts, &written.shards).unwrap()
}

#[test]
fn parts_joined_are_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let n = 530;
    let whole = store(&dir.path().join("whole"), &schema(), options(100, 16), n, 0);
    let expected = read(&whole, plan(50, 3, 1200));
    let acts = dir.path().join("acts");
    let error = |acts: &Path| join(acts, common::work(0)).unwrap_err().to_string();
    fs::create_dir(&acts).unwrap();
    assert!(error(&acts).contains("expected parts of a harvest, found none"));
    for part in Part::all(3) {
        assert!(Store::open(&acts).is_err());
        write_part(&acts, part, n);
        if part.to_string() != "3/3" {
            let open = Store::open(&acts).unwrap_err().to_string();
            assert!(open.contains("of 3), not joined") && open.contains("monosema seal"), "{open}");
            let missing = error(&acts);
            assert!(missing.contains("is not finished; run `monosema harvest` with --part"), "{missing}");
        }
    }
    let manifest = join(&acts, common::work(0)).unwrap();
    assert_eq!((manifest.counts["tokens"], &manifest.work.config["parts"]), (530, &3.into()));
    let store = Store::open(&acts).unwrap();
    store.verify().unwrap();
    assert!(read(&store, plan(50, 3, 1200)) == expected);
    assert_eq!(monosema_store::whole_work(&manifest.work), common::work(0));

    // A part alone is a store too.
    assert_eq!(Store::open(&acts.join("part-00002-of-00003")).unwrap().tokens(), 180);
    // What does not belong to it, and what is damaged, is named.
    let shard = acts.join("part-00002-of-00003/shard-00001.parquet");
    let bytes = fs::read(&shard).unwrap();
    let mut damaged = bytes.clone();
    damaged[100] ^= 1;
    fs::write(&shard, damaged).unwrap();
    let found = error(&acts);
    assert!(found.contains("part-00002-of-00003/shard-00001.parquet: expected sha256"), "{found}");
    fs::write(&shard, bytes).unwrap();
    let mut other = common::work(0);
    other.config["lr"] = 1.into();
    let found = join(&acts, other).unwrap_err().to_string();
    assert!(
        found.contains("part-00001-of-00003: a part of other work") && found.contains("config.lr"),
        "{found}"
    );
    fs::create_dir(acts.join("part-00001-of-00004")).unwrap();
    assert!(error(&acts).contains("parts of 3 and of 4 are there"), "{}", error(&acts));
}
