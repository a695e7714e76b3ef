//! Writing a Llama as transformers has it.

use std::{collections::BTreeMap, path::Path};

use burn::tensor::Tensor;
use serde_json::{Value, json};

use super::{Llama, LlamaConfig};
use crate::{
    ModelError, RopeScaling,
    blocks::{Linear, Transformer},
    formats::{self, SavedTensor},
};

/// In which precision [`Llama::save`] writes weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SavedDtype {
    /// As they are.
    F32,
    /// Rounded to bfloat16: half the size.
    Bf16,
}

impl Llama {
    /// Writes `config.json` and `model.safetensors` into `dir`, as transformers has them. The tokenizer is not
    /// the model's to write.
    ///
    /// # Errors
    /// If the disk fails, or if config.json has no words for the configuration.
    pub fn save(&self, dir: &Path, dtype: SavedDtype) -> Result<(), ModelError> {
        let config = config_json(&self.config, dtype)?;
        let path = dir.join("config.json");
        formats::save(dir, self.named_tensors(), dtype == SavedDtype::Bf16)?;
        let text = serde_json::to_string_pretty(&config).expect("string keys only") + "\n";
        monosema_core::AtomicFile::write(&path, text.as_bytes())
            .map_err(|source| ModelError::Io { path, source })
    }

    fn named_tensors(&self) -> BTreeMap<String, SavedTensor> {
        let c = &self.config;
        let (queries, keys) = (c.n_heads * c.d_head, c.n_kv_heads * c.d_head);
        let mut tensors = Named::default();
        let Transformer { embedding, blocks, final_norm, .. } = &self.transformer;
        tensors.add("model.embed_tokens.weight", embedding.weight.val());
        tensors.add("model.norm.weight", final_norm.weight());
        for (layer, block) in blocks.iter().enumerate() {
            let at = |name: &str| format!("model.layers.{layer}.{name}");
            let norms =
                [("input_layernorm", &block.attention_norm), ("post_attention_layernorm", &block.mlp_norm)];
            for (name, norm) in norms.into_iter().filter_map(|(name, norm)| Some((name, norm.as_ref()?))) {
                tensors.add(&at(&format!("{name}.weight")), norm.weight());
            }
            let qkv = [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)];
            tensors.add_parts(&at("self_attn."), &qkv, &block.attention.qkv);
            tensors.add_parts(&at("self_attn."), &[("o_proj", c.d_model)], &block.attention.output);
            tensors.add_parts(&at("mlp."), &[("gate_proj", c.d_mlp), ("up_proj", c.d_mlp)], &block.mlp.up);
            tensors.add_parts(&at("mlp."), &[("down_proj", c.d_model)], &block.mlp.down);
        }
        if let Some(output) = &embedding.output {
            tensors.add("lm_head.weight", output.weight.val().transpose());
        }
        tensors.0
    }
}

/// What transformers would call the model.
fn config_json(config: &LlamaConfig, dtype: SavedDtype) -> Result<Value, ModelError> {
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
            Some(RopeScaling::Divisors(_)) => return Err(inexpressible("rope scaling of a GGUF file")),
            Some(scaling) => rope_scaling_json(scaling),
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

/// A section `rope_scaling`: the fields are those of transformers, and so are the types' names, in small letters.
fn rope_scaling_json(scaling: &RopeScaling) -> Value {
    let tagged = serde_json::to_value(scaling).expect("numbers and string keys only");
    let mut fields = serde_json::Map::new();
    for (kind, values) in tagged.as_object().into_iter().flatten() {
        fields.extend(values.as_object().cloned().unwrap_or_default());
        fields.insert("rope_type".into(), kind.to_lowercase().into());
    }
    Value::Object(fields)
}

/// Tensors by name, as they are saved.
#[derive(Default)]
struct Named(BTreeMap<String, SavedTensor>);

impl Named {
    fn add<const D: usize>(&mut self, name: &str, tensor: Tensor<D>) {
        let shape = tensor.dims().to_vec();
        let values = tensor.into_data().iter::<f32>().collect();
        self.0.insert(name.to_owned(), SavedTensor { shape, values });
    }

    /// The parts of `merged`, so many outputs each, under the names of the maps that it consists of.
    fn add_parts(&mut self, prefix: &str, parts: &[(&str, usize)], merged: &Linear) {
        let mut begin = 0;
        for (name, d_out) in parts {
            self.add(
                &format!("{prefix}{name}.weight"),
                merged.weight.val().narrow(1, begin, *d_out).transpose(),
            );
            if let Some(bias) = &merged.bias {
                self.add(&format!("{prefix}{name}.bias"), bias.val().narrow(0, begin, *d_out));
            }
            begin += d_out;
        }
    }
}
