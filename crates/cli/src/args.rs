//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum, builder::RangedU64ValueParser};

use monosema_core::HookPoint;
use monosema_evaluator::compare::CompareOptions;
use monosema_store::Part;

use crate::device::DeviceName;

/// Sparse autoencoders on a language model's residual stream: harvest, train, evaluate.
#[derive(Debug, Parser)]
#[command(version, about, after_help = "Example: monosema run configs/quickstart.toml")]
pub(crate) struct Args {
    /// More logs (-v: debug, -vv: everything). MONOSEMA_LOG takes tracing's filter syntax.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a language model over text and store its activations.
    #[command(after_help = "Example: monosema harvest configs/quickstart.toml --dry-run")]
    Harvest(HarvestArgs),
    /// Join the parts of a harvest, made with `harvest --part`, into one store: checks that all are there, of one work, and undamaged.
    #[command(after_help = "Example: monosema seal configs/quickstart.toml --out runs/quickstart")]
    Seal(SealArgs),
    /// Train a dictionary on stored activations.
    #[command(after_help = "Example: monosema train configs/quickstart.toml --set train.lr=1e-4")]
    Train(RunArgs),
    /// Splice a dictionary into the forward pass on held-out text and measure what is lost.
    #[command(
        after_help = "Examples: monosema eval configs/quickstart.toml --json\n          monosema eval configs/quickstart.toml \
                      runs/a runs/b/dictionary"
    )]
    Eval(EvalArgs),
    /// All stages in order; those already done with the same configuration and inputs are skipped.
    #[command(after_help = "Example: monosema run configs/quickstart.toml --out runs/quickstart")]
    Run(RunArgs),
    /// Tell what is at PATH: a model, activations, a dictionary, a report, or a run of them.
    #[command(
        after_help = "Example: monosema inspect data/demo/model --text data/demo/stories/heldout.jsonl"
    )]
    Inspect(InspectArgs),
    /// Hold dictionaries against each other: which latents of one are latents of another, and which have split.
    #[command(after_help = "Example: monosema compare runs/seed-1 runs/seed-2 --out runs/compared")]
    Compare(CompareArgs),
    /// Write a dictionary of another tool as one of SAELens's or sparsify's, and check that it is the same function.
    #[command(after_help = "Example: monosema convert layers.5 blocks-5 --to saelens --model-name gpt2")]
    Convert(ConvertArgs),
    /// List the recipes for training, or print one of them.
    #[command(after_help = "Example: monosema recipes gao2024")]
    Recipes {
        /// One of the list.
        name: Option<String>,
    },
    /// List the families of language models that can be read, and their hooks.
    #[command(after_help = "Example: monosema models")]
    Models {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the devices that this build can compute on.
    #[command(after_help = "Example: monosema devices")]
    Devices {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Compute something small on a device: what `auto` asks a child process to do.
    #[command(hide = true)]
    ProbeDevice { name: DeviceName },
    /// Compare what a device computes with what the CPU does: for scripts/gpu-check.sh.
    #[command(hide = true)]
    CheckDevice { name: DeviceName, model: PathBuf },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RunArgs {
    /// The experiment: a TOML file (see configs/).
    pub config: PathBuf,
    /// Where the run's directories go [default: runs/ and the configuration's name].
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Override a value of the configuration; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print the resolved plan and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Replace results that were made with another configuration or from other inputs, and begin anew what was interrupted or
    /// diverged. What is there stays until its replacement is whole.
    #[arg(long)]
    pub overwrite: bool,
    /// Print results as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct HarvestArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Harvest every N-th document alone, from the I-th on, beside other processes or machines that do the other parts; `seal`
    /// joins them.
    #[arg(long, value_name = "I/N")]
    pub part: Option<Part>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Dictionaries to evaluate and compare, or directories of runs that hold one [default: that of the experiment].
    #[arg(value_name = "DICTIONARY")]
    pub dictionaries: Vec<PathBuf>,
    /// Splice in all of them at once, too: dictionaries of several hooks.
    #[arg(long, requires = "dictionaries")]
    pub together: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct SealArgs {
    /// The experiment whose parts were harvested.
    pub config: PathBuf,
    /// Where they are [default: runs/ and the configuration's name].
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Override a value of the configuration, as in the harvest; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print the manifest as JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct InspectArgs {
    /// A model (a directory, a .gguf file, or hf:owner/name@revision), or what a stage wrote.
    pub path: PathBuf,
    /// Text for a model to read: .txt, .jsonl, .ndjson, .parquet, a directory or a glob, here or elsewhere
    /// (hf:datasets/owner/name, s3://bucket/prefix); may be repeated.
    #[arg(long, value_name = "FILE")]
    pub text: Vec<String>,
    /// Tokens of text to read at most [default: 4096].
    #[arg(long, requires = "text", value_parser = RangedU64ValueParser::<u64>::new().range(1..))]
    pub tokens: Option<u64>,
    /// Window length in tokens [default: 128].
    #[arg(long, requires = "text", value_parser = RangedU64ValueParser::<usize>::new().range(2..))]
    pub context: Option<usize>,
    /// Where a model runs: auto, cpu, cuda:N or ndarray [default: auto].
    #[arg(long, requires = "text")]
    pub device: Option<DeviceName>,
    /// Compare every file with the digest in its manifest.
    #[arg(long)]
    pub verify: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CompareArgs {
    /// Two dictionaries or more, or runs with one each: every two are compared.
    #[arg(required = true, num_args = 2.., value_name = "DIR")]
    pub dictionaries: Vec<PathBuf>,
    /// Write compare.json and compare.html there.
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Replace a comparison that is there.
    #[arg(long, requires = "out")]
    pub overwrite: bool,
    /// Two latents are taken for the same above this cosine.
    #[arg(long, value_name = "COSINE", default_value_t = CompareOptions::default().threshold)]
    pub threshold: f64,
    /// Leave out latents that never fired in training's last window, of dictionaries that know.
    #[arg(long)]
    pub without_dead: bool,
    /// Match dictionaries of at most so many latents: it takes 4 bytes for each pair of latents, and time.
    #[arg(long, value_name = "LATENTS", default_value_t = CompareOptions::default().match_up_to)]
    pub match_up_to: usize,
    /// Where cosines are computed: auto, cpu, cuda:N or ndarray.
    #[arg(long, default_value = "cpu")]
    pub device: DeviceName,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct ConvertArgs {
    /// The dictionary's directory: SAELens, sparsify, dictionary_learning, Gemma Scope or Llamascopium.
    #[arg(value_name = "SRC")]
    pub source: PathBuf,
    /// The directory to write, which must not be there.
    #[arg(value_name = "DST")]
    pub destination: PathBuf,
    /// What to write.
    #[arg(long, value_enum, default_value_t)]
    pub to: Target,
    /// Where in the model it reads, if its files do not say or say something else: blocks.5.hook_resid_post.
    #[arg(long)]
    pub hook: Option<HookPoint>,
    /// Where what a transcoder gives belongs: blocks.5.hook_mlp_out.
    #[arg(long, value_name = "HOOK")]
    pub hook_out: Option<HookPoint>,
    /// The language model, if its files do not say or say something else.
    #[arg(long, value_name = "NAME")]
    pub model_name: Option<String>,
    /// Activations to check it on too, beside random inputs: a directory that `harvest` made.
    #[arg(long, value_name = "DIR")]
    pub acts: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// A format that dictionaries are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// SAELens v6.
    #[default]
    Saelens,
    /// EleutherAI's sparsify.
    Sparsify,
}
