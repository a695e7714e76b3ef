//! Times our harvest of a given model and text and prints one object of JSON: what `harvest` runs beside the peers.

#![allow(clippy::print_stdout, reason = "the figures are the result")]

use std::{error::Error, path::PathBuf, time::Instant};

use burn::tensor::Device;
use clap::{Parser, ValueEnum};
use monosema_benches::peak_mb;
use monosema_core::{HookPoint, Manifest, Seed};
use monosema_harvester::{HarvestConfig, HarvestPlan, Stream, harvest};
use monosema_store::{Activations, BatchPlan, VectorDtype};
use monosema_text::{Bos, ContextConfig, Separator, TextConfig};
use monosema_transformer::Checkpoint;
use serde_json::json;

#[derive(Parser)]
struct Args {
    /// A Hugging Face directory.
    #[arg(long)]
    model: PathBuf,
    /// Text for it, in windows that its tokenizer cuts.
    #[arg(long)]
    text: PathBuf,
    #[arg(long)]
    hook: HookPoint,
    /// Tokens to harvest.
    #[arg(long)]
    tokens: u64,
    /// Windows that the model runs over at once, and their length.
    #[arg(long)]
    batch: usize,
    #[arg(long)]
    context: usize,
    #[arg(long = "impl")]
    implementation: Implementation,
    /// An empty directory for the shards.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Implementation {
    /// Text to sealed shards, as `monosema harvest`.
    Ours,
    /// The same, stored in f16.
    OursF16,
    /// Text to rows in memory, as a training from a stream takes them: nothing is written.
    OursUnwritten,
}

fn main() -> Result<(), Box<dyn Error>> {
    monosema_allocator::keep_pages();
    let args = Args::parse();
    let device = Device::flex();
    let checkpoint = Checkpoint::open(&args.model)?;
    let files = vec![args.text.display().to_string()];
    let text = TextConfig::new(files);
    // Every token counts, as it does for the peers.
    let context = ContextConfig {
        length: args.context,
        bos: Bos::Never,
        separator: Separator::None,
        skip_first: 0,
        skip_special: false,
        ..ContextConfig::default()
    };
    let config = HarvestConfig {
        tokens: Some(args.tokens),
        batch_tokens: Some(args.batch * args.context),
        dtype: if args.implementation == Implementation::OursF16 {
            VectorDtype::F16
        } else {
            VectorDtype::F32
        },
        ..HarvestConfig::new(vec![args.hook], text)
    };
    let plan = HarvestPlan::resolve(&config, &context, &checkpoint, Seed(0))?;
    let work = plan.work(&checkpoint)?;

    let (seconds, tokens) = if args.implementation == Implementation::OursUnwritten {
        let stream = Stream::new(plan, work, checkpoint, &device);
        let plan = every_row(&args);
        let sizes = stream.group_sizes(&plan, 0);
        let mut groups = stream.read(&plan, Box::new(0..sizes.len()));
        // The first group is there once the model is loaded, and is not counted.
        groups.next().ok_or("no rows")??;
        let started = Instant::now();
        groups.try_for_each(|group| group.map(|_| ()))?;
        (started.elapsed().as_secs_f64(), sizes[1..].iter().map(|&rows| rows as u64).sum())
    } else {
        let summary = harvest(&plan, Manifest::new(work, "cpu"), &checkpoint, &device, &args.out)?;
        (summary.elapsed.as_secs_f64(), summary.tokens)
    };
    println!(
        "{}",
        json!({
            "tokens_per_s": tokens as f64 / seconds,
            "tokens": tokens,
            "peak_mb": peak_mb(),
        })
    );
    Ok(())
}

fn every_row(args: &Args) -> BatchPlan {
    BatchPlan {
        hook: args.hook,
        hook_out: None,
        batch_tokens: args.context,
        buffer_tokens: args.context,
        seed: Seed(0),
        tokens: args.tokens,
        delivered: 0,
    }
}
