//! GPT-Neo (Black et al., 2021, doi:10.5281/zenodo.5297715), of which TinyStories (Eldan and Li, 2023,
//! arXiv:2305.07759) has small ones.
//!
//! As GPT-2, but every other block attends within a window, scores are not scaled, and queries, keys and values have
//! no biases. Reference: `modeling_gpt_neo.py` of transformers.

use super::{Description, as_is, as_written, config_json};
use crate::{
    ModelError,
    blocks::{AttentionShape, BlockShape, MlpShape, Names, NormKind, Norms, Shape},
    formats::Settings,
};

pub(crate) const FAMILY: Description = Description {
    model_types: &["gpt_neo"],
    architectures: &["GPTNeoForCausalLM"],
    names: Names {
        whole: &[
            ("token_embd", "transformer.wte"),
            ("position_embd", "transformer.wpe"),
            ("output_norm", "transformer.ln_f"),
            ("output", "lm_head"),
        ],
        blocks: "transformer.h.",
        parts: &[&[
            ("attn_norm", "ln_1"),
            ("attn_q", "attn.attention.q_proj"),
            ("attn_k", "attn.attention.k_proj"),
            ("attn_v", "attn.attention.v_proj"),
            ("attn_output", "attn.attention.out_proj"),
            ("ffn_norm", "ln_2"),
            ("ffn_up", "mlp.c_fc"),
            ("ffn_down", "mlp.c_proj"),
        ]],
    },
    canonical: as_written,
    // The masks.
    ignored: |_, name| name.ends_with(".attention.bias") || name.ends_with(".attention.masked_bias"),
    not_in_every_block: &[],
    from_config_json,
    stored: as_is,
    gguf: None,
};

fn from_config_json(settings: &Settings) -> Result<Shape, ModelError> {
    let (d_model, n_heads) = (settings.count("hidden_size")?, settings.count("num_heads")?);
    let attention = AttentionShape {
        n_heads,
        n_kv_heads: n_heads,
        d_head: config_json::d_head_of(settings, "num_heads", d_model, n_heads)?,
        qkv_bias: false,
        output_bias: true,
        qk_norm: None,
        scale: 1.0,
        soft_cap: None,
        rope: None,
        window: None,
        latent: None,
    };
    let mlp = MlpShape {
        d_mlp: settings.count_if_any("intermediate_size")?.unwrap_or(4 * d_model),
        gated: false,
        bias: true,
        activation: config_json::activation(settings, "activation_function", "gelu_new")?,
    };
    let window = settings.count_if_any("window_size")?.unwrap_or(256);
    let block = |local: bool| BlockShape {
        norms: Norms::Before,
        parallel: false,
        attention: AttentionShape { window: local.then_some(window), ..attention.clone() },
        mlp: mlp.clone(),
        experts: None,
    };
    Ok(Shape {
        d_vocab: settings.count("vocab_size")?,
        d_model,
        max_context: settings.count("max_position_embeddings")?,
        embedding_scale: None,
        embedded_positions: true,
        norm: NormKind::Layer,
        norm_epsilon: settings.positive_if_any("layer_norm_epsilon")?.unwrap_or(1e-5),
        blocks: local_blocks(settings)?.into_iter().map(block).collect(),
        tied: settings.flag("tie_word_embeddings", true)?,
        logit_soft_cap: None,
    })
}

/// Which blocks attend within a window: `attention_types` repeats lists of kinds, `[[["global", "local"], 12]]`.
fn local_blocks(settings: &Settings) -> Result<Vec<bool>, ModelError> {
    let n_layers = settings.layers("num_layers")?;
    let key = "attention_types";
    let kind = "a list of pairs: kinds of blocks, and how often they are repeated";
    let types: Option<Vec<(Vec<String>, usize)>> = settings.parsed(key, kind)?;
    let types = types.unwrap_or_else(|| vec![(vec!["global".into(), "local".into()], 12)]);
    let repeated = types.iter().filter(|(kinds, _)| !kinds.is_empty());
    let kinds = repeated.flat_map(|(kinds, times)| std::iter::repeat_n(kinds, *times).flatten());
    // A file may ask for any number of repetitions.
    let kinds: Vec<&String> = kinds.take(n_layers + 1).collect();
    if kinds.len() != n_layers {
        let found = if kinds.len() > n_layers { "more".into() } else { kinds.len().to_string() };
        return Err(
            settings.wrong(key, format!("expected one for each of the {n_layers} blocks, found {found}"))
        );
    }
    // The same once more, written out.
    let listed = settings.texts("attention_layers")?;
    if !listed.is_empty() && listed != kinds {
        return Err(settings.wrong("attention_layers", format!("expected what {key} comes to, {kinds:?}")));
    }
    let local = |kind: &&String| match kind.as_str() {
        "local" => Ok(true),
        "global" => Ok(false),
        other => {
            Err(settings.unsupported(format!("{key} with {other:?}"), "expected \"global\" or \"local\""))
        }
    };
    kinds.iter().map(local).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn kinds_of_attention_are_repeated() {
        let read = |values: Value| {
            let settings = Settings::new(Path::new("config.json"), "", values.as_object().unwrap().clone());
            local_blocks(&settings).map_err(|error| error.to_string())
        };
        let types = |n: usize, types: Value| json!({"num_layers": n, "attention_types": types});
        assert_eq!(read(json!({"num_layers": 24})).unwrap(), [false, true].repeat(12));
        let mixed = json!([[["global", "local"], 1], [["local"], 2]]);
        assert_eq!(read(types(4, mixed.clone())).unwrap(), [false, true, true, true]);
        assert!(read(types(5, mixed)).unwrap_err().contains("each of the 5 blocks, found 4"));
        assert!(
            read(types(1, json!([[[], 1u64 << 60], [["local"], 1u64 << 60]]))).unwrap_err().contains("more")
        );
        assert!(read(types(1, json!([[["sparse"], 1]]))).unwrap_err().contains("sparse"));
        assert!(read(types(1, json!(["local"]))).unwrap_err().contains("expected a list of pairs"));
        let listed =
            json!({"num_layers": 1, "attention_types": [[["local"], 1]], "attention_layers": ["global"]});
        assert!(read(listed).unwrap_err().contains("attention_layers"));
    }
}
