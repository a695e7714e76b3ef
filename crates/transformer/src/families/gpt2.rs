//! GPT-2 (Radford et al., 2019, "Language Models are Unsupervised Multitask Learners").
//!
//! LayerNorm, learned positions, full attention, an MLP of two maps, the output tied to the embedding.
//! Reference: `modeling_gpt2.py` of transformers.

use std::borrow::Cow;

use serde_json::json;

use super::{
    Description, GgufDescription, as_is,
    config_json::{self, d_head_of},
    gguf,
};
use crate::{
    Activation, ModelError,
    blocks::{AttentionShape, BlockShape, MlpShape, Names, NormKind, Norms, Shape},
    formats::{Settings, TensorSource},
    weights::Stored,
};

pub(crate) const FAMILY: Description = Description {
    model_types: &["gpt2"],
    architectures: &["GPT2LMHeadModel"],
    names: Names {
        whole: &[
            ("token_embd", "transformer.wte"),
            ("position_embd", "transformer.wpe"),
            ("output_norm", "transformer.ln_f"),
            ("output", "lm_head"),
        ],
        blocks: "transformer.h.",
        parts: &[&[
            ("attn_norm", "ln_1"),
            ("attn_qkv", "attn.c_attn"),
            ("attn_output", "attn.c_proj"),
            ("ffn_norm", "ln_2"),
            ("ffn_up", "mlp.c_fc"),
            ("ffn_down", "mlp.c_proj"),
        ]],
    },
    canonical,
    ignored: |_, name| name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"),
    not_in_every_block: &[],
    from_config_json,
    stored,
    // Its conversion turns Conv1D weights into Linear ones.
    gguf: Some(GgufDescription { architecture: "gpt2", read: from_gguf, stored: as_is }),
};

/// The original checkpoint lacks the prefix that saving with the output's class adds.
fn canonical(name: &str) -> Cow<'_, str> {
    if name.starts_with("transformer.") || name == "lm_head.weight" {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(format!("transformer.{name}"))
    }
}

/// Conv1D has its weight as `[d_in, d_out]`.
fn stored(_: &Shape, own: &str) -> Stored {
    let conv1d = ["attn_qkv.weight", "attn_output.weight", "ffn_up.weight", "ffn_down.weight"];
    if conv1d.iter().any(|name| own.ends_with(name)) { Stored::Transposed } else { Stored::AsIs }
}

fn from_config_json(settings: &Settings) -> Result<Shape, ModelError> {
    let (d_model, n_heads) = (settings.count("n_embd")?, settings.count("n_head")?);
    let mut shape = Shape {
        d_vocab: settings.count("vocab_size")?,
        d_model,
        max_context: settings.count("n_positions")?,
        norm_epsilon: settings.positive_if_any("layer_norm_epsilon")?.unwrap_or(1e-5),
        blocks: vec![
            block(
                d_head_of(settings, "n_head", d_model, n_heads)?,
                n_heads,
                settings.count_if_any("n_inner")?.unwrap_or(4 * d_model),
                config_json::activation(settings, "activation_function", "gelu_new")?,
            );
            settings.layers("n_layer")?
        ],
        tied: settings.flag("tie_word_embeddings", true)?,
        ..SHAPE
    };
    let scaled = settings.flag("scale_attn_weights", true)?;
    let scaled_by_layer = settings.flag("scale_attn_by_inverse_layer_idx", false)?;
    for (layer, block) in shape.blocks.iter_mut().enumerate() {
        let scale = if scaled { block.attention.scale } else { 1.0 };
        block.attention.scale = if scaled_by_layer { scale / (layer as f64 + 1.0) } else { scale };
    }
    settings.refuse("add_cross_attention", &[], "there is nothing to attend to")?;
    Ok(shape)
}

fn from_gguf(settings: &Settings, tensors: &dyn TensorSource) -> Result<Shape, ModelError> {
    let (d_model, n_heads) = (settings.count("embedding_length")?, settings.count("attention.head_count")?);
    settings.refuse("attention.head_count_kv", &[json!(n_heads)], "GPT-2 has as many key as query heads")?;
    let d_head = d_head_of(settings, "attention.head_count", d_model, n_heads)?;
    let block = block(d_head, n_heads, settings.count("feed_forward_length")?, Activation::GeluTanh);
    Ok(Shape {
        d_vocab: gguf::d_vocab(settings, tensors)?,
        d_model,
        max_context: settings.count("context_length")?,
        norm_epsilon: settings.positive("attention.layer_norm_epsilon")?,
        blocks: vec![block; settings.layers("block_count")?],
        tied: !gguf::has(tensors, "output.weight"),
        ..SHAPE
    })
}

/// What holds of every GPT-2; the rest is to be read.
const SHAPE: Shape = Shape {
    d_vocab: 0,
    d_model: 0,
    max_context: 0,
    embedding_scale: None,
    embedded_positions: true,
    norm: NormKind::Layer,
    norm_epsilon: 0.0,
    blocks: Vec::new(),
    tied: true,
    logit_soft_cap: None,
};

fn block(d_head: usize, n_heads: usize, d_mlp: usize, activation: Activation) -> BlockShape {
    BlockShape {
        norms: Norms::Before,
        parallel: false,
        attention: AttentionShape {
            n_heads,
            n_kv_heads: n_heads,
            d_head,
            qkv_bias: true,
            output_bias: true,
            qk_norm: None,
            scale: 1.0 / (d_head as f64).sqrt(),
            soft_cap: None,
            rope: None,
            window: None,
            latent: None,
        },
        mlp: MlpShape { d_mlp, gated: false, bias: true, activation },
        experts: None,
    }
}
