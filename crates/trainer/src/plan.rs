//! A training, checked and with every derived number filled in.

use std::collections::BTreeMap;

use burn::tensor::{Device, FloatDType};
use monosema_core::{
    HookPoint, Seed, Stage,
    manifest::{Input, Work},
};
use monosema_kernels::{Activation, Form};
use monosema_sae::{SaeConfig, Size};
use monosema_store::{BatchPlan, HookColumn, Store};
use serde::Serialize;

use crate::{
    Recipe, Schedule, TrainConfig, TrainError, Width,
    config::Numbers,
    step::{Precision, StepKind},
    window::EXACT,
};

/// The fields of [`TrainPlan`] that the result does not depend on.
const ESTIMATES: [&str; 2] = ["disk_bytes", "memory_bytes"];

/// Latents that a dictionary may have. Their indices must fit into what every backend counts with.
const MOST_LATENTS: usize = 1 << 24;

/// What a plan needs to know about the activations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFacts {
    /// The hooks and the widths of their vectors.
    pub hooks: Vec<HookColumn>,
    /// How many tokens there are.
    pub tokens: u64,
}

impl StoreFacts {
    /// Those of a store that is there.
    pub fn of(store: &Store) -> Self {
        Self { hooks: store.schema().hooks.clone(), tokens: store.tokens() }
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
    /// Width of the activations.
    pub d_in: usize,
    /// Latents.
    pub d_sae: usize,
    /// Tokens trained on: whole batches.
    pub tokens: u64,
    /// Tokens in the store.
    pub store_tokens: u64,
    /// How often the store is gone through.
    pub epochs: f64,
    /// Tokens a step.
    pub batch_tokens: usize,
    /// Steps.
    pub steps: u64,
    /// Learning rate and λ over the steps.
    pub schedule: Schedule,
    /// Adam's β₁ and β₂.
    pub adam_betas: [f64; 2],
    /// Adam's ε.
    pub adam_eps: f64,
    /// Largest norm of the whole gradient.
    pub grad_clip: f64,
    /// A latent counts as dead after so many silent tokens: whole batches, and no more than half of the run, so
    /// that there is something to look back on.
    pub dead_window_tokens: u64,
    /// Tokens shuffled among each other.
    pub shuffle_buffer_tokens: usize,
    /// Tokens from which scale and mean are estimated.
    pub scale_tokens: u64,
    /// Steps between two lines of the logs.
    pub log_every_steps: u64,
    /// The experiment's seed.
    #[serde(skip)]
    pub seed: Seed,
    /// Bytes on disk to expect.
    pub disk_bytes: u64,
    /// Bytes of memory to expect, roughly.
    pub memory_bytes: u64,
}

impl TrainPlan {
    /// Checks `config` against the activations.
    ///
    /// # Errors
    /// A key whose value cannot work, with what could.
    pub fn resolve(config: &TrainConfig, facts: &StoreFacts, seed: Seed) -> Result<Self, TrainError> {
        let numbers = with_overrides(config, config.recipe.numbers());
        check(&numbers)?;
        let HookColumn { hook, width: d_in } = choose_hook(config.hook, &facts.hooks)?;
        let d_sae = latents(config.width, d_in)?;
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
        let of_steps = |fraction: f64| (fraction * steps as f64).round() as u64;
        let schedule = Schedule {
            steps,
            lr: numbers.lr,
            lr_warmup_steps: of_steps(numbers.lr_warmup_fraction),
            lr_decay_steps: of_steps(numbers.lr_decay_fraction),
            l1: numbers.l1,
            l1_warmup_steps: of_steps(numbers.l1_warmup_fraction),
        };
        let dead_steps = numbers.dead_after_tokens.div_ceil(batch).min(steps / 2).max(1);
        let buffer = numbers.shuffle_buffer_tokens.min(usize::try_from(facts.tokens).unwrap_or(usize::MAX));
        let buffer = buffer.max(numbers.batch_tokens);
        let size = Size { d_in, d_sae };
        numbers.architecture.check(size).map_err(|(expected, found)| bad("architecture", expected, found))?;
        let shapes = numbers.architecture.shapes(size);
        let parameters: u64 = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum();
        Ok(Self {
            recipe: config.recipe,
            hook,
            d_in,
            d_sae,
            tokens: steps * batch,
            store_tokens: facts.tokens,
            epochs: (steps * batch) as f64 / facts.tokens as f64,
            batch_tokens: numbers.batch_tokens,
            steps,
            schedule,
            adam_betas: numbers.adam_betas,
            adam_eps: numbers.adam_eps,
            grad_clip: numbers.grad_clip,
            dead_window_tokens: dead_steps * batch,
            shuffle_buffer_tokens: buffer,
            scale_tokens: numbers.scale_tokens.min(facts.tokens),
            log_every_steps: numbers.log_every_steps,
            seed,
            disk_bytes: 4 * (parameters + d_sae as u64),
            memory_bytes: memory_bytes(
                parameters,
                numbers.architecture.form().filter(|_| config.step == StepKind::Auto),
                size,
                batch,
                buffer as u64,
            ),
            architecture: numbers.architecture,
            step: config.step,
            precision: config.precision,
        })
    }

    /// Whether the fused step trains it on `device`.
    pub fn is_fused(&self, device: &Device) -> bool {
        self.step == StepKind::Auto
            && self.architecture.form().is_some_and(|form| monosema_kernels::supports(device, form))
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

    /// How large the dictionary will be.
    pub fn size(&self) -> Size {
        Size { d_in: self.d_in, d_sae: self.d_sae }
    }

    /// Steps in [`TrainPlan::dead_window_tokens`].
    pub fn dead_window_steps(&self) -> u64 {
        self.dead_window_tokens / self.batch_tokens as u64
    }

    /// `tokens` of the store, shuffled.
    pub(crate) fn batches(&self, tokens: u64) -> BatchPlan {
        BatchPlan {
            hook: self.hook,
            batch_tokens: self.batch_tokens,
            buffer_tokens: self.shuffle_buffer_tokens,
            seed: self.seed,
            tokens,
        }
    }

    /// All that the result depends on.
    pub fn work(&self, store: &Store) -> Work {
        let name = store.directory().display().to_string();
        let activations = Input { name, sha256: store.manifest().digest() };
        let inputs = BTreeMap::from([("activations".to_owned(), activations)]);
        Work::new(Stage::Train, self, &ESTIMATES, self.seed, inputs)
    }
}

fn with_overrides(config: &TrainConfig, recipe: Numbers) -> Numbers {
    let architecture = config.architecture.clone().unwrap_or(recipe.architecture);
    // A recipe's coefficient is for an architecture with a penalty.
    let l1 = if architecture.penalised() { recipe.l1 } else { 0.0 };
    Numbers {
        architecture,
        batch_tokens: config.batch_tokens.unwrap_or(recipe.batch_tokens),
        shuffle_buffer_tokens: config.shuffle_buffer_tokens.unwrap_or(recipe.shuffle_buffer_tokens),
        scale_tokens: config.scale_tokens.unwrap_or(recipe.scale_tokens),
        lr: config.lr.unwrap_or(recipe.lr),
        lr_warmup_fraction: config.lr_warmup_fraction.unwrap_or(recipe.lr_warmup_fraction),
        lr_decay_fraction: config.lr_decay_fraction.unwrap_or(recipe.lr_decay_fraction),
        l1: config.l1.unwrap_or(l1),
        l1_warmup_fraction: config.l1_warmup_fraction.unwrap_or(recipe.l1_warmup_fraction),
        adam_betas: config.adam_betas.unwrap_or(recipe.adam_betas),
        adam_eps: config.adam_eps.unwrap_or(recipe.adam_eps),
        grad_clip: config.grad_clip.unwrap_or(recipe.grad_clip),
        dead_after_tokens: config.dead_after_tokens.unwrap_or(recipe.dead_after_tokens),
        log_every_steps: config.log_every_steps.unwrap_or(recipe.log_every_steps),
    }
}

fn bad(key: &'static str, expected: impl Into<String>, found: impl ToString) -> TrainError {
    TrainError::Config { key, expected: expected.into(), found: found.to_string() }
}

/// What holds for each number by itself.
fn check(numbers: &Numbers) -> Result<(), TrainError> {
    let at_least_1 = [
        ("batch_tokens", numbers.batch_tokens as u64),
        ("scale_tokens", numbers.scale_tokens),
        ("dead_after_tokens", numbers.dead_after_tokens),
        ("log_every_steps", numbers.log_every_steps),
    ];
    for (key, value) in at_least_1 {
        if value == 0 {
            return Err(bad(key, "at least 1", value));
        }
    }
    if numbers.batch_tokens as u64 > EXACT {
        // A step counts firings in f32.
        return Err(bad("batch_tokens", format!("at most {EXACT}"), numbers.batch_tokens));
    }
    for (key, value) in [("lr", numbers.lr), ("adam_eps", numbers.adam_eps), ("grad_clip", numbers.grad_clip)]
    {
        if !(value.is_finite() && value > 0.0) {
            return Err(bad(key, "a number above 0", value));
        }
    }
    if !(numbers.l1.is_finite() && numbers.l1 >= 0.0) {
        return Err(bad("l1", "a number from 0 on", numbers.l1));
    }
    if numbers.l1 > 0.0 && !numbers.architecture.penalised() {
        return Err(bad("l1", "nothing: the loss of this architecture has no penalty", numbers.l1));
    }
    if !numbers.adam_betas.iter().all(|beta| (0.0..1.0).contains(beta)) {
        return Err(bad("adam_betas", "two numbers from 0 to below 1", format!("{:?}", numbers.adam_betas)));
    }
    let fractions = [
        ("lr_warmup_fraction", numbers.lr_warmup_fraction),
        ("lr_decay_fraction", numbers.lr_decay_fraction),
        ("l1_warmup_fraction", numbers.l1_warmup_fraction),
    ];
    for (key, value) in fractions {
        if !(0.0..=1.0).contains(&value) {
            return Err(bad(key, "a number from 0 to 1", value));
        }
    }
    if numbers.lr_warmup_fraction + numbers.lr_decay_fraction > 1.0 {
        let found = format!("{} with a decay over {}", numbers.lr_warmup_fraction, numbers.lr_decay_fraction);
        return Err(bad("lr_warmup_fraction", "no more than what lr_decay_fraction leaves", found));
    }
    Ok(())
}

fn choose_hook(wanted: Option<HookPoint>, stored: &[HookColumn]) -> Result<HookColumn, TrainError> {
    let names = || stored.iter().map(|column| column.hook.to_string()).collect::<Vec<_>>().join(" or ");
    match (wanted, stored) {
        (Some(hook), _) => {
            let column = stored.iter().find(|column| column.hook == hook);
            column.copied().ok_or_else(|| bad("hook", format!("what the store holds: {}", names()), hook))
        }
        (None, [column]) => Ok(*column),
        (None, _) => Err(bad("hook", format!("a choice between {}", names()), "none")),
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

/// Parameters, gradients, both moments, and what Adam computes in between or encoding packs; of a fused step 20 bytes for
/// every active latent of a token, half of all at the start of a ReLU's training, and of another one five matrices of
/// pre-activations, activations and their gradients; a few batches on their way; the shuffle buffer, at most f32.
fn memory_bytes(parameters: u64, form: Option<Form>, size: Size, batch: u64, buffer: u64) -> u64 {
    let (d_in, d_sae) = (size.d_in as u64, size.d_sae as u64);
    let active = match form.map(|form| form.activation) {
        Some(Activation::TopK { k } | Activation::BatchTopK { k }) => (k as u64).min(d_sae),
        Some(Activation::Relu) => d_sae.div_ceil(2),
        None => d_sae,
    };
    4 * (7 * parameters + 5 * batch * active + 10 * batch * d_in + buffer * d_in)
}

#[cfg(test)]
mod tests {
    use monosema_core::{BlockHook, config};

    use super::*;

    fn facts(tokens: u64) -> StoreFacts {
        let column = |layer, width| HookColumn { hook: HookPoint::block(layer, BlockHook::ResidPost), width };
        StoreFacts { hooks: vec![column(8, 64), column(9, 32)], tokens }
    }

    fn resolve(toml: &str, tokens: u64) -> Result<TrainPlan, TrainError> {
        let hook = "hook = 'blocks.8.hook_resid_post'\n";
        let text = if toml.contains("hook =") { toml.to_owned() } else { format!("{hook}{toml}") };
        let config: TrainConfig = config::parse("x.toml".as_ref(), &text, &[]).unwrap();
        TrainPlan::resolve(&config, &facts(tokens), Seed(1))
    }

    fn schedule(steps: u64, lr: f64, lr_steps: [u64; 2], l1: f64, l1_warmup_steps: u64) -> Schedule {
        let [lr_warmup_steps, lr_decay_steps] = lr_steps;
        Schedule { steps, lr, lr_warmup_steps, lr_decay_steps, l1, l1_warmup_steps }
    }

    #[test]
    fn the_recipe_fills_in_what_is_left_out() {
        let plan = resolve("", 4096 * 1000 + 5).unwrap();
        assert_eq!((plan.d_in, plan.d_sae, plan.steps, plan.tokens), (64, 512, 1000, 4_096_000));
        assert_eq!(plan.schedule, schedule(1000, 5e-5, [0, 200], 5.0, 50));
        assert_eq!((plan.adam_betas, plan.adam_eps, plan.grad_clip), ([0.9, 0.999], 1e-8, 1.0));
        // 10M tokens are more than the run: half of it is looked back on.
        assert_eq!((plan.dead_window_tokens, plan.dead_window_steps()), (500 * 4096, 500));
        assert_eq!(resolve("", 400_000_000).unwrap().dead_window_tokens, 2442 * 4096);
    }

    #[test]
    fn every_number_can_be_given() {
        let plan = resolve(
            "hook = 'blocks.9.hook_resid_post'\nwidth = { latents = 100 }\ntokens = 2048\nbatch_tokens = 128\n\
             shuffle_buffer_tokens = 256\nlr = 1e-3\nl1 = 2\nl1_warmup_fraction = 0.5\nlr_decay_fraction = 0\n\
             lr_warmup_fraction = 0.25\nadam_betas = [0.0, 0.5]\nadam_eps = 1e-6\ngrad_clip = 3\n\
             dead_after_tokens = 100\nscale_tokens = 10\nlog_every_steps = 2\n\
             architecture = { kind = 'relu', apply_b_dec_to_input = true }",
            512,
        )
        .unwrap();
        assert_eq!((plan.d_in, plan.d_sae, plan.steps, plan.epochs), (32, 100, 16, 4.0));
        assert_eq!(plan.schedule, schedule(16, 1e-3, [4, 0], 2.0, 8));
        assert_eq!((plan.adam_betas, plan.adam_eps, plan.grad_clip), ([0.0, 0.5], 1e-6, 3.0));
        assert_eq!((plan.dead_window_tokens, plan.scale_tokens, plan.log_every_steps), (128, 10, 2));
        assert_ne!(plan.architecture, SaeConfig::default());
    }

    #[test]
    fn what_cannot_work_is_refused_by_its_key() {
        let cases = [
            ("tokens = 4095", "[train] tokens: expected at least one batch of 4096"),
            ("tokens = 0", "tokens"),
            ("shuffle_buffer_tokens = 4095", "shuffle_buffer_tokens: expected at least one batch of 4096"),
            ("batch_tokens = 0", "batch_tokens: expected at least 1, found 0"),
            ("batch_tokens = 16777217", "batch_tokens: expected at most 16777216"),
            ("log_every_steps = 0", "log_every_steps"),
            ("lr = 0.0", "lr: expected a number above 0, found 0"),
            ("lr = nan", "lr"),
            ("l1 = -1.0", "l1: expected a number from 0 on, found -1"),
            ("adam_betas = [0.9, 1.0]", "adam_betas"),
            ("architecture = { kind = 'top_k', k = 32 }\nl1 = 0.5", "l1: expected nothing"),
            (
                "architecture = { kind = 'top_k', k = 9 }\nwidth = { latents = 8 }",
                "architecture: expected k of at most 8, the number of latents, found k = 9",
            ),
            ("grad_clip = inf", "grad_clip"),
            ("lr_decay_fraction = 1.5", "lr_decay_fraction: expected a number from 0 to 1, found 1.5"),
            ("lr_warmup_fraction = 0.9", "lr_decay_fraction leaves"),
            ("width = { latents = 0 }", "width"),
            ("width = { expansion = 18446744073709551 }", "width"),
            (
                "hook = 'blocks.7.hook_resid_post'",
                "hook: expected what the store holds: blocks.8.hook_resid_post or",
            ),
        ];
        for (toml, part) in cases {
            let error = resolve(toml, 100_000).unwrap_err().to_string();
            assert!(error.contains(part), "{toml}: {part:?} is not in {error:?}");
        }
        let config = TrainConfig::default();
        let error = TrainPlan::resolve(&config, &facts(100_000), Seed(1)).unwrap_err().to_string();
        assert!(error.contains("hook: expected a choice between blocks.8"), "{error}");
        assert!(resolve("", 0).is_err());
    }
}
