//! The families of models. One file and one line below each: how checkpoints write a model's shape, and what they call
//! its tensors. Everything between that and a [`LanguageModel`](crate::LanguageModel) is shared.

use std::{borrow::Cow, fmt};

use monosema_core::BlockHook;
use serde::{Deserialize, Serialize};

use crate::{
    ModelError,
    blocks::{Names, Shape},
    formats::{Settings, TensorSource},
    weights::{Role, Stored},
};

mod config_json;
mod gguf;

/// What a family supplies. Tensors are named as in [`Names`]: llama.cpp's way.
pub(crate) struct Description {
    /// `model_type`s of config.json.
    pub(crate) model_types: &'static [&'static str],
    /// `architectures` of config.json: those with a language model's output.
    pub(crate) architectures: &'static [&'static str],
    /// The tensors, and what the hub calls them.
    pub(crate) names: Names,
    /// The spelling in `names` of a tensor that a checkpoint on the hub calls so.
    pub(crate) canonical: fn(&str) -> Cow<'_, str>,
    /// Whether a tensor of this canonical name is none of a language model's weights: a buffer, say.
    pub(crate) ignored: fn(&Shape, &str) -> bool,
    /// Hooks that not every block of such models has.
    pub(crate) not_in_every_block: &'static [BlockHook],
    /// Reads a config.json.
    pub(crate) from_config_json: fn(&Settings) -> Result<Shape, ModelError>,
    /// How checkpoints on the hub store a tensor.
    pub(crate) stored: fn(&Shape, &str) -> Stored,
    /// How llama.cpp writes the family, if it does.
    pub(crate) gguf: Option<GgufDescription>,
}

/// How llama.cpp writes a family.
pub(crate) struct GgufDescription {
    /// `general.architecture`.
    pub(crate) architecture: &'static str,
    /// Reads the metadata, and from the tensors what the metadata leave open.
    pub(crate) read: fn(&Settings, &dyn TensorSource) -> Result<Shape, ModelError>,
    /// What its conversion did to a tensor.
    pub(crate) stored: fn(&Shape, &str) -> Stored,
}

/// Declares the modules of all families, [`Family`], and where each is described.
macro_rules! families {
    ($($name:ident => $module:ident),* $(,)?) => {
        $(pub mod $module;)*

        /// A family of language models.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Family {
            $(#[doc = concat!("See [`", stringify!($module), "`].")] $name,)*
        }

        impl Family {
            /// Every family.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($module),)* }
            }

            pub(crate) fn description(self) -> &'static Description {
                match self { $(Self::$name => &$module::FAMILY,)* }
            }
        }
    };
}

families! {
    Llama => llama,
    Gpt2 => gpt2,
    GptNeo => gpt_neo,
    GptNeox => gpt_neox,
    Qwen2 => qwen2,
    Qwen3 => qwen3,
    Gemma => gemma,
    Gemma2 => gemma2,
    Gemma3 => gemma3,
    Phi3 => phi3,
    Olmo2 => olmo2,
    DeepseekV3 => deepseek_v3,
}

impl Family {
    /// The `model_type`s of config.json that are of the family.
    pub fn model_types(self) -> &'static [&'static str] {
        self.description().model_types
    }

    /// The `architectures` of config.json that are of the family: those with a language model's output.
    pub fn architectures(self) -> &'static [&'static str] {
        self.description().architectures
    }

    /// The hooks that not every block of such models has.
    pub fn not_in_every_block(self) -> &'static [BlockHook] {
        self.description().not_in_every_block
    }

    /// What llama.cpp calls the family (`general.architecture`), if it knows it.
    pub fn gguf_architecture(self) -> Option<&'static str> {
        self.description().gguf.as_ref().map(|gguf| gguf.architecture)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A model's family and shape, as its checkpoint has them.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) family: Family,
    pub(crate) shape: Shape,
    /// Whether it is a GGUF file, not a directory as on the hub.
    is_gguf: bool,
}

impl Config {
    pub(crate) fn from_config_json(settings: &Settings) -> Result<Self, ModelError> {
        let model_type = settings.text("model_type")?;
        let model_type =
            model_type.ok_or_else(|| settings.wrong("model_type", "expected a text, found none"))?;
        let family = Family::ALL.iter().find(|family| family.model_types().contains(&model_type));
        let family = *family.ok_or_else(|| {
            let known: Vec<&str> =
                Family::ALL.iter().flat_map(|family| family.model_types()).copied().collect();
            settings.unsupported(
                format!("model_type {model_type:?}"),
                format!("expected one of {}", known.join(", ")),
            )
        })?;
        let description = family.description();
        check_architecture(settings, description.architectures)?;
        let unquantised = "fetch the model's unquantised weights, or turn them into bf16 (DeepSeek's repositories have \
                           fp8_cast_bf16.py for theirs)";
        settings.refuse("quantization_config", &[], unquantised)?;
        let shape = (description.from_config_json)(settings)?;
        settings.warn_of_unread(HARMLESS_KEYS);
        shape.check(settings.file())?;
        Ok(Self { family, shape, is_gguf: false })
    }

    pub(crate) fn from_gguf(
        architecture: &str,
        settings: &Settings,
        tensors: &dyn TensorSource,
    ) -> Result<Self, ModelError> {
        let mut known = Family::ALL.iter().filter_map(|&f| Some((f, f.description().gguf.as_ref()?)));
        let found = known.clone().find(|(_, gguf)| gguf.architecture == architecture);
        let (family, gguf) = found.ok_or_else(|| {
            let known = known.by_ref().map(|(_, gguf)| gguf.architecture).collect::<Vec<_>>().join(", ");
            settings.unsupported(
                format!("general.architecture {architecture:?}"),
                format!("expected one of {known}"),
            )
        })?;
        let shape = (gguf.read)(settings, tensors)?;
        gguf::check_read(settings)?;
        settings.warn_of_unread(gguf::HARMLESS_KEYS);
        shape.check(settings.file())?;
        Ok(Self { family, shape, is_gguf: true })
    }

    /// What the checkpoint's tensor `name` is to the model.
    pub(crate) fn role(&self, name: &str) -> Role {
        let description = self.family.description();
        let (name, own, stored) = match &description.gguf {
            Some(gguf) if self.is_gguf => {
                let own = description.names.on_hub(name).map(|_| name.to_owned());
                (Cow::Borrowed(name), own, gguf.stored)
            }
            _ => {
                let name = (description.canonical)(name);
                let own = description.names.own(&name);
                (name, own, description.stored)
            }
        };
        match own {
            _ if (description.ignored)(&self.shape, &name) => Role::Ignored,
            Some(own) => {
                let stored = stored(&self.shape, &own);
                Role::Weight(own, stored)
            }
            None => Role::Unknown,
        }
    }

    /// What the checkpoint should call the tensor `own`.
    pub(crate) fn name_in_file(&self, own: &str) -> String {
        let on_hub = || self.family.description().names.on_hub(own);
        (!self.is_gguf).then(on_hub).flatten().unwrap_or_else(|| own.to_owned())
    }

    /// Whether the checkpoint's tensor `name` is a weight, and not the copy of one.
    pub(crate) fn counts(&self, name: &str) -> bool {
        matches!(self.role(name), Role::Weight(own, _) if !(self.shape.tied && own == "output.weight"))
    }
}

/// What tensors are called by Llama, and by the many that took its code for a beginning.
const LLAMA_WHOLE: &[(&str, &str)] =
    &[("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")];

/// The same of their attention and MLP.
const LLAMA_PARTS: &[(&str, &str)] = &[
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The same of their two norms, before attention and before the MLP.
const LLAMA_NORMS: &[(&str, &str)] =
    &[("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")];

/// The same of norms of queries and keys.
const QK_NORMS: &[(&str, &str)] = &[("attn_q_norm", "self_attn.q_norm"), ("attn_k_norm", "self_attn.k_norm")];

/// Names as they are.
fn as_written(name: &str) -> Cow<'_, str> {
    Cow::Borrowed(name)
}

/// Tensors as they are.
fn as_is(_: &Shape, _: &str) -> Stored {
    Stored::AsIs
}

/// Rotary frequencies, which old checkpoints carry along and GGUF files may (they are part of the shape).
fn rotary_buffers(_: &Shape, name: &str) -> bool {
    name.ends_with("rotary_emb.inv_freq") || name == gguf::ROPE_FREQS
}

/// Refuses models of a known type that have another head than a language model's.
fn check_architecture(settings: &Settings, known: &[&str]) -> Result<(), ModelError> {
    match settings.texts("architectures")?.first() {
        Some(found) if !known.contains(found) => {
            Err(settings
                .unsupported(format!("architecture {found}"), format!("expected {}", known.join(" or "))))
        }
        _ => Ok(()),
    }
}

/// Keys of config.json that do not change what a frozen model computes.
const HARMLESS_KEYS: &[&str] = &[
    "_name_or_path",
    "_attn_implementation_autoset",
    "architectures",
    "auto_map",
    "aux_loss_alpha",
    "attention_dropout",
    "attn_pdrop",
    "cache_implementation",
    "classifier_dropout",
    "boi_token_index",
    "bos_token_id",
    "dtype",
    "embd_pdrop",
    "embed_dropout",
    "eoi_token_index",
    "eos_token_id",
    "ep_size",
    "gradient_checkpointing",
    "hidden_dropout",
    "id2label",
    "image_token_index",
    "initializer_range",
    "is_llama_config",
    "is_decoder",
    "keys_to_ignore_at_inference",
    "label2id",
    "mm_tokens_per_image",
    "model_type",
    "n_ctx",
    "num_nextn_predict_layers",
    "output_past",
    "pad_token_id",
    "pretraining_tp",
    "qk_head_dim",
    "reorder_and_upcast_attn",
    "resid_dropout",
    "resid_pdrop",
    "seq_aux",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "task_specific_params",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "unk_token_id",
    "use_cache",
    "unsloth_version",
    "unsloth_fixed",
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;

    /// What the models' makers published, with all its repetitions.
    #[test]
    fn published_configurations_have_nothing_unknown() {
        let gemma2 = json!({"architectures": ["Gemma2ForCausalLM"], "attention_bias": false,
            "attention_dropout": 0.0, "attn_logit_softcapping": 50.0, "bos_token_id": 2,
            "cache_implementation": "hybrid", "eos_token_id": 1, "final_logit_softcapping": 30.0, "head_dim": 256,
            "hidden_act": "gelu_pytorch_tanh", "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304,
            "initializer_range": 0.02, "intermediate_size": 9216, "max_position_embeddings": 8192,
            "model_type": "gemma2", "num_attention_heads": 8, "num_hidden_layers": 26, "num_key_value_heads": 4,
            "pad_token_id": 0, "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
            "sliding_window": 4096, "sliding_window_size": 4096, "torch_dtype": "float32",
            "transformers_version": "4.42.4", "use_cache": true, "vocab_size": 256_000});
        let phi3 = json!({"_name_or_path": "Phi-3-mini-4k-instruct", "architectures": ["Phi3ForCausalLM"],
            "attention_dropout": 0.0, "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config"},
            "bos_token_id": 1, "embd_pdrop": 0.0, "eos_token_id": 32000, "hidden_act": "silu", "hidden_size": 3072,
            "initializer_range": 0.02, "intermediate_size": 8192, "max_position_embeddings": 4096,
            "model_type": "phi3", "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 32,
            "original_max_position_embeddings": 4096, "pad_token_id": 32000, "resid_pdrop": 0.0,
            "rms_norm_eps": 1e-5, "rope_scaling": null, "rope_theta": 10000.0, "sliding_window": 2047,
            "tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.40.2",
            "use_cache": true, "attention_bias": false, "vocab_size": 32064});
        for config in [gemma2, phi3] {
            let values = config.as_object().unwrap().clone();
            let settings = Settings::new(Path::new("config.json"), "", values);
            Config::from_config_json(&settings).unwrap();
            let unread: Vec<(&str, &Value)> = settings.unread(HARMLESS_KEYS);
            assert!(unread.is_empty(), "{unread:?}");
        }
    }
}
