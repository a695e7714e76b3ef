//! What a run will do, before it does it: for `--dry-run`, and to refuse what cannot work.

use std::{fs, path::Path};

use anyhow::anyhow;
use monosema_core::manifest;
use monosema_evaluator::EvalPlan;
use monosema_harvester::HarvestPlan;
use monosema_store::Place;
use monosema_trainer::TrainPlan;
use serde_json::json;
use sysinfo::System;

use crate::{
    device::DeviceName,
    failure::{Failure, Outcome},
    output,
    places::Places,
    table::{bytes, count},
};

/// The stages of a run, resolved.
pub(crate) struct Plans {
    pub harvest: Option<HarvestPlan>,
    /// One, or of a sweep several.
    pub train: Vec<(Places, TrainPlan)>,
    pub eval: Option<EvalPlan>,
}

impl Plans {
    /// What the stages will write that is not there yet.
    fn disk_bytes(&self, places: &Places, overwrite: bool) -> u64 {
        // What goes elsewhere takes no room here but for what is on its way.
        let harvest = self.harvest.iter().filter(|_| !Place::is_elsewhere(&places.acts));
        let harvest = harvest.map(|plan| (plan.disk_bytes, &places.acts));
        let train = self.train.iter().map(|(places, plan)| (plan.disk_bytes, &places.dictionary));
        let needed = harvest.chain(train).filter_map(|(bytes, directory)| {
            // What is sealed is done already, or stays until its replacement is whole.
            let sealed = directory.join(manifest::FILE_NAME).exists();
            (!sealed || overwrite).then(|| {
                // What an interrupted stage left stays, or is removed first.
                bytes.saturating_sub(if sealed { 0 } else { size(directory) })
            })
        });
        needed.fold(0, u64::saturating_add)
    }

    /// Stages run one after the other, so the largest counts; members of a sweep are all there at once, and so is the model
    /// that activations are streamed from.
    fn memory_bytes(&self) -> u64 {
        let harvest = self.harvest.as_ref().map_or(0, |plan| plan.memory_bytes);
        let train = self.train.iter().map(|(_, plan)| plan.memory_bytes).fold(0, u64::saturating_add);
        let eval = self.eval.as_ref().map_or(0, |plan| plan.memory_bytes);
        let streams = self.harvest.as_ref().is_some_and(|plan| plan.stream);
        let before = if streams { harvest.saturating_add(train) } else { harvest.max(train) };
        before.max(eval)
    }
}

/// Refuses a run for which there is no room, and warns of one that may not fit in memory.
pub(crate) fn check_space(plans: &Plans, places: &Places, overwrite: bool) -> Outcome {
    let needed = plans.disk_bytes(places, overwrite);
    let existing = places.out.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    if let Ok(free) = fs4::available_space(existing)
        && needed > free
    {
        return Err(Failure::usage(anyhow!(
            "{}: the run needs about {} of disk, and {} are free; lower harvest.tokens or train.width, choose \
             dtype = \"f16\" or stream = true, or give --out on another disk",
            places.out.display(),
            bytes(needed),
            bytes(free)
        )));
    }
    let memory = plans.memory_bytes();
    if let Some(available) = available_memory()
        && memory > available
    {
        tracing::warn!(
            "the run may need {} of memory, and {} are available; a smaller batch, buffer or dictionary needs less",
            bytes(memory),
            bytes(available)
        );
    }
    Ok(())
}

/// Bytes of the files of `directory` and of those within it; 0 if there is none.
fn size(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()),
            Ok(metadata) if metadata.is_file() => metadata.len(),
            _ => 0,
        })
        .sum()
}

/// `None` on systems that do not say.
fn available_memory() -> Option<u64> {
    let mut system = System::new().ok()?;
    system.refresh_memory();
    Some(system.available_memory()).filter(|&bytes| bytes > 0)
}

/// `--dry-run`: the plan, whole as JSON, or what matters of it in words.
pub(crate) fn print(plans: &Plans, places: &Places, device: DeviceName, as_json: bool) -> Outcome {
    if as_json {
        let Plans { harvest, train, eval } = plans;
        let device = device.to_string();
        // One is itself; several are a list.
        let mut train: Vec<_> = train.iter().map(|(_, plan)| json!(plan)).collect();
        let train = if train.len() == 1 { train.remove(0) } else { json!(train) };
        let json =
            json!({ "out": places.out, "device": device, "harvest": harvest, "train": train, "eval": eval });
        return output::print(format_args!("{json:#}"));
    }
    let mut rows = vec![("device", device.to_string())];
    if let Some(plan) = &plans.harvest {
        let hooks: Vec<_> = plan.columns().iter().map(|column| column.hook.to_string()).collect();
        rows.push(("harvest", format!("about {} tokens of {}", count(plan.tokens), hooks.join(", "))));
        rows.push(match plan.stream {
            true => ("", "straight to the training, none stored".into()),
            false => ("", format!("{} on disk in {}", bytes(plan.disk_bytes), places.acts.display())),
        });
        rows.push(("", format!("{} of memory", bytes(plan.memory_bytes))));
    }
    rows.extend(train_rows(&plans.train));
    if let Some(plan) = &plans.eval {
        for text in &plan.texts {
            rows.push(("eval", format!("about {} tokens of {}", count(text.counted_tokens), text.name)));
        }
        rows.push(("", format!("{} of memory", bytes(plan.memory_bytes))));
    }
    rows.iter().try_for_each(|(stage, line)| output::print(format_args!("{stage:<8} {line}")))
}

/// What the trainings share once, and then each.
fn train_rows(plans: &[(Places, TrainPlan)]) -> Vec<(&'static str, String)> {
    let Some((first, shared)) = plans.first() else { return Vec::new() };
    let out = shared.hook_out.map_or(String::new(), |hook| format!(" to give {hook}"));
    let (steps, batch) = (count(shared.steps), count(shared.batch_tokens as u64));
    let what = |plan: &TrainPlan| {
        let latents = count(plan.size.d_sae as u64);
        format!("{} → {latents} latents, {}", plan.size.d_in, plan.recipe.name())
    };
    let mut rows = Vec::new();
    let directory = if let [_] = plans {
        rows.push(("train", format!("{} at {}{out}", what(shared), shared.hook)));
        &first.dictionary
    } else {
        rows.push(("train", format!("{} dictionaries at {}{out}", plans.len(), shared.hook)));
        let name = |places: &Places| places.out.file_name().unwrap_or_default().display().to_string();
        rows.extend(plans.iter().map(|(places, plan)| ("", format!("  {}: {}", name(places), what(plan)))));
        first.out.parent().unwrap_or(&first.out)
    };
    let total = |of: fn(&TrainPlan) -> u64| {
        bytes(plans.iter().map(|(_, plan)| of(plan)).fold(0, u64::saturating_add))
    };
    rows.push(("", format!("{steps} steps of {batch} tokens: {:.1} epochs", shared.epochs)));
    rows.push(("", format!("{} on disk in {}", total(|plan| plan.disk_bytes), directory.display())));
    rows.push(("", format!("{} of memory", total(|plan| plan.memory_bytes))));
    rows
}
