//! A stage of the pipeline: activations to dictionaries, sealed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use burn::tensor::Device;
use monosema_core::{
    AtomicFile, Manifest,
    manifest::{self, Work},
};
use monosema_sae::{Dictionary, Metadata, SaeError, formats::Format};
use monosema_store::Activations;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    DensityRecord, Record, Sample, SpeedRecord, TrainError, TrainPlan,
    checkpoint::{self, Checkpoint},
    error::io,
    fit::{Fitted, fit},
    load::{load, sampled},
    logs,
    member::{Firing, Member},
    report,
    saver::Saver,
    window::BINS_A_DECADE,
};

/// Where the dictionary of the last good checkpoint goes if a run diverges, within the dictionary's directory.
const LAST_GOOD: &str = "last-good";

/// A dictionary to train.
#[derive(Debug)]
pub struct Job {
    /// How.
    pub plan: TrainPlan,
    /// What it is sealed with.
    pub manifest: Manifest,
    /// Its directory.
    pub out: PathBuf,
}

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
    /// Seconds, to the manifest.
    pub seconds: f64,
    /// The step from which an interrupted training was taken up; 0 if it was not.
    pub resumed_at: u64,
}

/// Trains a dictionary for each of `jobs` on `device`, all on one pass over the activations, and writes each to its directory: a
/// SAELens directory with `logs/`, sealed with its manifest. Each is, to the bit, what it would be alone. What was interrupted in
/// these directories is taken up at the last checkpoint that all of them have, and comes to the same as if it had not been.
///
/// # Errors
/// A finished dictionary in a directory, or checkpoints of other work; plans that cannot share a pass; a precision that `device`
/// has no step for; activations other than the plans', or that cannot be read; without a scale; a loss or a weight
/// that is not finite; a disk that fails. The directories are then not sealed.
///
/// # Panics
/// Without a job.
pub fn train(
    jobs: Vec<Job>,
    activations: &Arc<dyn Activations>,
    device: &Device,
) -> Result<Vec<TrainSummary>, TrainError> {
    let started = Instant::now();
    let plan = jobs[0].plan.clone();
    for job in &jobs {
        job.plan.check_device(device)?;
        check_activations(&job.plan, &**activations)?;
        plan.check_shared(&job.plan)?;
        if job.out.join(manifest::FILE_NAME).exists() {
            return Err(TrainError::Sealed { directory: job.out.clone() });
        }
    }
    let (done, checkpoints) = resumable(&jobs)?;
    // A damaged shard shows in no loss curve. Reading it all once is little beside training on it.
    activations.verify()?;
    let sample = Sample::of(sampled(&plan, activations), &plan)?;
    let mut members = Vec::new();
    let mut checkpoints = checkpoints.into_iter();
    for job in &jobs {
        if done == 0 {
            clear(&job.out)?;
        } else {
            tracing::info!("train: goes on after step {done} of {}", job.plan.steps);
        }
        announce(&job.plan, &sample, device);
        let b_dec = b_dec(&job.plan, &plan, &sample, activations)?;
        let work = job.manifest.work.clone();
        let checkpoint = checkpoints.next();
        members.push(Member::begin(
            job.plan.clone(),
            work,
            &job.out,
            b_dec,
            sample.target().zero_fvu,
            checkpoint,
            device,
        )?);
    }
    let mut saver = Saver::new(plan.checkpoint_seconds);
    let batches = load(&plan, &sample, done, activations, device);
    let fitted = fit(members, done, batches, &mut saver);
    saver.finish();
    let Fitted { members, diverged, tokens_per_s } = fitted?;

    let mut summaries = Vec::new();
    for member in members {
        let (plan, last) = (member.plan.clone(), member.last.clone());
        let job = jobs.iter().find(|job| job.out == member.out).expect("a member is of a job");
        let dead_latents = seal(member, &job.manifest, &**activations, &sample)?;
        summaries.push(TrainSummary {
            last: last.expect("a plan has at least one step, and the last one is logged"),
            sample: sample.clone(),
            dead_latents,
            dead_window_tokens: plan.dead_window_tokens,
            tokens_per_s,
            seconds: started.elapsed().as_secs_f64(),
            resumed_at: done,
        });
    }
    match diverged.into_iter().next() {
        None => Ok(summaries),
        Some((member, error)) => Err(keep_last_good(member, error, &**activations, &sample)),
    }
}

/// After how many steps all of `jobs` can be taken up, and their checkpoints there. What is damaged is passed over.
///
/// # Errors
/// Checkpoints of other work.
fn resumable(jobs: &[Job]) -> Result<(u64, Vec<Checkpoint>), TrainError> {
    let mut common: Option<BTreeSet<u64>> = None;
    for Job { out, manifest, .. } in jobs {
        if let Some(work) = checkpoint::interrupted(out).filter(|work| *work != manifest.work) {
            let differences = work.differences(&manifest.work);
            return Err(TrainError::OtherWork { directory: out.clone(), differences });
        }
        let steps: BTreeSet<u64> = checkpoint::steps_in(out).into_iter().collect();
        common = Some(common.map_or(steps.clone(), |common| &common & &steps));
    }
    for steps in common.into_iter().flatten().rev() {
        let load = |job: &Job| {
            Checkpoint::load(&job.out, steps, &job.plan).map_err(|reason| {
                let file = checkpoint::file(&job.out, steps);
                tracing::warn!("{}: cannot be taken up, the one before is: {reason}", file.display());
            })
        };
        if let Ok(checkpoints) = jobs.iter().map(load).collect::<Result<Vec<_>, ()>>() {
            for job in jobs {
                AtomicFile::sweep(&job.out).map_err(io(&job.out))?;
            }
            return Ok((steps, checkpoints));
        }
    }
    Ok((0, Vec::new()))
}

fn announce(plan: &TrainPlan, sample: &Sample, device: &Device) {
    let by = if plan.is_fused(device) { "fused" } else { "autodiff" };
    let out = plan.hook_out.map_or(String::new(), |hook| format!(" to give {hook}"));
    tracing::info!(
        "train: {} → {} latents at {}{out}, {} steps of {} tokens ({:.2} epochs) by the {by} step; activations × {:.5}; a \
         latent is dead after {} silent tokens",
        plan.size.d_in,
        plan.size.d_sae,
        plan.hook,
        plan.steps,
        plan.batch_tokens,
        plan.epochs,
        sample.input.scale,
        plan.dead_window_tokens
    );
}

/// What b_dec begins with. A sample has that of one plan; another may want another.
fn b_dec(
    plan: &TrainPlan,
    sampled_for: &TrainPlan,
    sample: &Sample,
    activations: &Arc<dyn Activations>,
) -> Result<Vec<f32>, TrainError> {
    if plan.b_dec_init == sampled_for.b_dec_init {
        return Ok(sample.b_dec.clone());
    }
    Ok(Sample::of(sampled(plan, activations), plan)?.b_dec)
}

/// Writes the dictionary and its manifest. Returns how many latents are dead.
fn seal(
    member: Member,
    manifest: &Manifest,
    activations: &dyn Activations,
    sample: &Sample,
) -> Result<u64, TrainError> {
    let (plan, out) = (member.plan.clone(), member.out.clone());
    let exported = member.export(sample.scales());
    let warnings = member.warnings();
    let (Firing { log_sparsity, dead_latents }, logs) = member.end()?;
    let dictionary = Dictionary::new(exported, metadata(&plan, activations, sample), Some(log_sparsity));
    let mut files = dictionary.save(&out).map_err(|error| not_saved(error, &plan))?;
    files.extend(logs);
    files.push(write_report(&plan, manifest, &warnings, &out)?);
    let counts = BTreeMap::from(
        [
            ("tokens", plan.tokens),
            ("steps", plan.steps),
            ("d_in", plan.size.d_in as u64),
            ("d_sae", plan.size.d_sae as u64),
            ("dead_latents", dead_latents),
        ]
        .map(|(name, n)| (name.to_owned(), n)),
    );
    manifest.clone().seal(&out, counts, &files)?;
    checkpoint::remove(&out)?;
    Ok(dead_latents)
}

/// Writes the page of a training whose logs are there. Returns its name.
fn write_report(
    plan: &TrainPlan,
    manifest: &Manifest,
    warnings: &[String],
    out: &Path,
) -> Result<String, TrainError> {
    let mut curves = report::curves(&logs::read::<Record>(out, logs::METRICS)?);
    curves.extend(report::curves(&logs::read::<SpeedRecord>(out, logs::SPEED)?));
    let history = logs::read::<DensityRecord>(out, logs::DENSITY)?;
    let history: Vec<_> = history.into_iter().map(|line| (line.tokens, line.latents)).collect();
    let kind = serde_json::to_value(&plan.architecture).unwrap_or_default()["kind"].clone();
    let page = report::page(&report::Training {
        hook: &plan.hook_out.map_or(plan.hook.to_string(), |hook_out| format!("{} → {hook_out}", plan.hook)),
        d_in: plan.size.d_in,
        d_sae: plan.size.d_sae,
        architecture: kind.as_str().unwrap_or("unknown"),
        recipe: plan.recipe.name(),
        curves: &curves,
        densities: &report::Densities::new(&history, BINS_A_DECADE),
        warnings,
        manifest,
    });
    let path = out.join(logs::REPORT);
    AtomicFile::write(&path, page.as_bytes()).map_err(io(&path))?;
    Ok(logs::REPORT.to_owned())
}

/// Saves the dictionary of the last checkpoint of a run that diverged beside it, if there is one, and says so.
fn keep_last_good(
    mut member: Member,
    error: TrainError,
    activations: &dyn Activations,
    sample: &Sample,
) -> TrainError {
    let (plan, out) = (member.plan.clone(), member.out.clone());
    let newest =
        checkpoint::steps_in(&out).into_iter().find_map(|steps| Checkpoint::load(&out, steps, &plan).ok());
    let Some(checkpoint) = newest else { return error };
    let place = out.join(LAST_GOOD);
    let save = || {
        member.restore(checkpoint);
        fs::create_dir_all(&place).map_err(io(&place))?;
        let dictionary =
            Dictionary::new(member.export(sample.scales()), metadata(&plan, activations, sample), None);
        dictionary.save(&place).map(drop).map_err(TrainError::from)
    };
    match (save(), error) {
        (Ok(()), TrainError::Diverged { step, what, value, lr, .. }) => {
            TrainError::Diverged { step, what, value, lr, last_good: Some(place) }
        }
        (_, error) => error,
    }
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

fn check_activations(plan: &TrainPlan, activations: &dyn Activations) -> Result<(), TrainError> {
    let other = |expected: String, found: String| {
        Err(TrainError::OtherActivations { place: activations.name(), expected, found })
    };
    let wanted = [(Some(plan.hook), plan.size.d_in), (plan.hook_out, plan.size.d_out())];
    for (hook, width) in wanted.into_iter().filter_map(|(hook, width)| Some((hook?, width))) {
        let column = activations.hook_column(hook)?;
        if column.width != width {
            return other(format!("{hook} to be {width} wide"), column.width.to_string());
        }
    }
    if activations.tokens() != plan.store_tokens {
        return other(format!("{} tokens", plan.store_tokens), activations.tokens().to_string());
    }
    Ok(())
}

/// Makes `out` an empty place to train in: what an interrupted run left goes, anything else stays.
fn clear(out: &Path) -> Result<(), TrainError> {
    fs::create_dir_all(out).map_err(io(out))?;
    AtomicFile::sweep(out).map_err(io(out))?;
    checkpoint::remove(out)?;
    let logs = [logs::METRICS, logs::DENSITY, logs::SPEED, logs::EVENTS, logs::REPORT];
    let ours = Format::SaeLens.files().iter().copied().chain(["sparsity.safetensors"]).chain(logs);
    for name in ours {
        let path = out.join(name);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(path)(e)),
            _ => {}
        }
    }
    Ok(())
}

/// Where the dictionary comes from. What is not known of the activations stays unknown.
fn metadata(plan: &TrainPlan, activations: &dyn Activations, sample: &Sample) -> Metadata {
    let Work { config: harvest, inputs, .. } = activations.work();
    let name = |role: &str| inputs.get(role).map(|input| input.name.clone());
    let mut metadata = Metadata::new(plan.hook).of_unprocessed_model();
    metadata.hook_out = plan.hook_out;
    metadata.normalization = plan.normalization();
    metadata.model_name = name("model");
    metadata.context_size = harvest["context"]["length"].as_u64().and_then(|n| usize::try_from(n).ok());
    metadata.prepend_bos = harvest["context"].get("bos").map(|bos| !bos.is_null());
    metadata.dataset_path = name("text");
    metadata.scale = Some(sample.input.scale);
    metadata.facts = facts(plan, activations.work());
    metadata
}

fn facts(plan: &TrainPlan, harvest: &Work) -> Map<String, Value> {
    let facts = json!({
        // So that an evaluation within another model is noticed.
        "model_sha256": harvest.inputs.get("model").map(|model| &model.sha256),
        "recipe": plan.recipe,
        "trained_as": plan.architecture,
        "seed": plan.seed,
        "tokens": plan.tokens,
        "steps": plan.steps,
        "lr": plan.schedule.lr,
        "sparsity": plan.schedule.sparsity,
        // What sparsity.safetensors looks back on.
        "sparsity_tokens": plan.dead_window_tokens,
    });
    facts.as_object().cloned().expect("written as an object above")
}
