//! Stages in order: plan them all, skip what is done, run the rest.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, anyhow};
use burn::tensor::Device;
use monosema_core::{Manifest, ManifestError, manifest::Work};
use monosema_evaluator::{DictionaryShape, EvalPlan, HTML_FILE, JSON_FILE, Report, evaluate};
use monosema_harvester::{HarvestPlan, HarvestSummary, harvest};
use monosema_sae::Dictionary;
use monosema_store::Store;
use monosema_trainer::{StoreFacts, TrainPlan, train};
use monosema_transformer::Checkpoint;

use crate::{
    args::RunArgs,
    device,
    experiment::Experiment,
    failure::{Failure, Outcome},
    inspect, output,
    plan::{self, Plans},
    replace::Aside,
    table,
};

/// A stage of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Harvest,
    Train,
    Eval,
}

impl Stage {
    /// In order.
    pub(crate) const ALL: [Self; 3] = [Self::Harvest, Self::Train, Self::Eval];

    /// What manifests call it.
    fn name(self) -> &'static str {
        match self {
            Self::Harvest => "harvest",
            Self::Train => "train",
            Self::Eval => "eval",
        }
    }
}

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
    let (device, name) = device::resolve(runner.experiment.device)?;
    if args.dry_run {
        return plan::print(&plans, &runner.places, name, args.json);
    }
    plan::check_space(&plans, &runner.places)?;
    let _lock = lock(&runner.places.out)?;
    stages.iter().try_for_each(|&stage| runner.stage(stage, &plans, &device))
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

    fn harvest_plan(&self) -> Outcome<HarvestPlan> {
        let Experiment { context, seed, .. } = &self.experiment;
        HarvestPlan::resolve(self.experiment.harvest()?, context, &self.checkpoint, *seed)
            .map_err(Failure::usage)
    }

    /// The plan for the activations that are there or, before the harvest, for those that will be.
    fn train_plan(&self, harvest: Option<&HarvestPlan>) -> Outcome<TrainPlan> {
        let config = self.experiment.train()?;
        let facts = match harvest {
            Some(plan) => StoreFacts { hooks: plan.columns(), tokens: plan.tokens },
            None => StoreFacts::of(&Store::open(&self.places.acts).map_err(Failure::usage)?),
        };
        TrainPlan::resolve(config, &facts, self.experiment.seed).map_err(Failure::usage)
    }

    fn eval_plan(&self, train: Option<&TrainPlan>) -> Outcome<EvalPlan> {
        let Experiment { context, seed, .. } = &self.experiment;
        let shape = match train {
            Some(plan) => DictionaryShape { hook: plan.hook, d_in: plan.d_in, d_sae: plan.d_sae },
            None => {
                let dictionary =
                    Dictionary::load(&self.places.dictionary, &Device::flex()).map_err(Failure::usage)?;
                DictionaryShape::of(&dictionary)
            }
        };
        let config = self.experiment.eval()?;
        let training_text = self.experiment.training_text();
        let plan = EvalPlan::resolve(config, context, &self.checkpoint, &shape, training_text, *seed);
        plan.map_err(Failure::usage)
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

impl Runner<'_> {
    fn stage(&self, stage: Stage, plans: &Plans, device: &Device) -> Outcome {
        match (stage, plans) {
            (Stage::Harvest, Plans { harvest: Some(plan), .. }) => self.harvest(plan, device),
            (Stage::Train, Plans { train: Some(_), .. }) => self.train(device),
            (Stage::Eval, Plans { eval: Some(_), .. }) => self.eval(device),
            _ => unreachable!("every stage to run was planned"),
        }
    }

    fn harvest(&self, plan: &HarvestPlan, device: &Device) -> Outcome {
        let acts = &self.places.acts;
        let work = plan.work(&self.checkpoint).map_err(Failure::run)?;
        self.unless_done(Stage::Harvest, acts, &work, || {
            let summary = harvest(plan, &self.checkpoint, device, acts).map_err(Failure::run)?;
            let HarvestSummary { tokens, bytes, elapsed, tokens_per_second, .. } = summary;
            let (tokens, bytes, seconds) = (table::count(tokens), table::bytes(bytes), elapsed.as_secs_f64());
            tracing::info!(
                "harvest: {tokens} tokens, {bytes} in {seconds:.0} s ({tokens_per_second:.0} tokens/s)"
            );
            Ok(())
        })
    }

    fn train(&self, device: &Device) -> Outcome {
        // Planned anew: before the harvest, how many tokens there would be was an estimate.
        let plan = self.train_plan(None)?;
        let store = Store::open(&self.places.acts).map_err(Failure::run)?;
        let dictionary = &self.places.dictionary;
        let work = plan.work(&store).map_err(Failure::run)?;
        self.unless_done(Stage::Train, dictionary, &work, || {
            let started = Instant::now();
            train(&plan, &store, device, dictionary).map_err(Failure::run)?;
            let (tokens, seconds) = (plan.tokens, started.elapsed().as_secs_f64());
            let rate = tokens as f64 / seconds;
            tracing::info!("train: {} tokens in {seconds:.0} s ({rate:.0} tokens/s)", table::count(tokens));
            Ok(())
        })
    }

    fn eval(&self, device: &Device) -> Outcome {
        let plan = self.eval_plan(None)?;
        let Places { out, dictionary, .. } = &self.places;
        let work = plan.work(&self.checkpoint, dictionary).map_err(Failure::run)?;
        let report = match Report::up_to_date(out, &work) {
            Some(report) => {
                tracing::info!("eval: already done, skipped");
                report
            }
            None => {
                self.may_replace_report(&work)?;
                let report =
                    evaluate(&plan, &self.checkpoint, dictionary, device, out).map_err(Failure::run)?;
                tracing::info!("eval: {:.0} s", report.timing.seconds);
                report
            }
        };
        self.show(&report)
    }

    fn show(&self, report: &Report) -> Outcome {
        if self.args.json {
            return output::print(format_args!("{:#}", report.to_json()));
        }
        let page = self.places.out.join(HTML_FILE);
        output::print(format_args!("{}\nreport: {}", inspect::report_table(report), page.display()))
    }

    /// Runs `work` into `directory` unless it is done; what it replaces comes back if it fails.
    fn unless_done(
        &self,
        stage: Stage,
        directory: &Path,
        work: &Work,
        run: impl FnOnce() -> Outcome,
    ) -> Outcome {
        match self.standing(stage, directory, work)? {
            Standing::Done => Ok(()),
            Standing::Open => run(),
            Standing::Replace => {
                let cannot = || format!("cannot replace {}", directory.display());
                let old = Aside::put(directory).with_context(cannot).map_err(Failure::run)?;
                run()?;
                old.discard().with_context(cannot).map_err(Failure::run)
            }
        }
    }

    fn standing(&self, stage: Stage, directory: &Path, work: &Work) -> Outcome<Standing> {
        let reason = match Manifest::read(directory, stage.name()) {
            Ok(manifest) if manifest.work == *work => {
                tracing::info!("{}: already done, skipped", stage.name());
                return Ok(Standing::Done);
            }
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
