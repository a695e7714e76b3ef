//! Writing and reading shards: 32,768 tokens of width 576, by dtype, layout and order. `reading` compares with a plain read.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{collections::BTreeMap, hint::black_box, path::Path};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use monosema_core::{BlockHook, HookPoint, Manifest, Seed, Stage, manifest::Work};
use monosema_store::{
    BatchPlan, HookColumn, Layout, Order, Rows, Store, StoreSchema, VectorDtype, Writer, WriterOptions,
};
use rand::Rng;

const TOKENS: usize = 1 << 15;
const WIDTH: usize = 576;

fn hook() -> HookPoint {
    HookPoint::block(9, BlockHook::ResidPost)
}

fn vectors() -> Vec<f32> {
    let mut rng = Seed(0).stream("bench");
    (0..TOKENS * WIDTH).map(|_| rng.random_range(-10.0..10.0)).collect()
}

fn write(directory: &Path, (dtype, layout, order): (VectorDtype, Layout, Order), vectors: &[f32]) {
    let schema = StoreSchema { hooks: vec![HookColumn { hook: hook(), width: WIDTH }], dtype, layout, order };
    let work = Work { stage: Stage::Harvest, config: ().into(), seed: Seed(0), inputs: BTreeMap::new() };
    // Four shards to merge.
    let options = WriterOptions { shard_tokens: TOKENS as u64 / 4, ..WriterOptions::default() };
    let mut writer = Writer::create(directory, schema, options, &work).unwrap();
    let (ids, documents) = ((0..TOKENS as u32).collect::<Vec<_>>(), vec![0; TOKENS]);
    let places: Vec<u64> = (0..TOKENS as u64).collect();
    for start in (0..TOKENS).step_by(2048) {
        let rows = start..start + 2048;
        writer
            .append(Rows {
                token_ids: &ids[rows.clone()],
                documents: &documents[rows.clone()],
                positions: &ids[rows.clone()],
                places: &places[rows.clone()],
                vectors: &[&vectors[rows.start * WIDTH..rows.end * WIDTH]],
            })
            .unwrap();
    }
    let written = writer.finish().unwrap();
    let counts = BTreeMap::from([("tokens".to_owned(), written.tokens)]);
    Manifest::new(work, "cpu").seal(directory, counts, &written.shards).unwrap();
}

fn bench(criterion: &mut Criterion) {
    let vectors = vectors();
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
        group.bench_function(BenchmarkId::new("sequential", name), |bencher| {
            bencher.iter(|| {
                store.sequential(hook(), 4096).map(|batch| black_box(batch.unwrap().n)).sum::<usize>()
            });
        });
        group.bench_function(BenchmarkId::new("shuffled", name), |bencher| {
            let plan = BatchPlan {
                hook: hook(),
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
