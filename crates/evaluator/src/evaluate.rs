//! The evaluation itself: passes over each held-out text, and the report of them.

use std::{path::Path, time::Instant};

use burn::tensor::{Device, Int, Tensor, TensorData};
use monosema_core::{Digest, Hasher, HookPoint, Manifest, Progress};
use monosema_sae::Dictionary;
use monosema_text::{ContextBatch, Corpus, TextError, Tokenizer, batches, contexts, limited};
use monosema_transformer::{Capture, Checkpoint, LanguageModel, NoTap};

use crate::{
    dictionary::{DictionaryFacts, DictionaryShape},
    error::EvalError,
    ground_truth, host,
    metrics::{Metrics, Shape},
    model::ModelFacts,
    moments::Moments,
    plan::{EvalPlan, PlannedText},
    positions::Positions,
    predictions::{self, Passes},
    probing,
    reading::Reader,
    reconstruct::reconstruct,
    report::{Counted, Report, SCHEMA, Tally, TextReport, Timing},
};

/// Evaluates the dictionary in `dictionary_dir` as `plan` says, and writes `report.html` and `report.json`, which
/// holds `manifest`, into `out`.
///
/// # Errors
/// Anything that cannot be read, or written; a dictionary that is not the one planned for; a text of which no
/// token counts; a device that fails.
pub fn evaluate(
    plan: &EvalPlan,
    manifest: Manifest,
    checkpoint: &Checkpoint,
    dictionary_dir: &Path,
    device: &Device,
    out: &Path,
) -> Result<Report, EvalError> {
    let started = Instant::now();
    let dictionary = Dictionary::load(dictionary_dir, device)?;
    let found = DictionaryShape::of(&dictionary);
    if found != plan.dictionary {
        let (directory, expected) = (dictionary_dir.to_owned(), plan.dictionary);
        return Err(EvalError::OtherDictionary { directory, expected, found });
    }
    let facts = DictionaryFacts::new(dictionary_dir, &dictionary);
    let evaluator = Evaluator {
        plan,
        model: checkpoint.load(device)?,
        tokenizer: checkpoint.tokenizer()?,
        dictionary,
        device: device.clone(),
    };
    let mut progress = Progress::start("eval", "tokens", plan.counted_tokens());
    let mut pooled = Metrics::new(evaluator.shape());
    let mut total = Tally::default();
    let mut texts = Vec::new();
    for text in &plan.texts {
        let (metrics, tally, windows_sha256) = evaluator.text(text, &mut progress)?;
        pooled.merge(&metrics);
        total.merge(&tally);
        let name = text.name.clone();
        texts.push(TextReport { name, tally, windows_sha256, metrics: metrics.figures() });
    }
    progress.finish();
    let Evaluator { model, tokenizer, dictionary, .. } = &evaluator;
    let reader = Reader { plan, model, tokenizer, dictionary, device };
    let concepts =
        plan.concepts.iter().map(|text| ground_truth::concepts(&reader, text)).collect::<Result<_, _>>()?;
    let probes = plan.probes.iter().map(|text| probing::probes(&reader, text)).collect::<Result<_, _>>()?;
    let seconds = started.elapsed().as_secs_f64();
    let mut report = Report {
        schema: SCHEMA,
        metrics: pooled.figures(),
        texts,
        counted: Counted { rule: plan.rule(), tally: total },
        density: pooled.histogram(),
        concepts,
        probes,
        dictionary: facts,
        model: ModelFacts::new(checkpoint),
        timing: Timing { seconds, tokens_per_second: total.counted_tokens as f64 / seconds },
        warnings: plan.warnings.clone(),
        manifest: Manifest { counts: total.counts(), ..manifest },
    };
    report.write(out)?;
    Ok(report)
}

struct Evaluator<'a> {
    plan: &'a EvalPlan,
    model: LanguageModel,
    tokenizer: Tokenizer,
    dictionary: Dictionary,
    device: Device,
}

impl Evaluator<'_> {
    fn shape(&self) -> Shape {
        Shape { d_in: self.dictionary.d_in(), d_sae: self.dictionary.d_sae() }
    }

    fn hook(&self) -> HookPoint {
        self.plan.hook()
    }

    /// Where what comes out of the dictionary belongs.
    fn target(&self) -> HookPoint {
        self.plan.dictionary.target()
    }

    /// Measures one text: its mean activation first, then everything else.
    fn text(
        &self,
        text: &PlannedText,
        progress: &mut Progress,
    ) -> Result<(Metrics, Tally, Digest), EvalError> {
        let mean = self.mean(text)?;
        let mut metrics = Metrics::new(self.shape());
        let mut tally = Tally::default();
        let windows = self.for_each_batch(text, self.plan.tokens, |batch, tokens| {
            let positions = Positions::new(batch);
            tally.merge(&positions.tally(batch));
            if !positions.counted.is_empty() {
                self.batch(&text.name, tokens, &positions, &mean, &mut metrics)?;
            }
            progress.advance(positions.counted.len() as u64, || text.name.clone());
            Ok(())
        })?;
        if tally.invalid_utf8 > 0 {
            let (name, n) = (&text.name, tally.invalid_utf8);
            tracing::warn!("text {name}: {n} invalid UTF-8 sequences were replaced by U+FFFD");
        }
        if tally.predictions == 0 {
            let (positions, counted) = (tally.positions, tally.counted_tokens);
            return Err(EvalError::NothingCounted { name: text.name.clone(), positions, counted });
        }
        Ok((metrics, tally, windows))
    }

    /// The mean activation at the counted positions, from a pass that ends at the hook.
    fn mean(&self, text: &PlannedText) -> Result<Vec<f64>, EvalError> {
        let d_in = self.shape().d_in;
        let mut moments = Moments::new(d_in);
        let limit = [self.plan.tokens, self.plan.mean_tokens].into_iter().flatten().min();
        self.for_each_batch(text, limit, |batch, tokens| {
            let mut capture = Capture::new([self.target()]);
            self.model.run(tokens, &mut capture);
            let x = self.captured(&mut capture, self.target())?;
            for &index in &Positions::new(batch).counted {
                moments.add(x[index * d_in..(index + 1) * d_in].iter().map(|&x| f64::from(x)));
            }
            Ok(())
        })?;
        if moments.mean().iter().any(|m| !m.is_finite()) {
            return Err(EvalError::NotFinite { name: text.name.clone(), what: "the mean activation" });
        }
        Ok(moments.mean().to_vec())
    }

    /// One pass over a batch of `tokens [batch, seq]` to where the dictionary belongs, and four from there: with what is there,
    /// the reconstruction, zero, and the mean.
    fn batch(
        &self,
        name: &str,
        tokens: Tensor<2, Int>,
        positions: &Positions,
        mean: &[f64],
        metrics: &mut Metrics,
    ) -> Result<(), EvalError> {
        let Shape { d_in, .. } = self.shape();
        let hook_in = self.plan.dictionary.hook_out.map(|_| self.hook());
        let mut capture = Capture::new(hook_in);
        let paused = self.model.pause(tokens, self.target(), &mut capture);
        let there = paused.value();
        // What a transcoder reads may come before or behind.
        let clean = paused.resume(there.clone(), &mut capture);
        let [batch, seq, _] = there.dims();
        let y = host::values(there, "running the model up to the hook")?;
        let of_y = positions.gather(&y, d_in);
        let of_x = match hook_in {
            Some(hook) => Some(positions.gather(&self.captured(&mut capture, hook)?, d_in)),
            None => None,
        };
        let counted = of_x.as_deref().unwrap_or(&of_y);
        let x_hat = reconstruct(&self.dictionary, counted, &of_y, mean, &self.device, metrics)?;
        if x_hat.iter().any(|x| !x.is_finite()) {
            return Err(EvalError::NotFinite { name: name.to_owned(), what: "the reconstruction" });
        }
        if positions.predicting.is_empty() {
            return Ok(());
        }
        let forward = |spliced: Vec<f32>| {
            paused.resume(host::tensor(spliced, [batch, seq, d_in], &self.device), &mut NoTap)
        };
        let zero_row = vec![0.0; d_in];
        let mean_row: Vec<f32> = mean.iter().map(|&mean| mean as f32).collect();
        let passes = Passes {
            clean,
            sae: forward(positions.splice(&y, d_in, x_hat.chunks_exact(d_in))),
            zero: forward(positions.splice(&y, d_in, std::iter::repeat(zero_row.as_slice()))),
            mean: forward(positions.splice(&y, d_in, std::iter::repeat(mean_row.as_slice()))),
        };
        let predictions =
            predictions::measure(&self.model, passes, &positions.predicting, &positions.targets)?;
        if !predictions.is_finite() {
            return Err(EvalError::NotFinite { name: name.to_owned(), what: "a cross-entropy" });
        }
        metrics.add_predictions(&predictions);
        Ok(())
    }

    /// The activations `[batch * seq, d_in]` captured at a hook, on the host.
    fn captured(&self, capture: &mut Capture, hook: HookPoint) -> Result<Vec<f32>, EvalError> {
        let x = capture.take(hook).expect("the plan checked that the model has the hook");
        host::values(x, "running the model up to the hook")
    }

    /// Reads a text up to `limit` counted tokens, in batches of windows, and their tokens on the device. Returns the
    /// digest of the windows' ids.
    fn for_each_batch(
        &self,
        text: &PlannedText,
        limit: Option<u64>,
        mut visit: impl FnMut(&ContextBatch, Tensor<2, Int>) -> Result<(), EvalError>,
    ) -> Result<Digest, EvalError> {
        let in_text = |source: TextError| EvalError::Text { name: text.name.clone(), source };
        let corpus = Corpus::open(&text.text).map_err(in_text)?;
        let mut digest = Hasher::default();
        let windows = limited(contexts(corpus.documents(), &self.tokenizer, &self.plan.context), limit)
            .inspect(|window| {
                // In the order of the text, whatever batches make of it.
                window
                    .iter()
                    .flat_map(|window| &window.tokens)
                    .for_each(|id| digest.update(&id.to_le_bytes()));
            });
        for batch in batches(windows, self.plan.batch_tokens()) {
            let batch = batch.map_err(in_text)?;
            let ids = batch.token_ids(self.model.info().d_vocab).map_err(in_text)?;
            let data = TensorData::new(ids, [batch.n_contexts(), batch.seq_len()]);
            visit(&batch, Tensor::from_data(data, &self.device))?;
        }
        Ok(digest.finish())
    }
}
