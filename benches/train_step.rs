//! One training step, Adam included: 4096 tokens, by shape, architecture and step. Of the fused step both paths and both
//! precisions, at the density that a training has after its warm-up (about 1 % of the latents active on a token), at 6 %,
//! and with none active: what encoding and Adam take.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use burn::tensor::{Device, Distribution, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use monosema_core::{BlockHook, HookPoint, Seed};
use monosema_kernels::Path;
use monosema_sae::{Sae, Weights};
use monosema_store::HookColumn;
use monosema_trainer::{
    Rates, StoreFacts, TrainBatch, TrainConfig, TrainPlan, Width,
    step::{AutodiffStep, FusedStep, Precision, TrainStep},
};

const BATCH: usize = 4096;

/// Pre-activations have a standard deviation of 0.1 at the start: so many of them are above the threshold beside it.
const THRESHOLDS: [(&str, f32); 3] = [("1 %", 0.2326), ("6 %", 0.1555), ("none", 1e3)];

/// Nothing is learned, so that the density stays.
const RATES: Rates = Rates { lr: 0.0, sparsity: 1.0, k: None, p: 1.0, next_p: None, p_changes: false };

fn start(plan: &TrainPlan, threshold: f32, device: &Device) -> Sae {
    let mut weights = Weights::default();
    for (name, data) in
        Sae::init(&plan.architecture, plan.size, &plan.init(Vec::new()), device).to_weights().iter()
    {
        let values: Vec<f32> = data.try_to_vec().unwrap();
        match data.shape()[..] {
            [n] if name == "b_enc" => weights.insert("b_enc", vec![-threshold; n], [n]),
            [n] => weights.insert(name, values, [n]),
            [n, m] => weights.insert(name, values, [n, m]),
            _ => unreachable!("weights are vectors and matrices"),
        }
    }
    Sae::from_weights(&plan.architecture, plan.size, weights, device)
}

fn bench(criterion: &mut Criterion) {
    monosema_allocator::keep_pages();
    let device = Device::flex();
    let mut group = criterion.benchmark_group("train_step");
    group.throughput(Throughput::Elements(BATCH as u64)).sample_size(10);
    for (d_in, d_sae) in [(128, 1024), (576, 4608), (768, 12288)] {
        let hook = HookPoint::block(0, BlockHook::ResidPost);
        let facts = StoreFacts {
            hooks: vec![HookColumn { hook, width: d_in }],
            tokens: 1 << 30,
            ..StoreFacts::default()
        };
        let config = TrainConfig { width: Width::Latents(d_sae), ..TrainConfig::default() };
        let plan = TrainPlan::resolve(&config, &facts, Seed(0)).unwrap();
        let x = Tensor::<2>::random([BATCH, d_in], Distribution::Normal(0.0, 1.0), &device);
        let batch = TrainBatch { x, y: None, variance: 1.0 };
        let shape = format!("{d_in}x{d_sae}");
        let at_one_percent = THRESHOLDS[0].1;
        let mut autodiff = AutodiffStep::new(start(&plan, at_one_percent, &device.clone().autodiff()), &plan);
        group.bench_function(BenchmarkId::new("autodiff", &shape), |bencher| {
            bencher.iter(|| black_box(autodiff.step(&batch, RATES, None).loss.into_scalar::<f32>()));
        });
        let mut fused = |name: &str, precision, path, threshold| {
            let plan = TrainPlan { precision, ..plan.clone() };
            let mut step = FusedStep::new(start(&plan, threshold, &device), &plan, &device).unwrap();
            step.force(Some(path));
            group.bench_function(BenchmarkId::new(name, &shape), |bencher| {
                bencher.iter(|| black_box(step.step(&batch, RATES, None).loss.into_scalar::<f32>()));
            });
        };
        fused("dense path", Precision::Auto, Path::Dense, at_one_percent);
        for (active, threshold) in THRESHOLDS {
            fused(&format!("sparse path, f32, {active}"), Precision::F32, Path::Sparse, threshold);
            fused(&format!("sparse path, {active}"), Precision::Auto, Path::Sparse, threshold);
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
