//! Every number that transformers computes, computed again.

use std::collections::BTreeSet;

use burn::tensor::{DType, Device};
use monosema_core::{BlockHook, HookPoint};
use monosema_transformer::{Capture, Checkpoint, LanguageModel, Precision, next_token_losses};

use crate::fixture::{Case, relative_error, values};

/// The worst deviation allowed, relative to the root mean square of the tensor. Single precision leaves about
/// 1e-6 over two or three layers; a forgotten bias, norm or mask leaves more than 1e-2.
const TOLERANCE: f64 = 1e-5;

/// Rows of a batch that make several groups on their way through the model on the CPU, whatever their number is.
const ROWS_OF_GROUPS: usize = 1000;

/// Everything the case expects, held against `model`, whose batch is `copies` times the case's.
fn check(case: &Case, model: &LanguageModel, copies: usize) {
    let tokens = case.tokens(model.device()).repeat_dim(0, copies);
    let mut capture = Capture::new(HookPoint::all(model.info().n_layers));
    let hidden = model.forward(tokens.clone(), &mut capture);
    for (name, expected) in &case.expected {
        let found = match name.as_str() {
            "logits" => model.unembed(hidden.clone()),
            "losses" => next_token_losses(model, hidden.clone(), tokens.clone()).unwrap().unsqueeze_dim(2),
            "final_hidden" => hidden.clone(),
            hook => capture.take(hook.parse().unwrap()).unwrap_or_else(|| panic!("{}: no {hook}", case.name)),
        };
        let found = case.at_positions(found);
        let mut shape = expected.shape.clone();
        shape[0] *= copies;
        assert_eq!(found.dims()[..shape.len()], shape, "{}: {name}", case.name);
        let error = relative_error(&values(found), &expected.values.repeat(copies));
        assert!(error <= TOLERANCE, "{}: {name} of {copies} copies is off by {error:.1e}", case.name);
    }
    // Every hook that the model has is expected, but for patterns as long as long sequences.
    let shown = |hook: &HookPoint| case.is_whole() || !hook.to_string().ends_with("hook_pattern");
    let hooks = model.info().hooks().filter(shown).map(|hook| hook.to_string());
    let all: BTreeSet<String> = hooks.chain(["logits", "losses", "final_hidden"].map(String::from)).collect();
    assert_eq!(case.expected.keys().cloned().collect::<BTreeSet<_>>(), all, "{}", case.name);
    // And those that it lacks were not shown.
    let left = HookPoint::all(model.info().n_layers).filter(|&hook| capture.take(hook).is_some());
    assert!(left.into_iter().all(|hook| !shown(&hook)), "{}", case.name);
}

#[test]
fn every_hidden_state_logit_and_loss_agrees_with_transformers() {
    let device = Device::flex();
    for case in Case::all() {
        check(&case, &case.load(&device), 1);
    }
}

/// As a batch of several groups of sequences, the last of them smaller.
#[test]
fn groups_of_sequences_agree_too() {
    let device = Device::flex();
    for case in Case::all() {
        let [batch, seq] = case.tokens(&device).dims();
        check(&case, &case.load(&device), ROWS_OF_GROUPS.div_ceil(batch * seq));
    }
}

/// The element-wise kernels for the CPU are left out on other devices; ndarray stands for all of them.
#[test]
#[expect(deprecated, reason = "upstream prefers flex, which is what is held against it")]
fn the_path_of_other_devices_agrees_too() {
    let device = Device::ndarray();
    for case in Case::all() {
        check(&case, &case.load(&device), 1);
    }
}

#[test]
fn what_headers_say_is_what_is_loaded() {
    let info = |name: &str| Case::read(name).checkpoint().info().clone();
    let llama = info("llama_gqa_tied");
    assert_eq!((llama.n_layers, llama.d_model, llama.d_vocab, llama.max_context), (3, 36, 53, 64));
    assert_eq!(llama.family.to_string(), "llama");
    // 53 * 36 embedding, 36 final norm; a block: 2 norms, q and o 36², k and v 12 * 36, three times 44 * 36.
    let block = 2 * 36 + 2 * 36 * 36 + 2 * 12 * 36 + 3 * 44 * 36;
    assert_eq!(llama.n_parameters, 53 * 36 + 36 + 3 * block);
    // A sharded checkpoint and a GGUF file count alike.
    assert_eq!(info("llama_sharded_linear_rope").n_parameters, 2 * 53 * 36 + 36 + 2 * block);
    assert_eq!(info("gguf_gpt2").family.to_string(), "gpt2");
    assert_eq!(info("gguf_llama").name, "gguf_llama");
    assert_eq!(info("gpt2").name, "gpt2");
}

#[test]
fn a_digest_covers_every_file_that_matters() {
    let source = Case::read("llama_sharded_linear_rope").model;
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&source).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let digest = || Checkpoint::open(copy.path()).unwrap().digest().unwrap();
    let before = digest();
    assert_eq!(before, Checkpoint::open(&source).unwrap().digest().unwrap(), "where it lies does not matter");
    let shard = copy.path().join("model-00002-of-00004.safetensors");
    let mut bytes = std::fs::read(&shard).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&shard, bytes).unwrap();
    assert_ne!(digest(), before);
}

/// Rows of a batch do not see each other: alone, or in another order, they give the same to rounding.
#[test]
fn a_sequence_does_not_depend_on_its_batch() {
    let device = Device::flex();
    for case in Case::all() {
        let model = case.load(&device);
        let tokens = case.tokens(&device);
        let together = model.forward(tokens.clone(), &mut monosema_transformer::NoTap);
        for row in 0..tokens.dims()[0] {
            let alone = model.forward(tokens.clone().narrow(0, row, 1), &mut monosema_transformer::NoTap);
            let error = relative_error(&values(alone), &values(together.clone().narrow(0, row, 1)));
            assert!(error < TOLERANCE, "{}: row {row} alone is off by {error:.1e}", case.name);
        }
        // Nor on what follows: the model is causal.
        let seq = tokens.dims()[1] - 3;
        let shorter = model.forward(tokens.narrow(1, 0, seq), &mut monosema_transformer::NoTap);
        let error = relative_error(&values(shorter), &values(together.narrow(1, 0, seq)));
        assert!(error < TOLERANCE, "{}: the future changes the past by {error:.1e}", case.name);
    }
}

/// Products of rounded operands come to the same but for that rounding, and what a tap sees is f32.
#[test]
fn other_precisions_are_close() {
    let device = Device::flex();
    let error = |case: &Case, precision: Precision| {
        let checkpoint = case.checkpoint().with_precision(precision);
        assert_ne!(checkpoint.digest().unwrap(), case.checkpoint().digest().unwrap());
        let model = checkpoint.load(&device).unwrap();
        let tokens = case.tokens(&device);
        let hook = HookPoint::block(0, BlockHook::ResidPost);
        let mut capture = Capture::new([hook]);
        model.run(tokens, &mut capture);
        let found = capture.take(hook).unwrap();
        assert_eq!(found.dtype(), DType::F32);
        relative_error(&values(case.at_positions(found)), &case.expected[&hook.to_string()].values)
    };
    for case in Case::all() {
        let [bf16, f16] = [Precision::Bf16, Precision::F16].map(|precision| error(&case, precision));
        assert!((1e-3..0.3).contains(&bf16), "{}: bf16 is off by {bf16:.1e}", case.name);
        assert!((1e-4..0.05).contains(&f16), "{}: f16 is off by {f16:.1e}", case.name);
    }
}
