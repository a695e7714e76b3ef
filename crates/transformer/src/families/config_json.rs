//! What config.json files of several families have in common.

use super::Settings;
use crate::{
    Activation, ModelError, RopeScaling,
    blocks::{AttentionShape, BlockShape, MlpShape, NormKind, Norms, Rope, Shape},
};

/// What holds where a key is missing, if anything does; and how a family calls its activation function.
pub(crate) struct Defaults {
    pub(crate) d_vocab: Option<usize>,
    pub(crate) n_heads: Option<usize>,
    /// As many as heads, if `None`; null means that in any family.
    pub(crate) n_kv_heads: Option<usize>,
    /// As wide as makes all heads as wide as the stream, if `None`.
    pub(crate) d_head: Option<usize>,
    pub(crate) max_context: Option<usize>,
    pub(crate) tied: bool,
    pub(crate) norm_epsilon: f64,
    pub(crate) activation_key: &'static str,
    pub(crate) activation: &'static str,
    pub(crate) rope_theta: f64,
    /// The context length before it was made longer. Where a family has one, or the configuration says it outside the
    /// section on scaling, what that section says counts for nothing.
    pub(crate) original_context: Option<usize>,
}

impl Defaults {
    /// Those of Llama.
    pub(crate) const LLAMA: Self = Self {
        d_vocab: None,
        n_heads: None,
        n_kv_heads: None,
        d_head: None,
        max_context: None,
        tied: false,
        norm_epsilon: 1e-6,
        activation_key: "hidden_act",
        activation: "silu",
        rope_theta: 10_000.0,
        original_context: None,
    };
}

/// The shape of a model like Llama: RMSNorm before attention and MLP, rotary positions, grouped-query attention over
/// all of the past, gated MLP, no biases. What makes a family another is for it to change.
pub(crate) fn llama_like(settings: &Settings, defaults: &Defaults) -> Result<Shape, ModelError> {
    let count = |key: &str, default: Option<usize>| match default {
        Some(default) => Ok(settings.count_if_any(key)?.unwrap_or(default)),
        None => settings.count(key),
    };
    let d_model = settings.count("hidden_size")?;
    let n_heads = count("num_attention_heads", defaults.n_heads)?;
    let d_head = match settings.count_if_any("head_dim")?.or(defaults.d_head) {
        Some(d_head) => d_head,
        None => d_head_of(settings, "num_attention_heads", d_model, n_heads)?,
    };
    let n_kv_heads = match settings.count_if_any("num_key_value_heads")? {
        None if !settings.has("num_key_value_heads") => defaults.n_kv_heads,
        written => written,
    };
    let block = BlockShape {
        norms: Norms::Before,
        parallel: false,
        attention: AttentionShape {
            n_heads,
            n_kv_heads: n_kv_heads.unwrap_or(n_heads),
            d_head,
            qkv_bias: false,
            output_bias: false,
            qk_norm: None,
            scale: 1.0 / (d_head as f64).sqrt(),
            soft_cap: None,
            rope: Some(rope(settings, d_head, defaults, 1.0)?),
            window: None,
            latent: None,
        },
        mlp: MlpShape {
            d_mlp: settings.count("intermediate_size")?,
            gated: true,
            bias: false,
            activation: activation(settings, defaults.activation_key, defaults.activation)?,
        },
        experts: None,
    };
    Ok(Shape {
        d_vocab: count("vocab_size", defaults.d_vocab)?,
        d_model,
        max_context: count("max_position_embeddings", defaults.max_context)?,
        embedding_scale: None,
        embedded_positions: false,
        norm: NormKind::Rms,
        norm_epsilon: settings.positive_if_any("rms_norm_eps")?.unwrap_or(defaults.norm_epsilon),
        blocks: vec![block; settings.layers("num_hidden_layers")?],
        tied: settings.flag("tie_word_embeddings", defaults.tied)?,
        logit_soft_cap: None,
    })
}

/// The width of heads that are together as wide as the stream; `key` is where their number is from.
pub(crate) fn d_head_of(
    settings: &Settings,
    key: &str,
    d_model: usize,
    n_heads: usize,
) -> Result<usize, ModelError> {
    if d_model.is_multiple_of(n_heads) {
        return Ok(d_model / n_heads);
    }
    Err(settings.wrong(key, format!("expected a divisor of the width {d_model}, found {n_heads}")))
}

/// The activation function at `key`.
pub(crate) fn activation(settings: &Settings, key: &str, default: &str) -> Result<Activation, ModelError> {
    let name = settings.text(key)?.unwrap_or(default);
    Activation::from_name(name).ok_or_else(|| {
        settings.unsupported(format!("{key} {name:?}"), format!("expected one of {}", Activation::NAMES))
    })
}

/// The window of each block: `window` where `layer_types` says that it slides or, if there is none, `slides` does.
pub(crate) fn set_windows(
    settings: &Settings,
    shape: &mut Shape,
    window: Option<usize>,
    slides: impl Fn(usize) -> bool,
) -> Result<(), ModelError> {
    let types = settings.texts("layer_types")?;
    if !types.is_empty() && types.len() != shape.blocks.len() {
        let reason =
            format!("expected one for each of the {} blocks, found {}", shape.blocks.len(), types.len());
        return Err(settings.wrong("layer_types", reason));
    }
    for (layer, block) in shape.blocks.iter_mut().enumerate() {
        let slides = match types.get(layer) {
            None => slides(layer),
            Some(&SLIDING) => true,
            Some(&FULL) => false,
            Some(other) => {
                let known = format!("expected {FULL:?} or {SLIDING:?}");
                return Err(settings.unsupported(format!("layer_types with {other:?}"), known));
            }
        };
        block.attention.window = window.filter(|_| slides);
    }
    Ok(())
}

/// What `layer_types` calls attention over all of the past.
pub(crate) const FULL: &str = "full_attention";

/// What `layer_types` calls attention within a window.
pub(crate) const SLIDING: &str = "sliding_attention";

/// The rotary positions of heads of `d_head`: `rope_parameters` since transformers 5, `rope_theta`, `rope_scaling` and
/// `partial_rotary_factor` before. Where `rope_parameters` are of several kinds of blocks they are left for the family to
/// read. `partial` is the share of a head that is rotated where none is given.
pub(crate) fn rope(
    settings: &Settings,
    d_head: usize,
    defaults: &Defaults,
    partial: f64,
) -> Result<Rope, ModelError> {
    let theta = settings.positive_if_any("rope_theta")?.unwrap_or(defaults.rope_theta);
    let partial = settings.positive_if_any("partial_rotary_factor")?.unwrap_or(partial);
    let newer = settings.section("rope_parameters")?;
    let newer = newer.filter(|section| !section.has(FULL) && !section.has(SLIDING));
    match newer.or(settings.section("rope_scaling")?) {
        Some(section) => {
            let defaults = Defaults { rope_theta: theta, ..*defaults };
            rope_of(settings, &section, d_head, &defaults, partial)
        }
        None => Ok(Rope { d_rotated: rotated(d_head, partial), theta, scaling: None }),
    }
}

/// The rotary positions that a `section` of `settings` describes.
pub(crate) fn rope_of(
    settings: &Settings,
    section: &Settings,
    d_head: usize,
    defaults: &Defaults,
    partial: f64,
) -> Result<Rope, ModelError> {
    let theta = section.positive_if_any("rope_theta")?.unwrap_or(defaults.rope_theta);
    let partial = section.positive_if_any("partial_rotary_factor")?.unwrap_or(partial);
    let scaling = scaling(settings, section, defaults.original_context)?;
    let rope = Rope { d_rotated: rotated(d_head, partial), theta, scaling };
    section.warn_of_unread(&["type"]);
    Ok(rope)
}

/// How many dimensions of a head are a share of it, as `int()` of Python has it.
fn rotated(d_head: usize, partial: f64) -> usize {
    (d_head as f64 * partial) as usize
}

fn scaling(
    settings: &Settings,
    section: &Settings,
    original_context: Option<usize>,
) -> Result<Option<RopeScaling>, ModelError> {
    let kind = match section.text("rope_type")? {
        Some(kind) => kind,
        None => section.text("type")?.unwrap_or("default"),
    };
    // Where both say, the configuration does, not its section.
    let original = || {
        let key = "original_max_position_embeddings";
        let here = section.count_if_any(key)?;
        match settings.count_if_any(key)?.or(original_context).or(here) {
            Some(original) => Ok(original),
            None => settings.count("max_position_embeddings"),
        }
    };
    // The share by which the context was made longer, if it is not written down.
    let stretched = || -> Result<f64, ModelError> {
        match section.positive_if_any("factor")? {
            Some(factor) => Ok(factor),
            None => Ok(settings.count("max_position_embeddings")? as f64 / original()? as f64),
        }
    };
    Ok(Some(match kind {
        "default" => return Ok(None),
        // Frequencies change only beyond `max_position_embeddings`, and sequences are never longer than that.
        "dynamic" => {
            section.positive("factor")?;
            return Ok(None);
        }
        "linear" => RopeScaling::Linear { factor: section.positive("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: section.positive("factor")?,
            low_freq_factor: section.positive("low_freq_factor")?,
            high_freq_factor: section.positive("high_freq_factor")?,
            original_max_position_embeddings: original()?,
        },
        "yarn" => {
            let factor = stretched()?;
            RopeScaling::Yarn {
                factor,
                attention_factor: yarn_attention_factor(section, factor)?,
                beta_fast: section.positive_if_any("beta_fast")?.unwrap_or(32.0),
                beta_slow: section.positive_if_any("beta_slow")?.unwrap_or(1.0),
                truncate: section.flag("truncate", true)?,
                original_max_position_embeddings: original()?,
            }
        }
        // What Phi-3's first configurations called it.
        "longrope" | "su" => {
            let (factor, original) = (stretched()?, original()?);
            let grown = 1.0 + factor.max(1.0).ln() / (original as f64).ln();
            RopeScaling::LongRope {
                short_factor: section.numbers("short_factor")?,
                long_factor: section.numbers("long_factor")?,
                attention_factor: section.positive_if_any("attention_factor")?.unwrap_or(grown.sqrt()),
                original_max_position_embeddings: original,
            }
        }
        other => {
            let known = "expected default, linear, dynamic, llama3, yarn or longrope";
            return Err(settings.unsupported(format!("rope scaling {other:?}"), known));
        }
    }))
}

/// What YaRN multiplies cosines and sines with.
fn yarn_attention_factor(section: &Settings, factor: f64) -> Result<f64, ModelError> {
    if let Some(given) = section.positive_if_any("attention_factor")? {
        return Ok(given);
    }
    let (mscale, all_dim) = (section.number_if_any("mscale")?, section.number_if_any("mscale_all_dim")?);
    match (mscale.filter(|&x| x != 0.0), all_dim.filter(|&x| x != 0.0)) {
        (Some(mscale), Some(all_dim)) => Ok(yarn_mscale(factor, mscale) / yarn_mscale(factor, all_dim)),
        _ => Ok(yarn_mscale(factor, 1.0)),
    }
}

/// YaRN's correction of magnitudes for contexts that are `factor` times as long.
pub(crate) fn yarn_mscale(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;

    fn settings(values: Value) -> Settings {
        Settings::new(Path::new("config.json"), "", values.as_object().unwrap().clone())
    }

    #[test]
    fn rope_is_read_as_it_was_and_as_it_is_written() {
        let defaults = Defaults { rope_theta: 500.0, ..Defaults::LLAMA };
        let read = |values: Value| rope(&settings(values), 16, &defaults, 1.0).unwrap();
        let plain = |d_rotated, theta| Rope { d_rotated, theta, scaling: None };
        assert_eq!(read(json!({})), plain(16, 500.0));
        assert_eq!(read(json!({"rope_theta": 9.0, "partial_rotary_factor": 0.4})), plain(6, 9.0));
        let linear = |theta| Rope { scaling: Some(RopeScaling::Linear { factor: 2.0 }), ..plain(16, theta) };
        let older = json!({"rope_theta": 9.0, "rope_scaling": {"type": "linear", "factor": 2.0}});
        assert_eq!(read(older), linear(9.0));
        let newer = json!({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 7.0}});
        assert_eq!(read(newer), linear(7.0));
        let dynamic = json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}});
        assert_eq!(read(dynamic), plain(16, 500.0));
    }

    #[test]
    fn magnitudes_follow_from_how_much_longer_the_context_became() {
        let scaling = |section: Value| {
            let s = settings(json!({"max_position_embeddings": 64, "rope_scaling": section}));
            rope(&s, 2, &Defaults::LLAMA, 1.0).unwrap().scaling.unwrap()
        };
        let original = "original_max_position_embeddings";
        let yarn = |section| match scaling(section) {
            RopeScaling::Yarn { factor, attention_factor, .. } => (factor, attention_factor),
            other => panic!("{other:?}"),
        };
        assert_eq!(yarn(json!({"type": "yarn", original: 16})), (4.0, 0.1 * 4f64.ln() + 1.0));
        let deepseek =
            json!({"type": "yarn", "factor": 4.0, original: 16, "mscale": 1.0, "mscale_all_dim": 1.0});
        assert_eq!(yarn(deepseek), (4.0, 1.0));
        let long = json!({"type": "longrope", original: 16, "short_factor": [1.0], "long_factor": [2]});
        let expected = RopeScaling::LongRope {
            short_factor: vec![1.0],
            long_factor: vec![2.0],
            attention_factor: 1.5f64.sqrt(),
            original_max_position_embeddings: 16,
        };
        assert_eq!(scaling(long), expected);
    }

    #[test]
    fn keys_that_are_missing_have_a_default_and_null_means_as_many_as_heads() {
        let written = json!({"hidden_size": 12, "num_attention_heads": 6, "intermediate_size": 1,
            "vocab_size": 1, "max_position_embeddings": 1, "num_hidden_layers": 1});
        let n_kv_heads = |value: Option<Value>, default| {
            let mut values = written.clone();
            if let Some(value) = value {
                values["num_key_value_heads"] = value;
            }
            let defaults = Defaults { n_kv_heads: default, ..Defaults::LLAMA };
            llama_like(&settings(values), &defaults).unwrap().blocks[0].attention.n_kv_heads
        };
        assert_eq!([None, Some(3)].map(|default| n_kv_heads(None, default)), [6, 3]);
        assert_eq!([None, Some(3)].map(|default| n_kv_heads(Some(Value::Null), default)), [6, 6]);
        assert_eq!([None, Some(3)].map(|default| n_kv_heads(Some(json!(2)), default)), [2, 2]);
    }

    #[test]
    fn windows_follow_layer_types_before_the_pattern() {
        let windows = |values: Value| {
            let mut shape = Shape::small();
            set_windows(&settings(values), &mut shape, Some(3), |layer| layer == 0)?;
            Ok(shape.blocks.iter().map(|block| block.attention.window).collect::<Vec<_>>())
        };
        let error = |result: Result<_, ModelError>| result.map(|_: Vec<_>| ()).unwrap_err().to_string();
        assert_eq!(windows(json!({})).unwrap(), [Some(3), None]);
        assert_eq!(windows(json!({"layer_types": [FULL, SLIDING]})).unwrap(), [None, Some(3)]);
        assert!(error(windows(json!({"layer_types": [FULL]}))).contains("each of the 2 blocks, found 1"));
        assert!(error(windows(json!({"layer_types": [FULL, "chunked"]}))).contains("chunked"));
    }
}
