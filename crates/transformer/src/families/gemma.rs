//! Gemma (Gemma Team, 2024, arXiv:2403.08295).
//!
//! As Llama, with embeddings scaled by the square root of their width, norms whose weights are stored less one, and a
//! gate of GELU. Reference: `modeling_gemma.py` of transformers.

use super::{
    Description, GgufDescription, LLAMA_NORMS, LLAMA_PARTS, LLAMA_WHOLE, as_is, as_written,
    config_json::{self, Defaults},
    gguf, rotary_buffers,
};
use crate::{
    Activation, ModelError,
    blocks::{Names, Shape},
    formats::{Settings, TensorSource},
    weights::Stored,
};

pub(crate) const FAMILY: Description = Description {
    model_types: &["gemma"],
    architectures: &["GemmaForCausalLM"],
    names: Names { whole: LLAMA_WHOLE, blocks: "model.layers.", parts: &[LLAMA_PARTS, LLAMA_NORMS] },
    canonical: as_written,
    ignored: rotary_buffers,
    not_in_every_block: &[],
    from_config_json,
    stored,
    // Its conversion adds one to the norms' weights.
    gguf: Some(GgufDescription { architecture: "gemma", read: from_gguf, stored: as_is }),
};

/// What all Gemmas take where a key is missing.
pub(super) const DEFAULTS: Defaults =
    Defaults { d_head: Some(256), tied: true, activation: "gelu_pytorch_tanh", ..Defaults::LLAMA };

/// How checkpoints on the hub store the tensors of all Gemmas.
pub(super) fn stored(_: &Shape, own: &str) -> Stored {
    if own.ends_with("norm.weight") { Stored::LessOne } else { Stored::AsIs }
}

fn from_config_json(settings: &Settings) -> Result<Shape, ModelError> {
    let mut shape = llama_like(settings, &Defaults { n_kv_heads: Some(16), ..DEFAULTS })?;
    for block in &mut shape.blocks {
        // What the original configuration says, and never meant.
        if block.mlp.activation == Activation::Gelu {
            block.mlp.activation = Activation::GeluTanh;
        }
    }
    Ok(shape)
}

/// A config.json, as far as it is the same for all Gemmas.
pub(super) fn llama_like(settings: &Settings, defaults: &Defaults) -> Result<Shape, ModelError> {
    let mut shape = config_json::llama_like(settings, defaults)?;
    scale_embedding(&mut shape);
    let bias = settings.flag("attention_bias", false)?;
    for block in &mut shape.blocks {
        (block.attention.qkv_bias, block.attention.output_bias) = (bias, bias);
    }
    // One of the two counts, which one depends on the model; configurations have both.
    settings.without_effect(&["hidden_act", "hidden_activation"]);
    settings.refuse("use_bidirectional_attention", &[], "a position sees none that follow")?;
    Ok(shape)
}

/// A GGUF file, as far as it is the same for all Gemmas.
pub(super) fn from_gguf(settings: &Settings, tensors: &dyn TensorSource) -> Result<Shape, ModelError> {
    let mut shape = gguf::llama_like(settings, tensors)?;
    scale_embedding(&mut shape);
    shape.blocks.iter_mut().for_each(|block| block.mlp.activation = Activation::GeluTanh);
    Ok(shape)
}

fn scale_embedding(shape: &mut Shape) {
    shape.embedding_scale = Some((shape.d_model as f64).sqrt());
}
