//! GPT-NeoX (Black et al., 2022, arXiv:2204.06745) and Pythia (Biderman et al., 2023, arXiv:2304.01373).
//!
//! LayerNorm, rotary positions on a part of each head, an MLP of two maps, which as a rule reads what attention reads.
//! Reference: `modeling_gpt_neox.py` of transformers.

use std::borrow::Cow;

use monosema_core::BlockHook;
use serde_json::json;

use super::{
    Description, GgufDescription, as_is,
    config_json::{self, Defaults, d_head_of},
    gguf, rotary_buffers,
};
use crate::{
    Activation, ModelError,
    blocks::{AttentionShape, BlockShape, MlpShape, Names, NormKind, Norms, Rope, Shape},
    formats::{Settings, TensorSource},
    weights::Stored,
};

pub(crate) const FAMILY: Description = Description {
    model_types: &["gpt_neox"],
    architectures: &["GPTNeoXForCausalLM"],
    names: Names {
        whole: &[
            ("token_embd", "gpt_neox.embed_in"),
            ("output_norm", "gpt_neox.final_layer_norm"),
            ("output", "embed_out"),
        ],
        blocks: "gpt_neox.layers.",
        parts: &[&[
            ("attn_norm", "input_layernorm"),
            ("attn_qkv", "attention.query_key_value"),
            ("attn_output", "attention.dense"),
            ("ffn_norm", "post_attention_layernorm"),
            ("ffn_up", "mlp.dense_h_to_4h"),
            ("ffn_down", "mlp.dense_4h_to_h"),
        ]],
    },
    canonical,
    ignored: |shape, name| {
        name.ends_with(".attention.bias")
            || name.ends_with(".attention.masked_bias")
            || rotary_buffers(shape, name)
    },
    not_in_every_block: &[BlockHook::ResidMid],
    from_config_json,
    stored,
    // Its conversion puts queries, keys and values of all heads together.
    gguf: Some(GgufDescription { architecture: "gptneox", read: from_gguf, stored: as_is }),
};

/// transformers 5 writes the output under the name that it has everywhere else.
fn canonical(name: &str) -> Cow<'_, str> {
    Cow::Borrowed(if name == "lm_head.weight" { "embed_out.weight" } else { name })
}

fn stored(shape: &Shape, own: &str) -> Stored {
    if own.contains(".attn_qkv.") {
        Stored::HeadByHead { heads: shape.blocks[0].attention.n_heads }
    } else {
        Stored::AsIs
    }
}

fn from_config_json(settings: &Settings) -> Result<Shape, ModelError> {
    let (d_model, n_heads) = (settings.count("hidden_size")?, settings.count("num_attention_heads")?);
    let d_head = d_head_of(settings, "num_attention_heads", d_model, n_heads)?;
    let theta = settings.positive_if_any("rotary_emb_base")?.unwrap_or(10_000.0);
    let rotated = settings.positive_if_any("rotary_pct")?.unwrap_or(0.25);
    let defaults = Defaults { rope_theta: theta, ..Defaults::LLAMA };
    let rope = config_json::rope(settings, d_head, &defaults, rotated)?;
    let attention_bias = settings.flag("attention_bias", true)?;
    let block = block(
        d_head,
        n_heads,
        rope,
        settings.flag("use_parallel_residual", true)?,
        MlpShape {
            d_mlp: settings.count("intermediate_size")?,
            gated: false,
            bias: true,
            activation: config_json::activation(settings, "hidden_act", "gelu")?,
        },
    );
    let mut shape = Shape {
        d_vocab: settings.count("vocab_size")?,
        d_model,
        max_context: settings.count("max_position_embeddings")?,
        norm_epsilon: settings.positive_if_any("layer_norm_eps")?.unwrap_or(1e-5),
        blocks: vec![block; settings.layers("num_hidden_layers")?],
        tied: settings.flag("tie_word_embeddings", false)?,
        ..SHAPE
    };
    for block in &mut shape.blocks {
        (block.attention.qkv_bias, block.attention.output_bias) = (attention_bias, attention_bias);
    }
    Ok(shape)
}

fn from_gguf(settings: &Settings, tensors: &dyn TensorSource) -> Result<Shape, ModelError> {
    let (d_model, n_heads) = (settings.count("embedding_length")?, settings.count("attention.head_count")?);
    settings.refuse(
        "attention.head_count_kv",
        &[json!(n_heads)],
        "GPT-NeoX has as many key as query heads",
    )?;
    let d_head = d_head_of(settings, "attention.head_count", d_model, n_heads)?;
    let d_mlp = settings.count("feed_forward_length")?;
    let block = block(
        d_head,
        n_heads,
        gguf::rope(settings, tensors, d_head)?,
        settings.flag("use_parallel_residual", true)?,
        MlpShape { d_mlp, gated: false, bias: true, activation: Activation::Gelu },
    );
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

/// What holds of every GPT-NeoX; the rest is to be read.
const SHAPE: Shape = Shape {
    d_vocab: 0,
    d_model: 0,
    max_context: 0,
    embedding_scale: None,
    embedded_positions: false,
    norm: NormKind::Layer,
    norm_epsilon: 0.0,
    blocks: Vec::new(),
    tied: false,
    logit_soft_cap: None,
};

fn block(d_head: usize, n_heads: usize, rope: Rope, parallel: bool, mlp: MlpShape) -> BlockShape {
    BlockShape {
        norms: Norms::Before,
        parallel,
        attention: AttentionShape {
            n_heads,
            n_kv_heads: n_heads,
            d_head,
            qkv_bias: true,
            output_bias: true,
            qk_norm: None,
            scale: 1.0 / (d_head as f64).sqrt(),
            soft_cap: None,
            rope: Some(rope),
            window: None,
            latent: None,
        },
        mlp,
        experts: None,
    }
}
