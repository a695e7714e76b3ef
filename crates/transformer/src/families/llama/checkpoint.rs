//! How checkpoints write a Llama: config.json, GGUF metadata, tensor names.

use burn::tensor::Device;
use serde_json::json;

use super::{Llama, LlamaConfig, Size};
use crate::{
    Activation, ModelError, RopeScaling,
    families::{Configuration, HARMLESS_KEYS, gguf_names::GgufNames},
    formats::{Settings, TensorSource},
    pass::Decoder,
    weights::{Stored, Weights},
};

impl Configuration for LlamaConfig {
    const MODEL_TYPES: &[&str] = &["llama", "mistral"];
    const ARCHITECTURES: &[&str] = &["LlamaForCausalLM", "MistralForCausalLM"];
    const GGUF_ARCHITECTURE: &str = "llama";
    const GGUF_NAMES: GgufNames = GgufNames {
        blocks: "model.layers.",
        whole: &[
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output_norm.weight", "model.norm.weight"),
            ("output.weight", "lm_head.weight"),
            // Part of the configuration by now.
            ("rope_freqs.weight", "rotary_emb.inv_freq"),
        ],
        parts: &[
            ("attn_norm", "input_layernorm"),
            ("attn_q", "self_attn.q_proj"),
            ("attn_k", "self_attn.k_proj"),
            ("attn_v", "self_attn.v_proj"),
            ("attn_output", "self_attn.o_proj"),
            ("ffn_norm", "post_attention_layernorm"),
            ("ffn_gate", "mlp.gate_proj"),
            ("ffn_up", "mlp.up_proj"),
            ("ffn_down", "mlp.down_proj"),
        ],
    };

    fn from_config_json(model_type: &str, settings: &Settings) -> Result<Self, ModelError> {
        let mistral = model_type == "mistral";
        let d_model = settings.count("hidden_size")?;
        let n_heads = settings.count("num_attention_heads")?;
        let (rope_theta, rope_scaling) = rope(settings)?;
        let default_kv_heads = if mistral { 8 } else { n_heads };
        let config = Self {
            d_vocab: settings.count("vocab_size")?,
            d_model,
            d_mlp: settings.count("intermediate_size")?,
            n_layers: settings.count("num_hidden_layers")?,
            n_heads,
            n_kv_heads: settings.count_if_any("num_key_value_heads")?.unwrap_or(default_kv_heads),
            d_head: settings
                .count_if_any("head_dim")?
                .map_or_else(|| d_head(settings, d_model, n_heads), Ok)?,
            max_context: settings.count("max_position_embeddings")?,
            activation: activation(settings)?,
            norm_epsilon: settings.positive_if_any("rms_norm_eps")?.unwrap_or(1e-6),
            rope_theta,
            rope_scaling,
            sliding_window: sliding_window(settings, mistral)?,
            // transformers' Mistral has no biases, whatever its configuration says.
            attention_bias: !mistral && settings.flag("attention_bias", false)?,
            mlp_bias: !mistral && settings.flag("mlp_bias", false)?,
            tied: settings.flag("tie_word_embeddings", false)?,
        };
        settings.refuse("quantization_config", &[], "fetch the model's unquantised weights")?;
        settings.refuse("rope_interleaved", &[], "the halves of a head are rotated, not neighbours")?;
        settings.refuse("partial_rotary_factor", &[json!(1), json!(1.0)], "all of a head is rotated")?;
        check_layer_types(settings, config.sliding_window)?;
        settings.warn_of_unread(HARMLESS_KEYS);
        config.check(settings.file())?;
        Ok(config)
    }

    fn from_gguf(settings: &Settings, tensors: &dyn TensorSource) -> Result<Self, ModelError> {
        let has = |name: &str| tensors.tensors().contains_key(name);
        let d_model = settings.count("embedding_length")?;
        let n_heads = settings.count("attention.head_count")?;
        let d_head = settings
            .count_if_any("attention.key_length")?
            .map_or_else(|| d_head(settings, d_model, n_heads), Ok)?;
        let embedding = tensors.tensors().get("token_embd.weight");
        let d_vocab = embedding.and_then(|tensor| tensor.shape.first().copied());
        for key in ["attention.value_length", "rope.dimension_count"] {
            settings.refuse(key, &[json!(d_head)], &format!("expected the head's width, {d_head}"))?;
        }
        settings.refuse("expert_count", &[json!(0)], "mixtures of experts are not implemented")?;
        let config = Self {
            d_vocab: d_vocab.ok_or_else(|| settings.wrong("vocab_size", "there is no token_embd.weight"))?,
            d_model,
            d_mlp: settings.count("feed_forward_length")?,
            n_layers: settings.count("block_count")?,
            n_heads,
            n_kv_heads: settings.count_if_any("attention.head_count_kv")?.unwrap_or(n_heads),
            d_head,
            max_context: settings.count("context_length")?,
            activation: Activation::Silu,
            norm_epsilon: settings.positive("attention.layer_norm_rms_epsilon")?,
            rope_theta: settings.positive_if_any("rope.freq_base")?.unwrap_or(10_000.0),
            rope_scaling: gguf_rope_scaling(settings, tensors)?,
            sliding_window: settings.count_if_any("attention.sliding_window")?,
            attention_bias: has("blk.0.attn_q.bias"),
            mlp_bias: has("blk.0.ffn_gate.bias"),
            tied: !has("output.weight"),
        };
        settings.warn_of_unread(&[
            "vocab_size",
            "rope.scaling.original_context_length",
            "rope.scaling.finetuned",
        ]);
        config.check(settings.file())?;
        Ok(config)
    }

    fn size(&self) -> Size {
        Self::size(self)
    }

    fn gguf_stored(&self, own: &str) -> Stored {
        if own.contains(".self_attn.q_proj.") {
            Stored::Interleaved { heads: self.n_heads }
        } else if own.contains(".self_attn.k_proj.") {
            Stored::Interleaved { heads: self.n_kv_heads }
        } else {
            Stored::AsIs
        }
    }

    fn is_buffer(name: &str) -> bool {
        name.ends_with("rotary_emb.inv_freq")
    }

    fn is_copy(&self, name: &str) -> bool {
        self.tied && name == "lm_head.weight"
    }

    fn load(&self, weights: &mut Weights, device: &Device) -> Result<Box<dyn Decoder>, ModelError> {
        Ok(Box::new(Llama::load(self, weights, device)?))
    }
}

fn d_head(settings: &Settings, d_model: usize, n_heads: usize) -> Result<usize, ModelError> {
    if d_model.is_multiple_of(n_heads) {
        return Ok(d_model / n_heads);
    }
    let reason = format!("missing, and {n_heads} heads do not divide the width {d_model}");
    Err(settings.wrong("head_dim", reason))
}

fn activation(settings: &Settings) -> Result<Activation, ModelError> {
    let name = settings.text("hidden_act")?.unwrap_or("silu");
    let unknown = || {
        settings.unsupported(format!("hidden_act {name:?}"), format!("expected one of {}", Activation::NAMES))
    };
    Activation::from_name(name).ok_or_else(unknown)
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
    let expected = if window.is_some() { "sliding_attention" } else { "full_attention" };
    match settings.texts("layer_types")?.iter().find(|kind| **kind != expected) {
        Some(other) => Err(settings.unsupported(
            format!("layer_types with {other:?}"),
            format!("all blocks attend alike, which is {expected:?} by the rest of this configuration"),
        )),
        None => Ok(()),
    }
}

/// The rotary base and scaling: `rope_parameters` since transformers 5, `rope_theta` and `rope_scaling` before.
fn rope(settings: &Settings) -> Result<(f64, Option<RopeScaling>), ModelError> {
    let own_theta = settings.positive_if_any("rope_theta")?;
    let newer = settings.section("rope_parameters")?;
    let older = settings.section("rope_scaling")?;
    let Some(rope) = newer.or(older) else { return Ok((own_theta.unwrap_or(10_000.0), None)) };
    let theta = rope.positive_if_any("rope_theta")?.or(own_theta).unwrap_or(10_000.0);
    let kind = match rope.text("rope_type")? {
        Some(kind) => kind,
        None => rope.text("type")?.unwrap_or("default"),
    };
    let scaling = match kind {
        "default" => None,
        "linear" => Some(RopeScaling::Linear { factor: factor(&rope, "factor")? }),
        "llama3" => Some(RopeScaling::Llama3 {
            factor: factor(&rope, "factor")?,
            low_freq_factor: factor(&rope, "low_freq_factor")?,
            high_freq_factor: factor(&rope, "high_freq_factor")?,
            original_max_position_embeddings: rope.count("original_max_position_embeddings")?,
        }),
        other => {
            return Err(
                settings.unsupported(format!("rope scaling {other:?}"), "expected default, linear or llama3")
            );
        }
    };
    rope.refuse("partial_rotary_factor", &[json!(1), json!(1.0)], "all of a head is rotated")?;
    rope.warn_of_unread(&["type"]);
    Ok((theta, scaling))
}

fn factor(rope: &Settings, key: &str) -> Result<f64, ModelError> {
    rope.positive_if_any(key)?.ok_or_else(|| rope.wrong(key, "expected a number, found none"))
}

/// As llama.cpp reads it: the type, `linear` where there is none, decides what the factor means; divisors of the
/// frequencies count in any case.
fn gguf_rope_scaling(
    settings: &Settings,
    tensors: &dyn TensorSource,
) -> Result<Option<RopeScaling>, ModelError> {
    // Before there was a type, there was a factor alone.
    let older = settings.positive_if_any("rope.scale_linear")?;
    let factor = settings.positive_if_any("rope.scaling.factor")?.or(older);
    let factor = match settings.text("rope.scaling.type")?.unwrap_or("linear") {
        "linear" => factor.filter(|&factor| factor != 1.0),
        "none" => None,
        other => {
            return Err(settings.unsupported(format!("rope scaling {other:?}"), "expected none or linear"));
        }
    };
    if !tensors.tensors().contains_key(ROPE_FREQS) {
        return Ok(factor.map(|factor| RopeScaling::Linear { factor }));
    }
    let mut divisors = tensors.read(ROPE_FREQS)?;
    if let Some(factor) = factor {
        divisors.iter_mut().for_each(|divisor| *divisor *= factor as f32);
    }
    Ok(Some(RopeScaling::Divisors(divisors)))
}

/// The tensor of a GGUF file that holds a divisor for each rotary frequency.
const ROPE_FREQS: &str = "rope_freqs.weight";

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use super::*;
    use crate::formats::StoredTensor;

    /// No tensors, or the divisors 2 and 3.
    struct Divisors(BTreeMap<String, StoredTensor>);

    impl Divisors {
        fn new(present: bool) -> Self {
            let stored = StoredTensor { file: "m.gguf".into(), shape: vec![2] };
            Self(present.then(|| (ROPE_FREQS.to_owned(), stored)).into_iter().collect())
        }
    }

    impl TensorSource for Divisors {
        fn tensors(&self) -> &BTreeMap<String, StoredTensor> {
            &self.0
        }
        fn read(&self, _: &str) -> Result<Vec<f32>, ModelError> {
            Ok(vec![2.0, 3.0])
        }
    }

    #[test]
    fn gguf_rope_scaling_is_what_llama_cpp_makes_of_it() {
        let read = |values: serde_json::Value, divisors| {
            let values = values.as_object().unwrap().clone();
            let settings = Settings::new(Path::new("m.gguf"), "llama.", values);
            gguf_rope_scaling(&settings, &Divisors::new(divisors))
        };
        let linear = Some(RopeScaling::Linear { factor: 4.0 });
        let (kind, factor) = ("rope.scaling.type", "rope.scaling.factor");
        assert_eq!(read(json!({}), false).unwrap(), None);
        assert_eq!(read(json!({kind: "linear", factor: 4.0}), false).unwrap(), linear);
        assert_eq!(read(json!({factor: 4.0}), false).unwrap(), linear);
        assert_eq!(read(json!({"rope.scale_linear": 4.0}), false).unwrap(), linear);
        assert_eq!(read(json!({kind: "linear"}), false).unwrap(), None);
        assert_eq!(read(json!({kind: "none", factor: 4.0}), false).unwrap(), None);
        // Both at once multiply.
        let divisors = |divisors: [f32; 2]| Some(RopeScaling::Divisors(divisors.into()));
        assert_eq!(read(json!({kind: "none", factor: 4.0}), true).unwrap(), divisors([2.0, 3.0]));
        assert_eq!(read(json!({kind: "linear", factor: 4.0}), true).unwrap(), divisors([8.0, 12.0]));
        let yarn = read(json!({kind: "yarn", factor: 4.0}), false).unwrap_err().to_string();
        assert!(yarn.contains("yarn"), "{yarn}");
    }
}
