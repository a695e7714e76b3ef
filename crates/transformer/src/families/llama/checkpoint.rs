//! How checkpoints write a Llama: config.json, GGUF metadata, tensor names.

use burn::tensor::Device;
use serde_json::{Value, json};

use super::{Llama, LlamaConfig, SavedDtype, Size};
use crate::{
    Activation, ModelError, RopeScaling,
    families::{Configuration, HARMLESS_KEYS},
    formats::{Settings, TensorSource},
    pass::Decoder,
    weights::{Stored, Weights},
};

impl Configuration for LlamaConfig {
    const MODEL_TYPES: &[&str] = &["llama", "mistral"];
    const ARCHITECTURES: &[&str] = &["LlamaForCausalLM", "MistralForCausalLM"];
    const GGUF_ARCHITECTURE: &str = "llama";

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
        settings.refuse("layer_types", &[], "all blocks attend alike")?;
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
            norm_epsilon: settings.number("attention.layer_norm_rms_epsilon")?,
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

    fn own_gguf_name(&self, name: &str) -> Option<(String, Stored)> {
        let own = match name {
            "token_embd.weight" => "model.embed_tokens.weight",
            "output_norm.weight" => "model.norm.weight",
            "output.weight" => "lm_head.weight",
            // Part of the configuration by now.
            "rope_freqs.weight" => "rotary_emb.inv_freq",
            _ => return self.own_gguf_block_name(name),
        };
        Some((own.to_owned(), Stored::AsIs))
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

impl LlamaConfig {
    fn own_gguf_block_name(&self, name: &str) -> Option<(String, Stored)> {
        let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
        let (part, kind) = rest.split_once('.')?;
        let (own, stored) = match part {
            "attn_norm" => ("input_layernorm", Stored::AsIs),
            "attn_q" => ("self_attn.q_proj", Stored::Interleaved { heads: self.n_heads }),
            "attn_k" => ("self_attn.k_proj", Stored::Interleaved { heads: self.n_kv_heads }),
            "attn_v" => ("self_attn.v_proj", Stored::AsIs),
            "attn_output" => ("self_attn.o_proj", Stored::AsIs),
            "ffn_norm" => ("post_attention_layernorm", Stored::AsIs),
            "ffn_gate" => ("mlp.gate_proj", Stored::AsIs),
            "ffn_up" => ("mlp.up_proj", Stored::AsIs),
            "ffn_down" => ("mlp.down_proj", Stored::AsIs),
            _ => return None,
        };
        Some((format!("model.layers.{layer}.{own}.{kind}"), stored))
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

fn gguf_rope_scaling(
    settings: &Settings,
    tensors: &dyn TensorSource,
) -> Result<Option<RopeScaling>, ModelError> {
    let kind = settings.text("rope.scaling.type")?.unwrap_or("none");
    // Before there was a type, there was a factor alone.
    let older = settings.positive_if_any("rope.scale_linear")?;
    match (kind, settings.positive_if_any("rope.scaling.factor")?.or(older)) {
        ("linear", Some(factor)) | ("none", Some(factor)) if factor != 1.0 => {
            Ok(Some(RopeScaling::Linear { factor }))
        }
        ("none" | "linear", _) if tensors.tensors().contains_key("rope_freqs.weight") => {
            tensors.read("rope_freqs.weight").map(|divisors| Some(RopeScaling::Divisors(divisors)))
        }
        ("none" | "linear", _) => Ok(None),
        (other, _) => Err(settings.unsupported(format!("rope scaling {other:?}"), "expected none or linear")),
    }
}

/// What transformers would call the model.
pub(super) fn config_json(config: &LlamaConfig, dtype: SavedDtype) -> Result<Value, ModelError> {
    let c = config;
    let inexpressible = |what: &str| ModelError::Unsupported {
        file: "config.json".into(),
        what: what.to_owned(),
        supported: "transformers has no such model".into(),
    };
    let mistral = c.sliding_window.is_some();
    if mistral && (c.attention_bias || c.mlp_bias) {
        return Err(inexpressible("a sliding window together with biases"));
    }
    let (model_type, architecture) =
        if mistral { ("mistral", "MistralForCausalLM") } else { ("llama", "LlamaForCausalLM") };
    let mut json = json!({
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": c.d_vocab,
        "hidden_size": c.d_model,
        "intermediate_size": c.d_mlp,
        "num_hidden_layers": c.n_layers,
        "num_attention_heads": c.n_heads,
        "num_key_value_heads": c.n_kv_heads,
        "head_dim": c.d_head,
        "max_position_embeddings": c.max_context,
        "hidden_act": c.activation.name(),
        "rms_norm_eps": c.norm_epsilon,
        "rope_theta": c.rope_theta,
        "rope_scaling": match &c.rope_scaling {
            None => Value::Null,
            Some(RopeScaling::Linear { factor }) => json!({"rope_type": "linear", "factor": factor}),
            Some(RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings }) => json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_max_position_embeddings,
            }),
            Some(RopeScaling::Divisors(_)) => return Err(inexpressible("rope scaling of a GGUF file")),
        },
        "tie_word_embeddings": c.tied,
        "torch_dtype": match dtype { SavedDtype::F32 => "float32", SavedDtype::Bf16 => "bfloat16" },
    });
    if mistral {
        json["sliding_window"] = json!(c.sliding_window);
    } else {
        json["attention_bias"] = json!(c.attention_bias);
        json["mlp_bias"] = json!(c.mlp_bias);
    }
    Ok(json)
}
