//! Checkpoints that cannot be used are refused, and the message names what is wrong.

use std::fs;

use monosema_transformer::{Checkpoint, ModelError};
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::{
    damaged::{Copy, Raw, open, refused},
    fixture::{Case, directory},
};

const Q: &str = "model.layers.1.self_attn.q_proj.weight";

#[test]
fn a_missing_extra_or_misshapen_tensor_is_named() {
    let tied = || Copy::of("llama_gqa_tied");
    let missing = tied().tensors(|t| drop(t.remove(Q)));
    refused(missing.open_directory(), &[Q, "[36, 36]", "missing"]);
    let extra =
        tied().tensors(|t| drop(t.insert("model.layers.3.mlp.up_proj.weight".into(), Raw::zeros(&[2]))));
    refused(extra.open_directory(), &["no tensor model.layers.3.mlp.up_proj.weight"]);
    // A bias that the configuration does not switch on.
    let bias =
        tied().tensors(|t| drop(t.insert("model.layers.0.self_attn.q_proj.bias".into(), Raw::zeros(&[36]))));
    refused(bias.open_directory(), &["model.layers.0.self_attn.q_proj.bias"]);
    let misshapen = tied().tensors(|t| t.get_mut(Q).unwrap().shape = vec![18, 72]);
    refused(misshapen.open_directory(), &[Q, "expected shape [36, 36], found [18, 72]", "model.safetensors"]);
    let integers = tied().tensors(|t| t.get_mut(Q).unwrap().dtype = Dtype::I32);
    refused(integers.open_directory(), &[Q, "found I32"]);
    // The same weight with and without the prefix that saving with the output's class adds.
    let twice = Copy::of("gpt2").tensors(|t| drop(t.insert("wpe.weight".into(), Raw::zeros(&[32, 36]))));
    refused(twice.open_directory(), &["tensor wpe.weight", "same weight", "transformer.wpe.weight"]);
}

#[test]
fn buffers_and_a_tied_copy_are_accepted() {
    let buffers = Copy::of("llama_gqa_tied").tensors(|t| {
        t.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), Raw::zeros(&[3]));
        let embedding = &t["model.embed_tokens.weight"];
        let copy = Raw { dtype: Dtype::F32, shape: embedding.shape.clone(), bytes: embedding.bytes.clone() };
        t.insert("lm_head.weight".into(), copy);
    });
    buffers.open_directory().unwrap();
    let info = Checkpoint::open(buffers.0.path()).unwrap().info().clone();
    assert_eq!(info.n_parameters, Case::read("llama_gqa_tied").checkpoint().info().n_parameters);

    let differs = buffers.tensors(|t| t.get_mut("lm_head.weight").unwrap().bytes[0] ^= 1);
    refused(differs.open_directory(), &["lm_head.weight", "tied"]);

    // The original GPT-2 files: no prefix, and the causal masks.
    let original = Copy::of("gpt2").tensors(|t| {
        *t = std::mem::take(t)
            .into_iter()
            .map(|(name, raw)| (name.replacen("transformer.", "", 1), raw))
            .collect();
        t.insert("h.0.attn.bias".into(), Raw::zeros(&[1, 1, 32, 32]));
        t.insert("h.0.attn.masked_bias".into(), Raw::zeros(&[1]));
    });
    original.open_directory().unwrap();
}

#[test]
fn values_that_are_no_numbers_are_named() {
    for value in [f32::NAN, f32::INFINITY] {
        let damaged = Copy::of("llama_gqa_tied").tensors(|t| {
            t.get_mut(Q).unwrap().bytes[8..12].copy_from_slice(&value.to_le_bytes());
        });
        refused(damaged.open_directory(), &[Q, "value 2 is"]);
    }
}

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    let whole = fs::metadata(directory().join("llama_gqa_tied/model.safetensors")).unwrap().len() as usize;
    for n in [0, 4, 100, whole / 2, whole - 1] {
        let cut = Copy::of("llama_gqa_tied").bytes("model.safetensors", |bytes| bytes.truncate(n));
        refused(cut.open_directory(), &["model.safetensors", &format!("{n}")]);
    }
    let whole = fs::metadata(directory().join("gguf_llama/model.gguf")).unwrap().len() as usize;
    for n in [0, 3, 20, 300, 2000, whole / 2, whole - 1] {
        let cut = Copy::of("gguf_llama").bytes("model.gguf", |bytes| bytes.truncate(n));
        refused(cut.open_gguf(), &["model.gguf", "cut short"]);
    }
}

#[test]
fn shards_must_be_what_the_index_says() {
    let sharded = || Copy::of("llama_sharded_linear_rope");
    let gone = sharded();
    fs::remove_file(gone.path("model-00002-of-00004.safetensors")).unwrap();
    refused(gone.open_directory(), &["model-00002-of-00004.safetensors", "cannot be read"]);
    let index = |change: fn(&mut Value)| {
        let copy = sharded();
        copy.bytes("model.safetensors.index.json", |bytes| {
            let mut index = serde_json::from_slice(bytes).unwrap();
            change(&mut index);
            *bytes = index.to_string().into_bytes();
        })
    };
    let moved = index(|i| i["weight_map"]["model.norm.weight"] = json!("model-00001-of-00004.safetensors"));
    refused(moved.open_directory(), &["model.norm.weight", "model-00001-of-00004.safetensors"]);
    let outside = index(|i| i["weight_map"]["model.norm.weight"] = json!("../model.safetensors"));
    refused(outside.open_directory(), &["expected file names"]);
    let empty = index(|i| *i = json!({}));
    refused(empty.open_directory(), &["weight_map"]);
}

#[test]
fn configurations_that_are_not_implemented_are_refused() {
    let with =
        |key: &str, value: Value| Copy::of("llama_gqa_tied").config(|c| c[key] = value).open_directory();
    refused(with("model_type", json!("mamba")), &["config.json", "mamba", "llama, mistral, gpt2"]);
    refused(
        with("architectures", json!(["LlamaForSequenceClassification"])),
        &["LlamaForSequenceClassification"],
    );
    refused(with("hidden_act", json!("xielu")), &["hidden_act \"xielu\""]);
    refused(with("quantization_config", json!({"bits": 4})), &["quantization_config", "unquantised"]);
    refused(with("rope_parameters", json!({"rope_type": "ntk", "factor": 4.0})), &["rope scaling \"ntk\""]);
    refused(with("rope_parameters", json!({"rope_type": "linear"})), &["rope_parameters.factor"]);
    refused(with("rope_interleaved", json!(true)), &["rope_interleaved"]);
    refused(with("hidden_size", json!("36")), &["hidden_size", "expected a whole number"]);
    refused(with("num_key_value_heads", json!(4)), &["num_key_value_heads", "found 4"]);
    refused(with("head_dim", json!(5)), &["head_dim", "even"]);
    refused(with("vocab_size", json!(54)), &["model.embed_tokens.weight", "[54, 36]"]);
    // Written before transformers 5; it changes nothing within the context that the model was made for.
    let older = Copy::of("llama_gqa_tied").config(|c| {
        c.as_object_mut().unwrap().remove("rope_parameters");
        c["rope_theta"] = json!(10000.0);
        c["rope_scaling"] = json!({"type": "dynamic", "factor": 2.0});
    });
    older.open_directory().unwrap();
    for epsilon in [json!(0.0), json!(-1e-5), json!("1e-5")] {
        refused(with("rms_norm_eps", epsilon), &["rms_norm_eps", "expected a number above 0"]);
    }
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    });
    refused(with("rope_parameters", llama3), &["high_freq_factor", "more than low_freq_factor, 4"]);
    let gpt2 = |key: &str| Copy::of("gpt2").config(|c| c[key] = json!(true)).open_directory();
    refused(gpt2("add_cross_attention"), &["add_cross_attention"]);
}

/// `layer_types` may say what holds anyway.
#[test]
fn blocks_that_attend_alike_are_accepted() {
    let with =
        |case, kinds: [&str; 2]| Copy::of(case).config(|c| c["layer_types"] = json!(kinds)).open_directory();
    let (full, sliding) = ("full_attention", "sliding_attention");
    let (llama, mistral) = ("llama_untied_bias", "mistral_head_dim_sliding_window");
    with(llama, [full, full]).unwrap();
    with(mistral, [sliding, sliding]).unwrap();
    refused(with(llama, [full, sliding]), &["layer_types", "sliding_attention"]);
    refused(with(mistral, [full, full]), &["layer_types", "full_attention"]);
}

#[test]
fn gguf_files_of_unknown_types_or_architectures_are_refused() {
    let with_type = |number: u32| {
        Copy::of("gguf_llama").bytes("model.gguf", |bytes| {
            // After a tensor's name: the number of dimensions, the dimensions, the type.
            let name = b"blk.0.attn_q.weight";
            let at = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len();
            bytes[at + 4 + 16..][..4].copy_from_slice(&number.to_le_bytes());
        })
    };
    refused(with_type(16).open_gguf(), &["blk.0.attn_q.weight", "IQ2_XXS (number 16)", "Q4_K"]);
    refused(with_type(999).open_gguf(), &["blk.0.attn_q.weight", "unknown type (number 999)"]);
    let replaced = |from: &'static [u8], to: &'static [u8]| {
        Copy::of("gguf_llama").bytes("model.gguf", |bytes| {
            let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
            bytes[at..at + to.len()].copy_from_slice(to);
        })
    };
    refused(replaced(b"llama", b"mamba").open_gguf(), &["general.architecture \"mamba\"", "llama, gpt2"]);
    refused(replaced(b"GGUF", b"GGML").open_gguf(), &["expected a GGUF file"]);
    refused(
        replaced(b"blk.0.attn_q.weight", b"blk.0.attn_z.weight").open_gguf(),
        &["tensor blk.0.attn_q.weight [64, 64] is missing", "fetch both again"],
    );
    refused(
        replaced(b"output_norm.weight", b"output_nerm.weight").open_gguf(),
        &["tensor output_norm.weight"],
    );
    refused(
        replaced(b"blk.0.attn_q.weight", b"blk.0.attn_k.weight").open_gguf(),
        &["blk.0.attn_k.weight", "twice"],
    );
    for epsilon in [0.0, -1e-5, f32::NAN, f32::INFINITY] {
        // After the key: the value's type.
        let key = "attention.layer_norm_rms_epsilon";
        let damaged = Copy::of("gguf_llama").gguf(key, 4, &epsilon.to_le_bytes());
        refused(damaged.open_gguf(), &[key, "expected a number above 0, found"]);
    }
}

/// What a file is called does not matter to what it is, but says what it was thought to be.
#[test]
fn a_gguf_file_is_known_by_its_first_bytes() {
    let copy = Copy::of("gguf_llama");
    let renamed = copy.path("weights.bin");
    fs::rename(copy.path("model.gguf"), &renamed).unwrap();
    open(&renamed).unwrap();
    let pointer = copy.path("model.gguf");
    fs::write(&pointer, "version https://git-lfs.github.com/spec/v1").unwrap();
    refused(open(&pointer), &["model.gguf", "expected a GGUF file", "\"vers\""]);
}

#[test]
fn files_are_to_be_fetched_again_only_where_that_helps() {
    let says = |result: Result<(), _>| {
        result.map_err(|e: ModelError| e.to_string()).unwrap_err().contains("fetch the file again")
    };
    assert!(says(Copy::of("gguf_llama").bytes("model.gguf", |bytes| bytes.truncate(2000)).open_gguf()));
    let cut = Copy::of("gpt2").bytes("model.safetensors", |bytes| bytes.truncate(2000));
    assert!(says(cut.open_directory()));
    assert!(!says(Copy::of("gpt2").bytes("config.json", |bytes| bytes.truncate(20)).open_directory()));
    assert!(!says(Copy::of("gguf_llama").bytes("model.gguf", |bytes| bytes[4] = 1).open_gguf()));
}

#[test]
fn what_is_no_model_is_said_to_be_none() {
    let empty = tempfile::tempdir().unwrap();
    refused(open(empty.path()), &["no config.json", "Hugging Face directory"]);
    refused(open(&empty.path().join("nothing")), &["no such file"]);
    let text = empty.path().join("model.txt");
    fs::write(&text, "text").unwrap();
    refused(open(&text), &["another kind", ".gguf"]);
    let no_weights = Copy::of("llama_gqa_tied");
    fs::remove_file(no_weights.path("model.safetensors")).unwrap();
    refused(no_weights.open_directory(), &["neither model.safetensors nor pytorch_model.bin"]);
}

#[test]
fn a_hook_beyond_the_last_block_is_refused() {
    let checkpoint = Case::read("gpt2").checkpoint();
    checkpoint.check_hook("blocks.1.hook_resid_post".parse().unwrap()).unwrap();
    checkpoint.check_hook("ln_final.hook_normalized".parse().unwrap()).unwrap();
    let refusal = checkpoint.check_hook("blocks.2.hook_resid_pre".parse().unwrap());
    refused(refusal, &["gpt2 has no blocks.2.hook_resid_pre", "blocks.0 to blocks.1"]);
    let parallel = Case::read("pythia").checkpoint();
    let refusal = parallel.check_hook("blocks.1.hook_resid_mid".parse().unwrap());
    refused(refusal, &["has no blocks.1.hook_resid_mid", "hook_resid_pre"]);
}
