//! Stages in order: plan them all, skip what is done, run the rest.

use std::{cell::Cell, collections::BTreeSet, fs, path::Path};

use anyhow::{Context, anyhow};
use monosema_core::{Manifest, ManifestError, Stage, manifest};
use monosema_evaluator::{DictionaryShape, EvalPlan, HTML_FILE, Report, Training, evaluate};
use monosema_harvester::{HarvestPlan, HarvestSummary, harvest};
use monosema_sae::Description;
use monosema_store::Store;
use monosema_trainer::{StoreFacts, TrainPlan, train};
use monosema_transformer::{Checkpoint, ModelError};

use crate::{
    args::RunArgs,
    device::{self, Chosen},
    experiment::Experiment,
    failure::{Failure, Outcome},
    inspect, output,
    places::{Places, Standing},
    plan::{self, Plans},
    replace::Aside,
    table,
};

/// `monosema harvest | train | eval | run`.
pub(crate) fn run(args: &RunArgs, stages: &[Stage]) -> Outcome {
    let experiment = Experiment::read(&args.config, &args.set)?;
    let places = Places::new(args);
    let in_config = |error: ModelError| usage_in(&args.config, error);
    let checkpoint = Checkpoint::open(&experiment.model.path).map_err(in_config)?;
    // Everything is checked before anything is done: a fault in [eval] must not show after hours of harvest.
    let lock = if places.out.is_dir() && !args.dry_run { Some(places.lock()?) } else { None };
    if lock.is_some() {
        places.recover()?;
    }
    places.check(stages)?;
    let runner = Runner { args, experiment, places, checkpoint, began: Cell::new(false) };
    let plans = runner.plan(stages)?;
    let chosen = device::resolve(runner.experiment.device)?;
    if let Some(plan) = &plans.train {
        plan.check_device(&chosen.device).map_err(|error| usage_in(&args.config, error))?;
    }
    plan::check_space(&plans, &runner.places, args.overwrite)?;
    if args.dry_run {
        return plan::print(&plans, &runner.places, chosen.name, args.json);
    }
    let _lock = lock.map_or_else(|| runner.places.lock(), Ok)?;
    stages.iter().try_for_each(|&stage| match stage {
        Stage::Harvest => {
            runner.harvest(plans.harvest.as_ref().expect("every stage to run was planned"), &chosen)
        }
        Stage::Train => runner.train(&chosen),
        // Planned for the dictionary that is there, unless this command was to train it first.
        Stage::Eval => runner.eval(plans.eval.as_ref().filter(|_| plans.train.is_none()), &chosen),
    })?;
    // An evaluation has shown its report.
    match stages.last().and_then(|&stage| Some((stage, runner.places.of(stage)?))) {
        Some((stage, directory)) if args.json => {
            let manifest = Manifest::read(directory, stage).map_err(Failure::run)?;
            output::print(serde_json::to_string_pretty(&manifest).map_err(Failure::run)?)
        }
        _ => Ok(()),
    }
}

/// An error in what the configuration says.
fn usage_in(config: &Path, error: impl Into<anyhow::Error>) -> Failure {
    Failure::Usage(error.into().context(config.display().to_string()))
}

struct Runner<'a> {
    args: &'a RunArgs,
    experiment: Experiment,
    places: Places,
    checkpoint: Checkpoint,
    /// Whether a stage has begun its work.
    began: Cell<bool>,
}

impl Runner<'_> {
    fn plan(&self, stages: &[Stage]) -> Outcome<Plans> {
        let harvest = stages.contains(&Stage::Harvest).then(|| self.harvest_plan()).transpose()?;
        let train = stages.contains(&Stage::Train).then(|| self.train_plan(harvest.as_ref())).transpose()?;
        let eval = stages.contains(&Stage::Eval).then(|| self.eval_plan(train.as_ref())).transpose()?;
        for warning in eval.iter().flat_map(|plan| &plan.warnings) {
            tracing::warn!("{warning}");
        }
        Ok(Plans { harvest, train, eval })
    }

    fn section<'a, T>(&self, stage: Stage, section: Option<&'a T>) -> Outcome<&'a T> {
        let file = self.args.config.display();
        section.ok_or_else(|| Failure::usage(anyhow!("{file}: expected a section [{stage}], found none")))
    }

    fn harvest_plan(&self) -> Outcome<HarvestPlan> {
        let Experiment { context, seed, .. } = &self.experiment;
        let config = self.section(Stage::Harvest, self.experiment.harvest.as_ref())?;
        HarvestPlan::resolve(config, context, &self.checkpoint, *seed)
            .map_err(|error| usage_in(&self.args.config, error))
    }

    /// The plan for the activations that are there or, before the harvest, for those that will be.
    fn train_plan(&self, harvest: Option<&HarvestPlan>) -> Outcome<TrainPlan> {
        let facts = match harvest {
            Some(plan) => StoreFacts { hooks: plan.columns(), tokens: plan.tokens },
            None => StoreFacts::of(&Store::open(&self.places.acts).map_err(Failure::usage)?),
        };
        self.train_plan_for(&facts)
    }

    fn train_plan_for(&self, facts: &StoreFacts) -> Outcome<TrainPlan> {
        let config = self.section(Stage::Train, self.experiment.train.as_ref())?;
        TrainPlan::resolve(config, facts, self.experiment.seed)
            .map_err(|error| usage_in(&self.args.config, error))
    }

    /// The dictionary that is there, found to be what its manifest says if it has one.
    fn dictionary(&self) -> Outcome<Description> {
        let directory = &self.places.dictionary;
        if !directory.exists() {
            let reason = "no dictionary; run the train stage first, or put a SAELens directory there";
            return Err(Failure::usage(anyhow!("{}: {reason}", directory.display())));
        }
        match Manifest::read(directory, Stage::Train) {
            Ok(manifest) => manifest.verify(directory).map_err(Failure::usage)?,
            // Of a dictionary from elsewhere.
            Err(ManifestError::Unsealed { .. }) => {}
            Err(error) => return Err(Failure::usage(error)),
        }
        Description::read(directory).map_err(Failure::usage)
    }

    /// The plan for the dictionary that is there or, before the training, for the one that will be.
    fn eval_plan(&self, train: Option<&TrainPlan>) -> Outcome<EvalPlan> {
        let Experiment { context, seed, .. } = &self.experiment;
        let (shape, metadata) = match train {
            Some(plan) => (DictionaryShape { hook: plan.hook, d_in: plan.d_in, d_sae: plan.d_sae }, None),
            None => {
                let description = self.dictionary()?;
                (DictionaryShape::from(&description), Some(description.metadata))
            }
        };
        // The text that the dictionary is, was or will be trained on, as far as this file says.
        let text = self.experiment.harvest.as_ref().map(|harvest| &harvest.text);
        let training = Training { text, metadata: metadata.as_ref() };
        let config = self.section(Stage::Eval, self.experiment.eval.as_ref())?;
        EvalPlan::resolve(config, context, &self.checkpoint, &shape, &training, *seed)
            .map_err(|error| usage_in(&self.args.config, error))
    }
}

// Training and evaluation were planned before, on estimates of what earlier stages would leave: a fault that shows only
// now has work behind it.
impl Runner<'_> {
    fn harvest(&self, plan: &HarvestPlan, chosen: &Chosen) -> Outcome {
        let acts = &self.places.acts;
        let work = plan.work(&self.checkpoint).map_err(Failure::run)?;
        self.unless_done(acts, Manifest::new(work, &chosen.name.to_string()), |manifest| {
            let HarvestSummary { tokens, bytes, elapsed, tokens_per_second, .. } =
                harvest(plan, manifest, &self.checkpoint, &chosen.device, acts).map_err(Failure::run)?;
            let (tokens, bytes, seconds) = (table::count(tokens), table::bytes(bytes), elapsed.as_secs_f64());
            tracing::info!(
                "harvest: {tokens} tokens, {bytes} in {seconds:.0} s ({tokens_per_second:.0} tokens/s)"
            );
            Ok(())
        })
    }

    fn train(&self, chosen: &Chosen) -> Outcome {
        let store = Store::open(&self.places.acts).map_err(Failure::run)?;
        let plan = self.train_plan_for(&StoreFacts::of(&store)).map_err(Failure::into_run)?;
        let dictionary = &self.places.dictionary;
        let work = plan.work(&store);
        self.unless_done(dictionary, Manifest::new(work, &chosen.name.to_string()), |manifest| {
            let summary = train(&plan, manifest, &store, &chosen.device, dictionary).map_err(Failure::run)?;
            let (tokens, seconds) = (table::count(plan.tokens), summary.seconds);
            tracing::info!("train: {tokens} tokens in {seconds:.0} s ({:.0} tokens/s)", summary.tokens_per_s);
            Ok(())
        })
    }

    fn eval(&self, planned: Option<&EvalPlan>, chosen: &Chosen) -> Outcome {
        let plan = match planned {
            Some(plan) => plan.clone(),
            None => self.eval_plan(None).map_err(Failure::into_run)?,
        };
        let Places { out, dictionary, .. } = &self.places;
        let work = plan.work(&self.checkpoint, dictionary).map_err(Failure::run)?;
        if let Some(report) = Report::up_to_date(out, &work) {
            tracing::info!("eval: already done, skipped");
            return self.show(&report);
        }
        self.places.may_replace_report(&work).map_err(|error| self.refused(error))?;
        let manifest = Manifest::new(work, &chosen.name.to_string());
        let report = evaluate(&plan, manifest, &self.checkpoint, dictionary, &chosen.device, out)
            .map_err(Failure::run)?;
        tracing::info!("eval: {:.0} s", report.timing.seconds);
        self.show(&report)
    }

    fn show(&self, report: &Report) -> Outcome {
        if self.args.json {
            return output::print(format_args!("{:#}", report.to_json()));
        }
        let page = self.places.out.join(HTML_FILE);
        output::print(format_args!("{}\nreport: {}", inspect::report_table(report), page.display()))
    }

    /// Runs a stage into `directory` unless it is done; what it replaces comes back if it fails.
    fn unless_done(
        &self,
        directory: &Path,
        manifest: Manifest,
        run: impl FnOnce(Manifest) -> Outcome,
    ) -> Outcome {
        let standing =
            self.places.standing(directory, &manifest.work).map_err(|error| self.refused(error))?;
        if standing == Standing::Done {
            tracing::info!("{}: already done, skipped", manifest.work.stage);
            return Ok(());
        }
        self.began.set(true);
        if standing == Standing::Open {
            return run(manifest);
        }
        let ours = match Manifest::read(directory, manifest.work.stage) {
            Ok(old) => top_level(&old),
            // What cannot be told apart is replaced as a whole.
            Err(_) => names(directory),
        };
        let cannot = || format!("cannot replace {}", directory.display());
        let old = Aside::put(directory).with_context(cannot).map_err(Failure::run)?;
        run(manifest)?;
        old.discard(&ours).with_context(cannot).map_err(Failure::run)
    }

    /// A refusal is one of usage until a stage of this command has begun its work.
    fn refused(&self, error: anyhow::Error) -> Failure {
        if self.began.get() { Failure::Run(error) } else { Failure::Usage(error) }
    }
}

/// What a sealed directory holds of its own, by first names.
fn top_level(manifest: &Manifest) -> BTreeSet<String> {
    let files = manifest.files.keys().filter_map(|name| name.split('/').next()).map(str::to_owned);
    files.chain([manifest::FILE_NAME.to_owned()]).collect()
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
