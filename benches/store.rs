//! Writing and reading shards: 32,768 tokens of width 576, by dtype, layout and order. `reading` compares with a plain read.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{hint::black_box, path::Path};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use monosema_benches::{random_vectors, schema, write_store};
use monosema_core::Seed;
use monosema_store::{Activations, BatchPlan, Layout, Order, Store, VectorDtype, WriterOptions};

const TOKENS: usize = 1 << 15;
const WIDTH: usize = 576;

fn write(directory: &Path, (dtype, layout, order): (VectorDtype, Layout, Order), vectors: &[f32]) {
    // Four shards to merge.
    let options = WriterOptions { shard_tokens: TOKENS as u64 / 4, ..WriterOptions::default() };
    write_store(directory, schema(WIDTH, dtype, layout, order), options, TOKENS, vectors);
}

fn bench(criterion: &mut Criterion) {
    monosema_allocator::keep_pages();
    let vectors = random_vectors(TOKENS, WIDTH);
    let variants = [
        ("binary-f32", (VectorDtype::F32, Layout::Binary, Order::Shuffled)),
        ("binary-f16", (VectorDtype::F16, Layout::Binary, Order::Shuffled)),
        ("binary-bf16", (VectorDtype::BF16, Layout::Binary, Order::Shuffled)),
        ("list-f32", (VectorDtype::F32, Layout::List, Order::Shuffled)),
        ("text-f32", (VectorDtype::F32, Layout::Binary, Order::Text)),
    ];
    let mut group = criterion.benchmark_group("store");
    group.throughput(Throughput::Elements(TOKENS as u64)).sample_size(10);
    for (name, kind) in variants {
        group.bench_function(BenchmarkId::new("write", name), |bencher| {
            bencher.iter_with_large_drop(|| {
                let directory = tempfile::tempdir().unwrap();
                write(directory.path(), kind, &vectors);
                directory
            });
        });
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), kind, &vectors);
        let store = Store::open(directory.path()).unwrap();
        let hook = store.schema().hooks[0].hook;
        group.bench_function(BenchmarkId::new("sequential", name), |bencher| {
            bencher.iter(|| {
                store.sequential(hook, 4096).map(|batch| black_box(batch.unwrap().n)).sum::<usize>()
            });
        });
        group.bench_function(BenchmarkId::new("shuffled", name), |bencher| {
            let plan = BatchPlan {
                hook,
                hook_out: None,
                batch_tokens: 4096,
                buffer_tokens: TOKENS / 2,
                seed: Seed(0),
                tokens: TOKENS as u64,
                delivered: 0,
            };
            bencher.iter(|| store.batches(plan).map(|batch| black_box(batch.unwrap().n)).sum::<usize>());
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
