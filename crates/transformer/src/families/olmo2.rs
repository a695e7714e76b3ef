//! OLMo 2 (Team OLMo, 2024, arXiv:2501.00656).
//!
//! As Llama, but norms follow attention and MLP instead of going before them, and queries and keys are normalised, all
//! heads as one. Reference: `modeling_olmo2.py` of transformers.

use super::{
    Description, GgufDescription, LLAMA_PARTS, LLAMA_WHOLE, QK_NORMS, as_is, as_written, config_json, gguf,
    rotary_buffers,
};
use crate::{
    ModelError,
    blocks::{Names, Norms, QkNormKind, Shape},
    families::config_json::Defaults,
    formats::Settings,
};

pub(crate) const FAMILY: Description = Description {
    model_types: &["olmo2"],
    architectures: &["Olmo2ForCausalLM"],
    names: Names {
        whole: LLAMA_WHOLE,
        blocks: "model.layers.",
        parts: &[
            LLAMA_PARTS,
            QK_NORMS,
            &[
                ("post_attention_norm", "post_attention_layernorm"),
                ("post_ffw_norm", "post_feedforward_layernorm"),
            ],
        ],
    },
    canonical: as_written,
    ignored: rotary_buffers,
    not_in_every_block: &[],
    from_config_json,
    stored: as_is,
    gguf: Some(GgufDescription {
        architecture: "olmo2",
        read: |settings, tensors| Ok(with_norms_after(gguf::llama_like(settings, tensors)?, false)),
        stored: as_is,
    }),
};

fn from_config_json(settings: &Settings) -> Result<Shape, ModelError> {
    let shape = config_json::llama_like(settings, &Defaults { norm_epsilon: 1e-5, ..Defaults::LLAMA })?;
    Ok(with_norms_after(shape, settings.flag("attention_bias", false)?))
}

/// What makes a Llama an OLMo 2.
fn with_norms_after(mut shape: Shape, attention_bias: bool) -> Shape {
    for block in &mut shape.blocks {
        block.norms = Norms::After;
        block.attention.qk_norm = Some(QkNormKind::Whole);
        block.attention.qkv_bias = attention_bias;
        block.attention.output_bias = attention_bias;
    }
    shape
}
