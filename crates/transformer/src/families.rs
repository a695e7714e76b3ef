//! The families of models. One file and one line below each; everything between a family's mathematics and a
//! [`LanguageModel`](crate::LanguageModel) is shared.

use std::fmt;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::{
    ModelError,
    formats::{Settings, TensorSource},
    pass::Decoder,
    weights::{Stored, Weights},
};

mod gguf_names;

use gguf_names::GgufNames;

/// What a family supplies: a configuration that knows how checkpoints write it and how to load a model.
pub(crate) trait Configuration: Sized {
    /// `model_type`s of config.json.
    const MODEL_TYPES: &[&str];
    /// `architectures` of config.json: those with a language model's output.
    const ARCHITECTURES: &[&str];
    /// `general.architecture` of GGUF files.
    const GGUF_ARCHITECTURE: &str;
    /// What llama.cpp calls the family's tensors.
    const GGUF_NAMES: GgufNames;

    /// Reads a config.json of `model_type`.
    fn from_config_json(model_type: &str, settings: &Settings) -> Result<Self, ModelError>;

    /// Reads the metadata of a GGUF file, and from its tensors what the metadata leave open.
    fn from_gguf(settings: &Settings, tensors: &dyn TensorSource) -> Result<Self, ModelError>;

    /// The sizes that callers need.
    fn size(&self) -> Size;

    /// The name within the family of a tensor that a Hugging Face directory calls `name`.
    fn own_name(name: &str) -> String {
        name.to_owned()
    }

    /// What llama.cpp's conversion did to the tensor `own` (within the family).
    fn gguf_stored(&self, own: &str) -> Stored;

    /// Whether `name` (within the family) is a buffer that old checkpoints carry along.
    fn is_buffer(name: &str) -> bool;

    /// Whether `name` (within the family) repeats another tensor.
    fn is_copy(&self, name: &str) -> bool;

    /// Takes the weights and builds the model.
    fn load(&self, weights: &mut Weights, device: &Device) -> Result<Box<dyn Decoder>, ModelError>;
}

/// Sizes of a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) n_layers: usize,
    pub(crate) d_model: usize,
    pub(crate) d_vocab: usize,
    pub(crate) max_context: usize,
}

/// Declares the modules of all families, [`Family`], and the dispatch over them.
macro_rules! families {
    ($($name:ident => $module:ident),* $(,)?) => {
        $(pub mod $module;)*

        /// A family of language models.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Family {
            $(#[doc = concat!("See [`", stringify!($module), "`].")] $name,)*
        }

        impl fmt::Display for Family {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => stringify!($module),)* })
            }
        }

        /// The configuration of a model of any family.
        #[derive(Clone, Debug)]
        pub(crate) enum FamilyConfig {
            $($name($module::Config),)*
        }

        impl FamilyConfig {
            pub(crate) fn from_config_json(settings: &Settings) -> Result<Self, ModelError> {
                let model_type = settings.text("model_type")?;
                let model_type = model_type.ok_or_else(|| settings.wrong("model_type", "expected a text, found none"))?;
                $(if $module::Config::MODEL_TYPES.contains(&model_type) {
                    check_architecture(settings, $module::Config::ARCHITECTURES)?;
                    return $module::Config::from_config_json(model_type, settings).map(Self::$name);
                })*
                let known = [$($module::Config::MODEL_TYPES),*].concat().join(", ");
                Err(settings.unsupported(format!("model_type {model_type:?}"), format!("expected one of {known}")))
            }

            pub(crate) fn from_gguf(
                architecture: &str,
                settings: &Settings,
                tensors: &dyn TensorSource,
            ) -> Result<Self, ModelError> {
                $(if architecture == $module::Config::GGUF_ARCHITECTURE {
                    return $module::Config::from_gguf(settings, tensors).map(Self::$name);
                })*
                let known = [$($module::Config::GGUF_ARCHITECTURE),*].join(", ");
                Err(settings.unsupported(
                    format!("general.architecture {architecture:?}"),
                    format!("expected one of {known}"),
                ))
            }

            pub(crate) fn family(&self) -> Family {
                match self { $(Self::$name(_) => Family::$name,)* }
            }

            pub(crate) fn size(&self) -> Size {
                match self { $(Self::$name(config) => config.size(),)* }
            }

            /// The family's name of a tensor in a Hugging Face directory.
            pub(crate) fn own_name(&self, name: &str) -> String {
                match self { $(Self::$name(_) => $module::Config::own_name(name),)* }
            }

            /// The family's name of a tensor in a GGUF file.
            pub(crate) fn own_gguf_name(&self, name: &str) -> Option<(String, Stored)> {
                match self {
                    $(Self::$name(config) => {
                        let own = $module::Config::GGUF_NAMES.own(name)?;
                        let stored = config.gguf_stored(&own);
                        Some((own, stored))
                    })*
                }
            }

            /// What a GGUF file calls the family's tensor `own`.
            pub(crate) fn gguf_name(&self, own: &str) -> Option<String> {
                match self { $(Self::$name(_) => $module::Config::GGUF_NAMES.in_file(own),)* }
            }

            /// Whether the tensor of the family's name `name` is a weight of its own.
            pub(crate) fn counts(&self, name: &str) -> bool {
                match self { $(Self::$name(config) => !$module::Config::is_buffer(name) && !config.is_copy(name),)* }
            }

            /// Loads all of `weights`, or says what is wrong with them.
            pub(crate) fn load(&self, mut weights: Weights, device: &Device) -> Result<Box<dyn Decoder>, ModelError> {
                match self {
                    $(Self::$name(config) => {
                        let decoder = config.load(&mut weights, device)?;
                        weights.finish($module::Config::is_buffer)?;
                        Ok(decoder)
                    })*
                }
            }
        }
    };
}

families! {
    Llama => llama,
    Gpt2 => gpt2,
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
    "attention_dropout",
    "attn_pdrop",
    "bos_token_id",
    "dtype",
    "embd_pdrop",
    "eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "initializer_range",
    "is_llama_config",
    "keys_to_ignore_at_inference",
    "label2id",
    "model_type",
    "n_ctx",
    "output_past",
    "pad_token_id",
    "pretraining_tp",
    "reorder_and_upcast_attn",
    "resid_pdrop",
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
