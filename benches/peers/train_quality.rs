//! Trains our dictionaries for `quality` on given data, by the stage that `monosema train` runs: from a store, with the recipe's
//! numbers but for those on the command line. Prints an object of JSON for each.

#![allow(clippy::print_stdout, reason = "the figures are the result")]

use std::{collections::BTreeMap, error::Error, fs, num::NonZeroUsize, path::PathBuf};

use burn::tensor::Device;
use clap::{Parser, ValueEnum};
use monosema_core::{BlockHook, HookPoint, Manifest, Seed, Stage, manifest::Work};
use monosema_sae::{SaeConfig, architecture::top_k::TopKConfig};
use monosema_store::{HookColumn, Layout, Rows, Store, StoreSchema, VectorDtype, Writer, WriterOptions};
use monosema_trainer::{Job, LrScaling, Span, StoreFacts, TrainConfig, TrainPlan, Width, train};
use safetensors::SafeTensors;
use serde_json::json;

/// Tokens written at once.
const CHUNK: usize = 4096;

/// Of TopK's learning rate, as in `impls/trained.py`. The one recipe that there is, which is for ReLU and L1, has none; without
/// it, latents die at high learning rates.
const LR_WARMUP_FRACTION: f64 = 0.05;

#[derive(Parser)]
struct Args {
    /// Safetensors with `x`.
    #[arg(long)]
    data: PathBuf,
    #[arg(long)]
    d_sae: usize,
    /// Tokens a step.
    #[arg(long)]
    batch: usize,
    #[arg(long)]
    threads: usize,
    #[arg(long = "impl")]
    implementation: Implementation,
    /// L1 coefficients, or ks.
    #[arg(long, num_args = 1.., required = true)]
    values: Vec<f64>,
    /// Learning rates.
    #[arg(long, num_args = 1.., required = true)]
    lrs: Vec<f64>,
    #[arg(long, default_value = "0")]
    seed: u64,
    /// Where a directory for each dictionary goes.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Implementation {
    /// ReLU and L1.
    Ours,
    OursTopk,
}

fn main() -> Result<(), Box<dyn Error>> {
    monosema_allocator::keep_pages();
    let args = Args::parse();
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global()?;
    let name = args.implementation.to_possible_value().ok_or("every implementation has a name")?;
    let acts = tempfile::tempdir_in(&args.out)?;
    let store = store(&args.data, acts.path(), Seed(args.seed))?;
    for &value in &args.values {
        for &lr in &args.lrs {
            let plan =
                TrainPlan::resolve(&config(&args, value, lr)?, &StoreFacts::of(&store), Seed(args.seed))?;
            let file = format!("{}-{value}-{lr}", name.get_name());
            let manifest = Manifest::new(plan.work(&store), "cpu");
            let job = Job { plan, manifest, out: args.out.join(&file) };
            let seconds = train(vec![job], &store, &Device::flex())?[0].seconds;
            println!("{}", json!({"value": value, "lr": lr, "seconds": seconds, "file": file}));
        }
    }
    Ok(())
}

fn config(args: &Args, value: f64, lr: f64) -> Result<TrainConfig, Box<dyn Error>> {
    let config = TrainConfig {
        width: Width::Latents(args.d_sae),
        batch_tokens: Some(args.batch),
        lr: Some(lr),
        ..TrainConfig::default()
    };
    Ok(match args.implementation {
        Implementation::Ours => TrainConfig { sparsity: Some(value), ..config },
        Implementation::OursTopk => {
            let k = NonZeroUsize::new(value as usize).ok_or("a k is 1 or more")?;
            let top_k = TopKConfig { k, ..TopKConfig::default() };
            TrainConfig {
                architecture: Some(SaeConfig::TopK(top_k)),
                lr_warmup: Some(Span::Fraction(LR_WARMUP_FRACTION)),
                lr_scaling: Some(LrScaling::None),
                ..config
            }
        }
    })
}

/// The data as activations of a hook.
fn store(data: &PathBuf, directory: &std::path::Path, seed: Seed) -> Result<Store, Box<dyn Error>> {
    let bytes = fs::read(data)?;
    let data = SafeTensors::deserialize(&bytes)?;
    let x = data.tensor("x")?;
    let &[_, width] = x.shape() else { return Err("x is no matrix".into()) };
    let hook = HookPoint::block(0, BlockHook::ResidPost);
    let hooks = vec![HookColumn { hook, width }];
    let schema = StoreSchema { hooks, dtype: VectorDtype::F32, layout: Layout::Binary };
    let mut writer = Writer::create(directory, schema, WriterOptions::default())?;
    for rows in x.data().chunks(CHUNK * width * size_of::<f32>()) {
        let vectors: Vec<f32> = rows.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let n = vectors.len() / width;
        let (ids, documents) = (vec![0; n], vec![0; n]);
        writer.append(Rows {
            token_ids: &ids,
            documents: &documents,
            positions: &ids,
            vectors: &[&vectors],
        })?;
    }
    let written = writer.finish()?;
    let work = Work { stage: Stage::Harvest, config: ().into(), seed, inputs: BTreeMap::new() };
    let counts = BTreeMap::from([("tokens".to_owned(), written.tokens)]);
    Manifest::new(work, "cpu").seal(directory, counts, &written.shards)?;
    Ok(Store::open(directory)?)
}
