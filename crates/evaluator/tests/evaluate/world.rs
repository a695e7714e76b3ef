//! A tiny model with its tokenizer, texts and dictionaries, on disk.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Device, Tensor},
};
use monosema_core::{BlockHook, HookPoint, Manifest, Seed};
use monosema_evaluator::{
    DictionaryShape, EvalConfig, EvalError, EvalPlan, Job, NamedText, Report, Training, evaluate,
};
use monosema_sae::{Description, Dictionary, Metadata, Sae, SaeConfig, Size, Weights};
use monosema_text::{ContextConfig, InvalidUtf8};
use monosema_transformer::{
    Activation, Checkpoint,
    llama::{Llama, LlamaConfig, SavedDtype},
};
use serde_json::json;

pub(crate) const D_MODEL: usize = 16;
pub(crate) const D_VOCAB: usize = 24;
pub(crate) const N_LAYERS: usize = 3;
pub(crate) const EOS: u32 = 1;

pub(crate) fn hook() -> HookPoint {
    HookPoint::block(1, BlockHook::ResidPost)
}

pub(crate) fn device() -> Device {
    Device::flex()
}

pub(crate) fn context() -> ContextConfig {
    ContextConfig { length: 12, ..Default::default() }
}

pub(crate) struct World {
    dir: tempfile::TempDir,
}

impl World {
    /// A model whose predictions depend on its input, two texts `a` (of documents that share windows) and `b`.
    pub(crate) fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap() };
        let model = world.path("model");
        fs::create_dir(&model).unwrap();
        let config = LlamaConfig {
            d_vocab: D_VOCAB,
            d_model: D_MODEL,
            d_mlp: 24,
            n_layers: N_LAYERS,
            n_heads: 4,
            n_kv_heads: 2,
            d_head: 4,
            max_context: 20,
            activation: Activation::Silu,
            norm_epsilon: 1e-5,
            rope_theta: 10_000.0,
            rope_scaling: None,
            sliding_window: None,
            attention_bias: false,
            mlp_bias: false,
            tied: false,
        };
        // Freshly initialised, a model hardly looks at its input; with larger weights it does.
        let llama = Llama::init(&config, Seed(5), &device()).unwrap().map(&mut Scale(8.0));
        llama.save(&model, SavedDtype::F32).unwrap();
        fs::write(model.join("tokenizer.json"), tokenizer().to_string()).unwrap();
        let special = json!({"bos_token": null, "eos_token": "</s>"});
        fs::write(model.join("tokenizer_config.json"), special.to_string()).unwrap();
        world.write_text("a.jsonl", &[7, 30, 1, 25, 12, 40], 1);
        world.write_text("b.jsonl", &[33, 9], 2);
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Documents of so many random words.
    pub(crate) fn write_text(&self, name: &str, lengths: &[usize], seed: u32) {
        let mut random = random(seed);
        let mut lines = String::new();
        for &length in lengths {
            let words: Vec<_> = (0..length).map(|_| format!("w{}", 2 + random(D_VOCAB as u32 - 2))).collect();
            lines += &format!("{}\n", json!({ "text": words.join(" ") }));
        }
        fs::write(self.path(name), lines).unwrap();
    }

    pub(crate) fn text(&self, name: &str, file: &str) -> NamedText {
        let files = vec![self.path(file).display().to_string()];
        NamedText {
            name: name.into(),
            files,
            field: None,
            column: None,
            max_documents: None,
            invalid_utf8: InvalidUtf8::Error,
        }
    }

    pub(crate) fn config(&self) -> EvalConfig {
        let texts = vec![self.text("a", "a.jsonl"), self.text("b", "b.jsonl")];
        EvalConfig {
            texts,
            tokens: None,
            resamples: Some(50),
            ablations: None,
            conventions: BTreeSet::new(),
            batch_contexts: Some(3),
            concepts: Vec::new(),
            probes: Vec::new(),
        }
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint::open(&self.path("model")).unwrap()
    }

    /// Writes a dictionary of these weights and returns its directory.
    pub(crate) fn dictionary(&self, name: &str, weights: Weights) -> PathBuf {
        let dir = self.path(name);
        fs::create_dir_all(&dir).unwrap();
        let d_sae = weights.iter().find(|(name, _)| *name == "b_enc").unwrap().1.shape()[0];
        let size = Size::new(D_MODEL, d_sae);
        let sae = Sae::from_weights(&SaeConfig::default(), size, weights, &device());
        Dictionary::new(sae, Metadata::new(hook()), None).save(&dir).unwrap();
        dir
    }

    /// x̂ = x: one latent for each sign of each dimension.
    pub(crate) fn identity(&self) -> PathBuf {
        let d_sae = 2 * D_MODEL;
        let sign = |d: usize, i: usize| match i {
            i if i == d => 1.0,
            i if i == d + D_MODEL => -1.0,
            _ => 0.0,
        };
        let enc = (0..D_MODEL * d_sae).map(|k| sign(k / d_sae, k % d_sae)).collect();
        let dec = (0..D_MODEL * d_sae).map(|k| sign(k % D_MODEL, k / D_MODEL)).collect();
        self.dictionary("identity", weights(enc, vec![0.0; d_sae], dec, vec![0.0; D_MODEL]))
    }

    /// x̂ = `b_dec`, whatever x is.
    pub(crate) fn constant(&self, name: &str, b_dec: Vec<f32>) -> PathBuf {
        let d_sae = 5;
        let zeros = vec![0.0; D_MODEL * d_sae];
        self.dictionary(name, weights(zeros.clone(), vec![0.0; d_sae], zeros, b_dec))
    }

    /// A dictionary as before training.
    pub(crate) fn random(&self) -> PathBuf {
        let d_sae = 40;
        let mut random = random(3);
        let mut draw = |n: usize| (0..n).map(|_| random(2000) as f32 / 1000.0 - 1.0).collect::<Vec<_>>();
        let (enc, b_enc, dec, b_dec) =
            (draw(D_MODEL * d_sae), draw(d_sae), draw(D_MODEL * d_sae), draw(D_MODEL));
        let dec = dec.iter().map(|w| w / 20.0).collect();
        self.dictionary("random", weights(enc, b_enc, dec, b_dec))
    }

    pub(crate) fn resolve(&self, config: &EvalConfig, dictionary: &Path) -> Result<EvalPlan, EvalError> {
        let shape = shape(dictionary);
        EvalPlan::resolve(config, &context(), &self.checkpoint(), &shape, &Training::default(), Seed(0))
    }

    pub(crate) fn plan(&self, config: &EvalConfig, dictionary: &Path) -> EvalPlan {
        self.resolve(config, dictionary).unwrap()
    }

    pub(crate) fn evaluate_plan(&self, plan: &EvalPlan, dictionary: &Path) -> Result<Report, EvalError> {
        let checkpoint = self.checkpoint();
        let manifest = Manifest::new(plan.work(&checkpoint, dictionary)?, "cpu");
        let (plan, dictionary, out) = (plan.clone(), dictionary.to_owned(), self.path("out"));
        let job = Job { plan, manifest, dictionary, out };
        Ok(evaluate(&[job], &checkpoint, &device())?.remove(0))
    }

    pub(crate) fn evaluate(&self, config: &EvalConfig, dictionary: &Path) -> Report {
        self.evaluate_plan(&self.plan(config, dictionary), dictionary).unwrap()
    }
}

/// The hook and the sizes of the dictionary in `directory`.
pub(crate) fn shape(directory: &Path) -> DictionaryShape {
    DictionaryShape::from(&Description::read(directory).unwrap())
}

pub(crate) fn weights(enc: Vec<f32>, b_enc: Vec<f32>, dec: Vec<f32>, b_dec: Vec<f32>) -> Weights {
    let d_sae = b_enc.len();
    let mut weights = Weights::default();
    weights.insert("W_enc", enc, [D_MODEL, d_sae]);
    weights.insert("b_enc", b_enc, [d_sae]);
    weights.insert("W_dec", dec, [d_sae, D_MODEL]);
    weights.insert("b_dec", b_dec, [D_MODEL]);
    weights
}

/// Words `<unk>`, `</s>`, `w2` to `w23`.
fn tokenizer() -> serde_json::Value {
    let words = (2..D_VOCAB).map(|id| format!("w{id}"));
    let vocab: serde_json::Map<_, _> = ["<unk>".to_owned(), "</s>".to_owned()]
        .into_iter()
        .chain(words)
        .zip((0..).map(|id: u32| json!(id)))
        .collect();
    json!({"version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": EOS, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "unk_token": "<unk>", "vocab": vocab}})
}

/// Draws integers below a bound.
fn random(seed: u32) -> impl FnMut(u32) -> u32 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    }
}

struct Scale(f64);

impl ModuleMapper for Scale {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.mul_scalar(self.0))
    }
}
