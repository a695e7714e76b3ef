//! `monosema seal`: the parts of a harvest become one store.

use monosema_harvester::HarvestPlan;
use monosema_store::join;

use crate::{
    args::SealArgs,
    experiment::Experiment,
    failure::{Failure, Outcome},
    model, output,
    places::Places,
    stages::{section, usage_in},
    table,
};

pub(crate) fn run(args: &SealArgs) -> Outcome {
    let experiment = Experiment::read(&args.config, &args.set)?;
    let places = Places::new(&args.config, &experiment, args.out.as_deref(), false, None)?;
    let checkpoint = model::of(&experiment.model).map_err(|error| usage_in(&args.config, error))?;
    let config = section(&args.config, "harvest", experiment.harvest.as_ref())?;
    let plan = HarvestPlan::resolve(config, &experiment.context, &checkpoint, experiment.seed)
        .map_err(|error| usage_in(&args.config, error))?;
    let _lock = places.lock()?;
    let work = plan.work(&checkpoint).map_err(Failure::run)?;
    let manifest = join(&places.acts, work).map_err(Failure::run)?;
    let tokens = table::count(manifest.counts.get("tokens").copied().unwrap_or(0));
    tracing::info!(
        "seal: {}: {tokens} tokens in {} shard(s), all verified",
        places.acts.display(),
        manifest.files.len()
    );
    if args.json {
        output::print(serde_json::to_string_pretty(&manifest).map_err(Failure::run)?)?;
    }
    Ok(())
}
