//! Qwen 3, without mixtures of experts (Yang et al., 2025, arXiv:2505.09388).
//!
//! As Qwen 2, with norms of every head's queries and keys in place of biases. Reference: `modeling_qwen3.py` of
//! transformers.

use super::{
    Description, GgufDescription, LLAMA_NORMS, LLAMA_PARTS, LLAMA_WHOLE, QK_NORMS, as_is, as_written,
    config_json::{self, Defaults},
    gguf, qwen2, rotary_buffers,
};
use crate::{
    ModelError,
    blocks::{Names, QkNormKind, Shape},
    formats::{Settings, TensorSource},
};

pub(crate) const FAMILY: Description = Description {
    model_types: &["qwen3"],
    architectures: &["Qwen3ForCausalLM"],
    names: Names {
        whole: LLAMA_WHOLE,
        blocks: "model.layers.",
        parts: &[LLAMA_PARTS, LLAMA_NORMS, QK_NORMS],
    },
    canonical: as_written,
    ignored: rotary_buffers,
    not_in_every_block: &[],
    from_config_json,
    stored: as_is,
    gguf: Some(GgufDescription { architecture: "qwen3", read: from_gguf, stored: as_is }),
};

fn from_config_json(settings: &Settings) -> Result<Shape, ModelError> {
    let defaults = Defaults { n_kv_heads: Some(32), d_head: Some(128), ..Defaults::LLAMA };
    let mut shape = config_json::llama_like(settings, &defaults)?;
    let bias = settings.flag("attention_bias", false)?;
    for block in &mut shape.blocks {
        (block.attention.qkv_bias, block.attention.output_bias) = (bias, bias);
        block.attention.qk_norm = Some(QkNormKind::Head);
    }
    qwen2::upper_windows(settings, &mut shape)?;
    Ok(shape)
}

fn from_gguf(settings: &Settings, tensors: &dyn TensorSource) -> Result<Shape, ModelError> {
    let mut shape = gguf::llama_like(settings, tensors)?;
    for block in &mut shape.blocks {
        block.attention.qk_norm = Some(QkNormKind::Head);
    }
    Ok(shape)
}
