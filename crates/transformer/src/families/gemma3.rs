//! Gemma 3 (Gemma Team, 2025, arXiv:2503.19786): text alone, and the language model of those that see.
//!
//! As Gemma 2, with norms of every head's queries and keys in place of soft caps, and a window in five of six blocks,
//! which have a rotary base of their own. Reference: `modeling_gemma3.py` of transformers.

use std::borrow::Cow;

use super::{
    Description, GgufDescription, HARMLESS_KEYS, LLAMA_PARTS, LLAMA_WHOLE, QK_NORMS, as_is,
    config_json::{Defaults, FULL, SLIDING, rope_of, set_windows},
    gemma,
    gemma2::{self, gguf_scale, slides},
    gguf, rotary_buffers,
};
use crate::{
    ModelError,
    blocks::{Names, Norms, QkNormKind, Rope, Shape},
    formats::{Settings, TensorSource},
};

pub(crate) const FAMILY: Description = Description {
    model_types: &["gemma3_text", "gemma3"],
    architectures: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
    names: Names {
        whole: LLAMA_WHOLE,
        blocks: "model.layers.",
        parts: &[LLAMA_PARTS, gemma2::FOUR_NORMS, QK_NORMS],
    },
    canonical,
    ignored: |shape, name| rotary_buffers(shape, name) || is_of_vision(name),
    not_in_every_block: &[],
    from_config_json,
    stored: gemma::stored,
    gguf: Some(GgufDescription { architecture: "gemma3", read: from_gguf, stored: as_is }),
};

/// Of how many blocks one sees all of its past.
const PERIOD: usize = 6;

/// The rotary base of blocks that see all of their past.
const THETA: f64 = 1e6;

/// That of blocks with a window.
const LOCAL_THETA: f64 = 1e4;

/// Where there is a vision tower, the language model's names have a prefix: transformers 4.52 moved it.
fn canonical(name: &str) -> Cow<'_, str> {
    if let Some(rest) = name.strip_prefix("language_model.") {
        Cow::Borrowed(rest)
    } else if let Some(rest) = name.strip_prefix("model.language_model.") {
        Cow::Owned(format!("model.{rest}"))
    } else {
        Cow::Borrowed(name)
    }
}

/// Whether the tensor belongs to what turns images into embeddings.
fn is_of_vision(name: &str) -> bool {
    let name = name.strip_prefix("model.").unwrap_or(name);
    name.starts_with("vision_tower.") || name.starts_with("multi_modal_projector.")
}

fn from_config_json(settings: &Settings) -> Result<Shape, ModelError> {
    // What the small ones for text alone have at the top is a section of those that see, defaults left out.
    match settings.section("text_config")? {
        None => text(settings),
        Some(section) => {
            settings.section("vision_config")?;
            let shape = text(&section)?;
            section.warn_of_unread(HARMLESS_KEYS);
            Ok(shape)
        }
    }
}

fn text(settings: &Settings) -> Result<Shape, ModelError> {
    let defaults = Defaults {
        d_vocab: Some(262_208),
        n_heads: Some(8),
        n_kv_heads: Some(4),
        max_context: Some(131_072),
        activation_key: "hidden_activation",
        rope_theta: THETA,
        ..gemma::DEFAULTS
    };
    let mut shape = gemma::llama_like(settings, &defaults)?;
    shape.logit_soft_cap = settings.positive_if_any("final_logit_softcapping")?;
    settings.refuse("attn_logit_softcapping", &[], "Gemma 3 has norms of queries and keys instead")?;
    let scalar = settings.positive_if_any("query_pre_attn_scalar")?.unwrap_or(256.0);
    let period = settings.count_if_any("sliding_window_pattern")?;
    let period = period.or(settings.count_if_any("_sliding_window_pattern")?).unwrap_or(PERIOD);
    let window = gemma2::window(settings, "sliding_window")?;
    set_windows(settings, &mut shape, Some(window), |layer| slides(layer, period))?;
    shape.blocks.iter_mut().for_each(|block| block.attention.scale = 1.0 / scalar.sqrt());
    let [full, local] = ropes(settings, shape.blocks[0].attention.d_head)?;
    complete(&mut shape, &full, &local);
    Ok(shape)
}

/// The rotary positions of blocks that see all of their past, and of those with a window: `rope_parameters` since
/// transformers 5, `rope_theta`, `rope_scaling` and `rope_local_base_freq` before.
fn ropes(settings: &Settings, d_head: usize) -> Result<[Rope; 2], ModelError> {
    let kinds = settings.section("rope_parameters")?;
    let older = settings.section("rope_scaling")?;
    let section = |kind| kinds.as_ref().map_or(Ok(None), |kinds| kinds.section(kind));
    let rope = |section: Option<Settings>, key: &str, theta: f64| {
        let theta = settings.positive_if_any(key)?.unwrap_or(theta);
        match section {
            Some(section) => {
                rope_of(settings, &section, d_head, &Defaults { rope_theta: theta, ..gemma::DEFAULTS }, 1.0)
            }
            None => Ok(Rope { d_rotated: d_head, theta, scaling: None }),
        }
    };
    Ok([
        rope(section(FULL)?.or(older), "rope_theta", THETA)?,
        rope(section(SLIDING)?, "rope_local_base_freq", LOCAL_THETA)?,
    ])
}

fn from_gguf(settings: &Settings, tensors: &dyn TensorSource) -> Result<Shape, ModelError> {
    let mut shape = gemma::from_gguf(settings, tensors)?;
    shape.logit_soft_cap = settings.positive_if_any("final_logit_softcapping")?;
    let window = settings.count("attention.sliding_window")?;
    let period = settings.count_if_any("attention.sliding_window_pattern")?.unwrap_or(PERIOD);
    let scale = gguf_scale(&shape, 62);
    let full = gguf::rope(settings, tensors, shape.blocks[0].attention.d_head)?;
    let theta = settings.positive_if_any("rope.freq_base_swa")?.unwrap_or(LOCAL_THETA);
    for (layer, block) in shape.blocks.iter_mut().enumerate() {
        block.attention.window = slides(layer, period).then_some(window);
        block.attention.scale = scale.unwrap_or(block.attention.scale);
    }
    let local = Rope { d_rotated: full.d_rotated, theta, scaling: None };
    complete(&mut shape, &full, &local);
    Ok(shape)
}

/// What follows from which blocks have a window.
fn complete(shape: &mut Shape, full: &Rope, local: &Rope) {
    for block in &mut shape.blocks {
        block.norms = Norms::Both;
        block.attention.qk_norm = Some(QkNormKind::Head);
        let rope = if block.attention.window.is_some() { local } else { full };
        block.attention.rope = Some(rope.clone());
    }
}
