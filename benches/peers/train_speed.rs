//! Times our training step on given inputs and prints one object of JSON: what `compare` runs beside the peers.

#![allow(clippy::print_stdout, reason = "the figures are the result")]

use std::{error::Error, fs, path::PathBuf, time::Instant};

use burn::tensor::{Device, Tensor, TensorData};
use clap::{Parser, ValueEnum};
use monosema_benches::{cpu_seconds, peak_mb};
use monosema_core::{BlockHook, HookPoint, Seed};
use monosema_kernels::Phases;
use monosema_sae::{
    AuxK, Sae, SaeConfig, Weights,
    architecture::{relu::ReluConfig, top_k::TopKConfig},
};
use monosema_store::HookColumn;
use monosema_trainer::{
    Rates, StoreFacts, TrainBatch, TrainConfig, TrainPlan, Width,
    step::{AutodiffStep, FusedStep, Precision, TrainStep},
};
use safetensors::SafeTensors;
use serde_json::json;

/// Steps before the clock starts: the first ones find out the density and fetch memory.
const WARM_UP: usize = 5;

/// So small that the density stays what it is.
const LR: f64 = 1e-7;
const SPARSITY: f64 = 5.0;

#[derive(Parser)]
struct Args {
    /// Safetensors with `x`, `W_enc`, `b_enc`, `W_dec` and `b_dec`.
    #[arg(long)]
    inputs: PathBuf,
    /// `D_INxD_SAE`.
    #[arg(long, value_parser = shape)]
    shape: [usize; 2],
    /// Tokens a step.
    #[arg(long)]
    batch: usize,
    #[arg(long)]
    threads: usize,
    #[arg(long)]
    steps: usize,
    #[arg(long = "impl")]
    implementation: Implementation,
    /// Active latents of the TopK implementations.
    #[arg(long, default_value = "32")]
    k: std::num::NonZeroUsize,
    /// `cpu`, or in a build that has it the first device of `cuda` or `wgpu`.
    #[arg(long, default_value = "cpu", value_parser = device)]
    device: Device,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Implementation {
    /// ReLU and L1; encoding is screened in bf16 where the processor can.
    Ours,
    /// The same in f32 throughout.
    OursF32,
    /// ReLU and L1 through burn's autodiff.
    OursAutodiff,
    /// The same with matrix products in bf16, on GPUs.
    OursBf16,
    OursTopk,
    OursTopkF32,
    OursTopkBf16,
    /// The matrix product of burn's CPU backend at the shape of encoding.
    Gemm,
}

fn shape(text: &str) -> Result<[usize; 2], String> {
    let (d_in, d_sae) = text.split_once('x').ok_or("expected D_INxD_SAE, for instance 576x4608")?;
    let number = |text: &str| text.parse().map_err(|e| format!("{text}: {e}"));
    Ok([number(d_in)?, number(d_sae)?])
}

fn device(name: &str) -> Result<Device, String> {
    let found = match name {
        "cpu" => vec![Device::flex()],
        #[cfg(feature = "cuda")]
        "cuda" => Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec(),
        #[cfg(feature = "wgpu")]
        "wgpu" => Device::enumerate(burn::tensor::DeviceType::Wgpu).into_vec(),
        _ => return Err("not in this build".into()),
    };
    found.into_iter().next().ok_or_else(|| "there is none".into())
}

fn main() -> Result<(), Box<dyn Error>> {
    monosema_allocator::keep_pages();
    let args = Args::parse();
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global()?;
    let bytes = fs::read(&args.inputs)?;
    let inputs = SafeTensors::deserialize(&bytes)?;
    let [d_in, d_sae] = args.shape;
    let name = args.implementation.to_possible_value().ok_or("every implementation has a name")?;
    let x = numbers(&inputs, "x")?;
    let device = &args.device;
    let batches: Vec<Tensor<2>> = x
        .chunks_exact(args.batch * d_in)
        .map(|x| Tensor::from_data(TensorData::new(x.to_vec(), [args.batch, d_in]), device))
        .collect();
    if args.implementation == Implementation::Gemm {
        let w_enc = TensorData::new(numbers(&inputs, "W_enc")?, [d_in, d_sae]);
        let w_enc = Tensor::<2>::from_data(w_enc, device);
        let multiply = |i: usize| drop(batches[i % batches.len()].clone().matmul(w_enc.clone()));
        (0..WARM_UP).for_each(multiply);
        let (seconds, _) = timed(device, args.steps, multiply)?;
        let flop = 2.0 * (args.batch * d_in * d_sae * args.steps) as f64;
        println!("{}", json!({"impl": "gemm", "threads": args.threads, "gflops": flop / seconds / 1e9}));
        return Ok(());
    }
    use Implementation::{OursBf16, OursF32, OursTopk, OursTopkBf16, OursTopkF32};
    let top_k = matches!(args.implementation, OursTopk | OursTopkF32 | OursTopkBf16);
    let architecture = if top_k {
        SaeConfig::TopK(TopKConfig { k: args.k, aux: AuxK::OFF, ..TopKConfig::default() })
    } else {
        SaeConfig::Relu(ReluConfig::default())
    };
    let precision = match args.implementation {
        OursF32 | OursTopkF32 => Precision::F32,
        OursBf16 | OursTopkBf16 => Precision::Bf16,
        _ => Precision::Auto,
    };
    let config = TrainConfig {
        architecture: Some(architecture.clone()),
        width: Width::Latents(d_sae),
        batch_tokens: Some(args.batch),
        precision,
        ema_decay: Some(0.0),
        ..TrainConfig::default()
    };
    let hook = HookPoint::block(0, BlockHook::ResidPost);
    let facts = StoreFacts {
        hooks: vec![HookColumn { hook, width: d_in }],
        tokens: 1 << 30,
        ..StoreFacts::default()
    };
    let plan = TrainPlan::resolve(&config, &facts, Seed(0))?;
    plan.check_device(device)?;
    let rates = Rates::new(LR, if top_k { 0.0 } else { SPARSITY });
    let sae = |device: &Device| -> Result<Sae, Box<dyn Error>> {
        let mut weights = Weights::default();
        weights.insert("W_enc", numbers(&inputs, "W_enc")?, [d_in, d_sae]);
        // The file's bias is the threshold of ReLU.
        let b_enc = if top_k { vec![0.0; d_sae] } else { numbers(&inputs, "b_enc")? };
        weights.insert("b_enc", b_enc, [d_sae]);
        weights.insert("W_dec", numbers(&inputs, "W_dec")?, [d_sae, d_in]);
        weights.insert("b_dec", numbers(&inputs, "b_dec")?, [d_in]);
        Ok(Sae::from_weights(&architecture, plan.size, weights, device))
    };
    // Read when the clock has stopped: nobody waits for a device in the middle of a training.
    let mut fired = None;
    let mut take = |step: &mut dyn TrainStep, i: usize| {
        let batch = TrainBatch { x: batches[i % batches.len()].clone(), y: None, variance: 1.0 };
        fired = Some(step.step(&batch, rates, None).fired);
    };
    let (seconds, cpu_seconds, phases) = if args.implementation == Implementation::OursAutodiff {
        let mut step = AutodiffStep::new(sae(&device.clone().autodiff())?, &plan);
        (0..WARM_UP).for_each(|i| take(&mut step, i));
        let (seconds, cpu_seconds) = timed(device, args.steps, |i| take(&mut step, i))?;
        (seconds, cpu_seconds, None)
    } else {
        let mut step = FusedStep::new(sae(device)?, &plan, device).ok_or("no fused step on this device")?;
        (0..WARM_UP).for_each(|i| take(&mut step, i));
        let mut sum = [0.0; 4];
        let (seconds, cpu_seconds) = timed(device, args.steps, |i| {
            take(&mut step, i);
            let Phases { encode, decode, gradients, update } = step.phases();
            let parts = [encode, decode, gradients, update];
            sum.iter_mut().zip(parts).for_each(|(sum, part)| *sum += part.as_secs_f64());
        })?;
        let [encode, decode, gradients, update] = sum.map(|sum| sum / args.steps as f64 * 1e3);
        let encode_gflops = 2.0 * (args.batch * d_in * d_sae) as f64 / encode / 1e6;
        let phases = json!({
            "encode_ms": encode, "decode_ms": decode, "gradients_ms": gradients, "update_ms": update,
            "encode_gflops": encode_gflops,
        });
        (seconds, cpu_seconds, (*device == Device::flex()).then_some(phases))
    };
    let fired = fired.ok_or("at least one step")?.sum().into_scalar::<f32>();
    let tokens = (args.steps * args.batch) as f64;
    let result = json!({
        "impl": name.get_name(),
        "shape": format!("{d_in}x{d_sae}"),
        "threads": args.threads,
        "tokens_per_s": tokens / seconds,
        "tokens_per_cpu_s": cpu_seconds.map(|seconds| tokens / seconds),
        "peak_mb": peak_mb(),
        "gpu_mb": device.memory_pool_usage().map(|usage| usage.bytes_reserved as f64 / 1e6),
        "l0": fired / args.batch as f32,
        "step_ms": seconds / args.steps as f64 * 1e3,
        "phases": phases,
    });
    println!("{result}");
    Ok(())
}

fn numbers(inputs: &SafeTensors<'_>, name: &str) -> Result<Vec<f32>, Box<dyn Error>> {
    let bytes = inputs.tensor(name)?.data().to_vec();
    Ok(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// Seconds that `steps` steps took, on the clock and of all processors together.
fn timed(
    device: &Device,
    steps: usize,
    mut step: impl FnMut(usize),
) -> Result<(f64, Option<f64>), Box<dyn Error>> {
    device.sync()?;
    let (start, cpu) = (Instant::now(), cpu_seconds());
    (0..steps).for_each(&mut step);
    device.sync()?;
    Ok((start.elapsed().as_secs_f64(), cpu.zip(cpu_seconds()).map(|(before, after)| after - before)))
}
