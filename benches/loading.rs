//! What a training needs from the disk: the loop from a store in the page cache and from one batch in memory, at width 576
//! in batches of 4096; with a step that does nothing, and with the real one (576 → 4608, 1 % of the latents active), whose
//! two figures say how much of its speed a training has.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{iter, sync::Arc};

use burn::tensor::{Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use monosema_benches::{random_vectors, schema, write_store};
use monosema_core::Seed;
use monosema_sae::{Sae, Weights};
use monosema_store::{Activations, Layout, Order, Store, VectorDtype, WriterOptions};
use monosema_trainer::{
    Rates, Sample, StoreFacts, TrainBatch, TrainConfig, TrainPlan, Width, load,
    step::{FusedStep, StepState, StepStats, TrainStep},
};

const WIDTH: usize = 576;
const LATENTS: usize = 4608;
const BATCH: usize = 4096;
const STORED: usize = 1 << 17;
const TRAINED: u64 = 1 << 19;

/// Does nothing.
struct NoStep(Device);

impl TrainStep for NoStep {
    fn step(&mut self, _: &TrainBatch, _: Rates, _: Option<Tensor<1>>) -> StepStats {
        let one = || Tensor::ones([1], &self.0);
        let fired = Tensor::zeros([LATENTS], &self.0);
        let [loss, squared_error, penalty, grad_norm] = [(); 4].map(|()| one());
        let (rest, smallest, next_penalty) = (None, None, None);
        StepStats { loss, squared_error, penalty, grad_norm, fired, rest, smallest, next_penalty }
    }

    fn sae(&self) -> Sae {
        unreachable!("nobody asks for it")
    }

    fn state(&self) -> StepState {
        unreachable!("nobody asks for it")
    }

    fn restore(&mut self, _: StepState) {
        unreachable!("nobody asks for it")
    }
}

/// A step that finds 1 % of the latents active, and learns so little that this stays.
fn real_step(plan: &TrainPlan, device: &Device) -> FusedStep {
    let mut weights = Weights::default();
    for (name, data) in
        Sae::init(&plan.architecture, plan.size, &plan.init(Vec::new()), device).to_weights().iter()
    {
        let values: Vec<f32> = data.try_to_vec().unwrap();
        match data.shape()[..] {
            // Pre-activations have a standard deviation of 0.1.
            [n] if name == "b_enc" => weights.insert("b_enc", vec![-0.2326; n], [n]),
            [n] => weights.insert(name, values, [n]),
            [n, m] => weights.insert(name, values, [n, m]),
            _ => unreachable!("weights are vectors and matrices"),
        }
    }
    FusedStep::new(Sae::from_weights(&plan.architecture, plan.size, weights, device), plan, device).unwrap()
}

/// Takes a step on each batch, and waits for the last.
fn train(step: &mut dyn TrainStep, batches: impl Iterator<Item = TrainBatch>, plan: &TrainPlan) -> f32 {
    let mut last = None;
    for (index, batch) in batches.enumerate() {
        last = Some(step.step(&batch, plan.schedule.at(index as u64), None).loss);
    }
    last.unwrap().into_scalar()
}

fn bench(criterion: &mut Criterion) {
    monosema_allocator::keep_pages();
    let device = Device::flex();
    let vectors = random_vectors(STORED, WIDTH);
    let mut group = criterion.benchmark_group("loading");
    group.throughput(Throughput::Elements(TRAINED)).sample_size(10);
    for dtype in [VectorDtype::F32, VectorDtype::F16, VectorDtype::BF16] {
        let directory = tempfile::tempdir().unwrap();
        let schema = schema(WIDTH, dtype, Layout::Binary, Order::Shuffled);
        write_store(directory.path(), schema, WriterOptions::default(), STORED, &vectors);
        let store = Store::open(directory.path()).unwrap();
        let config = TrainConfig {
            width: Width::Latents(LATENTS),
            tokens: Some(TRAINED),
            batch_tokens: Some(BATCH),
            shuffle_buffer_tokens: Some(1 << 16),
            lr: Some(1e-12),
            ..TrainConfig::default()
        };
        let plan = TrainPlan::resolve(&config, &StoreFacts::of(&store), Seed(0)).unwrap();
        let sample = Sample::of(store.sequential(plan.hook, BATCH), &plan).unwrap();
        let store: Arc<dyn Activations> = Arc::new(store);
        let mut real = real_step(&plan, &device);
        let steps: [(&str, &mut dyn TrainStep); 2] =
            [("no step", &mut NoStep(device.clone())), ("step", &mut real)];
        for (name, step) in steps {
            group.bench_function(BenchmarkId::new(format!("disk, {name}"), dtype), |bencher| {
                bencher.iter(|| {
                    let batches = load(&plan, &sample, 0, &store, &device);
                    train(step, batches.map(Result::unwrap), &plan)
                });
            });
            let batch = load(&plan, &sample, 0, &store, &device).next().unwrap().unwrap();
            group.bench_function(BenchmarkId::new(format!("memory, {name}"), dtype), |bencher| {
                bencher.iter(|| {
                    let batches = iter::repeat_n(batch.clone(), plan.steps as usize);
                    train(step, batches, &plan)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
