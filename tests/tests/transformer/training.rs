//! A Llama that is made here: initialised, trained, saved, read back.

use burn::{
    optim::{AdamConfig, GradientsParams},
    tensor::{Device, Int, Tensor, TensorData},
};
use monosema_core::Seed;
use monosema_transformer::{
    Activation, Checkpoint, LanguageModel, NoTap, RopeScaling,
    llama::{Llama, LlamaConfig, SavedDtype},
    next_token_losses,
};

use crate::fixture::{relative_error, values};

fn config() -> LlamaConfig {
    LlamaConfig {
        d_vocab: 29,
        d_model: 24,
        d_mlp: 40,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        d_head: 8,
        max_context: 32,
        activation: Activation::Silu,
        norm_epsilon: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
        sliding_window: None,
        attention_bias: false,
        mlp_bias: false,
        tied: true,
    }
}

fn tokens(device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i64> = (0..3 * 11).map(|i| i * i % 29).collect();
    Tensor::from_data(TensorData::new(ids, [3, 11]), device)
}

fn mean_loss(model: &Llama, tokens: Tensor<2, Int>) -> Tensor<1> {
    let [batch, seq] = tokens.dims();
    let logits = model.forward(tokens.clone()).narrow(1, 0, seq - 1);
    let targets = tokens.narrow(1, 1, seq - 1).reshape([batch * (seq - 1), 1]);
    let logits = logits.reshape([batch * (seq - 1), model.config().d_vocab]);
    -burn::tensor::activation::log_softmax(logits, 1).gather(1, targets).mean()
}

fn logits(model: &LanguageModel) -> Vec<f64> {
    values(model.unembed(model.forward(tokens(model.device()), &mut NoTap)))
}

#[test]
fn the_seed_decides_the_weights() {
    let device = Device::flex();
    let made = |seed| logits(&Llama::init(&config(), Seed(seed), &device).unwrap().freeze_as("made"));
    assert_eq!(made(1), made(1));
    assert_ne!(made(1), made(2));
    let contradictory = LlamaConfig { n_kv_heads: 3, ..config() };
    let error = Llama::init(&contradictory, Seed(1), &device).unwrap_err().to_string();
    assert!(error.contains("num_key_value_heads"), "{error}");
}

/// Every weight has a gradient, and it points downhill: a few steps learn a small batch by heart.
#[test]
fn training_learns() {
    let device = Device::flex().autodiff();
    let biased = LlamaConfig { attention_bias: true, mlp_bias: true, tied: false, ..config() };
    for config in [config(), biased] {
        let mut model = Llama::init(&config, Seed(3), &device).unwrap();
        let mut optimizer = AdamConfig::new().with_epsilon(1e-8).init();
        let tokens = tokens(&device);
        let first: f32 = mean_loss(&model, tokens.clone()).into_scalar();
        assert!((first - (29f32).ln()).abs() < 0.1, "an untrained model knows nothing: {first}");
        for step in 0..60 {
            let gradients = GradientsParams::from_grads(mean_loss(&model, tokens.clone()).backward(), &model);
            if step == 0 {
                let weights = 2 + 2 * 6 + if config.tied { 0 } else { 1 + 2 * 4 };
                assert_eq!(gradients.len(), weights, "a weight without a gradient");
            }
            model = optimizer.step(1e-2, model, gradients);
        }
        let last: f32 = mean_loss(&model, tokens.clone()).into_scalar();
        assert!(last < 0.5, "60 steps on one batch went from {first} to {last} only");

        // The frozen model, on its other path, is the same model.
        let frozen = model.freeze_as("trained");
        let ids = self::tokens(frozen.device());
        let hidden = frozen.forward(ids.clone(), &mut NoTap);
        let loss: f32 = next_token_losses(&frozen, hidden, ids).unwrap().mean().into_scalar();
        assert!((loss - last).abs() < 1e-5, "{loss} frozen, {last} in training");
    }
}

#[test]
fn what_is_saved_is_read_back() {
    let device = Device::flex();
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 16,
    };
    let biased = LlamaConfig {
        attention_bias: true,
        mlp_bias: true,
        tied: false,
        rope_scaling: Some(llama3),
        activation: Activation::GeluTanh,
        ..config()
    };
    let windowed = LlamaConfig {
        sliding_window: Some(4),
        rope_scaling: Some(RopeScaling::Linear { factor: 2.0 }),
        ..config()
    };
    for config in [config(), biased, windowed] {
        let model = Llama::init(&config, Seed(5), &device).unwrap();
        let before = logits(&model.freeze_as("made"));
        let directory = tempfile::tempdir().unwrap();
        for (dtype, tolerance) in [(SavedDtype::F32, 0.0), (SavedDtype::Bf16, 0.02)] {
            model.save(directory.path(), dtype).unwrap();
            let checkpoint = Checkpoint::open(directory.path()).unwrap();
            let read = checkpoint.load(&device).unwrap();
            assert_eq!(read.info().n_parameters, model.freeze_as("made").info().n_parameters);
            let error = relative_error(&logits(&read), &before);
            assert!(error <= tolerance, "{config:?} {dtype:?}: off by {error:.1e}");
        }
    }
    let inexpressible = LlamaConfig { sliding_window: Some(4), attention_bias: true, ..config() };
    let model = Llama::init(&inexpressible, Seed(5), &device).unwrap();
    let directory = tempfile::tempdir().unwrap();
    assert!(model.save(directory.path(), SavedDtype::F32).is_err());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "a refused save leaves nothing");
}
