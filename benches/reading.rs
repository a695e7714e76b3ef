//! How fast a store is read beside a plain read of the same files, warm, in file bytes a second of processor time over all threads:
//! in random order as a training reads it, and from front to back. Width 576, 16 shards, every layout and encoding.
//!
//! `cargo bench -p monosema-benches --bench reading [-- NAME]`; no Criterion, because what counts is processor time.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::{
    fs::{self, File},
    hint::black_box,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use monosema_benches::{random_vectors, schema, seal, write_store};
use monosema_core::Seed;
use monosema_store::{Activations, BatchPlan, Compression, Layout, Order, Store, VectorDtype, WriterOptions};
use parquet::{
    arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::Encoding,
    file::properties::WriterProperties,
    schema::types::ColumnPath,
};

const TOKENS: usize = 1 << 17;
const SHARD_TOKENS: usize = 1 << 13;
const WIDTH: usize = 576;
const BATCH: usize = 4096;

/// Processor time that a figure is taken over, at least.
const SECONDS: f64 = 2.0;

fn shards(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "parquet")).collect();
    files.sort();
    files
}

/// Encodes the vectors of every shard as another program might.
fn split_bytes(directory: &Path) {
    let store = Store::open(directory).unwrap();
    let column = ColumnPath::new(vec![store.schema().hooks[0].hook.to_string()]);
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
    let names: Vec<_> = store.manifest().files.keys().cloned().collect();
    seal(directory, store.work().clone(), store.tokens(), &names);
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
    let vectors = random_vectors(TOKENS, WIDTH);
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
        let schema = schema(WIDTH, dtype, layout, Order::Shuffled);
        let options = WriterOptions { shard_tokens: SHARD_TOKENS as u64, compression, ..Default::default() };
        write_store(directory.path(), schema, options, TOKENS, &vectors);
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
        let hook = store.schema().hooks[0].hook;
        let plan = BatchPlan {
            hook,
            hook_out: None,
            batch_tokens: BATCH,
            buffer_tokens: BATCH,
            seed: Seed(0),
            tokens: store.tokens(),
            delivered: 0,
        };
        let merged = speed(bytes, || store.batches(plan).for_each(|batch| drop(black_box(batch.unwrap()))));
        let sequential =
            speed(bytes, || store.sequential(hook, BATCH).for_each(|batch| drop(black_box(batch.unwrap()))));
        let share = |speed: f64| format!("{speed:.0} ({:.0} %)", 100.0 * speed / plain);
        println!("{name:<24} {plain:>10.0} {:>18} {:>18}", share(merged), share(sequential));
    }
}
