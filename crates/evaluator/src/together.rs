//! Several dictionaries in the forward pass at once, at several hooks: what is lost when all of them speak for the model.
//!
//! Each reads what those before it have left. The baselines put zero, the mean or another token's activation at all of the hooks.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
};

use burn::tensor::{Device, Tensor};
use monosema_core::{HookPoint, Progress};
use monosema_sae::Dictionary;
use monosema_text::ContextBatch;
use monosema_transformer::{Capture, Checkpoint, LanguageModel, NoTap, Tap};
use serde::{Deserialize, Serialize};

use crate::{
    dictionary::DictionaryShape,
    error::EvalError,
    evaluate::{Job, UP_TO_HOOK, load, read_hook},
    host,
    instead::{Instead, Survey},
    metrics::{Ablation, Figures, Intervals, Loss, Metrics, Prediction, Shape, Splice},
    plan::{EvalPlan, PlannedText},
    positions::Positions,
    predictions,
    reconstruct::for_each_chunk,
    windows::{for_each_batch, tokens},
};

/// What it costs to splice in all dictionaries at once: the figures of predictions, over all texts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Together {
    /// Where they were spliced in, in the order of the forward pass.
    pub hooks: Vec<HookPoint>,
    /// The figures that come from predictions, under their usual names.
    pub metrics: Figures,
    /// Their confidence intervals.
    pub intervals: Intervals,
}

/// Splices in the dictionaries of all jobs at once, which have the texts of the first in common.
pub(crate) fn measure(jobs: &[Job], checkpoint: &Checkpoint, device: &Device) -> Result<Together, EvalError> {
    let (plan, model) = (&jobs[0].plan, checkpoint.load(device)?);
    let tokenizer = checkpoint.tokenizer()?;
    let dictionaries = jobs.iter().map(|job| Ok((job.plan.dictionary.target(), load(job, device)?)));
    let dictionaries = dictionaries.collect::<Result<BTreeMap<_, _>, EvalError>>()?;
    let splicer = Splicer { plan, model, dictionaries, device: device.clone() };
    let mut progress = Progress::start("eval", "tokens, all at once", plan.counted_tokens());
    let mut all: Option<Metrics> = None;
    for text in &plan.texts {
        let mut batches = Vec::new();
        for_each_batch(plan, text, &tokenizer, |batch| {
            batches.push(batch);
            Ok(())
        })?;
        let metrics = splicer.text(text, &batches, &mut progress)?;
        match &mut all {
            Some(all) => all.merge(&metrics),
            None => all = Some(metrics),
        }
    }
    progress.finish();
    let all = all.expect("a plan has a text");
    let mut metrics = all.figures();
    // Of what one dictionary does there is nothing to tell.
    metrics.retain(|_, value| value.is_some());
    metrics.retain(|name, _| OF_PREDICTIONS.iter().any(|family| name.starts_with(family)));
    let mut intervals = all.intervals(plan.resamples, plan.seed);
    intervals.of.retain(|name, _| metrics.contains_key(name));
    Ok(Together { hooks: splicer.dictionaries.keys().copied().collect(), metrics, intervals })
}

/// How the names of figures begin that come from predictions.
const OF_PREDICTIONS: [&str; 4] = ["ce.", "loss_recovered", "kl", "top1"];

/// Whether dictionaries of these shapes can be spliced in at once.
///
/// # Errors
/// Two for one hook; a transcoder that gives what comes before what it reads.
pub(crate) fn check(shapes: &[DictionaryShape]) -> Result<(), EvalError> {
    let bad = |reason| Err(EvalError::BadConfig { key: "--together".into(), reason });
    let mut seen = BTreeSet::new();
    for shape in shapes {
        let (target, read) = (shape.target(), shape.hook);
        if !seen.insert(target) {
            return bad(format!("two dictionaries give {target}; there can be one for each hook"));
        }
        if read > target {
            return bad(format!(
                "{read} comes after {target}, which is made from it; there is nothing to read yet"
            ));
        }
    }
    Ok(())
}

struct Splicer<'a> {
    plan: &'a EvalPlan,
    model: LanguageModel,
    /// By where what comes out belongs.
    dictionaries: BTreeMap<HookPoint, Dictionary>,
    device: Device,
}

impl Splicer<'_> {
    fn text(
        &self,
        text: &PlannedText,
        batches: &[ContextBatch],
        progress: &mut Progress,
    ) -> Result<Metrics, EvalError> {
        let instead = self.survey(text, batches)?;
        // The figures of blocks are not looked at.
        let mut metrics = Metrics::new(Shape { d_in: 1, d_sae: 1 });
        for batch in batches {
            let positions = Positions::new(batch);
            if !positions.predicting.is_empty() {
                let predictions = self.batch(text, batch, &positions, &instead)?;
                metrics.add_predictions(&predictions);
            }
            progress.advance(positions.counted.len() as u64, || text.name.clone());
        }
        Ok(metrics)
    }

    /// Means and samples at every hook, of the untouched model.
    fn survey(
        &self,
        text: &PlannedText,
        batches: &[ContextBatch],
    ) -> Result<BTreeMap<HookPoint, Instead>, EvalError> {
        let new = |(&hook, dictionary): (&HookPoint, &Dictionary)| {
            (hook, Survey::new(self.plan, dictionary.d_out()))
        };
        let mut surveys: BTreeMap<_, _> = self.dictionaries.iter().map(new).collect();
        for batch in batches {
            let positions = Positions::new(batch);
            let mut capture = Capture::new(self.dictionaries.keys().copied());
            self.model.run(tokens(&self.model, batch, |source| text.error(source))?, &mut capture);
            for (&hook, survey) in &mut surveys {
                let y = capture.take(hook).expect("the plan checked that the model has the hook");
                survey.add(&positions, &host::values(y, UP_TO_HOOK)?);
            }
        }
        surveys.into_iter().map(|(hook, survey)| Ok((hook, survey.finish(&text.name)?))).collect()
    }

    /// The predictions of one batch: untouched, and with each [`Splice`] at all hooks.
    fn batch(
        &self,
        text: &PlannedText,
        batch: &ContextBatch,
        positions: &Positions,
        instead: &BTreeMap<HookPoint, Instead>,
    ) -> Result<Vec<Prediction>, EvalError> {
        let (&first, _) = self.dictionaries.first_key_value().expect("a dictionary is evaluated");
        let reads = || self.dictionaries.values().filter_map(read_hook);
        let mut before = Capture::new(reads().filter(|&hook| hook < first));
        let tokens = tokens(&self.model, batch, |source| text.error(source))?;
        let paused = self.model.pause(tokens, first, &mut before);
        let clean = paused.resume(paused.value(), &mut NoTap);
        let ablations = self.plan.ablations.iter().copied().map(Some);
        let ablations: Vec<Option<Ablation>> = iter::once(None).chain(ablations).collect();
        let mut passes = Vec::with_capacity(ablations.len());
        for &ablation in &ablations {
            let read = reads().map(|hook| (hook, before.get(hook).cloned())).collect();
            let mut splicing = Splicing { of: self, ablation, positions, instead, read, failed: None };
            let x = splicing.put(first, paused.value())?;
            passes.push(paused.resume(x, &mut splicing));
            if let Some(error) = splicing.failed {
                return Err(error);
            }
        }
        let Positions { predicting, predictors, targets, .. } = positions;
        let losses = predictions::losses(&self.model, &clean, &passes, predicting, targets)?;
        if !losses.iter().flatten().all(Loss::is_finite) {
            return Err(EvalError::NotFinite { name: text.name.clone(), what: "a cross-entropy" });
        }
        let (untouched, spliced) = losses.split_first().expect("a list for each pass");
        let splices = ablations.into_iter().map(|ablation| ablation.map_or(Splice::Sae, Splice::from));
        Ok(predictions::of(predictors, untouched, splices.zip(spliced)))
    }
}

/// One splice at every hook, during a pass.
struct Splicing<'a> {
    of: &'a Splicer<'a>,
    /// What is put there; if none, what comes out of the dictionaries.
    ablation: Option<Ablation>,
    positions: &'a Positions,
    instead: &'a BTreeMap<HookPoint, Instead>,
    /// What transcoders read, once it has come by.
    read: BTreeMap<HookPoint, Option<Tensor<3>>>,
    failed: Option<EvalError>,
}

impl Splicing<'_> {
    /// What goes on from `hook` in place of `x`, if anything does.
    fn put(&mut self, hook: HookPoint, x: Tensor<3>) -> Result<Tensor<3>, EvalError> {
        let x = match self.of.dictionaries.contains_key(&hook) {
            true => self.spliced(hook, &x)?,
            false => x,
        };
        if let Some(read) = self.read.get_mut(&hook) {
            *read = Some(x.clone());
        }
        Ok(x)
    }

    fn spliced(&self, hook: HookPoint, y: &Tensor<3>) -> Result<Tensor<3>, EvalError> {
        let [batch, seq, width] = y.dims();
        let values = host::values(y.clone(), UP_TO_HOOK)?;
        let spliced = match self.ablation {
            Some(ablation) => self.instead[&hook].splice(ablation, self.positions, &values),
            None => {
                let dictionary = &self.of.dictionaries[&hook];
                let x = match read_hook(dictionary) {
                    None => self.positions.gather(&values, width),
                    Some(read) => {
                        let x = self.read[&read].clone().expect("the check saw that it comes before");
                        self.positions.gather(&host::values(x, UP_TO_HOOK)?, dictionary.d_in())
                    }
                };
                let mut x_hat = Vec::with_capacity(x.len());
                for_each_chunk(dictionary, &x, &self.of.device, |_, _, out| x_hat.extend_from_slice(out))?;
                self.positions.splice(&values, width, x_hat.chunks_exact(width))
            }
        };
        Ok(host::tensor(spliced, [batch, seq, width], &self.of.device))
    }
}

impl Tap for Splicing<'_> {
    fn wants(&self, hook: HookPoint) -> bool {
        self.read.contains_key(&hook) || self.of.dictionaries.contains_key(&hook)
    }

    fn visit(&mut self, hook: HookPoint, x: Tensor<3>) -> Tensor<3> {
        if self.failed.is_some() {
            return x;
        }
        self.put(hook, x.clone()).unwrap_or_else(|error| {
            self.failed = Some(error);
            x
        })
    }
}
