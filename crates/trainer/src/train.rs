//! A stage of the pipeline: activations to dictionaries, sealed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use burn::tensor::Device;
use monosema_core::Manifest;
use monosema_store::Activations;
use serde::Serialize;

use crate::{
    Record, Sample, TrainError, TrainPlan,
    checkpoint::{self, Checkpoint},
    fit::{Fitted, fit},
    found::{self, Diverged, Found},
    load::{load, sampled},
    logs,
    member::Member,
    saver::Saver,
    seal::Origin,
};

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

/// What became of a job.
pub type Outcome = Result<TrainSummary, TrainError>;

/// Trains a dictionary for each of `jobs` on `device`, and writes each to its directory: a SAELens directory with `logs/`, sealed
/// with its manifest. Each is, to the bit, what it would be alone, uninterrupted.
///
/// They share a pass over the activations. What was interrupted in these directories is taken up at a checkpoint, together with
/// all others that have one of the same step; who has no step in common with the most of them goes on in a pass of its own. What
/// diverged before is not trained again.
///
/// What becomes of one job is told in its place, and takes nothing from the others: who diverges leaves `last-good/` if there was
/// a checkpoint, its page, and `diverged.json`, which says so.
///
/// # Errors
/// Before anything is done: a finished dictionary in a directory, or a training of other work; plans that cannot share a pass; a
/// precision that `device` has no step for; activations other than the plans', or that cannot be read; without a scale.
///
/// # Panics
/// Without a job.
pub fn train(
    jobs: Vec<Job>,
    activations: &Arc<dyn Activations>,
    device: &Device,
) -> Result<Vec<Outcome>, TrainError> {
    let started = Instant::now();
    let plan = &jobs[0].plan;
    for job in &jobs {
        job.plan.check_device(device)?;
        check_activations(&job.plan, &**activations)?;
        plan.check_shared(&job.plan)?;
    }
    let mut waiting = Vec::new();
    let mut outcomes = BTreeMap::new();
    for (n, job) in jobs.iter().enumerate() {
        match begun(job)? {
            Begun::Diverged(error) => {
                let directory = job.out.clone();
                outcomes.insert(n, Err(TrainError::DivergedBefore { directory, error }));
            }
            Begun::Open(steps) => waiting.push(Waiting { n, job, steps }),
        }
    }
    if !waiting.is_empty() {
        // A damaged shard shows in no loss curve. Reading it all once is little beside training on it.
        activations.verify()?;
        let sample = Sample::of(sampled(plan, activations), plan)?;
        let pass = Pass { plan, sample, activations, device, started };
        while !waiting.is_empty() {
            let group = Group::next(&mut waiting);
            if !waiting.is_empty() {
                let (n, of, done) = (group.members.len(), group.members.len() + waiting.len(), group.done);
                tracing::info!(
                    "train: {n} of {of} begin after step {done}; the others follow in a pass of their own"
                );
            }
            outcomes.extend(pass.run(group));
        }
    }
    Ok(outcomes.into_values().collect())
}

/// What was begun of a job.
enum Begun {
    /// Steps that it has checkpoints of; none if it is to begin.
    Open(BTreeSet<u64>),
    /// It diverged, and said so.
    Diverged(String),
}

/// # Errors
/// A directory in which the job cannot be done.
fn begun(Job { out, manifest, .. }: &Job) -> Result<Begun, TrainError> {
    let (found, directory) = (Found::dictionary(out), out.clone());
    if let Found::Finished(_) = found {
        return Err(TrainError::Sealed { directory });
    }
    if let Some(there) = found.work().filter(|there| **there != manifest.work) {
        let differences = there.differences(&manifest.work);
        return Err(TrainError::OtherWork { directory, differences });
    }
    match found {
        Found::Foreign(reason) => Err(TrainError::Foreign { directory, reason }),
        Found::Diverged(Diverged { error, .. }) => {
            found::tidy(out)?;
            Ok(Begun::Diverged(error))
        }
        Found::Interrupted(_, steps) => {
            let newest = steps.iter().find_map(|&steps| checkpoint::lengths(out, steps));
            logs::reach(out, &newest.unwrap_or_default())?;
            Ok(Begun::Open(steps.into_iter().collect()))
        }
        _ => Ok(Begun::Open(BTreeSet::new())),
    }
}

/// A job that waits for its pass.
struct Waiting<'a> {
    /// Which of the jobs it is.
    n: usize,
    job: &'a Job,
    /// After how many steps it may be taken up.
    steps: BTreeSet<u64>,
}

/// Jobs that begin after the same step.
struct Group<'a> {
    done: u64,
    members: Vec<Waiting<'a>>,
    /// Of each; none if they begin anew.
    checkpoints: Vec<Checkpoint>,
}

impl<'a> Group<'a> {
    /// Takes those out of `waiting` that begin after the step that the most of them can be taken up at, of several the newest. What
    /// is damaged is passed over for good.
    fn next(waiting: &mut Vec<Waiting<'a>>) -> Self {
        while let Some(done) = most_common(waiting.iter().map(|waiting| &waiting.steps)) {
            let mut loaded = BTreeMap::new();
            let mut damaged = false;
            for Waiting { n, job, steps } in
                waiting.iter_mut().filter(|waiting| waiting.steps.contains(&done))
            {
                match Checkpoint::load(&job.out, done, &job.plan) {
                    Ok(checkpoint) => drop(loaded.insert(*n, checkpoint)),
                    Err(reason) => {
                        let file = checkpoint::file(&job.out, done);
                        let instead = "the one before is, or it begins anew";
                        tracing::warn!("{}: cannot be taken up, {instead}: {reason}", file.display());
                        checkpoint::set_aside(&job.out, done);
                        damaged |= steps.remove(&done);
                    }
                }
            }
            // Without those, another step may be the one that the most have.
            if !damaged {
                let (members, left) = waiting.drain(..).partition(|waiting| loaded.contains_key(&waiting.n));
                *waiting = left;
                return Self { done, members, checkpoints: loaded.into_values().collect() };
            }
        }
        Self { done: 0, members: std::mem::take(waiting), checkpoints: Vec::new() }
    }
}

/// The step that the most have, of several the newest; `None` if nobody has any.
fn most_common<'a>(all: impl Iterator<Item = &'a BTreeSet<u64>>) -> Option<u64> {
    let mut counts = BTreeMap::<u64, usize>::new();
    all.flatten().for_each(|&steps| *counts.entry(steps).or_default() += 1);
    counts.into_iter().max_by_key(|&(steps, count)| (count, steps)).map(|(steps, _)| steps)
}

/// What all passes over the activations have in common.
struct Pass<'a> {
    /// That of the first job, which shares with all others what a pass depends on.
    plan: &'a TrainPlan,
    sample: Sample,
    activations: &'a Arc<dyn Activations>,
    device: &'a Device,
    started: Instant,
}

impl Pass<'_> {
    /// Trains a group to the end. Returns what became of each, by its number.
    fn run(&self, group: Group<'_>) -> Vec<(usize, Outcome)> {
        let jobs: Vec<(usize, &Job)> = group.members.iter().map(|member| (member.n, member.job)).collect();
        let mut outcomes = Vec::new();
        if let Err(error) = self.fit(group, &jobs, &mut outcomes) {
            // What stops one stops all. It is told once, of the first that is not done.
            let done: BTreeSet<usize> = outcomes.iter().map(|(n, _)| *n).collect();
            let mut stopped = jobs.into_iter().filter(|(n, _)| !done.contains(n));
            if let Some((first, Job { out: with, .. })) = stopped.next() {
                outcomes.push((first, Err(error)));
                outcomes.extend(stopped.map(|(n, job)| {
                    let (directory, with) = (job.out.clone(), with.clone());
                    (n, Err(TrainError::BrokenOff { directory, with }))
                }));
            }
        }
        outcomes
    }

    fn fit(
        &self,
        Group { done, members, checkpoints }: Group<'_>,
        jobs: &[(usize, &Job)],
        outcomes: &mut Vec<(usize, Outcome)>,
    ) -> Result<(), TrainError> {
        let Self { plan, sample, activations, device, started } = self;
        let mut checkpoints = checkpoints.into_iter();
        let mut begun = Vec::new();
        for Waiting { job, .. } in members {
            announce(job, sample, done, device);
            let checkpoint = checkpoints.next();
            begun.push(self.begin(job, done, checkpoint)?);
        }
        let origin = Origin { activations: &***activations, sample };
        let of = |member: &Member| {
            let of = jobs.iter().find(|(_, job)| job.out == member.out);
            *of.expect("a member is of a job")
        };
        let mut saver = Saver::new(plan.checkpoint_seconds);
        let batches = load(plan, sample, done, activations, device);
        let fitted = fit(begun, done, batches, &mut saver, |member, error| {
            let (n, job) = of(&member);
            outcomes.push((n, Err(origin.diverged(member, error, &job.manifest))));
        });
        saver.finish();
        let Fitted { members, tokens_per_s } = fitted?;
        for mut member in members {
            let (n, job) = of(&member);
            let outcome = match origin.seal(&mut member, &job.manifest) {
                Ok(dead_latents) => Ok(TrainSummary {
                    last: member.last.expect("a plan has at least one step, and the last one is logged"),
                    sample: sample.clone(),
                    dead_latents,
                    dead_window_tokens: job.plan.dead_window_tokens,
                    tokens_per_s,
                    seconds: started.elapsed().as_secs_f64(),
                    resumed_at: done,
                }),
                Err(error) if error.is_divergence() => Err(origin.diverged(member, error, &job.manifest)),
                Err(error) => Err(error),
            };
            outcomes.push((n, outcome));
        }
        Ok(())
    }

    /// Begins a job, or takes it up.
    fn begin(&self, job: &Job, done: u64, checkpoint: Option<Checkpoint>) -> Result<Member, TrainError> {
        let Self { plan, sample, activations, device, .. } = self;
        if checkpoint.is_some() {
            found::sweep(&job.out)?;
            checkpoint::remove_after(&job.out, done)?;
        } else {
            found::clear(&job.out)?;
        }
        let b_dec = b_dec(&job.plan, plan, sample, activations)?;
        let (work, zero_fvu) = (job.manifest.work.clone(), sample.target().zero_fvu);
        Member::begin(job.plan.clone(), work, &job.out, b_dec, zero_fvu, checkpoint, device)
    }
}

fn announce(Job { plan, .. }: &Job, sample: &Sample, done: u64, device: &Device) {
    if done > 0 {
        tracing::info!("train: goes on after step {done} of {}", plan.steps);
    }
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
