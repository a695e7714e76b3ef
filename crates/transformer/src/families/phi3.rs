//! Phi-3 and what keeps its form: Phi-3.5, Phi-4 and Phi-4-mini (Microsoft, 2024, arXiv:2404.14219; 2024,
//! arXiv:2412.08905; 2025, arXiv:2503.01743).
//!
//! As Llama, with one matrix for queries, keys and values and one for gate and up, part of a head rotated (by LongRoPE
//! where the context was made longer), and a sliding window. Reference: `modeling_phi3.py` of transformers.

use super::{
    Description, GgufDescription, LLAMA_NORMS, LLAMA_WHOLE, as_is, as_written, config_json, gguf,
    rotary_buffers,
};
use crate::{
    ModelError, RopeScaling,
    blocks::{Names, Shape},
    families::config_json::Defaults,
    formats::{Settings, TensorSource},
};

pub(crate) const FAMILY: Description = Description {
    model_types: &["phi3"],
    architectures: &["Phi3ForCausalLM"],
    names: Names {
        whole: LLAMA_WHOLE,
        blocks: "model.layers.",
        parts: &[
            LLAMA_NORMS,
            &[
                ("attn_qkv", "self_attn.qkv_proj"),
                ("attn_output", "self_attn.o_proj"),
                ("ffn_up", "mlp.gate_up_proj"),
                ("ffn_down", "mlp.down_proj"),
            ],
        ],
    },
    canonical: as_written,
    ignored: |shape, name| rotary_buffers(shape, name) || [LONG_FACTORS, SHORT_FACTORS].contains(&name),
    not_in_every_block: &[],
    from_config_json,
    stored: as_is,
    gguf: Some(GgufDescription { architecture: "phi3", read: from_gguf, stored: as_is }),
};

/// The context length before LongRoPE where nothing is said outside its section.
const ORIGINAL_CONTEXT: usize = 4096;

fn from_config_json(settings: &Settings) -> Result<Shape, ModelError> {
    let original_context = Some(ORIGINAL_CONTEXT);
    let defaults = Defaults { norm_epsilon: 1e-5, original_context, ..Defaults::LLAMA };
    let mut shape = config_json::llama_like(settings, &defaults)?;
    let window = settings.count_if_any("sliding_window")?;
    for block in &mut shape.blocks {
        block.attention.window = window;
    }
    // It is there without LongRoPE too.
    settings.without_effect(&["original_max_position_embeddings"]);
    let scaling = shape.blocks[0].attention.rope.as_ref().and_then(|rope| rope.scaling.as_ref());
    match scaling {
        None | Some(RopeScaling::LongRope { .. }) => Ok(shape),
        Some(other) => {
            let what = format!("rope scaling {other:?} of Phi-3");
            Err(settings.unsupported(what, "expected default or longrope"))
        }
    }
}

/// The tensors of a GGUF file that hold LongRoPE's divisors.
const LONG_FACTORS: &str = "rope_factors_long.weight";
const SHORT_FACTORS: &str = "rope_factors_short.weight";

fn from_gguf(settings: &Settings, tensors: &dyn TensorSource) -> Result<Shape, ModelError> {
    let mut shape = gguf::llama_like(settings, tensors)?;
    // 0 is none.
    let window = settings.whole_number_if_any("attention.sliding_window")?.filter(|&window| window > 0);
    let attention_factor = settings.positive_if_any("rope.scaling.attn_factor")?;
    let scaling = if gguf::has(tensors, LONG_FACTORS) && gguf::has(tensors, SHORT_FACTORS) {
        Some(RopeScaling::LongRope {
            short_factor: tensors.read(SHORT_FACTORS)?,
            long_factor: tensors.read(LONG_FACTORS)?,
            attention_factor: attention_factor.unwrap_or(1.0),
            original_max_position_embeddings: settings.count("rope.scaling.original_context_length")?,
        })
    } else {
        None
    };
    for block in &mut shape.blocks {
        block.attention.window = window;
        if let (Some(rope), Some(scaling)) = (&mut block.attention.rope, &scaling) {
            rope.scaling = Some(scaling.clone());
        }
    }
    Ok(shape)
}
