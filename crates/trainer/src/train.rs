//! A stage of the pipeline: a store of activations to a dictionary, sealed.

use std::{collections::BTreeMap, fs, path::Path, time::Instant};

use burn::tensor::Device;
use monosema_core::{
    AtomicFile, Manifest,
    manifest::{self, Work},
};
use monosema_sae::{Dictionary, Metadata, SaeError, formats::Format};
use monosema_store::Store;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{Fitted, Logs, Record, Sample, TrainError, TrainPlan, error::io, fit, load, logs, step};

/// What a training came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainSummary {
    /// The last line of the logs.
    pub last: Record,
    /// Scale and mean norm of the activations.
    pub sample: Sample,
    /// Latents that never fired in the last `dead_window_tokens`.
    pub dead_latents: u64,
    /// Tokens that this looked back on.
    pub dead_window_tokens: u64,
    /// Tokens a second, logging and waiting for data included.
    pub tokens_per_s: f64,
    /// Seconds, from opening the store to the manifest.
    pub seconds: f64,
}

/// Trains a dictionary on `device` and writes it to `out`: a SAELens directory with `logs/`, sealed with `manifest`. An
/// interrupted training in `out` is begun anew.
///
/// # Errors
/// A finished dictionary in `out`; a precision that `device` has no step for; a store other than the plan's, or one that cannot be read; activations without a
/// scale; a loss or a weight that is not finite; a disk that fails. `out` is then not sealed.
pub fn train(
    plan: &TrainPlan,
    manifest: Manifest,
    store: &Store,
    device: &Device,
    out: &Path,
) -> Result<TrainSummary, TrainError> {
    let started = Instant::now();
    plan.check_device(device)?;
    check_store(plan, store)?;
    // A damaged shard shows in no loss curve. Reading it all once is little beside training on it.
    store.verify()?;
    prepare(out)?;
    let sample = Sample::of(store.batches(plan.batches(plan.scale_tokens)), plan.d_in)?;
    tracing::info!(
        "train: {} → {} latents at {}, {} steps of {} tokens ({:.2} epochs); activations × {:.5}; a latent is dead \
         after {} silent tokens",
        plan.d_in,
        plan.d_sae,
        plan.hook,
        plan.steps,
        plan.batch_tokens,
        plan.epochs,
        sample.scale,
        plan.dead_window_tokens
    );
    let (mut step, kind) = step::begin(plan, plan.seed, device);
    tracing::info!("train: by the {kind} step");
    let mut logs = Logs::create(out)?;
    let fitted = fit(plan, &mut *step, load(plan, &sample, store, device), device, &mut logs)?;
    let Fitted { last, log_sparsity, dead_latents, tokens_per_s } = fitted;

    let exported = step.sae().export(sample.scale);
    let dictionary = Dictionary::new(exported, metadata(plan, store, &sample), Some(log_sparsity));
    let mut files = dictionary.save(out).map_err(|error| not_saved(error, plan))?;
    files.extend(logs.finish()?);
    let counts = BTreeMap::from(
        [
            ("tokens", plan.tokens),
            ("steps", plan.steps),
            ("d_in", plan.d_in as u64),
            ("d_sae", plan.d_sae as u64),
            ("dead_latents", dead_latents),
        ]
        .map(|(name, n)| (name.to_owned(), n)),
    );
    manifest.seal(out, counts, &files)?;
    let dead_window_tokens = plan.dead_window_tokens;
    let seconds = started.elapsed().as_secs_f64();
    Ok(TrainSummary { last, sample, dead_latents, dead_window_tokens, tokens_per_s, seconds })
}

/// The last step can spoil weights after the last loss was looked at, and so can folding.
fn not_saved(error: SaeError, plan: &TrainPlan) -> TrainError {
    match error {
        SaeError::NotFinite { name: tensor, index, value, .. } => {
            TrainError::NotFinite { tensor, index, value, lr: plan.schedule.lr }
        }
        other => other.into(),
    }
}

fn check_store(plan: &TrainPlan, store: &Store) -> Result<(), TrainError> {
    let column = store.hook_column(plan.hook)?;
    let other = |expected: String, found: String| {
        Err(TrainError::OtherStore { directory: store.directory().to_owned(), expected, found })
    };
    if column.width != plan.d_in {
        return other(format!("{} to be {} wide", plan.hook, plan.d_in), column.width.to_string());
    }
    if store.tokens() != plan.store_tokens {
        return other(format!("{} tokens", plan.store_tokens), store.tokens().to_string());
    }
    Ok(())
}

/// Makes `out` an empty place to train in: what an interrupted run left goes, anything else stays.
fn prepare(out: &Path) -> Result<(), TrainError> {
    if out.join(manifest::FILE_NAME).exists() {
        return Err(TrainError::Sealed { directory: out.to_owned() });
    }
    fs::create_dir_all(out).map_err(io(out))?;
    AtomicFile::sweep(out).map_err(io(out))?;
    let ours =
        Format::SaeLens.files().iter().copied().chain(["sparsity.safetensors", logs::METRICS, logs::EVENTS]);
    for name in ours {
        let path = out.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(path)(e)),
            _ => {}
        }
    }
    Ok(())
}

/// Where the dictionary comes from. What the store's manifest does not say stays unknown.
fn metadata(plan: &TrainPlan, store: &Store, sample: &Sample) -> Metadata {
    let Work { config: harvest, inputs, .. } = &store.manifest().work;
    let name = |role: &str| inputs.get(role).map(|input| input.name.clone());
    let mut metadata = Metadata::new(plan.hook).of_unprocessed_model();
    metadata.model_name = name("model");
    metadata.context_size = harvest["context"]["length"].as_u64().and_then(|n| usize::try_from(n).ok());
    metadata.prepend_bos = harvest["context"].get("bos").map(|bos| !bos.is_null());
    metadata.dataset_path = name("text");
    metadata.scale = Some(sample.scale);
    metadata.facts = facts(plan, store);
    metadata
}

fn facts(plan: &TrainPlan, store: &Store) -> Map<String, Value> {
    let facts = json!({
        // So that an evaluation within another model is noticed.
        "model_sha256": store.manifest().work.inputs.get("model").map(|model| &model.sha256),
        "recipe": plan.recipe,
        "seed": plan.seed,
        "tokens": plan.tokens,
        "steps": plan.steps,
        "lr": plan.schedule.lr,
        "l1": plan.schedule.l1,
        // What sparsity.safetensors looks back on.
        "sparsity_tokens": plan.dead_window_tokens,
    });
    facts.as_object().cloned().expect("written as an object above")
}
