//! Stages in order: plan them all, skip what is done, run the rest.

use std::{
    cell::Cell,
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, anyhow};
use monosema_core::{Manifest, ManifestError, Stage, manifest};
use monosema_evaluator::{DictionaryShape, EvalPlan, HTML_FILE, Report, Training, evaluate};
use monosema_harvester::{HarvestPlan, HarvestSummary, Stream, harvest};
use monosema_sae::Description;
use monosema_store::{Activations, Store};
use monosema_trainer::{Job, StoreFacts, TrainConfig, TrainError, TrainPlan, sweep as grid, train};
use monosema_transformer::{Checkpoint, ModelError};
use serde_json::Value;

use crate::{
    args::RunArgs,
    device::{self, Chosen},
    experiment::Experiment,
    failure::{Failure, Outcome},
    inspect, output,
    places::{Places, Standing},
    plan::{self, Plans},
    replace::Aside,
    sweep, table,
};

/// `monosema harvest | train | eval | run`.
pub(crate) fn run(args: &RunArgs, stages: &[Stage]) -> Outcome {
    let experiment = Experiment::read(&args.config, &args.set)?;
    let places = Places::new(args);
    let stages = &stages_of(&experiment, stages).map_err(|error| usage_in(&args.config, error))?[..];
    let in_config = |error: ModelError| usage_in(&args.config, error);
    let checkpoint = Checkpoint::open(&experiment.model.path).map_err(in_config)?;
    // Everything is checked before anything is done: a fault in [eval] must not show after hours of harvest.
    let lock = if places.out.is_dir() && !args.dry_run { Some(places.lock()?) } else { None };
    if lock.is_some() {
        places.recover()?;
    }
    places.check(stages)?;
    let members = members(&experiment, &places).map_err(|error| usage_in(&args.config, error))?;
    let runner = Runner { args, experiment, places, members, checkpoint, began: Cell::new(false) };
    let plans = runner.plan(stages)?;
    let chosen = device::resolve(runner.experiment.device)?;
    for (_, plan) in &plans.train {
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
        Stage::Train => runner.train(plans.harvest.as_ref(), &chosen),
        // Planned for the dictionary that is there, unless this command was to train it first.
        Stage::Eval => runner.evals(plans.eval.as_ref().filter(|_| plans.train.is_empty()), &chosen),
    })?;
    if runner.is_sweep() && stages.last() != Some(&Stage::Harvest) {
        return runner.summarise();
    }
    // An evaluation has shown its report.
    match stages.last().and_then(|&stage| Some((stage, runner.places.of(stage)?))) {
        Some((stage, directory)) if args.json => {
            let manifest = Manifest::read(directory, stage).map_err(Failure::run)?;
            output::print(serde_json::to_string_pretty(&manifest).map_err(Failure::run)?)
        }
        _ => Ok(()),
    }
}

/// Where activations are streamed, harvesting is no stage of its own.
fn stages_of(experiment: &Experiment, asked: &[Stage]) -> anyhow::Result<Vec<Stage>> {
    let streams = experiment.streams();
    if streams && asked == [Stage::Harvest] {
        let instead = "run the stage `train`, or harvest with --set harvest.stream=false";
        return Err(anyhow!("[harvest] stream = true: nothing is to be stored; {instead}"));
    }
    Ok(asked.iter().copied().filter(|&stage| !(streams && stage == Stage::Harvest)).collect())
}

/// An error in what the configuration says.
fn usage_in(config: &Path, error: impl Into<anyhow::Error>) -> Failure {
    Failure::Usage(error.into().context(config.display().to_string()))
}

/// What `experiment` trains: what it says, or of a sweep every member. At least one.
fn members(experiment: &Experiment, places: &Places) -> Result<Vec<Member>, TrainError> {
    let config = experiment.train.clone().unwrap_or_default();
    let members = grid::members(&config)?;
    if members.is_empty() {
        let (name, differs, places) = (None, Vec::new(), places.clone());
        return Ok(vec![Member { name, differs, places, config }]);
    }
    let member = |grid::Member { name, differs, config }| {
        let places = places.member(&name);
        Member { name: Some(name), differs, places, config }
    };
    Ok(members.into_iter().map(member).collect())
}

struct Runner<'a> {
    args: &'a RunArgs,
    experiment: Experiment,
    places: Places,
    /// What is to be trained: what the configuration says, or of a sweep every member.
    members: Vec<Member>,
    checkpoint: Checkpoint,
    /// Whether a stage has begun its work.
    began: Cell<bool>,
}

impl Runner<'_> {
    fn plan(&self, stages: &[Stage]) -> Outcome<Plans> {
        let trains = stages.contains(&Stage::Train);
        let harvests = stages.contains(&Stage::Harvest) || trains && self.experiment.streams();
        let harvest = harvests.then(|| self.harvest_plan()).transpose()?;
        let train = match trains {
            true => self.train_plans(harvest.as_ref())?,
            false => Vec::new(),
        };
        // Members of a sweep are evaluated alike: what is wrong with one is wrong with the first.
        let first = &self.members[0];
        let trained = train.first().map(|(_, plan)| plan);
        let eval =
            stages.contains(&Stage::Eval).then(|| self.eval_plan(&first.places, trained)).transpose()?;
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

    fn is_sweep(&self) -> bool {
        self.members[0].name.is_some()
    }

    /// The plans for the activations that are there or, before the harvest, for those that will be.
    fn train_plans(&self, harvest: Option<&HarvestPlan>) -> Outcome<Vec<(Places, TrainPlan)>> {
        let facts = match harvest {
            Some(plan) => StoreFacts { hooks: plan.columns(), tokens: plan.tokens },
            None => StoreFacts::of(&Store::open(&self.places.acts).map_err(Failure::usage)?),
        };
        self.train_plans_for(&facts)
    }

    fn train_plans_for(&self, facts: &StoreFacts) -> Outcome<Vec<(Places, TrainPlan)>> {
        self.section(Stage::Train, self.experiment.train.as_ref())?;
        let plan = |Member { name, places, config, .. }: &Member| {
            let plan = TrainPlan::resolve(config, facts, self.experiment.seed).map_err(|error| {
                let error = match name {
                    Some(name) => anyhow!(error).context(format!("member {name} of [[train.sweep]]")),
                    None => anyhow!(error),
                };
                usage_in(&self.args.config, error)
            })?;
            Ok((places.clone(), plan))
        };
        let plans: Vec<_> = self.members.iter().map(plan).collect::<Outcome<_>>()?;
        for (_, plan) in &plans {
            plans[0].1.check_shared(plan).map_err(|error| usage_in(&self.args.config, error))?;
        }
        Ok(plans)
    }

    /// The dictionary that is there, found to be what its manifest says if it has one.
    fn dictionary(&self, places: &Places) -> Outcome<Description> {
        let directory = &places.dictionary;
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
    fn eval_plan(&self, places: &Places, train: Option<&TrainPlan>) -> Outcome<EvalPlan> {
        let Experiment { context, seed, .. } = &self.experiment;
        let (shape, metadata) = match train {
            Some(TrainPlan { hook, hook_out, size, .. }) => {
                let (hook, hook_out) = (*hook, *hook_out);
                (DictionaryShape { hook, hook_out, d_in: size.d_in, d_sae: size.d_sae }, None)
            }
            None => {
                let description = self.dictionary(places)?;
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

    /// Trains what is not there yet, all on one pass over the activations.
    fn train(&self, harvest: Option<&HarvestPlan>, chosen: &Chosen) -> Outcome {
        let activations: Arc<dyn Activations> = match harvest.filter(|plan| plan.stream) {
            Some(plan) => {
                let work = plan.work(&self.checkpoint).map_err(Failure::run)?;
                Arc::new(Stream::new(plan.clone(), work, self.checkpoint.clone(), &chosen.device))
            }
            None => Arc::new(Store::open(&self.places.acts).map_err(Failure::run)?),
        };
        let plans = self.train_plans_for(&StoreFacts::of(&*activations)).map_err(Failure::into_run)?;
        let (mut jobs, mut begun) = (Vec::new(), Vec::new());
        for (Places { dictionary, .. }, plan) in plans {
            let manifest = Manifest::new(plan.work(&*activations), &chosen.name.to_string());
            if let Some(replacement) = self.begin(&dictionary, &manifest)? {
                begun.push(replacement);
                jobs.push(Job { plan, manifest, out: dictionary });
            }
        }
        if jobs.is_empty() {
            return Ok(());
        }
        let summaries = train(jobs, &activations, &chosen.device).map_err(Failure::run)?;
        let first = &summaries[0];
        let (tokens, seconds) = (table::count(first.last.tokens), first.seconds);
        tracing::info!("train: {tokens} tokens in {seconds:.0} s ({:.0} tokens/s)", first.tokens_per_s);
        begun.into_iter().try_for_each(Replacement::end)
    }

    /// Evaluates every dictionary.
    fn evals(&self, planned: Option<&EvalPlan>, chosen: &Chosen) -> Outcome {
        let planned = planned.filter(|_| self.members.len() == 1);
        self.members.iter().try_for_each(|member| self.eval(member, planned, chosen))
    }

    fn eval(&self, member: &Member, planned: Option<&EvalPlan>, chosen: &Chosen) -> Outcome {
        let Member { name, places, .. } = member;
        let plan = match planned {
            Some(plan) => plan.clone(),
            None => self.eval_plan(places, None).map_err(Failure::into_run)?,
        };
        let Places { out, dictionary, .. } = places;
        let of = name.as_ref().map_or(String::new(), |name| format!(" of {name}"));
        let work = plan.work(&self.checkpoint, dictionary).map_err(Failure::run)?;
        let report = if let Some(report) = Report::up_to_date(out, &work) {
            tracing::info!("eval{of}: already done, skipped");
            report
        } else {
            places.may_replace_report(&work).map_err(|error| self.refused(error))?;
            let manifest = Manifest::new(work, &chosen.name.to_string());
            let report = evaluate(&plan, manifest, &self.checkpoint, dictionary, &chosen.device, out)
                .map_err(Failure::run)?;
            tracing::info!("eval{of}: {:.0} s", report.timing.seconds);
            report
        };
        // Those of a sweep are shown together, at its end.
        if name.is_some() { Ok(()) } else { self.show(&report) }
    }

    fn show(&self, report: &Report) -> Outcome {
        if self.args.json {
            return output::print(format_args!("{:#}", report.to_json()));
        }
        let page = self.places.out.join(HTML_FILE);
        output::print(format_args!("{}\nreport: {}", inspect::report_table(report), page.display()))
    }

    /// Shows what the members of a sweep came to.
    fn summarise(&self) -> Outcome {
        let named = |Member { name, differs, places, .. }: &Member| {
            let (differs, places) = (differs.clone(), places.clone());
            name.clone().map(|name| sweep::Member { name, differs, places })
        };
        let members: Vec<_> = self.members.iter().filter_map(named).collect();
        sweep::summarise(&self.places, &members, self.args.json)
    }

    /// Runs a stage into `directory` unless it is done; what it replaces comes back if it fails.
    fn unless_done(
        &self,
        directory: &Path,
        manifest: Manifest,
        run: impl FnOnce(Manifest) -> Outcome,
    ) -> Outcome {
        match self.begin(directory, &manifest)? {
            None => Ok(()),
            Some(replacement) => {
                run(manifest)?;
                replacement.end()
            }
        }
    }

    /// Makes room for a stage in `directory`; `None` if it is done.
    fn begin(&self, directory: &Path, manifest: &Manifest) -> Outcome<Option<Replacement>> {
        let standing =
            self.places.standing(directory, &manifest.work).map_err(|error| self.refused(error))?;
        if standing == Standing::Done {
            tracing::info!("{}: {}: already done, skipped", manifest.work.stage, directory.display());
            return Ok(None);
        }
        self.began.set(true);
        if standing == Standing::Open {
            return Ok(Some(Replacement::Nothing));
        }
        let ours = match Manifest::read(directory, manifest.work.stage) {
            Ok(old) => top_level(&old),
            // What cannot be told apart is replaced as a whole.
            Err(_) => names(directory),
        };
        let cannot = || format!("cannot replace {}", directory.display());
        let old = Aside::put(directory).with_context(cannot).map_err(Failure::run)?;
        Ok(Some(Replacement::Of { old, ours, directory: directory.to_owned() }))
    }

    /// A refusal is one of usage until a stage of this command has begun its work.
    fn refused(&self, error: anyhow::Error) -> Failure {
        if self.began.get() { Failure::Run(error) } else { Failure::Usage(error) }
    }
}

/// A dictionary to train and to evaluate.
struct Member {
    /// Of a sweep what tells it from the others.
    name: Option<String>,
    /// Likewise, as keys and values.
    differs: Vec<(String, Value)>,
    places: Places,
    config: TrainConfig,
}

/// What a stage replaces; it comes back if this is dropped.
enum Replacement {
    Nothing,
    Of { old: Aside, ours: BTreeSet<String>, directory: PathBuf },
}

impl Replacement {
    /// The stage is done.
    fn end(self) -> Outcome {
        match self {
            Self::Nothing => Ok(()),
            Self::Of { old, ours, directory } => old
                .discard(&ours)
                .with_context(|| format!("cannot replace {}", directory.display()))
                .map_err(Failure::run),
        }
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
