//! The embedded demo: its language model is a trained one, and transformers agrees with us about it.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData};
use monosema_text::{Context, ContextConfig, ContextPlan, Corpus, TextConfig, contexts};
use monosema_transformer::{Checkpoint, NoTap, next_token_losses};

/// Mean cross-entropy of transformers 5.23 in f32 on [`WINDOWS`] windows, in nats a token:
/// `scripts/reference/smollm2_ce.py data/demo/model --windows FILE --tokens 0`, of the windows that this test makes.
const TRANSFORMERS_CE: f64 = 0.594_159_699_710_307_8;

/// The first so many windows of the held-out stories.
const WINDOWS: usize = 16;

/// Rounding of two f32 implementations, averaged over 4,080 predictions: some 1e-6. Ten times that is a bug.
const TOLERANCE: f64 = 1e-5;

/// What counting pairs of tokens reaches on all held-out stories (data/demo/model/training.json).
const BIGRAM_CE: f64 = 2.4189;

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("data/demo")
}

#[test]
fn the_model_is_a_trained_one_and_transformers_agrees() {
    let checkpoint = Checkpoint::open(&demo().join("model")).unwrap();
    let tokenizer = checkpoint.tokenizer().unwrap();
    let text = TextConfig::new(vec![demo().join("stories/heldout.jsonl").display().to_string()]);
    let config = ContextConfig { length: checkpoint.info().max_context, ..ContextConfig::default() };
    let plan = ContextPlan::new(&config, &tokenizer).unwrap();
    let documents = Corpus::open(&text).unwrap().documents();
    let windows = contexts(documents, &tokenizer, &plan).take(WINDOWS);
    let windows: Vec<Context> = windows.map(Result::unwrap).collect();

    let device = Device::flex();
    let model = checkpoint.load(&device).unwrap();
    let ids: Vec<i32> = windows.iter().flat_map(|w| w.tokens.iter().map(|&t| t as i32)).collect();
    let ids: Tensor<2, Int> = Tensor::from_data(TensorData::new(ids, [WINDOWS, plan.length]), &device);
    let losses = next_token_losses(&model, model.forward(ids.clone(), &mut NoTap), ids).unwrap();
    let losses: Vec<f32> = losses.into_data().try_to_vec().unwrap();
    let ce = losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / losses.len() as f64;

    assert!((ce - TRANSFORMERS_CE).abs() < TOLERANCE, "{ce} against {TRANSFORMERS_CE} of transformers");
    assert!(ce < BIGRAM_CE / 2.0, "{ce}");
}

#[test]
fn the_model_has_the_size_that_is_promised() {
    let bytes = demo().join("model/model.safetensors").metadata().unwrap().len();
    assert!(bytes <= 4_000_000, "{bytes} bytes");
    let n_parameters = Checkpoint::open(&demo().join("model")).unwrap().info().n_parameters;
    assert!((500_000..2_000_000).contains(&n_parameters), "{n_parameters}");
}
