//! `monosema compare A B [C …]`: dictionaries against each other.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use monosema_evaluator::{
    compare::{self, CompareError, CompareOptions, Comparison, HTML_FILE, JSON_FILE},
    format_figure,
};
use monosema_sae::{Description, SaeError};

use crate::{
    args::CompareArgs,
    device,
    failure::{Failure, Outcome},
    output, table,
};

/// Where a run has its dictionary.
const OF_A_RUN: &str = "dictionary";

pub(crate) fn run(args: &CompareArgs) -> Outcome {
    let directories =
        args.dictionaries.iter().map(|path| dictionary_at(path)).collect::<Outcome<Vec<_>>>()?;
    if let Some(out) = &args.out {
        check_out(out, args.overwrite)?;
    }
    let CompareArgs { threshold, without_dead, match_up_to, .. } = *args;
    let options = CompareOptions { threshold, without_dead, match_up_to };
    let device = device::resolve(args.device)?.device;
    let comparison = compare::compare(&directories, options, &device).map_err(|error| match error {
        CompareError::Device { .. } | CompareError::Matching { .. } => Failure::run(error),
        error => Failure::usage(error),
    })?;
    for warning in &comparison.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(out) = &args.out {
        comparison.write(out).map_err(Failure::run)?;
    }
    if args.json {
        return output::print(comparison.to_json());
    }
    output::print(dictionaries(&comparison))?;
    output::print(figures(&comparison))?;
    match &args.out {
        Some(out) => output::print(out.join(HTML_FILE).display()),
        None => Ok(()),
    }
}

/// The dictionary in `path`, or that of the run there.
pub(crate) fn dictionary_at(path: &Path) -> Outcome<PathBuf> {
    if !path.is_dir() {
        let found = if path.exists() { "a file" } else { "nothing" };
        let expected = "the directory of a dictionary, or of a run with one";
        return Err(Failure::usage(anyhow!("{}: expected {expected}, found {found}", path.display())));
    }
    let within = path.join(OF_A_RUN);
    match Description::read(path) {
        Err(SaeError::NotADictionary { .. }) if within.is_dir() => {
            Description::read(&within).map_err(Failure::usage)?;
            Ok(within)
        }
        described => described.map(|_| path.to_owned()).map_err(Failure::usage),
    }
}

/// Refuses, before anything is computed, what cannot be written.
fn check_out(out: &Path, overwrite: bool) -> Outcome {
    if out.exists() && !out.is_dir() {
        let out = out.display();
        return Err(Failure::usage(anyhow!("--out {out}: expected a directory, found something else")));
    }
    let there = [JSON_FILE, HTML_FILE].map(|name| out.join(name)).into_iter().find(|file| file.exists());
    match there.filter(|_| !overwrite) {
        Some(file) => Err(Failure::usage(anyhow!(
            "{}: a comparison is there; choose another --out, or replace it with --overwrite",
            file.display()
        ))),
        None => Ok(()),
    }
}

fn dictionaries(comparison: &Comparison) -> String {
    let number = |n: usize| table::count(n as u64);
    let rows = comparison.dictionaries.iter().map(|dictionary| {
        vec![
            dictionary.name.clone(),
            dictionary.path.clone(),
            dictionary.model.clone().unwrap_or_else(|| "unknown".into()),
            dictionary.hook.to_string(),
            number(dictionary.d_sae),
            dictionary.dead.map_or_else(|| "–".into(), number),
            number(dictionary.compared),
        ]
    });
    table::render(&["", "dictionary", "model", "hook", "latents", "dead", "compared"], 4, rows)
}

fn figures(comparison: &Comparison) -> String {
    let pairs: Vec<String> = comparison.pairs.iter().map(compare::Pair::name).collect();
    let head: Vec<&str> = ["figure", "unit"].into_iter().chain(pairs.iter().map(String::as_str)).collect();
    let rows = comparison.rows().into_iter().map(|row| {
        let names = [row.definition.name, row.definition.unit].map(str::to_owned);
        names.into_iter().chain(row.values.into_iter().map(format_figure)).collect()
    });
    table::render(&head, 2, rows)
}
