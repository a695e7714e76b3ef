//! What GGUF files of several families have in common.

use serde_json::json;

use super::{Settings, TensorSource, config_json::d_head_of};
use crate::{
    Activation, ModelError, RopeScaling,
    blocks::{AttentionShape, BlockShape, MlpShape, NormKind, Norms, Rope, Shape},
};

/// Metadata that do not change what a frozen model computes.
pub(crate) const HARMLESS_KEYS: &[&str] = &[
    "vocab_size",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
    "rope.scaling.yarn_log_multiplier",
];

/// What metadata begin with that change what a model computes, each of them.
const OF_ATTENTION: &[&str] = &["attention.", "rope."];

/// Refuses a file with metadata on attention that nobody has read: OLMo 3, say, is written as an OLMo 2 with windows.
pub(crate) fn check_read(settings: &Settings) -> Result<(), ModelError> {
    if !settings.flag("attention.causal", true)? {
        return Err(settings.unsupported("attention.causal = false", "a position sees none that follow"));
    }
    settings.refuse_unread(OF_ATTENTION, HARMLESS_KEYS)
}

/// The tensor of a GGUF file that holds a divisor for each rotary frequency.
pub(crate) const ROPE_FREQS: &str = "rope_freqs.weight";

/// The shape of a model like Llama; see [`config_json::llama_like`](super::config_json::llama_like).
pub(crate) fn llama_like(settings: &Settings, tensors: &dyn TensorSource) -> Result<Shape, ModelError> {
    let d_model = settings.count("embedding_length")?;
    let n_heads = settings.count("attention.head_count")?;
    let d_head = match settings.count_if_any("attention.key_length")? {
        Some(d_head) => d_head,
        None => d_head_of(settings, "attention.head_count", d_model, n_heads)?,
    };
    settings.refuse(
        "attention.value_length",
        &[json!(d_head)],
        &format!("expected the head's width, {d_head}"),
    )?;
    settings.refuse("expert_count", &[json!(0)], "mixtures of experts are not implemented")?;
    let block = BlockShape {
        norms: Norms::Before,
        parallel: false,
        attention: AttentionShape {
            n_heads,
            n_kv_heads: settings.count_if_any("attention.head_count_kv")?.unwrap_or(n_heads),
            d_head,
            qkv_bias: false,
            output_bias: false,
            qk_norm: None,
            scale: 1.0 / (d_head as f64).sqrt(),
            soft_cap: None,
            rope: Some(rope(settings, tensors, d_head)?),
            window: None,
            latent: None,
        },
        mlp: MlpShape {
            d_mlp: settings.count("feed_forward_length")?,
            gated: true,
            bias: false,
            activation: Activation::Silu,
        },
        experts: None,
    };
    Ok(Shape {
        d_vocab: d_vocab(settings, tensors)?,
        d_model,
        max_context: settings.count("context_length")?,
        embedding_scale: None,
        embedded_positions: false,
        norm: NormKind::Rms,
        norm_epsilon: settings.positive("attention.layer_norm_rms_epsilon")?,
        blocks: vec![block; settings.layers("block_count")?],
        tied: !has(tensors, "output.weight"),
        logit_soft_cap: None,
    })
}

/// Whether there is a tensor `name`.
pub(crate) fn has(tensors: &dyn TensorSource, name: &str) -> bool {
    tensors.tensors().contains_key(name)
}

/// The number of tokens, which only the embedding tells for certain.
pub(crate) fn d_vocab(settings: &Settings, tensors: &dyn TensorSource) -> Result<usize, ModelError> {
    let embedding = tensors.tensors().get("token_embd.weight");
    let d_vocab = embedding.and_then(|tensor| tensor.shape.first().copied());
    d_vocab.ok_or_else(|| settings.wrong("vocab_size", "there is no token_embd.weight"))
}

/// The rotary positions of heads of `d_head`.
pub(crate) fn rope(
    settings: &Settings,
    tensors: &dyn TensorSource,
    d_head: usize,
) -> Result<Rope, ModelError> {
    Ok(Rope {
        d_rotated: settings.count_if_any("rope.dimension_count")?.unwrap_or(d_head),
        theta: settings.positive_if_any("rope.freq_base")?.unwrap_or(10_000.0),
        scaling: rope_scaling(settings, tensors)?,
    })
}

/// As llama.cpp reads it: the type, `linear` where there is none, decides what the factor means; divisors of the
/// frequencies count in any case.
fn rope_scaling(settings: &Settings, tensors: &dyn TensorSource) -> Result<Option<RopeScaling>, ModelError> {
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
    if !has(tensors, ROPE_FREQS) {
        return Ok(factor.map(|factor| RopeScaling::Linear { factor }));
    }
    let mut divisors = tensors.read(ROPE_FREQS)?;
    if let Some(factor) = factor {
        divisors.iter_mut().for_each(|divisor| *divisor *= factor as f32);
    }
    Ok(Some(RopeScaling::Divisors(divisors)))
}

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
    fn metadata_on_attention_that_nobody_reads_are_refused() {
        let check = |values: serde_json::Value| {
            let settings = Settings::new(Path::new("m.gguf"), "olmo2.", values.as_object().unwrap().clone());
            check_read(&settings).map_err(|error| error.to_string())
        };
        let refused = check(json!({"attention.sliding_window": 4096})).unwrap_err();
        assert!(refused.starts_with("m.gguf: olmo2.attention.sliding_window = 4096 is not"), "{refused}");
        let refused = check(json!({"attention.sliding_window_pattern": [true, false]})).unwrap_err();
        assert!(refused.contains("sliding_window_pattern"), "{refused}");
        assert!(check(json!({"attention.causal": false})).unwrap_err().contains("attention.causal"));
        assert!(check(json!({"rope.dimension_sections": [1, 2]})).is_err());
        let harmless = json!({"attention.causal": true, "attention.sliding_window": 0, "file_type": 1,
            "rope.scaling.finetuned": true, "rope.scaling.original_context_length": 64});
        check(harmless).unwrap();
    }

    #[test]
    fn gguf_rope_scaling_is_what_llama_cpp_makes_of_it() {
        let read = |values: serde_json::Value, divisors| {
            let values = values.as_object().unwrap().clone();
            let settings = Settings::new(Path::new("m.gguf"), "llama.", values);
            rope_scaling(&settings, &Divisors::new(divisors))
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
