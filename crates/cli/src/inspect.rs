//! `monosema inspect PATH`: a model, activations, a dictionary, a report, or a run's directory of them.

use std::{fs, path::Path};

use anyhow::anyhow;
use burn::tensor::Device;
use monosema_core::{Manifest, ManifestError, manifest};
use monosema_evaluator::{JSON_FILE, ModelInspection, Report, format_figure, inspect_model};
use monosema_sae::Dictionary;
use monosema_store::Store;
use monosema_text::{ContextConfig, TextConfig};
use monosema_transformer::Checkpoint;
use serde_json::{Value, json};

use crate::{
    args::InspectArgs,
    device,
    failure::{Failure, Outcome},
    output, table,
};

pub(crate) fn run(args: &InspectArgs) -> Outcome {
    let path = &args.path;
    if !path.exists() {
        return Err(Failure::usage(anyhow!("{}: there is no such file or directory", path.display())));
    }
    if path.join("cfg.json").is_file() {
        dictionary(path, args)
    } else if path.file_name().is_some_and(|name| name == JSON_FILE) || path.join(JSON_FILE).is_file() {
        report(if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) }, args)
    } else if path.join(manifest::FILE_NAME).is_file() {
        activations(path, args)
    } else {
        model(path, args)
    }
}

fn show(as_json: bool, json: &Value, lines: &[String]) -> Outcome {
    if as_json { output::print(format_args!("{json:#}")) } else { output::print(lines.join("\n")) }
}

/// Reads every file and compares its digest, where `--verify` asks for it.
fn verify(path: &Path, manifest: &Manifest, args: &InspectArgs) -> Outcome<Option<String>> {
    if !args.verify {
        return Ok(None);
    }
    manifest.verify(path).map_err(Failure::run)?;
    Ok(Some(format!(
        "verified     {} file(s) have the digests of {}",
        manifest.files.len(),
        manifest::FILE_NAME
    )))
}

fn activations(path: &Path, args: &InspectArgs) -> Outcome {
    let store = Store::open(path).map_err(Failure::usage)?;
    let (schema, manifest) = (store.schema(), store.manifest());
    let size: u64 = manifest.files.values().map(|file| file.bytes).sum();
    let json = json!({
        "kind": "activations", "tokens": store.tokens(), "bytes": size, "schema": schema, "manifest": manifest,
    });
    let mut lines = vec![
        format!("activations  {}", path.display()),
        format!("tokens       {}", table::count(store.tokens())),
        format!("on disk      {} in {} shard(s)", table::bytes(size), manifest.files.len()),
        format!("vectors      {}, {} layout", word(&schema.dtype), word(&schema.layout)),
    ];
    lines.extend(
        schema.hooks.iter().map(|column| format!("hook         {}, width {}", column.hook, column.width)),
    );
    lines.extend(manifest.counts.iter().map(|(name, n)| format!("{name:<12} {}", table::count(*n))));
    lines.extend(verify(path, manifest, args)?);
    show(args.json, &json, &lines)
}

/// How a configuration would spell a value.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn dictionary(path: &Path, args: &InspectArgs) -> Outcome {
    let dictionary = Dictionary::load(path, &Device::flex()).map_err(Failure::usage)?;
    let manifest = match Manifest::read(path, "train") {
        Ok(manifest) => Some(manifest),
        // A dictionary from elsewhere has no manifest, and needs none unless it is to be verified.
        Err(ManifestError::Unsealed { .. }) if !args.verify => None,
        Err(error) => return Err(Failure::usage(error)),
    };
    let metadata = dictionary.metadata();
    let dead = dictionary.log_sparsity().map(|log| log.iter().filter(|&&value| value <= -9.99).count());
    let cfg: Value = fs::read(path.join("cfg.json"))
        .ok()
        .and_then(|b| serde_json::from_slice(&b).ok())
        .unwrap_or_default();
    let json = json!({
        "kind": "dictionary", "architecture": cfg["architecture"], "d_in": dictionary.d_in(),
        "d_sae": dictionary.d_sae(), "hook": metadata.hook, "model": metadata.model_name, "scale": metadata.scale,
        "never_active": dead, "cfg": cfg, "manifest": manifest,
    });
    let mut lines = vec![
        format!("dictionary   {}", path.display()),
        format!("architecture {}", cfg["architecture"].as_str().unwrap_or("unknown")),
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
    if let Some(manifest) = &manifest {
        lines.extend(manifest.counts.iter().map(|(name, n)| format!("{name:<12} {}", table::count(*n))));
        lines.extend(verify(path, manifest, args)?);
    }
    show(args.json, &json, &lines)
}

fn report(directory: &Path, args: &InspectArgs) -> Outcome {
    let report = Report::read(directory).map_err(Failure::usage)?;
    show(args.json, &report.to_json(), &[report_table(&report)])
}

/// The report's figures as a table.
pub(crate) fn report_table(report: &Report) -> String {
    let head: Vec<_> = ["metric", "unit", "better"].into_iter().chain(report.columns()).collect();
    table::render(&head, 3, report.rows().iter().map(monosema_evaluator::Row::cells))
}

fn model(path: &Path, args: &InspectArgs) -> Outcome {
    let checkpoint = Checkpoint::open(path).map_err(Failure::usage)?;
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
        return show(args.json, &json!({ "kind": "model", "model": info }), &lines);
    }
    let (device, _) = device::resolve(args.device)?;
    let text = TextConfig { files: args.text.clone(), field: None, column: None, max_documents: None };
    let context = ContextConfig { length: args.context, ..ContextConfig::default() };
    let inspection =
        inspect_model(&checkpoint, &device, &text, &context, args.tokens).map_err(Failure::run)?;
    let mut json = serde_json::to_value(&inspection).map_err(Failure::run)?;
    json["kind"] = "model".into();
    lines.extend(model_lines(&inspection));
    show(args.json, &json, &lines)
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
