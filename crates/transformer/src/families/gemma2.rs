//! Gemma 2 (Gemma Team, 2024, arXiv:2408.00118).
//!
//! As Gemma, with norms after attention and MLP too, soft caps on scores and logits, and a window in every other block.
//! Reference: `modeling_gemma2.py` of transformers.

use super::{
    Description, GgufDescription, LLAMA_PARTS, LLAMA_WHOLE, as_is, as_written,
    config_json::{Defaults, set_windows},
    gemma, rotary_buffers,
};
use crate::{
    ModelError,
    blocks::{Names, Norms, Shape},
    formats::{Settings, TensorSource},
};

pub(crate) const FAMILY: Description = Description {
    model_types: &["gemma2"],
    architectures: &["Gemma2ForCausalLM"],
    names: Names { whole: LLAMA_WHOLE, blocks: "model.layers.", parts: &[LLAMA_PARTS, FOUR_NORMS] },
    canonical: as_written,
    ignored: rotary_buffers,
    not_in_every_block: &[],
    from_config_json,
    stored: gemma::stored,
    gguf: Some(GgufDescription { architecture: "gemma2", read: from_gguf, stored: as_is }),
};

/// The norms around attention and MLP.
pub(super) const FOUR_NORMS: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

/// Of how many blocks one sees all of its past.
const PERIOD: usize = 2;

fn from_config_json(settings: &Settings) -> Result<Shape, ModelError> {
    let defaults = Defaults { n_kv_heads: Some(4), activation_key: "hidden_activation", ..gemma::DEFAULTS };
    let mut shape = gemma::llama_like(settings, &defaults)?;
    shape.logit_soft_cap = or_default(settings, "final_logit_softcapping", 30.0)?;
    let soft_cap = or_default(settings, "attn_logit_softcapping", 50.0)?;
    let scalar = settings.positive_if_any("query_pre_attn_scalar")?.unwrap_or(256.0);
    for block in &mut shape.blocks {
        block.norms = Norms::Both;
        block.attention.soft_cap = soft_cap;
        block.attention.scale = 1.0 / scalar.sqrt();
    }
    let window = window(settings, "sliding_window")?;
    // The same once more, which transformers does not look at either.
    settings.without_effect(&["sliding_window_size"]);
    set_windows(settings, &mut shape, Some(window), |layer| slides(layer, PERIOD))?;
    Ok(shape)
}

fn from_gguf(settings: &Settings, tensors: &dyn TensorSource) -> Result<Shape, ModelError> {
    let mut shape = gemma::from_gguf(settings, tensors)?;
    shape.logit_soft_cap = or_default(settings, "final_logit_softcapping", 30.0)?;
    let soft_cap = or_default(settings, "attn_logit_softcapping", 50.0)?;
    let window = window(settings, "attention.sliding_window")?;
    let period = settings.count_if_any("attention.sliding_window_pattern")?.unwrap_or(PERIOD);
    let scale = gguf_scale(&shape, 46);
    for (layer, block) in shape.blocks.iter_mut().enumerate() {
        block.norms = Norms::Both;
        block.attention.soft_cap = soft_cap;
        block.attention.window = slides(layer, period).then_some(window);
        block.attention.scale = scale.unwrap_or(block.attention.scale);
    }
    Ok(shape)
}

/// Whether block `layer` has a window where each `period`th has none.
pub(super) fn slides(layer: usize, period: usize) -> bool {
    !(layer + 1).is_multiple_of(period)
}

/// What scores are multiplied with in the largest model, of so many blocks, which GGUF files do not say: by the width
/// that heads would have if they were together as wide as the stream.
pub(super) fn gguf_scale(shape: &Shape, n_layers_of_largest: usize) -> Option<f64> {
    let d_head = shape.d_model as f64 / shape.blocks.first()?.attention.n_heads as f64;
    (shape.blocks.len() == n_layers_of_largest).then(|| 1.0 / d_head.sqrt())
}

/// The window at `key`.
pub(super) fn window(settings: &Settings, key: &str) -> Result<usize, ModelError> {
    if settings.has(key) { settings.count(key) } else { Ok(4096) }
}

/// The number at `key`; null switches it off.
fn or_default(settings: &Settings, key: &str, default: f64) -> Result<Option<f64>, ModelError> {
    let number = settings.positive_if_any(key)?;
    Ok(if settings.has(key) { number } else { Some(default) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_second_block_sees_everything_and_the_largest_model_scales_by_its_width() {
        assert_eq!([0, 1, 2, 3].map(|layer| slides(layer, 2)), [true, false, true, false]);
        assert_eq!([4, 5, 6].map(|layer| slides(layer, 6)), [true, false, true]);
        let mut shape = Shape::small();
        // Six wide, two heads.
        assert_eq!(gguf_scale(&shape, 2), Some(1.0 / 3f64.sqrt()));
        shape.blocks.pop();
        assert_eq!(gguf_scale(&shape, 2), None);
    }
}
