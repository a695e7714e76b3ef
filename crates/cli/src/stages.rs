//! Stages in order: plan them all, skip what is done, run the rest.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, anyhow};
use monosema_core::{Manifest, ManifestError, Stage, manifest::Work};
use monosema_evaluator::{
    DictionaryShape, EvalPlan, EvalSummary, HTML_FILE, Job as EvalJob, Report, Training, evaluate,
};
use monosema_harvester::{HarvestPlan, HarvestSummary, Stream, harvest};
use monosema_sae::Description;
use monosema_store::{Activations, Order, Part, Place, Store};
use monosema_trainer::{
    Found, Job, StoreFacts, TrainConfig, TrainError, TrainPlan, TrainSummary, sweep as grid, tidy, train,
};
use monosema_transformer::Checkpoint;
use serde_json::Value;

use crate::{
    args::{EvalArgs, RunArgs},
    compare,
    device::{self, Chosen},
    experiment::Experiment,
    failure::{Failure, Outcome},
    inspect, model, output,
    places::{Places, Standing},
    plan::{self, Plans},
    replace, summary, sweep, table,
};

/// `monosema harvest | train | eval | run`.
pub(crate) fn run(args: &RunArgs, stages: &[Stage], part: Option<Part>) -> Outcome {
    let asked = Asked { args, stages, part, dictionaries: &[], together: false };
    run_asked(&asked)
}

/// `monosema eval` with dictionaries from anywhere.
pub(crate) fn eval_given(EvalArgs { run: args, dictionaries, together }: &EvalArgs) -> Outcome {
    run_asked(&Asked { args, stages: &[Stage::Eval], part: None, dictionaries, together: *together })
}

/// What a command asks for.
struct Asked<'a> {
    args: &'a RunArgs,
    stages: &'a [Stage],
    part: Option<Part>,
    /// What to evaluate, other than the experiment's own dictionary.
    dictionaries: &'a [PathBuf],
    /// Whether to splice them in all at once, too.
    together: bool,
}

fn run_asked(&Asked { args, stages, part, dictionaries, together }: &Asked<'_>) -> Outcome {
    let experiment = Experiment::read(&args.config, &args.set)?;
    let places = Places::new(&args.config, &experiment, args.out.as_deref(), args.overwrite, part)?;
    let stages = &stages_of(&experiment, stages).map_err(|error| usage_in(&args.config, error))?[..];
    let checkpoint = model::of(&experiment.model).map_err(|error| usage_in(&args.config, error))?;
    // Everything is checked before anything is done: a fault in [eval] must not show after hours of harvest.
    let lock = if places.out.is_dir() && !args.dry_run { Some(places.lock()?) } else { None };
    let members = match dictionaries {
        [] => members(&experiment, &places).map_err(|error| usage_in(&args.config, error))?,
        given => guests(given, &places)?,
    };
    for places in members.iter().map(|member| &member.places) {
        if lock.is_some() {
            places.recover()?;
        }
        places.check(stages)?;
    }
    let (began, failed) = (Cell::new(false), RefCell::default());
    if together {
        let shape = |Member { places, .. }: &Member| {
            Description::read(&places.dictionary).map(|description| DictionaryShape::from(&description))
        };
        let shapes = members.iter().map(shape).collect::<Result<Vec<_>, _>>().map_err(Failure::usage)?;
        EvalSummary::check_together(&shapes).map_err(Failure::usage)?;
    }
    let runner = Runner { args, experiment, places, members, checkpoint, began, failed };
    let mut plans = runner.plan(stages)?;
    let chosen = device::resolve(runner.experiment.device)?;
    if let Some(free) = chosen.free_memory() {
        plans.harvest = plans.harvest.map(|plan| plan.for_gpu(free));
    }
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
    if !dictionaries.is_empty() {
        return runner.compare(together, &chosen);
    }
    if runner.is_sweep() && stages.last() != Some(&Stage::Harvest) {
        runner.summarise()?;
        return runner.tell_failed();
    }
    // An evaluation has shown its report.
    match stages.last().and_then(|&stage| Some((stage, runner.places.of(stage)?))) {
        Some((stage, directory)) if args.json => {
            let place = Place::at(directory).map_err(Failure::run)?;
            let manifest = Manifest::read(&place, stage).map_err(Failure::run)?;
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
pub(crate) fn usage_in(config: &Path, error: impl Into<anyhow::Error>) -> Failure {
    Failure::Usage(error.into().context(config.display().to_string()))
}

/// A section of `config` that a stage cannot do without.
pub(crate) fn section<'a, T>(
    config: &Path,
    name: impl std::fmt::Display,
    section: Option<&'a T>,
) -> Outcome<&'a T> {
    let file = config.display();
    section.ok_or_else(|| Failure::usage(anyhow!("{file}: expected a section [{name}], found none")))
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

/// Dictionaries from anywhere, each with a place for its report.
fn guests(given: &[PathBuf], places: &Places) -> Outcome<Vec<Member>> {
    let paths: Vec<PathBuf> =
        given.iter().map(|path| compare::dictionary_at(path)).collect::<Outcome<_>>()?;
    let names = summary::names(&paths).map_err(Failure::Usage)?;
    let guest = |(name, dictionary): (String, PathBuf)| {
        let places = places.guest(&name, dictionary);
        Member { name: Some(name), differs: Vec::new(), places, config: TrainConfig::default() }
    };
    Ok(names.into_iter().zip(paths).map(guest).collect())
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
    /// Members of a sweep whose training diverged, by name, and how.
    failed: RefCell<BTreeMap<String, String>>,
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
        // Members of a sweep are evaluated alike: what is wrong with one is wrong with the first that there is.
        if !trains {
            self.find_failed();
        }
        let first = self.members.iter().find(|member| !self.has_failed(member)).unwrap_or(&self.members[0]);
        let trained = train.first().map(|(_, plan)| plan);
        let eval =
            stages.contains(&Stage::Eval).then(|| self.eval_plan(&first.places, trained)).transpose()?;
        for warning in eval.iter().flat_map(|plan| &plan.warnings) {
            tracing::warn!("{warning}");
        }
        Ok(Plans { harvest, train, eval })
    }

    fn harvest_plan(&self) -> Outcome<HarvestPlan> {
        let Experiment { context, seed, .. } = &self.experiment;
        let config = section(&self.args.config, Stage::Harvest, self.experiment.harvest.as_ref())?;
        let plan = HarvestPlan::resolve(config, context, &self.checkpoint, *seed);
        let plan = plan.and_then(|plan| match self.places.part {
            Some(part) => plan.of_part(part),
            None => Ok(plan),
        });
        plan.map_err(|error| usage_in(&self.args.config, error))
    }

    fn is_sweep(&self) -> bool {
        self.members[0].name.is_some()
    }

    /// The plans for the activations that are there or, before the harvest, for those that will be.
    fn train_plans(&self, harvest: Option<&HarvestPlan>) -> Outcome<Vec<(Places, TrainPlan)>> {
        let facts = match harvest {
            Some(plan) => StoreFacts {
                hooks: plan.columns(),
                tokens: plan.tokens,
                shuffled: plan.order == Order::Shuffled,
                reading_bytes: plan.reading_bytes(),
            },
            None => StoreFacts::of(&Store::open(&self.places.acts).map_err(Failure::usage)?),
        };
        self.train_plans_for(&facts)
    }

    fn train_plans_for(&self, facts: &StoreFacts) -> Outcome<Vec<(Places, TrainPlan)>> {
        section(&self.args.config, Stage::Train, self.experiment.train.as_ref())?;
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
            let reason = "no dictionary; run the train stage first, or put one there (`monosema convert --help` lists whose are read)";
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
        let config = section(&self.args.config, Stage::Eval, self.experiment.eval.as_ref())?;
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
        let manifest = Manifest::new(work, &chosen.name.to_string());
        let standing = self.standing(acts, &manifest.work)?;
        let Some(place) = self.begin(acts, &standing, Stage::Harvest)? else { return Ok(()) };
        let harvested = harvest(plan, manifest, &self.checkpoint, &chosen.device, &place);
        // If it failed, it leaves what was there before.
        self.places.recover_stage(Stage::Harvest)?;
        let HarvestSummary { tokens, counts, bytes, elapsed, tokens_per_second, .. } =
            harvested.map_err(Failure::run)?;
        let (tokens, bytes, seconds) = (table::count(tokens), table::bytes(bytes), elapsed.as_secs_f64());
        tracing::info!(
            "harvest: {tokens} tokens, {bytes} in {seconds:.0} s ({tokens_per_second:.0} tokens/s); {counts}"
        );
        Ok(())
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
        // What is refused is refused before anything begins.
        let mut standings = Vec::new();
        for (Places { dictionary, .. }, plan) in &plans {
            let work = plan.work(&*activations);
            standings.push((self.standing(dictionary, &work)?, work));
        }
        let (mut jobs, mut begun) = (Vec::new(), Vec::new());
        for ((member, (_, plan)), (standing, work)) in self.members.iter().zip(plans).zip(standings) {
            if let Some(out) = self.begin(&member.places.dictionary, &standing, Stage::Train)? {
                jobs.push(Job { plan, manifest: Manifest::new(work, &chosen.name.to_string()), out });
                begun.push(member);
            }
        }
        if jobs.is_empty() {
            return Ok(());
        }
        let outcomes = train(jobs, &activations, &chosen.device).map_err(Failure::run)?;
        // First what is finished takes its place, whatever became of the others.
        for member in &begun {
            member.places.recover_stage(Stage::Train)?;
        }
        let done = outcomes.iter().flatten().next();
        if let Some(TrainSummary { last, seconds, tokens_per_s, .. }) = done {
            let tokens = table::count(last.tokens);
            tracing::info!("train: {tokens} tokens in {seconds:.0} s ({tokens_per_s:.0} tokens/s)");
        }
        for (member, outcome) in begun.into_iter().zip(outcomes) {
            match (outcome, &member.name) {
                (Ok(_), _) => {}
                // The others of a sweep are evaluated and shown.
                (Err(error), Some(name)) if error.is_divergence() => {
                    self.failed.borrow_mut().insert(name.clone(), error.to_string());
                }
                (Err(error), _) => return Err(Failure::run(error)),
            }
        }
        Ok(())
    }

    /// Finds members that diverged when they were trained.
    fn find_failed(&self) {
        for Member { name, places, .. } in &self.members {
            if let (Some(name), Found::Diverged(diverged)) = (name, Found::dictionary(&places.dictionary)) {
                self.failed.borrow_mut().insert(name.clone(), diverged.error);
            }
        }
    }

    fn has_failed(&self, member: &Member) -> bool {
        member.name.as_ref().is_some_and(|name| self.failed.borrow().contains_key(name))
    }

    /// Ends badly if a member diverged.
    fn tell_failed(&self) -> Outcome {
        let failed = self.failed.borrow();
        if failed.is_empty() {
            return Ok(());
        }
        let (n, of) = (failed.len(), self.members.len());
        let told = failed.iter().map(|(name, error)| format!("\n{name}: {error}")).collect::<String>();
        Err(Failure::Run(anyhow!("{n} of {of} members diverged:{told}")))
    }

    /// Evaluates every dictionary that there is.
    fn evals(&self, planned: Option<&EvalPlan>, chosen: &Chosen) -> Outcome {
        let planned = planned.filter(|_| self.members.len() == 1);
        let (mut jobs, mut done) = (Vec::new(), None);
        // What is refused is refused before the first is evaluated.
        for member in self.members.iter().filter(|member| !self.has_failed(member)) {
            let Member { name, places, .. } = member;
            let plan = match planned {
                Some(plan) => plan.clone(),
                None => self.eval_plan(places, None).map_err(Failure::into_run)?,
            };
            let work = plan.work(&self.checkpoint, &places.dictionary).map_err(Failure::run)?;
            if let Some(report) = Report::up_to_date(&places.out, &work) {
                let of = name.as_ref().map_or(String::new(), |name| format!(" of {name}"));
                tracing::info!("eval{of}: already done, skipped");
                done = Some(report);
                continue;
            }
            places.may_replace_report(&work).map_err(|error| self.refused(error))?;
            let manifest = Manifest::new(work, &chosen.name.to_string());
            let Places { dictionary, out, .. } = places.clone();
            jobs.push(EvalJob { plan, manifest, dictionary, out });
        }
        if !jobs.is_empty() {
            let started = Instant::now();
            let reports = evaluate(&jobs, &self.checkpoint, &chosen.device).map_err(Failure::run)?;
            tracing::info!("eval: {:.0} s", started.elapsed().as_secs_f64());
            done = reports.into_iter().next_back();
        }
        // Several are shown together, at the end.
        match done.filter(|_| !self.is_sweep()) {
            Some(report) => self.show(&report),
            None => Ok(()),
        }
    }

    fn show(&self, report: &Report) -> Outcome {
        if self.args.json {
            return output::print(format_args!("{:#}", report.to_json()));
        }
        let page = self.places.out.join(HTML_FILE);
        output::print(format_args!("{}\nreport: {}", inspect::report_table(report), page.display()))
    }

    /// Shows what dictionaries from anywhere came to.
    fn compare(&self, together: bool, chosen: &Chosen) -> Outcome {
        let mut reports = Vec::new();
        for Member { name, places, .. } in &self.members {
            let report = Report::read(&places.out).map_err(Failure::run)?;
            reports.push((name.clone().unwrap_or_default(), report));
        }
        let mut all = EvalSummary { reports, together: None };
        if together {
            let job = |Member { places, .. }: &Member| {
                let plan = self.eval_plan(places, None).map_err(Failure::into_run)?;
                let work = plan.work(&self.checkpoint, &places.dictionary).map_err(Failure::run)?;
                let manifest = Manifest::new(work, &chosen.name.to_string());
                let Places { dictionary, out, .. } = places.clone();
                Ok(EvalJob { plan, manifest, dictionary, out })
            };
            let jobs: Vec<_> = self.members.iter().map(job).collect::<Outcome<_>>()?;
            all.splice_together(&jobs, &self.checkpoint, &chosen.device).map_err(Failure::run)?;
        }
        summary::show(&all, &self.places, self.args.json)
    }

    /// Shows what the members of a sweep came to.
    fn summarise(&self) -> Outcome {
        let failed = self.failed.borrow();
        let named = |Member { name, differs, places, .. }: &Member| {
            let (differs, places) = (differs.clone(), places.clone());
            let name = name.clone()?;
            let failed = failed.get(&name).cloned();
            Some(sweep::Member { name, differs, places, failed })
        };
        let members: Vec<_> = self.members.iter().filter_map(named).collect();
        sweep::summarise(&self.places, &members, self.args.json)
    }

    fn standing(&self, directory: &Path, work: &Work) -> Outcome<Standing> {
        self.places.standing(directory, work).map_err(|error| self.refused(error))
    }

    /// Makes room for a stage in `directory`, and returns where it is to work; `None` if it is done.
    fn begin(&self, directory: &Path, standing: &Standing, stage: Stage) -> Outcome<Option<PathBuf>> {
        let beside = replace::beside(directory);
        let place = match standing {
            Standing::Done => {
                if stage == Stage::Train {
                    tidy(directory).map_err(Failure::run)?;
                }
                tracing::info!("{stage}: {}: already done, skipped", directory.display());
                return Ok(None);
            }
            Standing::Here => directory.to_owned(),
            Standing::Beside { anew } => {
                if *anew && beside.exists() {
                    let cannot = || format!("{}: cannot be removed", beside.display());
                    fs::remove_dir_all(&beside).with_context(cannot).map_err(Failure::run)?;
                }
                tracing::info!("{stage}: {} stays until its replacement is whole", directory.display());
                beside
            }
        };
        self.began.set(true);
        Ok(Some(place))
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
