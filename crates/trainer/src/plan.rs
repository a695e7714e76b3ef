//! A training, checked and with every derived number filled in.

mod check;

use std::collections::BTreeMap;

use burn::tensor::{Device, FloatDType};
use monosema_core::{
    HookPoint, Seed, Stage,
    manifest::{Input, Work},
};
use monosema_kernels::{Activation, Form, Optimiser, Settings};
use monosema_sae::{Init, Normalization, Output, SaeConfig, Size, architecture::Annealing};
use monosema_store::{Activations, BatchPlan, HookColumn};
use serde::Serialize;
use serde_json::json;

use crate::{
    Recipe, Schedule, TrainConfig, TrainError, Width,
    config::{BDecInit, Betas, DecoderNorm, GradClip, LrScaling, Normalize, Numbers, Optimizer, Span},
    schedule::{AnnealingSteps, KWarmup},
    step::{Precision, StepKind},
};

/// The fields of [`TrainPlan`] that the result does not depend on.
const WITHOUT_EFFECT: [&str; 4] = ["expected_l0", "checkpoint_seconds", "disk_bytes", "memory_bytes"];

/// Latents that a dictionary may have. Their indices must fit into what every backend counts with.
const MOST_LATENTS: usize = 1 << 24;

/// What a plan needs to know about the activations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreFacts {
    /// The hooks and the widths of their vectors.
    pub hooks: Vec<HookColumn>,
    /// How many tokens there are.
    pub tokens: u64,
    /// Whether they lie in a random order, so that nothing is shuffled in memory.
    pub shuffled: bool,
    /// Bytes of memory that reading takes beside batches and the shuffle buffer.
    pub reading_bytes: u64,
}

impl StoreFacts {
    /// Those of activations that can be read.
    pub fn of(activations: &dyn Activations) -> Self {
        Self {
            hooks: activations.schema().hooks.clone(),
            tokens: activations.tokens(),
            shuffled: activations.permutation().is_some(),
            reading_bytes: activations.reading_bytes(),
        }
    }
}

/// What a training will do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrainPlan {
    /// The recipe that filled in what the configuration left out.
    pub recipe: Recipe,
    /// The architecture.
    pub architecture: SaeConfig,
    /// Which step trains.
    pub step: StepKind,
    /// How that step multiplies.
    pub precision: Precision,
    /// The hook point trained on.
    pub hook: HookPoint,
    /// The one whose activations are to come out, of a transcoder.
    pub hook_out: Option<HookPoint>,
    /// How large the dictionary will be.
    #[serde(flatten)]
    pub size: Size,
    /// Tokens trained on: whole batches.
    pub tokens: u64,
    /// Tokens in the store.
    pub store_tokens: u64,
    /// How often the store is gone through.
    pub epochs: f64,
    /// Tokens a step.
    pub batch_tokens: usize,
    /// Tokens whose gradients are computed at once by autodiff.
    pub micro_batch_tokens: usize,
    /// Steps.
    pub steps: u64,
    /// Learning rate, λ and what else changes over the steps.
    pub schedule: Schedule,
    /// What is done to activations first.
    pub normalize: Normalize,
    /// What makes steps of gradients.
    pub optimizer: Optimizer,
    /// Adam's β₁ and β₂.
    pub adam_betas: Betas,
    /// Adam's ε.
    pub adam_eps: f64,
    /// What every step takes off every parameter, as a fraction of it times the learning rate.
    pub weight_decay: f64,
    /// Largest norm of the whole gradient.
    pub grad_clip: GradClip,
    /// Decay a step of the moving average of the parameters.
    pub ema_decay: f64,
    /// Whether rows of W_dec keep a norm of 1.
    pub decoder: DecoderNorm,
    /// Norm of every decoder row and of what encodes each latent, at the start; of the latter alone where rows keep a norm of 1.
    pub init_norm: f64,
    /// Whether the encoder begins in the directions of the decoder's rows.
    pub init_tied: bool,
    /// What b_dec begins as.
    pub b_dec_init: BDecInit,
    /// What initial weights and resampling are drawn from.
    pub init_seed: Seed,
    /// Decay a step of the mean of the smallest activations of batches.
    pub threshold_decay: f64,
    /// When dead latents begin anew, if they do.
    pub resample: Option<ResampleSteps>,
    /// A latent counts as dead after so many silent tokens: whole batches, and no more than a tenth or half of the run, so
    /// that there is something to look back on.
    pub dead_window_tokens: u64,
    /// Tokens shuffled among each other in memory; none of what is shuffled already.
    pub shuffle_buffer_tokens: Option<usize>,
    /// Tokens from which scale and mean are estimated.
    pub scale_tokens: u64,
    /// Steps between two lines of the logs.
    pub log_every_steps: u64,
    /// Decides the order of the tokens.
    #[serde(skip)]
    pub seed: Seed,
    /// Active latents a token that are expected, if anything is.
    pub expected_l0: Option<f64>,
    /// Seconds between two checkpoints.
    pub checkpoint_seconds: u64,
    /// Bytes on disk to expect.
    pub disk_bytes: u64,
    /// Bytes of memory to expect, roughly.
    pub memory_bytes: u64,
}

/// When dead latents begin anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ResampleSteps {
    /// After every so many steps.
    pub every: u64,
    /// Until then.
    pub until: u64,
}

impl TrainPlan {
    /// Checks `config` against the activations. Its `sweep` is not looked at ([`crate::sweep`]).
    ///
    /// # Errors
    /// A key whose value cannot work, with what could.
    pub fn resolve(config: &TrainConfig, facts: &StoreFacts, seed: Seed) -> Result<Self, TrainError> {
        let numbers = config.numbers();
        check::check(&numbers)?;
        if let Some(l0) = config.expected_l0.filter(|l0| !(l0.is_finite() && *l0 > 0.0)) {
            return Err(bad("expected_l0", "a number above 0", l0));
        }
        if config.sparsity.is_none() && numbers.sparsity == 0.0 && numbers.architecture.penalised() {
            let recipe = config.recipe().name();
            let expected =
                format!("a coefficient of the penalty: the recipe {recipe} is for architectures without one");
            return Err(bad("sparsity", expected, "none"));
        }
        let (HookColumn { hook, width: d_in }, output) = choose_hooks(config, &facts.hooks)?;
        let d_sae = latents(config.width, d_in)?;
        let size = Size { d_in, d_sae, output };
        numbers.architecture.check(size).map_err(|(expected, found)| bad("architecture", expected, found))?;
        if output.is_some() && numbers.normalize == Normalize::LayerNorm {
            let expected = "another one for a transcoder, which has no norm to give back to what comes out";
            return Err(bad("normalize", expected, "layer_norm"));
        }
        let batch = numbers.batch_tokens as u64;
        let wanted = config.tokens.unwrap_or(facts.tokens);
        let steps = wanted / batch;
        if steps == 0 || facts.tokens == 0 {
            let expected = format!("at least one batch of {batch} (from a store that is not empty)");
            return Err(bad("tokens", expected, format!("{wanted}, and {} in the store", facts.tokens)));
        }
        if numbers.shuffle_buffer_tokens < numbers.batch_tokens {
            let expected = format!("at least one batch of {batch}; 16 batches or more shuffle well");
            return Err(bad("shuffle_buffer_tokens", expected, numbers.shuffle_buffer_tokens));
        }
        let schedule = schedule(&numbers, steps, d_sae)?;
        // Where AuxK is to bring latents back, it needs the time.
        let most_dead = if config.dead_after_tokens.is_some() { steps / 2 } else { steps / 10 };
        let dead_steps = numbers.dead_after_tokens.div_ceil(batch).min(most_dead).max(1);
        let buffer = numbers.shuffle_buffer_tokens.min(usize::try_from(facts.tokens).unwrap_or(usize::MAX));
        let buffer = (!facts.shuffled).then_some(buffer.max(numbers.batch_tokens));
        let shapes = numbers.architecture.shapes(size);
        let parameters: u64 = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum();
        let every = numbers.resample_every.steps(steps);
        let mut plan = Self {
            recipe: config.recipe(),
            step: config.step,
            precision: config.precision,
            hook,
            hook_out: config.hook_out,
            size,
            tokens: steps * batch,
            store_tokens: facts.tokens,
            epochs: (steps * batch) as f64 / facts.tokens as f64,
            batch_tokens: numbers.batch_tokens,
            micro_batch_tokens: numbers.micro_batch_tokens.min(numbers.batch_tokens),
            steps,
            schedule,
            normalize: numbers.normalize,
            optimizer: numbers.optimizer,
            adam_betas: numbers.adam_betas,
            adam_eps: numbers.adam_eps,
            weight_decay: numbers.weight_decay,
            grad_clip: numbers.grad_clip,
            ema_decay: numbers.ema_decay,
            decoder: numbers.decoder,
            init_norm: numbers.init_norm,
            init_tied: numbers.init_tied,
            b_dec_init: numbers.b_dec_init,
            init_seed: config.seed.map_or(seed, Seed),
            threshold_decay: numbers.threshold_decay,
            resample: (every > 0)
                .then(|| ResampleSteps { every, until: numbers.resample_until.steps(steps) }),
            dead_window_tokens: dead_steps * batch,
            shuffle_buffer_tokens: buffer,
            scale_tokens: numbers.scale_tokens.min(facts.tokens),
            log_every_steps: numbers.log_every_steps,
            seed,
            expected_l0: config.expected_l0.or_else(|| numbers.architecture.target_l0()),
            checkpoint_seconds: numbers.checkpoint_seconds,
            architecture: numbers.architecture,
            disk_bytes: 0,
            memory_bytes: 0,
        };
        // The dictionary, and while it is trained three checkpoints of parameters and moments.
        plan.disk_bytes = 4 * (parameters + size.d_sae as u64 + 3 * 4 * parameters);
        plan.memory_bytes = plan.estimate_memory(parameters).saturating_add(facts.reading_bytes);
        Ok(plan)
    }

    /// What the fused step must know, unless autodiff is asked for or there is none.
    pub(crate) fn form(&self) -> Option<Form> {
        let form = self.architecture.form(self.size, self.decoder == DecoderNorm::Unit);
        form.filter(|_| self.step == StepKind::Auto)
    }

    /// What the fused step is told in every step alike.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            optimiser: match self.optimizer {
                Optimizer::Adam => Optimiser::Adam,
                Optimizer::Signum => Optimiser::Signum,
            },
            betas: self.adam_betas.0,
            eps: self.adam_eps,
            weight_decay: self.weight_decay,
            grad_clip: self.grad_clip.limit(),
            precision: self.precision,
            ..Settings::default()
        }
    }

    /// Whether the fused step trains it on `device`.
    pub fn is_fused(&self, device: &Device) -> bool {
        self.form().is_some_and(|form| monosema_kernels::supports(device, &form, &self.settings()))
    }

    /// Whether it can be trained on `device` as it asks to be.
    ///
    /// # Errors
    /// Products in bf16 where no step has them.
    pub fn check_device(&self, device: &Device) -> Result<(), TrainError> {
        let reason = match self.precision {
            Precision::Auto | Precision::F32 => return Ok(()),
            Precision::Bf16 if *device == Device::flex() => "products in bf16 alone are for GPUs",
            Precision::Bf16 if !self.is_fused(device) => "this training has no fused step on this device",
            Precision::Bf16 if !device.supports_dtype(FloatDType::BF16) => "this device has no bf16",
            Precision::Bf16 => return Ok(()),
        };
        Err(bad("precision", format!("\"auto\" or \"f32\": {reason}"), "\"bf16\""))
    }

    /// What is done to every activation by itself.
    pub fn normalization(&self) -> Normalization {
        match self.normalize {
            Normalize::LayerNorm => Normalization::LayerNorm,
            Normalize::None | Normalize::MeanNorm | Normalize::MeanSquare => Normalization::None,
        }
    }

    /// What initial weights are made of; `b_dec` is in the units of training.
    pub fn init(&self, b_dec: Vec<f32>) -> Init {
        // What keeps a norm of 1 begins with it: the first step on shorter rows would turn them at random.
        let decoder_norm = match self.decoder {
            DecoderNorm::Unit => 1.0,
            DecoderNorm::Free => self.init_norm,
        };
        let encoder_norm = self.init_norm;
        Init { seed: self.init_seed, decoder_norm, encoder_norm, tied: self.init_tied, b_dec }
    }

    /// Steps in [`TrainPlan::dead_window_tokens`].
    pub fn dead_window_steps(&self) -> u64 {
        self.dead_window_tokens / self.batch_tokens as u64
    }

    /// `tokens` of the store, shuffled, `delivered` of them already.
    pub(crate) fn batches(&self, tokens: u64, delivered: u64) -> BatchPlan {
        BatchPlan {
            hook: self.hook,
            hook_out: self.hook_out,
            batch_tokens: self.batch_tokens,
            buffer_tokens: self.shuffle_buffer_tokens.unwrap_or(self.batch_tokens),
            seed: self.seed,
            tokens,
            delivered,
        }
    }

    /// Whether both can be trained on one pass over the activations.
    ///
    /// # Errors
    /// A key that must be the same in both.
    pub fn check_shared(&self, other: &Self) -> Result<(), TrainError> {
        let differs = self.shared().into_iter().zip(other.shared()).find(|(one, other)| one != other);
        match differs {
            None => Ok(()),
            Some(((key, expected), (_, found))) => {
                Err(bad(key, format!("{expected} in all that is trained on one pass"), found))
            }
        }
    }

    /// What must be alike in two trainings on one pass over the activations: their names and values.
    fn shared(&self) -> Vec<(&'static str, String)> {
        vec![
            ("hook", self.hook.to_string()),
            ("hook_out", self.hook_out.map_or("none".into(), |hook| hook.to_string())),
            ("tokens", self.tokens.to_string()),
            ("batch_tokens", self.batch_tokens.to_string()),
            ("shuffle_buffer_tokens", json!(self.shuffle_buffer_tokens).to_string()),
            ("scale_tokens", self.scale_tokens.to_string()),
            ("normalize", json!(self.normalize).to_string()),
            ("log_every_steps", self.log_every_steps.to_string()),
            ("checkpoint_seconds", self.checkpoint_seconds.to_string()),
        ]
    }

    /// All that the result depends on.
    pub fn work(&self, activations: &dyn Activations) -> Work {
        let activations = Input::new(activations.name(), activations.digest());
        let inputs = BTreeMap::from([("activations".to_owned(), activations)]);
        Work::new(Stage::Train, self, &WITHOUT_EFFECT, self.seed, inputs)
    }

    /// Parameters, gradients, both moments, and what Adam computes in between or encoding packs; of a fused step 20 bytes for
    /// every active latent of a token, half of all at the start of a ReLU's training, and of another one five matrices of
    /// pre-activations, activations and their gradients; a few batches on their way; the shuffle buffer, at most f32, if there is
    /// one.
    fn estimate_memory(&self, parameters: u64) -> u64 {
        let Size { d_in, d_sae, .. } = self.size;
        let (width, d_sae) =
            ((d_in + self.size.output.map_or(0, |output| output.d_out)) as u64, d_sae as u64);
        let (batch, buffer) = (self.batch_tokens as u64, self.shuffle_buffer_tokens.unwrap_or(0) as u64);
        let active = match self.form().map(|form| form.activation) {
            Some(Activation::TopK { k } | Activation::BatchTopK { k }) => batch * (k as u64).min(d_sae),
            Some(Activation::Relu | Activation::JumpRelu { .. } | Activation::Gated) => {
                batch * d_sae.div_ceil(2)
            }
            None => self.micro_batch_tokens as u64 * d_sae,
        };
        // While a checkpoint is written there are its copy and its bytes, each of parameters, moments and perhaps their average.
        let saved = parameters * if self.ema_decay > 0.0 { 4 } else { 3 };
        4 * (7 * parameters + 2 * saved + 5 * active + 10 * batch * width + buffer * width)
    }
}

impl Span {
    /// So many of a run's steps.
    fn steps(self, of: u64) -> u64 {
        match self {
            Self::Steps(steps) => steps.min(of),
            Self::Fraction(fraction) => (fraction * of as f64).round() as u64,
        }
    }
}

fn schedule(numbers: &Numbers, steps: u64, d_sae: usize) -> Result<Schedule, TrainError> {
    let (warmup, decay) = (numbers.lr_warmup.steps(steps), numbers.lr_decay.steps(steps));
    if warmup + decay > steps {
        let found = format!("{warmup} steps with a decay over {decay}, of {steps}");
        return Err(bad("lr_warmup", "no more than what lr_decay leaves", found));
    }
    let lr = match numbers.lr_scaling {
        LrScaling::None => numbers.lr,
        LrScaling::Latents(latents) => numbers.lr / (d_sae as f64 / latents as f64).sqrt(),
    };
    let k_steps = numbers.k_warmup.steps(steps);
    let k = match numbers.architecture.k() {
        None if k_steps > 0 => {
            return Err(bad("k_warmup", "nothing: this architecture has no k", format!("{k_steps} steps")));
        }
        Some(to) if k_steps > 0 => {
            let from = ((to as f64 * numbers.k_warmup_factor).round() as usize).clamp(to, d_sae);
            Some(KWarmup { from, to, steps: k_steps })
        }
        _ => None,
    };
    let annealing = numbers.architecture.annealing().map(|annealing| annealing_steps(annealing, steps));
    Ok(Schedule {
        steps,
        lr,
        lr_warmup_steps: warmup,
        lr_decay_steps: decay,
        lr_decay_shape: numbers.lr_decay_shape,
        lr_end: numbers.lr_end,
        sparsity: numbers.sparsity,
        sparsity_warmup_steps: numbers.sparsity_warmup.steps(steps),
        k,
        annealing,
    })
}

fn annealing_steps(annealing: Annealing, steps: u64) -> AnnealingSteps {
    let Annealing { p_start, p_end, changes, .. } = annealing;
    let [start, end] = [annealing.start, annealing.end].map(|fraction| Span::Fraction(fraction).steps(steps));
    let end = end.max(start + 1);
    // At most one a step, so that λ can follow each.
    let changes = changes.min(u32::try_from(end - start).unwrap_or(u32::MAX));
    AnnealingSteps { p_start, p_end, start, end, changes }
}

pub(crate) fn bad(key: &'static str, expected: impl Into<String>, found: impl ToString) -> TrainError {
    TrainError::Config { key, expected: expected.into(), found: found.to_string() }
}

/// Where activations are read, and what is to come out of a transcoder.
fn choose_hooks(
    config: &TrainConfig,
    stored: &[HookColumn],
) -> Result<(HookColumn, Option<Output>), TrainError> {
    let hook = choose_hook(config.hook, stored)?;
    let Some(hook_out) = config.hook_out else {
        if config.skip {
            return Err(bad("skip", "false: without hook_out there is nothing to skip to", true));
        }
        return Ok((hook, None));
    };
    if hook_out == hook.hook {
        return Err(bad("hook_out", "another hook than hook; an autoencoder has none", hook_out));
    }
    let HookColumn { width: d_out, .. } = find_hook("hook_out", hook_out, stored)?;
    Ok((hook, Some(Output { d_out, skip: config.skip })))
}

fn names(stored: &[HookColumn]) -> String {
    stored.iter().map(|column| column.hook.to_string()).collect::<Vec<_>>().join(" or ")
}

fn find_hook(key: &'static str, hook: HookPoint, stored: &[HookColumn]) -> Result<HookColumn, TrainError> {
    let column = stored.iter().find(|column| column.hook == hook);
    column.copied().ok_or_else(|| bad(key, format!("what the store holds: {}", names(stored)), hook))
}

fn choose_hook(wanted: Option<HookPoint>, stored: &[HookColumn]) -> Result<HookColumn, TrainError> {
    match (wanted, stored) {
        (Some(hook), _) => find_hook("hook", hook, stored),
        (None, [column]) => Ok(*column),
        (None, _) => Err(bad("hook", format!("a choice between {}", names(stored)), "none")),
    }
}

fn latents(width: Width, d_in: usize) -> Result<usize, TrainError> {
    let (latents, found) = match width {
        Width::Latents(n) => (Some(n), format!("{n} latents")),
        Width::Expansion(n) => (n.checked_mul(d_in), format!("expansion {n} of d_in {d_in}")),
    };
    latents
        .filter(|n| (1..=MOST_LATENTS).contains(n))
        .ok_or_else(|| bad("width", format!("1 to {MOST_LATENTS} latents"), found))
}

#[cfg(test)]
mod tests;
