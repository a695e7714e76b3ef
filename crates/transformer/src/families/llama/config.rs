//! How checkpoints write a Llama.

use serde_json::json;

use crate::{
    ModelError,
    blocks::{Names, Shape},
    families::{
        Description, GgufDescription, LLAMA_NORMS, LLAMA_PARTS, LLAMA_WHOLE, as_is, as_written,
        config_json::{self, Defaults, FULL, SLIDING},
        gguf, rotary_buffers,
    },
    formats::{Settings, TensorSource},
    weights::Stored,
};

pub(crate) const FAMILY: Description = Description {
    model_types: &["llama", "mistral"],
    architectures: &["LlamaForCausalLM", "MistralForCausalLM"],
    names: NAMES,
    canonical: as_written,
    ignored: rotary_buffers,
    not_in_every_block: &[],
    from_config_json,
    stored: as_is,
    gguf: Some(GgufDescription { architecture: "llama", read: from_gguf, stored: gguf_stored }),
};

pub(super) const NAMES: Names =
    Names { whole: LLAMA_WHOLE, blocks: "model.layers.", parts: &[LLAMA_PARTS, LLAMA_NORMS] };

fn from_config_json(settings: &Settings) -> Result<Shape, ModelError> {
    let mistral = settings.text("model_type")? == Some("mistral");
    let n_kv_heads = mistral.then_some(8);
    let mut shape = config_json::llama_like(settings, &Defaults { n_kv_heads, ..Defaults::LLAMA })?;
    // transformers' Mistral has no biases, whatever its configuration says.
    let attention_bias = !mistral && settings.flag("attention_bias", false)?;
    let mlp_bias = !mistral && settings.flag("mlp_bias", false)?;
    let window = sliding_window(settings, mistral)?;
    for block in &mut shape.blocks {
        (block.attention.qkv_bias, block.attention.output_bias) = (attention_bias, attention_bias);
        block.mlp.bias = mlp_bias;
        block.attention.window = window;
    }
    settings.refuse("rope_interleaved", &[], "the halves of a head are rotated, not neighbours")?;
    check_layer_types(settings, window)?;
    Ok(shape)
}

fn from_gguf(settings: &Settings, tensors: &dyn TensorSource) -> Result<Shape, ModelError> {
    let mut shape = gguf::llama_like(settings, tensors)?;
    let window = settings.count_if_any("attention.sliding_window")?;
    let attention_bias = gguf::has(tensors, "blk.0.attn_q.bias");
    for block in &mut shape.blocks {
        (block.attention.qkv_bias, block.attention.output_bias) = (attention_bias, attention_bias);
        block.mlp.bias = gguf::has(tensors, "blk.0.ffn_gate.bias");
        block.attention.window = window;
    }
    let d_head = shape.blocks[0].attention.d_head;
    settings.refuse(
        "rope.dimension_count",
        &[json!(d_head)],
        &format!("expected the head's width, {d_head}"),
    )?;
    Ok(shape)
}

/// llama.cpp rotates neighbours, not halves.
fn gguf_stored(shape: &Shape, own: &str) -> Stored {
    let attention = &shape.blocks[0].attention;
    if own.contains(".attn_q.") {
        Stored::Interleaved { heads: attention.n_heads }
    } else if own.contains(".attn_k.") {
        Stored::Interleaved { heads: attention.n_kv_heads }
    } else {
        Stored::AsIs
    }
}

fn sliding_window(settings: &Settings, mistral: bool) -> Result<Option<usize>, ModelError> {
    // Only Mistral's code looks at it; where its configuration does not, the window is 4096.
    match settings.count_if_any("sliding_window")? {
        _ if !mistral => Ok(None),
        None if !settings.has("sliding_window") => Ok(Some(4096)),
        window => Ok(window),
    }
}

/// Accepts `layer_types` that say of every block what holds of every block anyway.
fn check_layer_types(settings: &Settings, window: Option<usize>) -> Result<(), ModelError> {
    let expected = if window.is_some() { SLIDING } else { FULL };
    match settings.texts("layer_types")?.iter().find(|kind| **kind != expected) {
        Some(other) => Err(settings.unsupported(
            format!("layer_types with {other:?}"),
            format!("all blocks attend alike, which is {expected:?} by the rest of this configuration"),
        )),
        None => Ok(()),
    }
}
