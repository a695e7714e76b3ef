//! Trains the demo's language model, a Llama of about a million parameters, on the stories that the
//! `demo_stories` example of `monosema-text` tells.
//!
//! ```text
//! cargo run --release -p monosema-text --example demo_stories -- --out target/stories --lm 26000
//! cargo run --release -p monosema-transformer --example train_demo_lm -- \
//!     --lm target/stories/lm.jsonl --heldout data/demo/stories/heldout.jsonl --out data/demo/model
//! ```
//!
//! writes config.json, model.safetensors, tokenizer.json, tokenizer_config.json and training.json (how it was trained and
//! what it reached on the held-out stories). The tokenizer and the order of training are the same on every machine;
//! the weights are equal bit for bit only where the floating-point sums of matrix products are.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![allow(clippy::print_stderr)] // what a program says to its user

mod baseline;
mod data;
mod evaluation;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context;
use burn::{
    grad_clipping::GradientClippingConfig,
    optim::{AdamWConfig, GradientsParams, ModuleOptimizer},
    tensor::{Device, Int, Tensor, TensorData, activation::log_softmax},
};
use clap::Parser;
use data::Windows;
use monosema_core::{AtomicFile, Seed};
use monosema_transformer::{
    Activation, Checkpoint,
    llama::{Llama, LlamaConfig, SavedDtype},
};
use serde::Serialize;

/// Trains the demo's language model.
#[derive(Parser, Clone, Debug, Serialize)]
struct Args {
    /// Stories to train on (JSON lines).
    #[arg(long)]
    #[serde(skip)]
    lm: PathBuf,
    /// Stories to evaluate on (JSON lines), none of them among the others.
    #[arg(long)]
    #[serde(skip)]
    heldout: PathBuf,
    /// Directory for the model.
    #[arg(long)]
    #[serde(skip)]
    out: PathBuf,
    /// Optimiser steps.
    #[arg(long, default_value_t = 1500)]
    steps: usize,
    /// Windows in a step.
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Tokens in a window, and the longest context of the model.
    #[arg(long, default_value_t = 256)]
    length: usize,
    /// Peak learning rate.
    #[arg(long, default_value_t = 4e-3)]
    lr: f64,
    /// Steps over which the learning rate rises from 0. Then it falls along a cosine to a hundredth of its peak.
    #[arg(long, default_value_t = 100)]
    warmup_steps: usize,
    /// Decoupled weight decay.
    #[arg(long, default_value_t = 0.05)]
    weight_decay: f32,
    /// Seed of the first weights and of the order of windows.
    #[arg(long, default_value_t = 2026)]
    seed: u64,
    /// Save the model every so many steps.
    #[arg(long, default_value_t = 500)]
    #[serde(skip)]
    save_steps: usize,
}

fn main() -> anyhow::Result<()> {
    monosema_allocator::keep_pages();
    let args = Args::parse();
    fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let stories = data::read_stories(&args.lm)?;
    let tokenizer = data::train_tokenizer(&stories, &args.out)?;
    let tokens = data::tokenize(&stories, &tokenizer)?;
    eprintln!(
        "{} stories, {} tokens, {} in the vocabulary",
        stories.len(),
        tokens.len(),
        tokenizer.vocab_size()
    );
    let model = train(&args, &tokens, tokenizer.vocab_size())?;
    save(&model, &args.out)?;

    // What is evaluated is what was saved.
    let model = Checkpoint::open(&args.out)?.load(&Device::flex())?;
    let report = Report {
        training: args.clone(),
        parameters: model.info().n_parameters,
        training_tokens: tokens.len(),
        heldout: evaluation::evaluate(&model, &tokenizer, &args.heldout, args.length, &tokens)?,
    };
    let text = serde_json::to_string_pretty(&report)? + "\n";
    AtomicFile::write(args.out.join("training.json"), text.as_bytes())?;
    eprint!("{text}");
    Ok(())
}

/// What training.json says.
#[derive(Serialize)]
struct Report {
    training: Args,
    parameters: u64,
    training_tokens: usize,
    heldout: evaluation::Figures,
}

fn config(d_vocab: usize, max_context: usize) -> LlamaConfig {
    LlamaConfig {
        d_vocab,
        d_model: 128,
        d_mlp: 384,
        n_layers: 4,
        n_heads: 4,
        n_kv_heads: 2,
        d_head: 32,
        max_context,
        activation: Activation::Silu,
        norm_epsilon: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
        sliding_window: None,
        attention_bias: false,
        mlp_bias: false,
        tied: true,
    }
}

fn train(args: &Args, tokens: &[u32], d_vocab: usize) -> anyhow::Result<Llama> {
    let device = Device::flex().autodiff();
    let mut model = Llama::init(&config(d_vocab, args.length), Seed(args.seed), &device)?;
    let mut optimizer: ModuleOptimizer = AdamWConfig::new()
        .with_beta_2(0.98)
        .with_epsilon(1e-8)
        .with_weight_decay(args.weight_decay)
        .with_grad_clipping(Some(GradientClippingConfig::Norm(1.0)))
        .init();
    let mut windows = Windows::new(tokens, args.length, Seed(args.seed))?;
    let started = Instant::now();
    let mut recent = 0.0;
    for step in 0..args.steps {
        let (inputs, targets) = windows.batch(args.batch);
        let inputs = int_tensor(inputs, args, &device);
        let loss = cross_entropy(model.forward(inputs), int_tensor(targets, args, &device));
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(learning_rate(args, step), model, gradients);
        recent += loss.into_scalar::<f32>();
        let done = step + 1;
        if done % LOG_STEPS == 0 {
            let rate = (done * args.batch * args.length) as f64 / started.elapsed().as_secs_f64();
            let mean = recent / LOG_STEPS as f32;
            eprintln!("step {done}/{}  loss {mean:.4}  {rate:.0} tokens/s", args.steps);
            recent = 0.0;
        }
        if done % args.save_steps == 0 {
            save(&model, &args.out)?;
        }
    }
    Ok(model)
}

const LOG_STEPS: usize = 50;

fn save(model: &Llama, out: &Path) -> anyhow::Result<()> {
    model.save(out, SavedDtype::Bf16)?;
    // The architecture knows nothing of special tokens, and transformers would fill in Llama's own.
    let file = out.join("config.json");
    let mut config: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&fs::read(&file)?)?;
    config.insert("bos_token_id".into(), serde_json::Value::Null);
    config.insert("eos_token_id".into(), data::END_OF_TEXT_ID.into());
    let text = serde_json::to_string_pretty(&config)? + "\n";
    AtomicFile::write(&file, text.as_bytes()).with_context(|| file.display().to_string())
}

/// Up along a line, down along a cosine.
fn learning_rate(args: &Args, step: usize) -> f64 {
    if step < args.warmup_steps {
        return args.lr * (step + 1) as f64 / args.warmup_steps as f64;
    }
    let progress = (step - args.warmup_steps) as f64 / (args.steps - args.warmup_steps).max(1) as f64;
    let floor = args.lr / 100.0;
    floor + (args.lr - floor) * (1.0 + (std::f64::consts::PI * progress).cos()) / 2.0
}

/// `[batch, seq]`.
fn int_tensor(values: Vec<i32>, args: &Args, device: &Device) -> Tensor<2, Int> {
    Tensor::from_data(TensorData::new(values, [args.batch, args.length]), device)
}

/// Mean cross-entropy in nats.
///
/// # Shapes
/// `logits`: `[batch, seq, d_vocab]`; `targets`: `[batch, seq]`.
fn cross_entropy(logits: Tensor<3>, targets: Tensor<2, Int>) -> Tensor<1> {
    let [batch, seq, d_vocab] = logits.dims();
    let log_probabilities = log_softmax(logits.reshape([batch * seq, d_vocab]), 1);
    log_probabilities.gather(1, targets.reshape([batch * seq, 1])).mean().neg()
}
