//! The evaluation itself: passes over each held-out text, and the reports of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    path::{Path, PathBuf},
    time::Instant,
};

use burn::tensor::Device;
use monosema_core::{Digest, HookPoint, Manifest, Progress};
use monosema_sae::Dictionary;
use monosema_text::{ContextBatch, Tokenizer};
use monosema_transformer::{Capture, Checkpoint, LanguageModel, Paused};

use crate::{
    conventions::{self, Convention, Standing},
    dictionary::{DictionaryFacts, DictionaryShape, WeightFacts},
    error::EvalError,
    ground_truth, host,
    instead::{Instead, Survey},
    metrics::{Figures, Loss, Metrics, Shape, Splice},
    model::ModelFacts,
    plan::{EvalPlan, KEPT_BYTES, PlannedText},
    positions::Positions,
    predictions, probing,
    reading::Reader,
    reconstruct::{Ends, reconstruct},
    report::{Counted, Report, SCHEMA, Tally, TextReport, Timing},
    windows::{for_each_batch, tokens},
};

/// Dictionaries whose weights take more than this together are evaluated one after the other.
const GROUP_BYTES: u64 = 4 << 30;

/// In an error: what was being computed.
pub(crate) const UP_TO_HOOK: &str = "running the model up to the hook";

/// A dictionary to evaluate.
#[derive(Clone, Debug)]
pub struct Job {
    /// What is to be done.
    pub plan: EvalPlan,
    /// What the report is made from.
    pub manifest: Manifest,
    /// Where the dictionary is.
    pub dictionary: PathBuf,
    /// Where `report.html` and `report.json` go.
    pub out: PathBuf,
}

/// Evaluates dictionaries as their plans say and writes a report of each. Those that may share passes through the model
/// ([`EvalPlan::shares_passes`]) do: what is the same for all of them is computed once.
///
/// # Errors
/// Anything that cannot be read, or written; a dictionary that is not the one planned for; a text of which no
/// token counts; a device that fails. A dictionary that overflows, once all others are evaluated. Reports written before stay.
pub fn evaluate(jobs: &[Job], checkpoint: &Checkpoint, device: &Device) -> Result<Vec<Report>, EvalError> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (index, job) in jobs.iter().enumerate() {
        let weights = |index: usize| jobs[index].plan.dictionary.weight_bytes();
        let fits = |group: &&mut Vec<usize>| {
            let held: u64 = group.iter().map(|&index| weights(index)).sum();
            jobs[group[0]].plan.shares_passes(&job.plan) && held + weights(index) <= GROUP_BYTES
        };
        match groups.iter_mut().find(fits) {
            Some(group) => group.push(index),
            None => groups.push(vec![index]),
        }
    }
    let mut reports = vec![None; jobs.len()];
    let mut failed = None;
    let model = checkpoint.load(device)?;
    for mut group in groups {
        while !group.is_empty() {
            let of_group: Vec<&Job> = group.iter().map(|&index| &jobs[index]).collect();
            match evaluate_group(&of_group, checkpoint, &model, device) {
                Ok(of_group) => {
                    group.drain(..).zip(of_group).for_each(|(index, report)| reports[index] = Some(report));
                }
                // The others are none the worse for it, and begin again without it.
                Err(EvalError::Overflow { dictionary, name, what }) => {
                    group.retain(|&index| jobs[index].dictionary != dictionary);
                    tracing::error!(
                        "{}: {what} of text {name} is not finite; it is left out",
                        dictionary.display()
                    );
                    failed.get_or_insert(EvalError::Overflow { dictionary, name, what });
                }
                Err(error) => return Err(error),
            }
        }
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(reports.into_iter().map(|report| report.expect("every job is in a group")).collect()),
    }
}

/// Evaluates dictionaries whose plans share passes.
fn evaluate_group(
    jobs: &[&Job],
    checkpoint: &Checkpoint,
    model: &LanguageModel,
    device: &Device,
) -> Result<Vec<Report>, EvalError> {
    let started = Instant::now();
    let plan = &jobs[0].plan;
    let dictionaries = jobs.iter().map(|job| load(job, device)).collect::<Result<Vec<_>, _>>()?;
    let facts = jobs.iter().zip(&dictionaries);
    let facts = facts.map(|(job, dictionary)| DictionaryFacts::new(&job.dictionary, dictionary, device));
    let facts = facts.collect::<Result<Vec<_>, _>>()?;
    let (tokenizer, device) = (checkpoint.tokenizer()?, device.clone());
    let special = conventions::special(&tokenizer);
    let directories = jobs.iter().map(|job| job.dictionary.as_path()).collect();
    let evaluator = Evaluator { plan, model, tokenizer, dictionaries, directories, special, device };
    let mut progress = Progress::start("eval", "tokens", plan.counted_tokens());
    let mut total = Tally::default();
    let mut measured = Vec::new();
    for text in &plan.texts {
        let of_text = evaluator.text(text, &mut progress)?;
        total.merge(&of_text.tally);
        measured.push(of_text);
    }
    progress.finish();
    let report = |(index, (job, facts)): (usize, (&&Job, DictionaryFacts))| {
        let plan = &job.plan;
        let mut pooled = measured[0].metrics[index].clone();
        measured[1..].iter().for_each(|text| pooled.merge(&text.metrics[index]));
        let texts = plan.texts.iter().zip(&measured);
        let texts = texts.map(|(text, measured)| TextReport {
            name: text.name.clone(),
            tally: measured.tally,
            windows_sha256: measured.windows_sha256.clone(),
            metrics: measured.metrics[index].figures(),
            intervals: measured.metrics[index].intervals(plan.resamples, plan.seed),
            conventions: figures_of(&measured.conventions[index], &facts.weights),
        });
        let texts: Vec<_> = texts.collect();
        let intervals = match &texts[..] {
            // Of one text all texts are that one.
            [only] => only.intervals.clone(),
            _ => pooled.intervals(plan.resamples, plan.seed),
        };
        let (tokenizer, dictionary) = (&evaluator.tokenizer, &evaluator.dictionaries[index]);
        let reader = Reader { plan, model, tokenizer, dictionary, device: &evaluator.device };
        let concepts = plan
            .concepts
            .iter()
            .map(|text| ground_truth::concepts(&reader, text))
            .collect::<Result<_, _>>()?;
        let probes =
            plan.probes.iter().map(|text| probing::probes(&reader, text)).collect::<Result<_, _>>()?;
        let mut conventions = measured[0].conventions[index].clone();
        for text in &measured[1..] {
            conventions
                .iter_mut()
                .for_each(|(convention, all)| all.merge(&text.conventions[index][convention]));
        }
        let seconds = started.elapsed().as_secs_f64();
        let timing = Timing {
            seconds,
            tokens_per_second: total.counted_tokens as f64 / seconds,
            dictionaries: jobs.len() as u64,
        };
        let mut report = Report {
            schema: SCHEMA,
            metrics: pooled.figures(),
            intervals,
            conventions: figures_of(&conventions, &facts.weights),
            texts,
            counted: Counted { rule: plan.rule(), tally: total },
            density: pooled.histogram(),
            spread: pooled.spread(),
            by_position: pooled.curves(),
            concepts,
            probes,
            dictionary: facts,
            model: ModelFacts::new(checkpoint),
            timing,
            warnings: plan.warnings.clone(),
            manifest: Manifest { counts: total.counts(), ..job.manifest.clone() },
        };
        report.write(&job.out)?;
        Ok(report)
    };
    jobs.iter().zip(facts).enumerate().map(report).collect()
}

/// The dictionary that was planned for.
pub(crate) fn load(job: &Job, device: &Device) -> Result<Dictionary, EvalError> {
    let dictionary = Dictionary::load(&job.dictionary, device)?;
    let (found, expected) = (DictionaryShape::of(&dictionary), job.plan.dictionary);
    if found != expected {
        return Err(EvalError::OtherDictionary { directory: job.dictionary.clone(), expected, found });
    }
    Ok(dictionary)
}

/// Dictionaries that give one hook, and all that is the same for them.
struct Evaluator<'a> {
    /// That of the first of them.
    plan: &'a EvalPlan,
    model: &'a LanguageModel,
    tokenizer: Tokenizer,
    dictionaries: Vec<Dictionary>,
    /// Where they are.
    directories: Vec<&'a Path>,
    /// What other conventions leave out.
    special: BTreeSet<u32>,
    device: Device,
}

/// What was found of one text.
struct Measured {
    /// For each dictionary.
    metrics: Vec<Metrics>,
    /// Likewise, of conventions that are asked for. None of them knows a transcoder in the forward pass.
    conventions: Vec<BTreeMap<Convention, conventions::Sums>>,
    tally: Tally,
    windows_sha256: Digest,
}

impl Evaluator<'_> {
    /// Where what comes out of the dictionaries belongs, and its width.
    fn target(&self) -> (HookPoint, usize) {
        (self.plan.dictionary.target(), self.dictionaries[0].d_out())
    }

    /// Where transcoders read.
    fn read_hooks(&self) -> impl Iterator<Item = HookPoint> {
        self.dictionaries.iter().filter_map(read_hook)
    }

    /// Measures one text: what it is replaced by first, then everything else.
    fn text(&self, text: &PlannedText, progress: &mut Progress) -> Result<Measured, EvalError> {
        let Prepared { batches, instead, windows_sha256 } = self.survey(text)?;
        let new = |dictionary: &Dictionary| {
            Metrics::new(Shape { d_in: dictionary.d_in(), d_sae: dictionary.d_sae() })
        };
        let metrics = self.dictionaries.iter().map(new).collect();
        let asked = |dictionary: &Dictionary| {
            let sums = |convention| conventions::Sums::new(convention, dictionary.d_in(), dictionary.d_sae());
            let known = self.plan.conventions.iter().filter(|_| read_hook(dictionary).is_none());
            known.map(|&convention| (convention, sums(convention))).collect()
        };
        let conventions = self.dictionaries.iter().map(asked).collect();
        let mut measured = Measured { metrics, conventions, tally: Tally::default(), windows_sha256 };
        for (batch, prefix) in batches {
            let positions = Positions::new(&batch);
            measured.tally.merge(&positions.tally(&batch));
            // Other conventions count where ours does not.
            if !positions.counted.is_empty() || !self.plan.conventions.is_empty() {
                let prefix = prefix.map_or_else(|| self.prefix(text, &batch), Ok)?;
                self.batch(&text.name, &batch, prefix, &positions, &instead, &mut measured)?;
            }
            progress.advance(positions.counted.len() as u64, || text.name.clone());
        }
        let Tally { invalid_utf8, predictions, positions, counted_tokens: counted, .. } = measured.tally;
        if invalid_utf8 > 0 {
            let name = &text.name;
            tracing::warn!("text {name}: {invalid_utf8} invalid UTF-8 sequences were replaced by U+FFFD");
        }
        if predictions == 0 {
            return Err(EvalError::NothingCounted { name: text.name.clone(), positions, counted });
        }
        Ok(measured)
    }

    /// Reads a text and runs the model up to the hook, for the mean activation at the counted positions and for a sample of them.
    /// What has been computed is kept as far as [`KEPT_BYTES`] go.
    fn survey(&self, text: &PlannedText) -> Result<Prepared, EvalError> {
        let (_, width) = self.target();
        let mut survey = Survey::new(self.plan, width);
        let (mut batches, mut kept) = (Vec::new(), 0);
        let windows_sha256 = for_each_batch(self.plan, text, &self.tokenizer, |batch| {
            let positions = Positions::new(&batch);
            if positions.counted.is_empty() {
                batches.push((batch, None));
                return Ok(());
            }
            let prefix = self.prefix(text, &batch)?;
            survey.add(&positions, &host::values(prefix.paused.value(), UP_TO_HOOK)?);
            kept += (prefix.paused.bytes() + prefix.capture.bytes()) as u64;
            batches.push((batch, Some(prefix).filter(|_| kept <= KEPT_BYTES)));
            Ok(())
        })?;
        Ok(Prepared { batches, instead: survey.finish(&text.name)?, windows_sha256 })
    }

    /// Runs the model over a batch up to where the dictionaries belong.
    fn prefix(&self, text: &PlannedText, batch: &ContextBatch) -> Result<Prefix, EvalError> {
        let tokens = tokens(self.model, batch, |source| text.error(source))?;
        let mut capture = Capture::new(self.read_hooks());
        let paused = self.model.pause(tokens, self.target().0, &mut capture);
        Ok(Prefix { paused, capture })
    }

    /// Goes on from where the dictionaries belong with what is there, and with each splice.
    fn batch(
        &self,
        name: &str,
        batch: &ContextBatch,
        Prefix { paused, mut capture }: Prefix,
        positions: &Positions,
        instead: &Instead,
        Measured { metrics, conventions, .. }: &mut Measured,
    ) -> Result<(), EvalError> {
        let (_, width) = self.target();
        let overflow = |dictionary: usize, what| {
            let dictionary = self.directories[dictionary].to_owned();
            EvalError::Overflow { dictionary, name: name.to_owned(), what }
        };
        let there = paused.value();
        // What a transcoder reads may come behind, too.
        let clean = paused.resume(there.clone(), &mut capture);
        let shape = there.dims();
        let y = host::values(there, UP_TO_HOOK)?;
        let of_y = positions.gather(&y, width);
        let instead_of_y = |spliced| host::tensor(spliced, shape, &self.device);
        let mut spliced = Vec::with_capacity(self.dictionaries.len() + self.plan.ablations.len());
        for (index, (dictionary, metrics)) in self.dictionaries.iter().zip(metrics.iter_mut()).enumerate() {
            let of_x = match read_hook(dictionary) {
                Some(hook) => Some(positions.gather(&captured(&capture, hook)?, dictionary.d_in())),
                None => None,
            };
            let x = of_x.as_deref().unwrap_or(&of_y);
            let ends = Ends { x, y: &of_y, mean: &instead.mean, tokens: &positions.tokens };
            let x_hat = reconstruct(dictionary, ends, &self.device, metrics)?;
            if x_hat.iter().any(|x| !x.is_finite()) {
                return Err(overflow(index, "the reconstruction"));
            }
            if !positions.predicting.is_empty() {
                spliced.push(instead_of_y(positions.splice(&y, width, x_hat.chunks_exact(width))));
            }
        }
        if !positions.predicting.is_empty() {
            for &ablation in &self.plan.ablations {
                spliced.push(instead_of_y(instead.splice(ablation, positions, &y)));
            }
            let passes = paused.resume_each(spliced);
            let Positions { predicting, predictors, targets, .. } = positions;
            let losses = predictions::losses(self.model, &clean, &passes, predicting, targets)?;
            let (untouched, spliced) = losses.split_first().expect("a list for each pass");
            let (saes, ablated) = spliced.split_at(self.dictionaries.len());
            let finite = |losses: &Vec<Loss>| losses.iter().all(Loss::is_finite);
            if !iter::once(untouched).chain(ablated).all(finite) {
                return Err(EvalError::NotFinite { name: name.to_owned(), what: "a cross-entropy" });
            }
            if let Some(number) = saes.iter().position(|losses| !finite(losses)) {
                return Err(overflow(number, "a cross-entropy"));
            }
            let ablations = || self.plan.ablations.iter().copied().map(Splice::from);
            for (sae, metrics) in saes.iter().zip(metrics) {
                let spliced = iter::once((Splice::Sae, sae)).chain(ablations().zip(ablated));
                metrics.add_predictions(&predictions::of(predictors, untouched, spliced));
            }
        }
        let at = Standing {
            model: self.model,
            batch,
            paused: &paused,
            clean: &clean,
            y: &y,
            device: &self.device,
        };
        for (dictionary, conventions) in self.dictionaries.iter().zip(conventions) {
            conventions.values_mut().try_for_each(|sums| sums.add(dictionary, &self.special, &at))?;
        }
        Ok(())
    }
}

/// The figures under each convention.
fn figures_of(
    conventions: &BTreeMap<Convention, conventions::Sums>,
    weights: &WeightFacts,
) -> BTreeMap<Convention, Figures> {
    conventions.iter().map(|(&convention, sums)| (convention, sums.figures(weights))).collect()
}

/// Where a transcoder reads, if that is not where it writes.
pub(crate) fn read_hook(dictionary: &Dictionary) -> Option<HookPoint> {
    let metadata = dictionary.metadata();
    metadata.hook_out.filter(|&out| out != metadata.hook).map(|_| metadata.hook)
}

/// The activations `[batch * seq, width]` captured at a hook, on the host.
fn captured(capture: &Capture, hook: HookPoint) -> Result<Vec<f32>, EvalError> {
    let x = capture.get(hook).expect("the plan checked that the model has the hook");
    host::values(x.clone(), UP_TO_HOOK)
}

/// What is known of a text once the model has run over it up to the hook.
struct Prepared {
    /// Its windows, with what was kept of the pass.
    batches: Vec<(ContextBatch, Option<Prefix>)>,
    instead: Instead,
    /// The digest of the windows' ids.
    windows_sha256: Digest,
}

/// A pass that stands where the dictionaries belong.
struct Prefix {
    paused: Paused,
    /// Holds what transcoders read, if that comes before.
    capture: Capture,
}
