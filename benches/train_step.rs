//! One training step through autodiff, Adam included: 4096 tokens, by shape.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use burn::tensor::{Device, Distribution, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use monosema_core::{BlockHook, HookPoint, Seed};
use monosema_sae::Sae;
use monosema_store::HookColumn;
use monosema_trainer::{
    Rates, StoreFacts, TrainConfig, TrainPlan, Width,
    step::{AutodiffStep, TrainStep},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 4096;

fn bench(criterion: &mut Criterion) {
    let device = Device::flex();
    let mut group = criterion.benchmark_group("train_step");
    group.throughput(Throughput::Elements(BATCH as u64)).sample_size(10);
    for (d_in, d_sae) in [(128, 1024), (576, 4608)] {
        let hook = HookPoint::block(0, BlockHook::ResidPost);
        let facts = StoreFacts { hooks: vec![HookColumn { hook, width: d_in }], tokens: 1 << 30 };
        let config = TrainConfig { width: Width::Latents(d_sae), ..TrainConfig::default() };
        let plan = TrainPlan::resolve(&config, &facts, Seed(0)).unwrap();
        let sae = Sae::init(&plan.architecture, plan.size(), Seed(0), &device.clone().autodiff());
        let mut step = AutodiffStep::new(sae, &plan);
        let x = Tensor::<2>::random([BATCH, d_in], Distribution::Normal(0.0, 1.0), &device);
        let rates = Rates { lr: 1e-4, l1: 1.0 };
        group.bench_function(BenchmarkId::new("autodiff", format!("{d_in}x{d_sae}")), |bencher| {
            bencher.iter(|| black_box(step.step(x.clone(), rates).loss.into_scalar::<f32>()));
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
