//! One training step, Adam included: 4096 tokens, by shape and step; of the sparse step both paths, at the density that
//! a training has after its warm-up (about 1 % of the latents active on a token).

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use burn::tensor::{Device, Distribution, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use monosema_core::{BlockHook, HookPoint, Seed};
use monosema_sae::{Sae, Weights};
use monosema_store::HookColumn;
use monosema_trainer::{
    Rates, StoreFacts, TrainConfig, TrainPlan, Width,
    step::{AutodiffStep, Path, SparseStep, TrainStep},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 4096;

/// Pre-activations have a standard deviation of 0.1 at the start: 1 % are above this.
const THRESHOLD: f32 = 0.233;

/// Nothing is learned, so that the density stays.
const RATES: Rates = Rates { lr: 0.0, l1: 1.0 };

fn start(plan: &TrainPlan, device: &Device) -> Sae {
    let mut weights = Weights::default();
    for (name, data) in Sae::init(&plan.architecture, plan.size(), Seed(0), device).to_weights().iter() {
        let values: Vec<f32> = data.try_to_vec().unwrap();
        match data.shape()[..] {
            [n] if name == "b_enc" => weights.insert("b_enc", vec![-THRESHOLD; n], [n]),
            [n] => weights.insert(name, values, [n]),
            [n, m] => weights.insert(name, values, [n, m]),
            _ => unreachable!("weights are vectors and matrices"),
        }
    }
    Sae::from_weights(&plan.architecture, weights, device)
}

fn bench(criterion: &mut Criterion) {
    let device = Device::flex();
    let mut group = criterion.benchmark_group("train_step");
    group.throughput(Throughput::Elements(BATCH as u64)).sample_size(10);
    for (d_in, d_sae) in [(128, 1024), (576, 4608), (768, 12288)] {
        let hook = HookPoint::block(0, BlockHook::ResidPost);
        let facts = StoreFacts { hooks: vec![HookColumn { hook, width: d_in }], tokens: 1 << 30 };
        let config = TrainConfig { width: Width::Latents(d_sae), ..TrainConfig::default() };
        let plan = TrainPlan::resolve(&config, &facts, Seed(0)).unwrap();
        let x = Tensor::<2>::random([BATCH, d_in], Distribution::Normal(0.0, 1.0), &device);
        let shape = format!("{d_in}x{d_sae}");
        let mut autodiff = AutodiffStep::new(start(&plan, &device.clone().autodiff()), &plan);
        group.bench_function(BenchmarkId::new("autodiff", &shape), |bencher| {
            bencher.iter(|| black_box(autodiff.step(x.clone(), RATES).loss.into_scalar::<f32>()));
        });
        let mut sparse = SparseStep::new(&start(&plan, &device), &plan, &device).unwrap();
        for (name, path) in [("dense path", Path::Dense), ("sparse path", Path::Sparse)] {
            group.bench_function(BenchmarkId::new(name, &shape), |bencher| {
                bencher.iter(|| black_box(sparse.step_by(path, x.clone(), RATES).loss.into_scalar::<f32>()));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
