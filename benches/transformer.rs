//! The forward pass: the embedded demo model, to a middle layer and to the end.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{hint::black_box, path::Path};

use burn::tensor::{Device, Int, Tensor, TensorData};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use monosema_core::{BlockHook, HookPoint};
use monosema_transformer::{Capture, Checkpoint, NoTap};

const BATCH: usize = 16;
const SEQ: usize = 128;

fn bench(criterion: &mut Criterion) {
    monosema_allocator::keep_pages();
    let device = Device::flex();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/demo/model");
    let model = Checkpoint::open(&path).unwrap().load(&device).unwrap();
    let d_vocab = model.info().d_vocab;
    let ids: Vec<i32> = (0..BATCH * SEQ).map(|i| (i * 7919 % d_vocab) as i32).collect();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [BATCH, SEQ]), &device);
    let hook = HookPoint::block(model.info().n_layers / 2, BlockHook::ResidPost);

    let mut group = criterion.benchmark_group("transformer");
    group.throughput(Throughput::Elements((BATCH * SEQ) as u64)).sample_size(20);
    group.bench_function("to a middle layer", |bencher| {
        bencher.iter(|| {
            let mut capture = Capture::new([hook]);
            model.run(tokens.clone(), &mut capture);
            black_box(capture.take(hook).unwrap().into_data())
        });
    });
    group.bench_function("whole", |bencher| {
        bencher.iter(|| black_box(model.forward(tokens.clone(), &mut NoTap).into_data()));
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
