//! Qwen 2 and 2.5 (Yang et al., 2024, arXiv:2407.10671, arXiv:2412.15115).
//!
//! As Llama, with biases of queries, keys and values; upper blocks may attend within a window. Reference:
//! `modeling_qwen2.py` of transformers.

use super::{
    Description, GgufDescription, LLAMA_NORMS, LLAMA_PARTS, LLAMA_WHOLE, as_is, as_written,
    config_json::{self, Defaults, set_windows},
    gguf, rotary_buffers,
};
use crate::{
    ModelError,
    blocks::{Names, Shape},
    formats::{Settings, TensorSource},
};

pub(crate) const FAMILY: Description = Description {
    model_types: &["qwen2"],
    architectures: &["Qwen2ForCausalLM"],
    names: Names { whole: LLAMA_WHOLE, blocks: "model.layers.", parts: &[LLAMA_PARTS, LLAMA_NORMS] },
    canonical: as_written,
    ignored: rotary_buffers,
    not_in_every_block: &[],
    from_config_json,
    stored: as_is,
    gguf: Some(GgufDescription { architecture: "qwen2", read: from_gguf, stored: as_is }),
};

fn from_config_json(settings: &Settings) -> Result<Shape, ModelError> {
    let mut shape = config_json::llama_like(settings, &Defaults { n_kv_heads: Some(32), ..Defaults::LLAMA })?;
    shape.blocks.iter_mut().for_each(|block| block.attention.qkv_bias = true);
    upper_windows(settings, &mut shape)?;
    Ok(shape)
}

fn from_gguf(settings: &Settings, tensors: &dyn TensorSource) -> Result<Shape, ModelError> {
    let mut shape = gguf::llama_like(settings, tensors)?;
    shape.blocks.iter_mut().for_each(|block| block.attention.qkv_bias = true);
    Ok(shape)
}

/// The windows of Qwen's upper blocks, which are switched off as a rule.
pub(super) fn upper_windows(settings: &Settings, shape: &mut Shape) -> Result<(), ModelError> {
    let window = settings.count_if_any("sliding_window")?;
    let window = match window {
        _ if !settings.flag("use_sliding_window", false)? => None,
        None if !settings.has("sliding_window") => Some(4096),
        window => window,
    };
    // Zero is what it says where all blocks have a window.
    let full = settings.number_if_any("max_window_layers")?.unwrap_or(28.0);
    set_windows(settings, shape, window, |layer| layer as f64 >= full)
}
