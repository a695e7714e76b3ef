//! Stages in order: plan them all, skip what is done, run the rest.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use monosema_core::{Manifest, ManifestError, Stage, manifest::Work};
use monosema_evaluator::{DictionaryShape, EvalPlan, HTML_FILE, JSON_FILE, Report, Training, evaluate};
use monosema_harvester::{HarvestPlan, HarvestSummary, harvest};
use monosema_sae::Description;
use monosema_store::Store;
use monosema_trainer::{StoreFacts, TrainPlan, train};
use monosema_transformer::Checkpoint;

use crate::{
    args::RunArgs,
    device::{self, Chosen},
    experiment::Experiment,
    failure::{Failure, Outcome},
    inspect, output,
    plan::{self, Plans},
    replace::Aside,
    table,
};

/// Where a run's results are.
pub(crate) struct Places {
    /// The whole run: `report.json` and `report.html` are here.
    pub out: PathBuf,
    /// The activations.
    pub acts: PathBuf,
    /// The dictionary.
    pub dictionary: PathBuf,
}

impl Places {
    fn new(args: &RunArgs) -> Self {
        let name = args.config.file_stem().unwrap_or("run".as_ref());
        let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(name));
        Self { acts: out.join("acts"), dictionary: out.join("dictionary"), out }
    }
}

/// `monosema harvest | train | eval | run`.
pub(crate) fn run(args: &RunArgs, stages: &[Stage]) -> Outcome {
    let experiment = Experiment::read(&args.config, &args.set)?;
    let places = Places::new(args);
    let checkpoint = Checkpoint::open(&experiment.model.path).map_err(Failure::usage)?;
    let runner = Runner { args, experiment, places, checkpoint };
    // Everything is checked before anything is done: a fault in [eval] must not show after hours of harvest.
    let plans = runner.plan(stages)?;
    let chosen = device::resolve(runner.experiment.device)?;
    plan::check_space(&plans, &runner.places, args.overwrite)?;
    if args.dry_run {
        return plan::print(&plans, &runner.places, chosen.name, args.json);
    }
    let _lock = lock(&runner.places.out)?;
    stages.iter().try_for_each(|&stage| match stage {
        Stage::Harvest => {
            runner.harvest(plans.harvest.as_ref().expect("every stage to run was planned"), &chosen)
        }
        Stage::Train => runner.train(&chosen),
        Stage::Eval => runner.eval(&chosen),
    })
}

/// Keeps a second process out of `out` for as long as the file is open.
fn lock(out: &Path) -> Outcome<File> {
    let path = out.join(".lock");
    let opened = fs::create_dir_all(out).and_then(|()| File::create(&path));
    let file = opened.with_context(|| format!("cannot write {}", path.display())).map_err(Failure::usage)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::usage(anyhow!("{}: another monosema is at work there; wait for it", out.display())))
        }
        // Some file systems cannot lock; that is no reason not to work on them.
        Err(TryLockError::Error(_)) => Ok(file),
    }
}

struct Runner<'a> {
    args: &'a RunArgs,
    experiment: Experiment,
    places: Places,
    checkpoint: Checkpoint,
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
        HarvestPlan::resolve(config, context, &self.checkpoint, *seed).map_err(Failure::usage)
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
        TrainPlan::resolve(config, facts, self.experiment.seed).map_err(Failure::usage)
    }

    /// The plan for the dictionary that is there or, before the training, for the one that will be.
    fn eval_plan(&self, train: Option<&TrainPlan>) -> Outcome<EvalPlan> {
        let Experiment { context, seed, .. } = &self.experiment;
        let (shape, metadata) = match train {
            Some(plan) => (DictionaryShape { hook: plan.hook, d_in: plan.d_in, d_sae: plan.d_sae }, None),
            None => {
                let description = Description::read(&self.places.dictionary).map_err(Failure::usage)?;
                (DictionaryShape::from(&description), Some(description.metadata))
            }
        };
        // The text that the dictionary is, was or will be trained on, as far as this file says.
        let text = self.experiment.harvest.as_ref().map(|harvest| &harvest.text);
        let training = Training { text, metadata: metadata.as_ref() };
        let config = self.section(Stage::Eval, self.experiment.eval.as_ref())?;
        EvalPlan::resolve(config, context, &self.checkpoint, &shape, &training, *seed).map_err(Failure::usage)
    }
}

/// What a stage's directory holds already.
enum Standing {
    /// The same work, done: nothing to do.
    Done,
    /// Nothing, or an interrupted stage.
    Open,
    /// Something sealed that the user wants replaced.
    Replace,
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
        let work = plan.work(&store).map_err(Failure::run)?;
        self.unless_done(dictionary, Manifest::new(work, &chosen.name.to_string()), |manifest| {
            let summary = train(&plan, manifest, &store, &chosen.device, dictionary).map_err(Failure::run)?;
            let (tokens, seconds) = (table::count(plan.tokens), summary.seconds);
            tracing::info!("train: {tokens} tokens in {seconds:.0} s ({:.0} tokens/s)", summary.tokens_per_s);
            Ok(())
        })
    }

    fn eval(&self, chosen: &Chosen) -> Outcome {
        let plan = self.eval_plan(None).map_err(Failure::into_run)?;
        let Places { out, dictionary, .. } = &self.places;
        let work = plan.work(&self.checkpoint, dictionary).map_err(Failure::run)?;
        if let Some(report) = Report::up_to_date(out, &work) {
            tracing::info!("eval: already done, skipped");
            return self.show(&report);
        }
        self.may_replace_report(&work)?;
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
        match self.standing(directory, &manifest.work)? {
            Standing::Done => {
                tracing::info!("{}: already done, skipped", manifest.work.stage);
                Ok(())
            }
            Standing::Open => run(manifest),
            Standing::Replace => {
                let cannot = || format!("cannot replace {}", directory.display());
                let old = Aside::put(directory).with_context(cannot).map_err(Failure::run)?;
                run(manifest)?;
                old.discard().with_context(cannot).map_err(Failure::run)
            }
        }
    }

    fn standing(&self, directory: &Path, work: &Work) -> Outcome<Standing> {
        let reason = match Manifest::read(directory, work.stage) {
            Ok(manifest) if manifest.work == *work => return Ok(Standing::Done),
            Err(ManifestError::Unsealed { .. }) => return Ok(Standing::Open),
            Ok(manifest) => other_work(directory, &manifest.work, work),
            Err(error) => anyhow!(error).context(DAMAGED),
        };
        if self.args.overwrite { Ok(Standing::Replace) } else { Err(Failure::usage(reason)) }
    }

    fn may_replace_report(&self, work: &Work) -> Outcome {
        let path = self.places.out.join(JSON_FILE);
        if self.args.overwrite || !path.exists() {
            return Ok(());
        }
        match Report::read(&self.places.out) {
            Ok(report) if report.manifest.work == *work => Ok(()),
            Ok(report) => Err(Failure::usage(other_work(&path, &report.manifest.work, work))),
            Err(error) => Err(Failure::usage(anyhow!(error).context(DAMAGED))),
        }
    }
}

const DAMAGED: &str = "what is there cannot be used; choose another --out, or replace it with --overwrite";

fn other_work(place: &Path, there: &Work, wanted: &Work) -> anyhow::Error {
    let differences = there.differences(wanted);
    let shown = differences.iter().take(8).map(|line| format!("\n  {line}")).collect::<String>();
    let more = differences.len().saturating_sub(8);
    let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    anyhow!(
        "{}: results of other work are there; choose another --out, or replace them with --overwrite\nmade with \
         (there → wanted):{shown}{more}",
        place.display()
    )
}
