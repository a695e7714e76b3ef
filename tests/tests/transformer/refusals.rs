//! What is particular to a family: which hooks its blocks may lack, and which configurations of it are refused.

use std::collections::BTreeSet;

use burn::tensor::Device;
use monosema_core::{BlockHook, HookPoint};
use monosema_transformer::{Checkpoint, Family, ModelError, NoTap};
use serde_json::{Value, json};

use crate::{
    damaged::{Copy, Raw, refused},
    fixture::{Case, values},
};

/// `case` with another value at `key`.
fn with(case: &str, key: &str, value: Value) -> Result<(), ModelError> {
    Copy::of(case).config(|config| config[key] = value).open_directory()
}

#[test]
fn families_say_which_hooks_a_block_may_lack() {
    let mut lacked: Vec<BTreeSet<&str>> = vec![BTreeSet::new(); Family::ALL.len()];
    for case in Case::all() {
        let info = case.checkpoint().info().clone();
        let hooks: Vec<HookPoint> = info.hooks().collect();
        let index = Family::ALL.iter().position(|family| *family == info.family).unwrap();
        for layer in 0..info.n_layers {
            let lacks =
                BlockHook::ALL.iter().filter(|site| !hooks.contains(&HookPoint::block(layer, **site)));
            lacked[index].extend(lacks.map(|site| site.name()));
        }
    }
    for (family, lacked) in Family::ALL.iter().zip(lacked) {
        let said: BTreeSet<&str> = family.not_in_every_block().iter().map(|site| site.name()).collect();
        assert_eq!(said, lacked, "{family}");
    }
}

#[test]
fn hooks_that_a_block_lacks_are_refused_with_the_reason() {
    let check = |case: &str, hook: &str| Case::read(case).checkpoint().check_hook(hook.parse().unwrap());
    refused(
        check("pythia", "blocks.1.hook_resid_mid"),
        &["pythia has no blocks.1.hook_resid_mid", "both read"],
    );
    check("gpt_neox_sequential", "blocks.1.hook_resid_mid").unwrap();
    // The first block's MLP is dense.
    check("deepseek_v3", "blocks.0.mlp.hook_pre").unwrap();
    refused(
        check("deepseek_v3", "blocks.1.mlp.hook_post"),
        &["no blocks.1.mlp.hook_post", "mixture of experts"],
    );
    check("deepseek_v3", "blocks.1.hook_mlp_out").unwrap();
}

#[test]
fn numbers_of_blocks_beyond_reason_are_refused() {
    for (case, key) in [
        ("llama_gqa_tied", "num_hidden_layers"),
        ("gpt2", "n_layer"),
        ("gpt_neo", "num_layers"),
        ("pythia", "num_hidden_layers"),
    ] {
        refused(with(case, key, json!(1u64 << 50)), &["config.json", key, "1125899906842624"]);
    }
    let millions = Copy::of("gguf_llama").gguf("llama.block_count", 4, &50_000_000u32.to_le_bytes());
    refused(millions.open_gguf(), &["model.gguf", "block_count", "50000000"]);
}

/// Whatever a damaged configuration says is wide, it is the weights that decide, before anything so wide is made.
#[test]
fn sizes_beyond_reason_are_refused() {
    let sizes = [1u64 << 28, 1 << 31, 1 << 42, (1 << 62) + 8, u64::MAX];
    for (case, keys) in [
        ("llama_gqa_tied", &["head_dim", "hidden_size", "intermediate_size", "vocab_size"][..]),
        ("llama_gqa_tied", &["num_attention_heads", "num_key_value_heads"]),
        ("gpt2", &["n_embd", "n_head", "n_inner", "n_positions"]),
        ("gpt_neo", &["hidden_size", "max_position_embeddings"]),
        ("pythia", &["hidden_size", "num_attention_heads"]),
        ("gemma2", &["head_dim"]),
        (
            "deepseek_v3",
            &["qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "kv_lora_rank", "q_lora_rank"],
        ),
        ("deepseek_v3", &["n_routed_experts", "moe_intermediate_size", "n_shared_experts"]),
    ] {
        for (key, size) in keys.iter().flat_map(|key| sizes.map(|size| (key, size))) {
            assert!(with(case, key, json!(size)).is_err(), "{case}: {key} = {size}");
        }
    }
    refused(with("llama_gqa_tied", "head_dim", json!(1u64 << 42)), &["head_dim", "4398046511104"]);
    refused(
        with("llama_gqa_tied", "head_dim", json!(1 << 28)),
        &["q_proj.weight", "expected shape [1610612736,"],
    );
    // Nothing is as long as the longest sequence but the positions of models that embed them.
    with("llama_gqa_tied", "max_position_embeddings", json!(i32::MAX)).unwrap();
    refused(with("llama_gqa_tied", "max_position_embeddings", json!(1u64 << 42)), &["4398046511104"]);
}

#[test]
fn deepseek_v3() {
    let deepseek = |key: &str, value: Value| with("deepseek_v3", key, value);
    let fp8 = json!({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]});
    refused(deepseek("quantization_config", fp8), &["fp8", "unquantised", "fp8_cast_bf16.py"]);
    refused(deepseek("scoring_func", json!("softmax")), &["scoring_func", "sigmoid"]);
    deepseek("scoring_func", json!("sigmoid")).unwrap();
    refused(deepseek("topk_method", json!("greedy")), &["topk_method", "noaux_tc"]);
    refused(deepseek("moe_layer_freq", json!(2)), &["moe_layer_freq"]);
    refused(deepseek("num_key_value_heads", json!(2)), &["num_key_value_heads"]);
    refused(deepseek("n_group", json!(3)), &["n_group", "groups of equal size"]);
    refused(deepseek("n_group", json!(8)), &["n_group", "two of 8 experts at least"]);
    refused(deepseek("topk_group", json!(5)), &["topk_group", "4 groups at most"]);
    refused(deepseek("num_experts_per_tok", json!(5)), &["num_experts_per_tok", "4 experts of 2 groups"]);
    refused(
        deepseek("n_routed_experts", json!(16)),
        &["model.layers.1.mlp.gate.weight", "[16, 32]", "[8, 32]"],
    );
    refused(deepseek("qk_rope_head_dim", json!(3)), &["head_dim", "even"]);
    refused(deepseek("kv_lora_rank", json!(0)), &["kv_lora_rank"]);
    refused(deepseek("q_lora_rank", Value::Null), &["model.layers.0.self_attn.q_proj.weight", "missing"]);
    // The layer behind the last, which predicts one token more, is no part of the model; one behind that is too many.
    let further = |layer: usize, name: &str| {
        let name = format!("model.layers.{layer}.{name}.weight");
        Copy::of("deepseek_v3")
            .tensors(|tensors| drop(tensors.insert(name, Raw::zeros(&[2]))))
            .open_directory()
    };
    further(3, "eh_proj").unwrap();
    further(3, "mlp.up_proj").unwrap();
    refused(further(4, "mlp.up_proj"), &["no tensor model.layers.4.mlp.up_proj.weight"]);
}

#[test]
fn phi3() {
    let scaling = |rope: Value| with("phi3", "rope_scaling", rope);
    refused(scaling(json!({"type": "yarn", "factor": 2.0})), &["Yarn", "of Phi-3", "longrope"]);
    let four = [1.0; 4];
    scaling(json!({"type": "su", "short_factor": four, "long_factor": four})).unwrap();
    let longrope = json!({"type": "longrope", "short_factor": [1.0, 1.0], "long_factor": four});
    refused(scaling(longrope), &["short_factor", "expected 4 divisors, found 2"]);
    refused(
        scaling(json!({"type": "longrope", "short_factor": four})),
        &["long_factor", "a list of numbers"],
    );
    refused(with("phi3", "sliding_window", json!(0)), &["sliding_window"]);
}

/// What the section says of the original context counts for nothing, even where nothing else says it: transformers takes
/// its own default, 4096.
#[test]
fn phi3_knows_its_original_context_by_its_configuration_alone() {
    let case = Case::read("phi3_longrope_beyond");
    let loaded = |original: Option<u64>| {
        let copy = Copy::of(&case.name).config(|config| {
            let config = config.as_object_mut().unwrap();
            config.remove("original_max_position_embeddings");
            config.extend(original.map(|n| ("original_max_position_embeddings".to_owned(), json!(n))));
            for section in ["rope_scaling", "rope_parameters"] {
                if let Some(section) = config.get_mut(section).and_then(Value::as_object_mut) {
                    section.insert("original_max_position_embeddings".into(), json!(8));
                    section.remove("attention_factor");
                }
            }
        });
        let model = Checkpoint::open(copy.0.path()).unwrap().load(&Device::flex()).unwrap();
        values(model.forward(case.tokens(&Device::flex()), &mut NoTap))
    };
    assert_eq!(loaded(None), loaded(Some(4096)));
    assert_ne!(loaded(None), loaded(Some(8)));
}

#[test]
fn gpt_neo() {
    refused(with("gpt_neo", "attention_types", json!([[["global"], 3]])), &["attention_layers", "global"]);
    refused(with("gpt_neo", "num_layers", json!(4)), &["attention_types", "each of the 4 blocks, found 3"]);
    refused(with("gpt_neo", "num_heads", json!(5)), &["num_heads"]);
    let bias = Copy::of("gpt_neo").tensors(|tensors| {
        tensors.insert("transformer.h.0.attn.attention.q_proj.bias".into(), Raw::zeros(&[32]));
    });
    refused(bias.open_directory(), &["no tensor transformer.h.0.attn.attention.q_proj.bias"]);
    let masks = Copy::of("gpt_neo").tensors(|tensors| {
        tensors.insert("transformer.h.0.attn.attention.bias".into(), Raw::zeros(&[1, 1, 24, 24]));
        tensors.insert("transformer.h.0.attn.attention.masked_bias".into(), Raw::zeros(&[1]));
    });
    masks.open_directory().unwrap();
}

#[test]
fn olmo2() {
    // Norms of queries and keys are of all heads as one.
    let per_head = Copy::of("olmo2").tensors(|tensors| {
        let norm = tensors.get_mut("model.layers.0.self_attn.q_norm.weight").unwrap();
        (norm.shape, norm.bytes) = (vec![8], norm.bytes[..32].to_vec());
    });
    refused(per_head.open_directory(), &["q_norm.weight", "expected shape [32], found [8]"]);
    refused(with("olmo2", "attention_bias", json!(true)), &["self_attn.q_proj.bias", "missing"]);
    // OLMo 3 is written as OLMo 2 with further keys.
    let further = Copy::of("gguf_olmo2").gguf("olmo2.rope.freq_", 0, b"more");
    refused(further.open_gguf(), &["model.gguf", "olmo2.rope.freq_more = ", "not supported"]);
}
