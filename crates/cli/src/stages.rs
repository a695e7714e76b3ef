//! Stages in order: plan them all, skip what is done, run the rest.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use burn::tensor::Device;
use monosema_core::{
    Manifest, ManifestError,
    manifest::{self, Work},
};
use monosema_evaluator::{DictionaryShape, EvalPlan, HTML_FILE, JSON_FILE, Report, evaluate};
use monosema_harvester::{HarvestPlan, harvest};
use monosema_sae::Dictionary;
use monosema_store::Store;
use monosema_trainer::{StoreFacts, TrainPlan, train};
use monosema_transformer::Checkpoint;

use crate::{
    args::RunArgs,
    device,
    experiment::Experiment,
    failure::{Failure, Outcome},
    inspect,
    plan::{self, Plans},
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
    if args.dry_run {
        return plan::print(&plans, &runner.places, args.json);
    }
    plan::check_space(&plans, &runner.places)?;
    let mut device = None;
    for &stage in stages {
        runner.stage(stage, &plans, &mut device)?;
    }
    Ok(())
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
        Ok(Plans { harvest, train, eval })
    }

    fn harvest_plan(&self) -> Outcome<HarvestPlan> {
        let Experiment { context, seed, .. } = &self.experiment;
        HarvestPlan::resolve(self.experiment.harvest()?, context, &self.checkpoint, *seed).map_err(Failure::usage)
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
                let dictionary = Dictionary::load(&self.places.dictionary, &Device::flex()).map_err(Failure::usage)?;
                DictionaryShape::of(&dictionary)
            }
        };
        let config = self.experiment.eval()?;
        let training_text = self.experiment.training_text();
        EvalPlan::resolve(config, context, &self.checkpoint, &shape, training_text, *seed).map_err(Failure::usage)
    }
}

/// What a stage's directory holds already.
enum Standing {
    /// The same work, done: nothing to do.
    Done,
    /// Nothing, an interrupted stage, or work that may be replaced.
    Open,
}

impl Runner<'_> {
    fn stage(&self, stage: Stage, plans: &Plans, device: &mut Option<Device>) -> Outcome {
        match (stage, plans) {
            (Stage::Harvest, Plans { harvest: Some(plan), .. }) => self.harvest(plan, device),
            (Stage::Train, Plans { train: Some(_), .. }) => self.train(device),
            (Stage::Eval, Plans { eval: Some(_), .. }) => self.eval(device),
            _ => unreachable!("every stage to run was planned"),
        }
    }

    fn harvest(&self, plan: &HarvestPlan, device: &mut Option<Device>) -> Outcome {
        let acts = &self.places.acts;
        let work = plan.work(&self.checkpoint).map_err(Failure::usage)?;
        if let Standing::Open = self.standing(Stage::Harvest, acts, &work)? {
            harvest(plan, &self.checkpoint, self.device(device)?, acts).map_err(Failure::run)?;
        }
        let store = Store::open(acts).map_err(Failure::run)?;
        tracing::info!("{}: {} tokens", acts.display(), table::count(store.tokens()));
        Ok(())
    }

    fn train(&self, device: &mut Option<Device>) -> Outcome {
        // Planned anew: before the harvest, how many tokens there would be was an estimate.
        let plan = self.train_plan(None)?;
        let store = Store::open(&self.places.acts).map_err(Failure::usage)?;
        let dictionary = &self.places.dictionary;
        let work = plan.work(&store).map_err(Failure::usage)?;
        if let Standing::Open = self.standing(Stage::Train, dictionary, &work)? {
            train(&plan, &store, self.device(device)?, dictionary).map_err(Failure::run)?;
        }
        tracing::info!("{}: {} latents", dictionary.display(), table::count(plan.d_sae as u64));
        Ok(())
    }

    fn eval(&self, device: &mut Option<Device>) -> Outcome {
        let plan = self.eval_plan(None)?;
        for warning in &plan.warnings {
            tracing::warn!("{warning}");
        }
        let Places { out, dictionary, .. } = &self.places;
        let work = plan.work(&self.checkpoint, dictionary).map_err(Failure::usage)?;
        let report = match Report::up_to_date(out, &work) {
            Some(report) => {
                tracing::info!("eval: already done, skipped");
                report
            }
            None => {
                self.may_replace_report(&work)?;
                evaluate(&plan, &self.checkpoint, dictionary, self.device(device)?, out).map_err(Failure::run)?
            }
        };
        self.show(&report);
        Ok(())
    }

    #[allow(clippy::print_stdout, reason = "the command's result")]
    fn show(&self, report: &Report) {
        if self.args.json {
            println!("{:#}", report.to_json());
        } else {
            println!("{}", inspect::report_table(report));
            println!("report: {}", self.places.out.join(HTML_FILE).display());
        }
    }

    /// The experiment's device, chosen when the first stage needs one.
    fn device<'d>(&self, device: &'d mut Option<Device>) -> Outcome<&'d Device> {
        if device.is_none() {
            *device = Some(device::resolve(&self.experiment.device)?.0);
        }
        Ok(device.as_ref().expect("set above"))
    }

    fn standing(&self, stage: Stage, directory: &Path, work: &Work) -> Outcome<Standing> {
        let reason = match Manifest::read(directory, stage.name()) {
            Ok(manifest) if manifest.work == *work => {
                tracing::info!("{}: already done, skipped", stage.name());
                return Ok(Standing::Done);
            }
            Err(ManifestError::Unsealed { .. }) => return Ok(Standing::Open),
            Ok(manifest) => other_work(directory, &manifest.work, work),
            Err(error) => anyhow!(error),
        };
        if !self.args.overwrite {
            return Err(Failure::usage(reason.context(REPLACE)));
        }
        // Without its manifest a directory no longer counts, and its stage may redo it.
        let path = directory.join(manifest::FILE_NAME);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display())).map_err(Failure::run)?;
        Ok(Standing::Open)
    }

    fn may_replace_report(&self, work: &Work) -> Outcome {
        let out = &self.places.out;
        match Report::read(out) {
            Ok(report) if report.manifest.work != *work && !self.args.overwrite => {
                let reason = other_work(&out.join(JSON_FILE), &report.manifest.work, work);
                Err(Failure::usage(reason.context(REPLACE)))
            }
            _ => Ok(()),
        }
    }
}

/// What to do about results of other work.
const REPLACE: &str = "results of other work are there; choose another --out, or replace them with --overwrite";

fn other_work(place: &Path, there: &Work, wanted: &Work) -> anyhow::Error {
    let differences = there.differences(wanted);
    let shown = differences.iter().take(8).map(|line| format!("\n  {line}")).collect::<String>();
    let more = differences.len().saturating_sub(8);
    let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    anyhow!("{}: made with (there → wanted):{shown}{more}", place.display())
}
