//! The `monosema` binary: parses, resolves and wires. What the stages do lives in their crates.
//!
//! Results go to standard output, logs and progress to standard error. Exit status: 0 done, 1 the run
//! failed, 2 the command line or the configuration cannot be used.

mod args;
mod check_device;
mod compare;
mod convert;
mod device;
mod experiment;
mod failure;
mod inspect;
mod model;
mod models;
mod output;
mod places;
mod plan;
mod recipes;
mod replace;
mod seal;
mod stages;
mod summary;
mod sweep;
mod table;

use std::{io::IsTerminal, process::ExitCode};

use anyhow::{Context, anyhow};
use clap::Parser;
use monosema_core::Stage;
use tracing_subscriber::{EnvFilter, fmt, fmt::time};

use crate::{
    args::{Args, Command},
    failure::{Failure, Outcome},
};

fn main() -> ExitCode {
    monosema_allocator::keep_pages();
    device::fix_defaults();
    let args = Args::parse();
    let outcome = init_logs(args.verbose).and_then(|()| dispatch(&args.command));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn dispatch(command: &Command) -> Outcome {
    // Backends panic where they cannot return an error: out of memory, a lost device. The message is out by then; the
    // directories are those of an interrupted run.
    std::panic::catch_unwind(|| match command {
        Command::Harvest(harvest) => stages::run(&harvest.run, &[Stage::Harvest], harvest.part),
        Command::Seal(seal) => seal::run(seal),
        Command::Train(run) => stages::run(run, &[Stage::Train], None),
        Command::Eval(eval) if eval.dictionaries.is_empty() => stages::run(&eval.run, &[Stage::Eval], None),
        Command::Eval(eval) => stages::eval_given(eval),
        Command::Run(run) => stages::run(run, &Stage::ALL, None),
        Command::Inspect(inspect) => inspect::run(inspect),
        Command::Compare(compare) => compare::run(compare),
        Command::Convert(convert) => convert::run(convert),
        Command::Recipes { name } => recipes::run(name.as_deref()),
        Command::Models { json } => models::list(*json),
        Command::Devices { json } => device::list(*json),
        Command::ProbeDevice { name } => device::probe_here(*name),
        Command::CheckDevice { name, model } => check_device::run(*name, model),
    })
    .unwrap_or_else(|_| {
        let reason =
            "the program broke off (see above): out of memory, a device that failed, or a fault of monosema";
        Err(Failure::run(anyhow!(reason)))
    })
}

fn init_logs(verbose: u8) -> Outcome {
    let level = match verbose {
        0 => "warn,monosema=info",
        1 => "warn,monosema=debug",
        _ => "debug",
    };
    // Library crates are named monosema_*, which the prefix `monosema` covers.
    let filter = match std::env::var("MONOSEMA_LOG") {
        Ok(filter) => EnvFilter::try_new(&filter)
            .with_context(|| format!("MONOSEMA_LOG={filter}: expected a filter such as `monosema=debug`"))
            .map_err(Failure::usage)?,
        Err(_) => EnvFilter::new(level),
    };
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false)
        .with_timer(time::uptime())
        .init();
    Ok(())
}
