//! A tiny random Llama, texts for it, and harvests of them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::Device;
use monosema_core::{BlockHook, HookPoint, Manifest, Seed};
use monosema_harvester::{HarvestConfig, HarvestError, HarvestPlan, HarvestSummary, harvest};
use monosema_store::{Activations, Batch, Order, Store};
use monosema_text::{Context, ContextConfig, ContextPlan, Corpus, TextConfig, contexts};
use monosema_transformer::{
    Activation, Checkpoint,
    llama::{Llama, LlamaConfig, SavedDtype},
};
use serde_json::json;

pub(crate) const D_MODEL: usize = 12;
const WORDS: u32 = 20;

/// A model directory, texts, and a place for results.
pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) checkpoint: Checkpoint,
}

impl Fixture {
    /// `documents` are numbers of words.
    pub(crate) fn new(documents: &[usize]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("tiny");
        fs::create_dir(&model).unwrap();
        let config = LlamaConfig {
            d_vocab: WORDS as usize + 3,
            d_model: D_MODEL,
            d_mlp: 20,
            n_layers: 3,
            n_heads: 3,
            n_kv_heads: 1,
            d_head: 4,
            max_context: 16,
            activation: Activation::Silu,
            norm_epsilon: 1e-5,
            rope_theta: 1e4,
            rope_scaling: None,
            sliding_window: None,
            attention_bias: false,
            mlp_bias: false,
            tied: true,
        };
        Llama::init(&config, Seed(3), &Device::flex()).unwrap().save(&model, SavedDtype::F32).unwrap();
        fs::write(model.join("tokenizer.json"), tokenizer_json()).unwrap();
        let special = json!({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true});
        fs::write(model.join("tokenizer_config.json"), special.to_string()).unwrap();
        let text = dir.path().join("text");
        fs::create_dir(&text).unwrap();
        for (i, n) in documents.iter().enumerate() {
            let words: Vec<_> = (0..*n).map(|w| format!("w{}", (i * 7 + w * w) % WORDS as usize)).collect();
            fs::write(text.join(format!("{i:02}.txt")), words.join(" ")).unwrap();
        }
        let checkpoint = Checkpoint::open(&model).unwrap();
        Self { dir, checkpoint }
    }

    pub(crate) fn out(&self) -> PathBuf {
        self.dir.path().join("run/acts")
    }

    /// In the order of the text, so that rows can be told by their places.
    pub(crate) fn config(&self) -> HarvestConfig {
        let files = vec![self.dir.path().join("text").display().to_string()];
        HarvestConfig {
            batch_tokens: Some(40),
            order: Order::Text,
            ..HarvestConfig::new(hooks(), TextConfig::new(files))
        }
    }

    pub(crate) fn plan(&self, config: &HarvestConfig) -> Result<HarvestPlan, HarvestError> {
        HarvestPlan::resolve(config, &context(), &self.checkpoint, Seed(1))
    }

    pub(crate) fn run(&self, config: &HarvestConfig) -> Result<HarvestSummary, HarvestError> {
        self.run_plan(&self.plan(config)?, &self.checkpoint)
    }

    pub(crate) fn run_plan(
        &self,
        plan: &HarvestPlan,
        checkpoint: &Checkpoint,
    ) -> Result<HarvestSummary, HarvestError> {
        self.run_plan_into(&self.out(), plan, checkpoint)
    }

    pub(crate) fn run_plan_into(
        &self,
        out: &Path,
        plan: &HarvestPlan,
        checkpoint: &Checkpoint,
    ) -> Result<HarvestSummary, HarvestError> {
        let manifest = Manifest::new(plan.work(checkpoint)?, "cpu");
        harvest(plan, manifest, checkpoint, &Device::flex(), out)
    }

    /// The windows that a harvest should have run over.
    pub(crate) fn windows(&self) -> Vec<Context> {
        self.windows_of(&context())
    }

    pub(crate) fn windows_of(&self, context: &ContextConfig) -> Vec<Context> {
        let tokenizer = self.checkpoint.tokenizer().unwrap();
        let plan = ContextPlan::new(context, &tokenizer).unwrap();
        let corpus = Corpus::open(&self.config().text).unwrap();
        contexts(corpus.documents(), &tokenizer, &plan).collect::<Result<_, _>>().unwrap()
    }
}

pub(crate) fn hooks() -> Vec<HookPoint> {
    vec![HookPoint::block(1, BlockHook::ResidPost), HookPoint::Embed, HookPoint::block(0, BlockHook::MlpOut)]
}

pub(crate) fn context() -> ContextConfig {
    ContextConfig { length: 8, skip_first: 2, ..Default::default() }
}

fn tokenizer_json() -> String {
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    };
    let words = (0..WORDS).map(|i| (format!("w{i}"), i + 3));
    let names = [("<unk>", 0), ("<s>", 1), ("</s>", 2)].map(|(name, id)| (name.to_owned(), id));
    let vocab: BTreeMap<String, u32> = names.into_iter().chain(words).collect();
    json!({"version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(1, "<s>"), special(2, "</s>")],
        "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "unk_token": "<unk>", "vocab": vocab}})
    .to_string()
}

/// Everything stored for `hook`.
pub(crate) fn stored(out: &Path, hook: HookPoint) -> Batch {
    let store = Store::open(out).unwrap();
    let n = store.tokens() as usize;
    store.sequential(hook, n).next().unwrap().unwrap()
}
