//! `monosema inspect PATH`: a model, activations, a dictionary, a report, or a run's directory of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use burn::tensor::Device;
use monosema_core::{AtomicFile, HookPoint, Manifest, ManifestError, Stage, manifest};
use monosema_evaluator::{
    ConceptsReport, EvalError, JSON_FILE, ModelInspection, ProbesReport, Report, format_figure, inspect_model,
};
use monosema_sae::{
    Dictionary,
    formats::{self, Format},
};
use monosema_store::{Activations, Excess, Part, Place, Quality, Store, StoreError, shard_number};
use monosema_text::{ContextConfig, TextConfig};
use monosema_transformer::{Checkpoint, ModelError};
use serde_json::{Map, Value, json};

use crate::{
    args::InspectArgs,
    device::{self, DeviceName},
    failure::{Failure, Outcome},
    model, output, table,
};

/// Tokens of text that a model reads, unless `--tokens` says otherwise.
const TOKENS: u64 = 4096;

/// How long its windows are, unless `--context` says otherwise.
const CONTEXT: usize = 128;

/// What was found: for programs, and for people.
struct Found {
    json: Value,
    lines: Vec<String>,
}

/// What can be at a path.
enum Kind {
    Activations,
    Dictionary,
    /// What a stage is at work on, or was when it was interrupted: as a part of a run.
    Unfinished(Stage),
    /// The directory that holds `report.json`.
    Report(PathBuf),
    /// Directories of `monosema run --out`: the names and kinds of those that are there.
    Run(Vec<(&'static str, Kind)>),
    Model(Box<Checkpoint>),
}

impl Kind {
    fn of(path: &Path) -> Outcome<Self> {
        if model::is_elsewhere(path) {
            return Ok(Self::Model(Box::new(model::open(path).map_err(Failure::usage)?)));
        }
        if Place::is_elsewhere(path) {
            return Ok(Self::Activations);
        }
        if !path.exists() {
            return Err(Failure::usage(anyhow!("{}: no such file or directory", path.display())));
        }
        if Format::of(path).is_ok() || path.join("cfg.json").is_file() {
            return Ok(Self::Dictionary);
        }
        if path.join(manifest::FILE_NAME).is_file() {
            return Ok(Self::Activations);
        }
        if path.file_name().is_some_and(|name| name == JSON_FILE) {
            return Ok(Self::Report(path.parent().unwrap_or(Path::new("")).to_owned()));
        }
        let parts = Self::parts(path);
        if !parts.is_empty() {
            return Ok(Self::Run(parts));
        }
        match Checkpoint::open(path) {
            Ok(checkpoint) => Ok(Self::Model(Box::new(checkpoint))),
            // Unless something of a model is there.
            Err(ModelError::NotAModel { .. }) if !path.join("config.json").exists() => {
                Err(Failure::usage(none_of_these(path)))
            }
            Err(error) => Err(Failure::usage(error)),
        }
    }

    /// What `monosema run --out` has made in `directory` so far.
    fn parts(directory: &Path) -> Vec<(&'static str, Self)> {
        let stages = [
            ("acts", Self::Activations, Stage::Harvest, &[manifest::FILE_NAME][..]),
            ("dictionary", Self::Dictionary, Stage::Train, &[manifest::FILE_NAME, "cfg.json"][..]),
        ];
        let mut parts = Vec::new();
        for (name, kind, stage, signs) in stages {
            let part = directory.join(name);
            if part.is_dir() {
                // A dictionary from elsewhere has no manifest.
                let finished =
                    signs.iter().any(|sign| part.join(sign).is_file()) || Format::of(&part).is_ok();
                parts.push((name, if finished { kind } else { Self::Unfinished(stage) }));
            }
        }
        if directory.join(JSON_FILE).is_file() {
            parts.push(("", Self::Report(directory.to_owned())));
        }
        parts
    }
}

/// Why nothing can be told of `path`.
fn none_of_these(path: &Path) -> anyhow::Error {
    if let Err(error @ StoreError::Unjoined { .. }) = Store::open(path) {
        return error.into();
    }
    if let Some(stage) = unfinished(path) {
        return ManifestError::Unsealed { directory: path.to_owned(), stage }.into();
    }
    let found = if path.is_dir() {
        "a directory that is none of these"
    } else {
        "a file that is none of these; of what a stage wrote, give the directory"
    };
    anyhow!(
        "{}: expected a model (a Hugging Face directory or a .gguf file), activations, a dictionary, a report.json, or \
         a run's directory of them; found {found}",
        path.display()
    )
}

/// The stage that has begun to write `directory`, by the signs that it leaves.
fn unfinished(directory: &Path) -> Option<Stage> {
    if directory.join("logs/metrics.jsonl").is_file() {
        return Some(Stage::Train);
    }
    let is_sign = |name: &str| {
        AtomicFile::is_leftover(name)
            || shard_number(name).is_some()
            || Part::of_directory(name).is_some()
            || name.parse::<HookPoint>().is_ok()
    };
    let mut entries = fs::read_dir(directory).ok()?.flatten();
    entries.any(|entry| is_sign(&entry.file_name().to_string_lossy())).then_some(Stage::Harvest)
}

pub(crate) fn run(args: &InspectArgs) -> Outcome {
    let kind = Kind::of(&args.path)?;
    let applies = |flag: &str, to: &str| {
        let path = args.path.display();
        Err(Failure::usage(anyhow!("{flag} applies to {to}, and {path} is none")))
    };
    match kind {
        Kind::Model(_) if args.verify => return applies("--verify", "what a stage wrote"),
        Kind::Model(_) => {}
        _ if !args.text.is_empty() => return applies("--text", "models"),
        // One from elsewhere has nothing to be verified by.
        Kind::Dictionary if args.verify => {
            Manifest::read(&args.path, Stage::Train).map_err(Failure::usage)?;
        }
        _ => {}
    }
    let Found { json, lines } = look(&kind, &args.path, args)?;
    if args.json { output::print(format_args!("{json:#}")) } else { output::print(lines.join("\n")) }
}

fn look(kind: &Kind, path: &Path, args: &InspectArgs) -> Outcome<Found> {
    match kind {
        Kind::Activations => activations(path, args),
        Kind::Dictionary => dictionary(path, args),
        Kind::Unfinished(stage) => Ok(unfinished_part(path, *stage)),
        Kind::Report(directory) => report(directory, args),
        Kind::Model(checkpoint) => model(checkpoint, args),
        Kind::Run(parts) => {
            let mut json = Map::from_iter([("kind".to_owned(), "run".into())]);
            let mut lines = Vec::new();
            for (name, kind) in parts {
                let found = look(kind, &path.join(name), args)?;
                let key = if name.is_empty() { "report" } else { name };
                json.insert(key.to_owned(), found.json);
                if !lines.is_empty() {
                    lines.push(String::new());
                }
                lines.extend(found.lines);
            }
            Ok(Found { json: json.into(), lines })
        }
    }
}

/// Reads every file of `directory` and compares its digest with the one in the `manifest`, which is in the file
/// `holder`, where `--verify` asks for it.
fn verify(
    directory: &Path,
    manifest: &Manifest,
    holder: &str,
    args: &InspectArgs,
    found: &mut Found,
) -> Outcome {
    if args.verify {
        let place = Place::at(directory).map_err(Failure::run)?;
        manifest.verify(&place).map_err(Failure::run)?;
        let n = manifest.files.len();
        found.lines.push(format!("verified     {n} file(s) have the digests of {holder}"));
        found.json["verified"] = true.into();
    }
    Ok(())
}

/// A line for what is not there yet, so that it hides no other part of a run.
fn unfinished_part(path: &Path, stage: Stage) -> Found {
    let (part, done) = match stage {
        Stage::Harvest => ("activations", "harvested"),
        Stage::Train => ("dictionary", "trained"),
        Stage::Eval => ("report", "made"),
    };
    let line = format!(
        "{part:<12} {}: unfinished: being {done}, or interrupted; run the {stage} stage (again)",
        path.display()
    );
    Found { json: json!({ "kind": "unfinished", "stage": stage }), lines: vec![line] }
}

fn activations(path: &Path, args: &InspectArgs) -> Outcome<Found> {
    let store = Store::open(path).map_err(Failure::usage)?;
    let (schema, manifest) = (store.schema(), store.manifest());
    let size: u64 = manifest.files.values().map(|file| file.bytes).sum();
    let quality = store.quality().map_err(Failure::run)?;
    let json = json!({
        "kind": "activations", "tokens": store.tokens(), "bytes": size, "schema": schema, "shuffle": quality,
        "manifest": manifest,
    });
    let mut lines = vec![
        format!("activations  {}", path.display()),
        format!("tokens       {}", table::count(store.tokens())),
        format!("on disk      {} in {} shard(s)", table::bytes(size), manifest.files.len()),
        format!("vectors      {}, {} layout", word(&schema.dtype), word(&schema.layout)),
        format!("order        {}", word(&schema.order)),
    ];
    lines.extend(quality.iter().flat_map(quality_lines));
    lines.extend(
        schema.hooks.iter().map(|column| format!("hook         {}, width {}", column.hook, column.width)),
    );
    lines.extend(manifest.work.inputs.iter().map(|(role, input)| format!("{role:<12} {}", input.name)));
    let shown = ["tokens", "shards"];
    let counts = manifest.counts.iter().filter(|(name, _)| !shown.contains(&name.as_str()));
    lines.extend(counts.map(|(name, n)| format!("{name:<12} {}", table::count(*n))));
    let mut found = Found { json, lines };
    verify(path, manifest, manifest::FILE_NAME, args, &mut found)?;
    Ok(found)
}

/// How well it is shuffled.
fn quality_lines(quality: &Quality) -> [String; 3] {
    let Quality { batch_tokens, batches, chance, as_read, as_harvested } = quality;
    let beyond = |Excess { excess, standard_error }: &Excess| {
        format!("{:+.2} % ± {:.2} % of what chance makes", 100.0 * excess, 100.0 * standard_error)
    };
    [
        format!(
            "shuffle      pairs of tokens of one document, in {batches} batches of {batch_tokens}; chance makes {chance:.3e} of all:"
        ),
        format!("             as training reads them    {}", beyond(as_read)),
        format!("             as they were harvested    {}", beyond(as_harvested)),
    ]
}

/// How a configuration would spell a value.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn dictionary(path: &Path, args: &InspectArgs) -> Outcome<Found> {
    let dictionary = Dictionary::load(path, &Device::flex()).map_err(Failure::usage)?;
    let manifest = match Manifest::read(path, Stage::Train) {
        Ok(manifest) => Some(manifest),
        // A dictionary from elsewhere has no manifest, and needs none.
        Err(ManifestError::Unsealed { .. }) => None,
        Err(error) => return Err(Failure::usage(error)),
    };
    let metadata = dictionary.metadata();
    let dead = dictionary.log_sparsity().map(|log| log.iter().filter(|&&value| value <= -9.99).count());
    let format = Format::of(path).map_err(Failure::usage)?;
    let cfg: Value = ["cfg.json", "config.json"]
        .iter()
        .find_map(|name| serde_json::from_slice(&fs::read(path.join(name)).ok()?).ok())
        .unwrap_or_default();
    let architecture = formats::saelens::architecture(&dictionary);
    let json = json!({
        "kind": "dictionary", "format": format.name(), "architecture": architecture, "d_in": dictionary.d_in(),
        "d_sae": dictionary.d_sae(), "hook": metadata.hook, "model": metadata.model_name, "scale": metadata.scale,
        "never_active": dead, "cfg": cfg, "manifest": manifest,
    });
    let mut lines = vec![
        format!("dictionary   {}", path.display()),
        format!("format       {}", format.name()),
        format!("architecture {architecture}"),
        format!(
            "size         d_in {} → d_sae {}",
            dictionary.d_in(),
            table::count(dictionary.d_sae() as u64)
        ),
        format!("hook         {}", metadata.hook),
        format!("model        {}", metadata.model_name.as_deref().unwrap_or("unknown")),
    ];
    lines.extend(
        dead.map(|n| format!("never active {} latents in training's last window", table::count(n as u64))),
    );
    let mut found = Found { json, lines };
    if let Some(manifest) = &manifest {
        let shown = ["d_in", "d_sae"];
        let counts = manifest.counts.iter().filter(|(name, _)| !shown.contains(&name.as_str()));
        found.lines.extend(counts.map(|(name, n)| format!("{name:<12} {}", table::count(*n))));
        verify(path, manifest, manifest::FILE_NAME, args, &mut found)?;
    } else if args.verify {
        found.lines.push(format!("verified     no: there is no {}", manifest::FILE_NAME));
        found.json["verified"] = false.into();
    }
    Ok(found)
}

fn report(directory: &Path, args: &InspectArgs) -> Outcome<Found> {
    let report = Report::read(directory).map_err(Failure::usage)?;
    let mut json = report.to_json();
    json["kind"] = "report".into();
    let mut found = Found { json, lines: vec![report_table(&report)] };
    // In a run's directory, the dictionary that it should be of.
    let dictionary = directory.join("dictionary");
    if Format::of(&dictionary).is_ok() {
        let stale = !report.is_of(&dictionary).map_err(Failure::usage)?;
        found.json["stale"] = stale.into();
        if stale {
            let line = "this report is of another dictionary than the one here; run the eval stage again";
            found.lines.push(line.into());
        }
    }
    verify(directory, &report.manifest, JSON_FILE, args, &mut found)?;
    Ok(found)
}

/// The report's figures as a table, and what was found on labelled text in lines below it.
pub(crate) fn report_table(report: &Report) -> String {
    let head: Vec<_> = ["metric", "unit", "better"].into_iter().chain(report.columns()).collect();
    let table = table::render(&head, 3, report.rows().iter().map(monosema_evaluator::Row::cells));
    let concepts = report.concepts.iter().flat_map(ConceptsReport::lines);
    let probes = report.probes.iter().flat_map(ProbesReport::lines);
    std::iter::once(table).chain(concepts).chain(probes).collect::<Vec<_>>().join("\n")
}

fn model(checkpoint: &Checkpoint, args: &InspectArgs) -> Outcome<Found> {
    let info = checkpoint.info();
    let mut lines = vec![
        format!("model        {}", info.name),
        format!("family       {}", info.family),
        format!(
            "size         {} blocks, d_model {}, {} parameters",
            info.n_layers,
            info.d_model,
            table::count(info.n_parameters)
        ),
        format!("vocabulary   {}", table::count(info.d_vocab as u64)),
        format!("context      at most {} tokens", table::count(info.max_context as u64)),
    ];
    if args.text.is_empty() {
        lines.push("Give --text FILE to see its cross-entropy and the norms of its residual stream.".into());
        return Ok(Found { json: json!({ "kind": "model", "model": info }), lines });
    }
    let chosen = device::resolve(args.device.unwrap_or(DeviceName::Auto))?;
    let text = TextConfig::new(args.text.clone());
    let context = ContextConfig { length: args.context.unwrap_or(CONTEXT), ..ContextConfig::default() };
    let inspection =
        inspect_model(checkpoint, &chosen.device, &text, &context, args.tokens.unwrap_or(TOKENS)).map_err(
            |error| match error {
                EvalError::Inspected(_) => Failure::usage(anyhow!(error).context("--text")),
                EvalError::Context(_) | EvalError::ContextTooLong { .. } => {
                    Failure::usage(anyhow!(error).context("--context"))
                }
                error => Failure::run(error),
            },
        )?;
    let mut json = serde_json::to_value(&inspection).map_err(Failure::run)?;
    json["kind"] = "model".into();
    lines.extend(model_lines(&inspection));
    Ok(Found { json, lines })
}

fn model_lines(inspection: &ModelInspection) -> Vec<String> {
    let ce = &inspection.ce;
    vec![
        format!(
            "cross-entropy {} nats a token over {} predictions ({} over the counted ones)",
            format_figure(Some(ce.mean)),
            table::count(ce.predictions),
            format_figure(ce.counted_mean),
        ),
        table::render(&ModelInspection::COLUMNS, 1, inspection.rows().into_iter().map(Vec::from)),
    ]
}
