//! Times the training step on random activations, phase by phase, on the CPU:
//! `cargo run --release -p monosema-trainer --example step_speed -- [D_IN D_SAE BATCH STEPS]`
#![allow(clippy::print_stdout, reason = "the figures are the result")]

use std::time::{Duration, Instant};

use burn::tensor::{Device, Distribution, Tensor};
use monosema_core::{BlockHook, HookPoint, Seed};
use monosema_sae::Sae;
use monosema_store::HookColumn;
use monosema_trainer::{
    StoreFacts, TrainConfig, TrainPlan, Width,
    step::{AutodiffStep, TrainStep},
};

// The command line has the same one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let given: Vec<usize> = std::env::args().skip(1).map(|a| a.parse()).collect::<Result<_, _>>()?;
    let or = |i: usize, default: usize| given.get(i).copied().unwrap_or(default);
    let (d_in, d_sae, n, steps) = (or(0, 576), or(1, 4608), or(2, 4096), or(3, 5));
    let hooks = vec![HookColumn { hook: HookPoint::block(0, BlockHook::ResidPost), width: d_in }];
    let config =
        TrainConfig { width: Width::Latents(d_sae), batch_tokens: Some(n), ..TrainConfig::default() };
    let plan = TrainPlan::resolve(&config, &StoreFacts { hooks, tokens: 1 << 30 }, Seed(0))?;
    let device = Device::flex();
    let sae = Sae::init(&plan.architecture, plan.size(), Seed(0), &device.clone().autodiff());
    let x = Tensor::<2>::random([n, d_in], Distribution::Normal(0.0, 1.0), &device);

    let plain = sae.export(1.0);
    let acts = plain.encode(x.clone());

    report("encode", n, || drop(plain.encode(x.clone())));
    report("decode", n, || drop(plain.decode(acts.clone())));
    report("count of active latents", n, || {
        drop(acts.clone().greater_scalar(0.0).float().sum_dim(0));
    });
    report("loss, forward", n, || drop(sae.loss(x.clone().autodiff(), 1.0)));
    report("loss, forward and backward", n, || drop(sae.loss(x.clone().autodiff(), 1.0).total.backward()));

    let mut step = AutodiffStep::new(sae, &plan);
    let mut index = 0;
    for _ in 0..steps {
        report("step", n, || {
            drop(step.step(x.clone(), plan.schedule.at(index)));
            index += 1;
        });
    }
    Ok(())
}

/// The fastest of some, since other programs disturb.
fn report(what: &str, n: usize, mut work: impl FnMut()) {
    let time = |_| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    let best = (0..5).map(time).min().unwrap_or(Duration::ZERO);
    println!(
        "{what:<28} {:>8.1} ms {:>8.0} tokens/s",
        best.as_secs_f64() * 1e3,
        n as f64 / best.as_secs_f64()
    );
}
