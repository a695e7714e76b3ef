//! Trains our dictionaries for `quality` on given data, by the stage that `monosema train` runs: from a store, with the recipe's
//! numbers but for those on the command line. Prints an object of JSON for each.

#![allow(clippy::print_stdout, reason = "the figures are the result")]

use std::{collections::BTreeMap, error::Error, fs, num::NonZeroUsize, path::PathBuf, sync::Arc};

use burn::tensor::Device;
use clap::{Parser, ValueEnum};
use monosema_core::{BlockHook, HookPoint, Manifest, Seed, Stage, manifest::Work};
use monosema_sae::{
    Annealing, AuxK, SaeConfig,
    architecture::{
        batch_top_k::BatchTopKConfig,
        gated::GatedConfig,
        jump_relu::{JumpReluConfig, Penalty},
        matryoshka::MatryoshkaConfig,
        p_anneal::PAnnealConfig,
        top_k::TopKConfig,
    },
};
use monosema_store::{
    Activations, HookColumn, Layout, Order, Rows, Store, StoreSchema, VectorDtype, Writer, WriterOptions,
};
use monosema_trainer::{
    Betas, DecoderNorm, GradClip, Job, LrScaling, Normalize, Span, StoreFacts, TrainConfig, TrainPlan, Width,
    train,
};
use safetensors::SafeTensors;
use serde_json::json;

/// Tokens written at once.
const CHUNK: usize = 4096;

/// Of the learning rate, as in `impls/trained.py`, for all but ReLU and L1, whose recipe has none; without it, latents die at high
/// learning rates.
const LR_WARMUP_FRACTION: f64 = 0.05;

/// Silent tokens after which a latent is dead, for those whose loss heeds that: ten steps, where recipes are for runs of hundreds of
/// millions of tokens.
const DEAD_AFTER_TOKENS: u64 = 5_120;

/// Of AuxK, where latents are chosen in batches. The error is as large as d_in here, and the term as large as 1.
const AUX_COEFFICIENT: f64 = 2.0;

/// Of thresholds, in units of activations of norm √d: SAELens's. The recipe's are for activations of norm 1.
const BANDWIDTH: f64 = 0.05;
const INITIAL_THRESHOLD: f64 = 0.01;

/// λ of the squared distance from a target L0.
const TARGET_COEFFICIENT: f64 = 8.0;

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
    /// Coefficients of the penalty, ks, or target L0s.
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
    #[value(name = "ours-panneal")]
    PAnneal,
    #[value(name = "ours-gated")]
    Gated,
    #[value(name = "ours-jumprelu")]
    JumpRelu,
    #[value(name = "ours-jumprelu-target")]
    JumpReluTarget,
    #[value(name = "ours-topk")]
    TopK,
    #[value(name = "ours-batchtopk")]
    BatchTopK,
    #[value(name = "ours-matryoshka")]
    Matryoshka,
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
                TrainPlan::resolve(&config(&args, value, lr)?, &StoreFacts::of(&*store), Seed(args.seed))?;
            let file = format!("{}-{value}-{lr}", name.get_name());
            let manifest = Manifest::new(plan.work(&*store), "cpu");
            let job = Job { plan, manifest, out: args.out.join(&file) };
            let seconds = train(vec![job], &store, &Device::flex())?.remove(0)?.seconds;
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
    let k = || NonZeroUsize::new(value as usize).ok_or("a k is 1 or more");
    let jump_relu = |penalty| {
        let (bandwidth, initial_threshold) = (BANDWIDTH, INITIAL_THRESHOLD);
        let config = JumpReluConfig {
            penalty,
            bandwidth,
            initial_threshold,
            apply_b_dec_to_input: true,
            ..JumpReluConfig::default()
        };
        SaeConfig::JumpRelu(config)
    };
    let aux = AuxK { coefficient: AUX_COEFFICIENT, k: None };
    let apply_b_dec_to_input = true;
    let architecture = match args.implementation {
        Implementation::Ours => return Ok(TrainConfig { sparsity: Some(value), ..config }),
        Implementation::PAnneal => {
            let annealing = Annealing { start: 0.05, changes: 9, ..Annealing::default() };
            SaeConfig::PAnneal(PAnnealConfig { annealing, ..PAnnealConfig::default() })
        }
        Implementation::Gated => SaeConfig::Gated(GatedConfig::default()),
        Implementation::JumpRelu => jump_relu(Penalty::L0),
        Implementation::JumpReluTarget => jump_relu(Penalty::TargetL0(value)),
        Implementation::TopK => SaeConfig::TopK(TopKConfig { k: k()?, ..TopKConfig::default() }),
        Implementation::BatchTopK => {
            SaeConfig::BatchTopK(BatchTopKConfig { k: k()?, apply_b_dec_to_input, aux })
        }
        Implementation::Matryoshka => {
            let prefixes = vec![0.03125, 0.09375, 0.21875, 0.46875];
            SaeConfig::Matryoshka(MatryoshkaConfig { k: k()?, prefixes, apply_b_dec_to_input, aux })
        }
    };
    let sparsity = match args.implementation {
        Implementation::JumpReluTarget => Some(TARGET_COEFFICIENT),
        _ => architecture.penalised().then_some(value),
    };
    let config = TrainConfig {
        architecture: Some(architecture),
        sparsity,
        normalize: Some(Normalize::MeanNorm),
        lr_warmup: Some(Span::Fraction(LR_WARMUP_FRACTION)),
        lr_decay: Some(Span::Fraction(0.2)),
        sparsity_warmup: Some(Span::Fraction(0.05)),
        lr_scaling: Some(LrScaling::None),
        grad_clip: Some(GradClip::Norm(1.0)),
        adam_betas: Some(Betas([0.9, 0.999])),
        dead_after_tokens: Some(DEAD_AFTER_TOKENS),
        ..config
    };
    let small_encoder = TrainConfig { init_norm: Some(0.1), ..config.clone() };
    let at_once = Some(Span::Steps(0));
    Ok(match args.implementation {
        Implementation::PAnneal => small_encoder,
        Implementation::Gated => TrainConfig { lr_warmup: at_once, ..small_encoder },
        Implementation::JumpRelu | Implementation::JumpReluTarget => {
            TrainConfig { lr_warmup: at_once, decoder: Some(DecoderNorm::Free), ..small_encoder }
        }
        _ => config,
    })
}

/// The data as activations of a hook.
fn store(
    data: &PathBuf,
    directory: &std::path::Path,
    seed: Seed,
) -> Result<Arc<dyn Activations>, Box<dyn Error>> {
    let bytes = fs::read(data)?;
    let data = SafeTensors::deserialize(&bytes)?;
    let x = data.tensor("x")?;
    let &[_, width] = x.shape() else { return Err("x is no matrix".into()) };
    let hook = HookPoint::block(0, BlockHook::ResidPost);
    let hooks = vec![HookColumn { hook, width }];
    let schema = StoreSchema { hooks, dtype: VectorDtype::F32, layout: Layout::Binary, order: Order::Text };
    let work = Work { stage: Stage::Harvest, config: ().into(), seed, inputs: BTreeMap::new() };
    let mut writer = Writer::create(directory, schema, WriterOptions::default(), &work)?;
    for rows in x.data().chunks(CHUNK * width * size_of::<f32>()) {
        let vectors: Vec<f32> = rows.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let n = vectors.len() / width;
        let (ids, documents) = (vec![0; n], vec![0; n]);
        writer.append(Rows {
            token_ids: &ids,
            documents: &documents,
            positions: &ids,
            places: &documents,
            vectors: &[&vectors],
        })?;
    }
    let written = writer.finish()?;
    let counts = BTreeMap::from([("tokens".to_owned(), written.tokens)]);
    Manifest::new(work, "cpu").seal(directory, counts, &written.shards)?;
    Ok(Arc::new(Store::open(directory)?))
}
