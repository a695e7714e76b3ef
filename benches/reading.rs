//! How fast a store is read beside a plain read of the same files, warm, in file bytes a second of processor time over all threads:
//! in random order as a training reads it, and from front to back. Width 576, 16 shards, every layout and encoding.
//!
//! `cargo bench -p monosema-benches --bench reading [-- NAME]`; no Criterion, because what counts is processor time.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    hint::black_box,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use monosema_core::{BlockHook, HookPoint, Manifest, Seed, Stage, manifest::Work};
use monosema_store::{
    Activations, BatchPlan, Compression, HookColumn, Layout, Order, Rows, Store, StoreSchema, VectorDtype,
    Writer, WriterOptions,
};
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::Encoding,
    file::properties::WriterProperties,
    schema::types::ColumnPath,
};
use rand::Rng;

const TOKENS: usize = 1 << 17;
const SHARD_TOKENS: usize = 1 << 13;
const WIDTH: usize = 576;
const BATCH: usize = 4096;

/// Processor time that a figure is taken over, at least.
const SECONDS: f64 = 2.0;

fn hook() -> HookPoint {
    HookPoint::block(9, BlockHook::ResidPost)
}

fn work() -> Work {
    Work { stage: Stage::Harvest, config: ().into(), seed: Seed(0), inputs: BTreeMap::new() }
}

fn write(directory: &Path, dtype: VectorDtype, layout: Layout, compression: Compression) {
    let hooks = vec![HookColumn { hook: hook(), width: WIDTH }];
    let schema = StoreSchema { hooks, dtype, layout, order: Order::Shuffled };
    let options = WriterOptions { shard_tokens: SHARD_TOKENS as u64, compression, ..Default::default() };
    let mut writer = Writer::create(directory, schema, options, &work()).unwrap();
    let mut rng = Seed(0).stream("bench");
    for start in (0..TOKENS).step_by(BATCH) {
        let vectors: Vec<f32> = (0..BATCH * WIDTH).map(|_| rng.random_range(-10.0..10.0)).collect();
        let places: Vec<u64> = (start as u64..).take(BATCH).collect();
        let ids: Vec<u32> = places.iter().map(|&place| place as u32).collect();
        let documents = vec![0; BATCH];
        let rows = Rows {
            token_ids: &ids,
            documents: &documents,
            positions: &ids,
            places: &places,
            vectors: &[&vectors],
        };
        writer.append(rows).unwrap();
    }
    seal(directory, &writer.finish().unwrap().shards);
}

fn seal(directory: &Path, shards: &[String]) {
    let counts = BTreeMap::from([("tokens".to_owned(), TOKENS as u64)]);
    Manifest::new(work(), "cpu").seal(directory, counts, shards).unwrap();
}

fn shards(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "parquet")).collect();
    files.sort();
    files
}

/// Encodes the vectors of every shard as another program might.
fn split_bytes(directory: &Path) {
    let column = ColumnPath::new(vec![hook().to_string()]);
    for path in shards(directory) {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
        let schema = reader.schema().clone();
        let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
        let properties = WriterProperties::builder()
            .set_dictionary_enabled(false)
            .set_column_encoding(column.clone(), Encoding::BYTE_STREAM_SPLIT)
            .build();
        let mut writer =
            ArrowWriter::try_new(File::create(&path).unwrap(), schema, Some(properties)).unwrap();
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        writer.close().unwrap();
    }
    fs::remove_file(directory.join("manifest.json")).unwrap();
    let names: Vec<_> =
        shards(directory).iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    seal(directory, &names);
}

/// Processor time of this process, of all its threads; on systems that do not tell, the time that went by.
fn processor_seconds(since: Instant) -> f64 {
    monosema_benches::cpu_seconds().unwrap_or_else(|| since.elapsed().as_secs_f64())
}

/// Megabytes of processor time a second, of so many bytes each time.
fn speed(bytes: u64, mut read: impl FnMut()) -> f64 {
    // Once for the page cache.
    read();
    let started = Instant::now();
    let (before, mut times) = (processor_seconds(started), 0);
    loop {
        read();
        times += 1;
        let seconds = processor_seconds(started) - before;
        if seconds >= SECONDS {
            return f64::from(times) * bytes as f64 / seconds / 1e6;
        }
    }
}

fn main() {
    monosema_allocator::keep_pages();
    let variants = [
        ("binary f32", VectorDtype::F32, Layout::Binary, Compression::None, false),
        ("binary f16", VectorDtype::F16, Layout::Binary, Compression::None, false),
        ("binary bf16", VectorDtype::BF16, Layout::Binary, Compression::None, false),
        ("list f32", VectorDtype::F32, Layout::List, Compression::None, false),
        ("binary f32 zstd", VectorDtype::F32, Layout::Binary, Compression::Zstd, false),
        ("binary f32, bytes split", VectorDtype::F32, Layout::Binary, Compression::None, true),
    ];
    println!("MB/s of processor time (share of the plain read)");
    println!("{:<24} {:>10} {:>18} {:>18}", "", "plain read", "random order", "front to back");
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).unwrap_or_default();
    for (name, dtype, layout, compression, split) in variants {
        if !wanted.is_empty() && name != wanted {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), dtype, layout, compression);
        if split {
            split_bytes(directory.path());
        }
        let files = shards(directory.path());
        let bytes = files.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        let mut buffer = vec![0; 1 << 20];
        let plain = speed(bytes, || {
            for path in &files {
                let mut file = File::open(path).unwrap();
                while black_box(file.read(&mut buffer).unwrap()) > 0 {}
            }
        });
        let store = Arc::new(Store::open(directory.path()).unwrap());
        let plan = BatchPlan {
            hook: hook(),
            hook_out: None,
            batch_tokens: BATCH,
            buffer_tokens: BATCH,
            seed: Seed(0),
            tokens: store.tokens(),
            delivered: 0,
        };
        let merged = speed(bytes, || store.batches(plan).for_each(|batch| drop(black_box(batch.unwrap()))));
        let sequential = speed(bytes, || {
            store.sequential(hook(), BATCH).for_each(|batch| drop(black_box(batch.unwrap())))
        });
        let share = |speed: f64| format!("{speed:.0} ({:.0} %)", 100.0 * speed / plain);
        println!("{name:<24} {plain:>10.0} {:>18} {:>18}", share(merged), share(sequential));
    }
}
