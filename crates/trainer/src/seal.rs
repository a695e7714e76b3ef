//! How a training ends: as a sealed dictionary, or as one that diverged and says so.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use monosema_core::{AtomicFile, Manifest, manifest::Work};
use monosema_sae::{Dictionary, Metadata, SaeError};
use monosema_store::Activations;
use serde_json::{Map, Value, json};

use crate::{
    DensityRecord, Sample, TrainError, TrainPlan,
    checkpoint::{self, Checkpoint},
    error::io,
    found::{Diverged, LAST_GOOD},
    logs,
    member::{Firing, Member},
    report,
    window::BINS_A_DECADE,
};

/// What the dictionaries of a pass have in common.
pub(crate) struct Origin<'a> {
    pub(crate) activations: &'a dyn Activations,
    pub(crate) sample: &'a Sample,
}

impl Origin<'_> {
    /// Writes the dictionary and its manifest. Returns how many latents are dead.
    pub(crate) fn seal(&self, member: &mut Member, manifest: &Manifest) -> Result<u64, TrainError> {
        let (Firing { log_sparsity, dead_latents }, logs) = member.end()?;
        let Member { plan, out, .. } = &*member;
        let mut files =
            self.dictionary(member, Some(log_sparsity)).save(out).map_err(|error| not_saved(error, plan))?;
        files.extend(logs);
        files.push(write_report(plan, manifest, &member.warnings(), out)?);
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
        manifest.clone().seal(out, counts, &files)?;
        checkpoint::remove(out)?;
        Ok(dead_latents)
    }

    /// Leaves what is known of a training that diverged: the dictionary of its last checkpoint, its page, and a file that says
    /// so. Returns the error, which tells where that dictionary is.
    pub(crate) fn diverged(
        &self,
        mut member: Member,
        mut error: TrainError,
        manifest: &Manifest,
    ) -> TrainError {
        let kept = self.keep_last_good(&mut member);
        if let TrainError::Diverged { last_good, .. } | TrainError::NotFinite { last_good, .. } = &mut error {
            last_good.clone_from(&kept);
        }
        let Member { plan, work, out, .. } = &member;
        tracing::error!("train: {}: {error}", out.display());
        let warnings: Vec<String> = [error.to_string()].into_iter().chain(member.warnings()).collect();
        let said = write_report(plan, manifest, &warnings, out)
            .and_then(|_| Diverged { work: work.clone(), error: error.to_string() }.write(out))
            .and_then(|()| checkpoint::remove(out));
        if let Err(error) = said {
            tracing::warn!("train: {}: that it diverged could not be written down: {error}", out.display());
        }
        error
    }

    /// Saves the dictionary of the newest checkpoint that gives one, and returns where. The member becomes what it was then.
    fn keep_last_good(&self, member: &mut Member) -> Option<PathBuf> {
        let (out, place) = (member.out.clone(), member.out.join(LAST_GOOD));
        checkpoint::steps_in(&out).into_iter().find_map(|steps| {
            member.restore(Checkpoint::load(&out, steps, &member.plan).ok()?);
            fs::create_dir_all(&place).ok()?;
            self.dictionary(member, None).save(&place).ok()?;
            Some(place.clone())
        })
    }

    /// The dictionary as it is now.
    fn dictionary(&self, member: &Member, log_sparsity: Option<Vec<f32>>) -> Dictionary {
        let metadata = metadata(&member.plan, self.activations, self.sample);
        Dictionary::new(member.export(self.sample.scales()), metadata, log_sparsity)
    }
}

/// Writes the page of a training whose logs are there. Returns its name.
fn write_report(
    plan: &TrainPlan,
    manifest: &Manifest,
    warnings: &[String],
    out: &Path,
) -> Result<String, TrainError> {
    // As they are written: of a training that diverged, some numbers are none.
    let mut curves = report::curves(&logs::read::<Value>(out, logs::METRICS)?);
    curves.extend(report::curves(&logs::read::<Value>(out, logs::SPEED)?));
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

/// The last step can spoil weights after the last loss was looked at, and so can folding.
fn not_saved(error: SaeError, plan: &TrainPlan) -> TrainError {
    match error {
        SaeError::NotFinite { name: tensor, index, value, .. } => {
            TrainError::NotFinite { tensor, index, value, lr: plan.schedule.lr, last_good: None }
        }
        other => other.into(),
    }
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
