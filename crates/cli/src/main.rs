//! The `monosema` binary: parses, resolves and wires. What the stages do lives in their crates.
//!
//! Results go to standard output, logs and progress to standard error. Exit status: 0 done, 1 the run
//! failed, 2 the command line or the configuration cannot be used.

mod args;
mod device;
mod experiment;
mod failure;
mod inspect;
mod output;
mod plan;
mod replace;
mod stages;
mod table;

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use tracing_subscriber::{EnvFilter, fmt, fmt::time};

use crate::args::{Args, Command};

/// Fresh tensors page-fault; an allocator that keeps its pages is worth 10–30 % of a training step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    device::fix_default();
    let args = Args::parse();
    init_logs(args.verbose);
    let result = match &args.command {
        Command::Harvest(run) => stages::run(run, &[stages::Stage::Harvest]),
        Command::Train(run) => stages::run(run, &[stages::Stage::Train]),
        Command::Eval(run) => stages::run(run, &[stages::Stage::Eval]),
        Command::Run(run) => stages::run(run, &stages::Stage::ALL),
        Command::Inspect(inspect) => inspect::run(inspect),
        Command::Devices { json } => device::list(*json),
        Command::ProbeDevice { name } => device::probe_here(*name),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn init_logs(verbose: u8) {
    let level = match verbose {
        0 => "warn,monosema=info",
        1 => "warn,monosema=debug",
        _ => "debug",
    };
    // Library crates are named monosema_*, which the prefix `monosema` covers.
    let filter = EnvFilter::try_from_env("MONOSEMA_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false)
        .with_timer(time::uptime())
        .init();
}
