//! DeepSeek-V3 and R1 (DeepSeek-AI, 2024, arXiv:2412.19437), and what keeps their form, such as Moonlight.
//!
//! As Llama, with latent attention and, but for the first blocks, a mixture of experts for an MLP. The layer that
//! predicts one token more (multi-token prediction) is left out. Reference: `modeling_deepseek_v3.py` of transformers.

use monosema_core::BlockHook;
use serde_json::json;

use super::{Description, LLAMA_NORMS, LLAMA_WHOLE, as_is, as_written, config_json, rotary_buffers};
use crate::{
    ModelError, RopeScaling,
    blocks::{AttentionShape, Choice, ExpertsShape, LatentShape, Names, Rope, Shape},
    families::config_json::{Defaults, yarn_mscale},
    formats::Settings,
};

pub(crate) const FAMILY: Description = Description {
    model_types: &["deepseek_v3"],
    architectures: &["DeepseekV3ForCausalLM"],
    names: Names {
        whole: LLAMA_WHOLE,
        blocks: BLOCKS,
        parts: &[
            LLAMA_NORMS,
            &[
                ("attn_q", "self_attn.q_proj"),
                ("attn_q_a", "self_attn.q_a_proj"),
                ("attn_q_a_norm", "self_attn.q_a_layernorm"),
                ("attn_q_b", "self_attn.q_b_proj"),
                ("attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"),
                ("attn_kv_a_norm", "self_attn.kv_a_layernorm"),
                ("attn_kv_b", "self_attn.kv_b_proj"),
                ("attn_output", "self_attn.o_proj"),
                ("ffn_gate", "mlp.gate_proj"),
                ("ffn_up", "mlp.up_proj"),
                ("ffn_down", "mlp.down_proj"),
                ("ffn_gate_inp", "mlp.gate"),
                ("ffn_gate_exps.*", "mlp.experts.*.gate_proj"),
                ("ffn_up_exps.*", "mlp.experts.*.up_proj"),
                ("ffn_down_exps.*", "mlp.experts.*.down_proj"),
                ("ffn_gate_shexp", "mlp.shared_experts.gate_proj"),
                ("ffn_up_shexp", "mlp.shared_experts.up_proj"),
                ("ffn_down_shexp", "mlp.shared_experts.down_proj"),
            ],
        ],
    },
    canonical: as_written,
    ignored: |shape, name| rotary_buffers(shape, name) || predicts_further(shape, name),
    not_in_every_block: &[BlockHook::MlpPre, BlockHook::MlpPost],
    from_config_json,
    stored: as_is,
    gguf: None,
};

const BLOCKS: &str = "model.layers.";

/// Whether the tensor is of the layer behind the last one.
fn predicts_further(shape: &Shape, name: &str) -> bool {
    let block = name.strip_prefix(BLOCKS).and_then(|rest| rest.split_once('.'));
    block.is_some_and(|(layer, _)| layer.parse() == Ok(shape.blocks.len()))
}

fn from_config_json(settings: &Settings) -> Result<Shape, ModelError> {
    // What config.json calls head_dim is a part of a head, if it is there.
    let d_rotated = settings.count("qk_rope_head_dim")?;
    let mut shape =
        config_json::llama_like(settings, &Defaults { d_head: Some(d_rotated), ..Defaults::LLAMA })?;
    let dense = settings.whole_number_if_any("first_k_dense_replace")?.unwrap_or(3);
    let attention = attention(settings, &shape.blocks[0].attention, d_rotated)?;
    let experts = experts(settings)?;
    let n_shared = settings.count_if_any("n_shared_experts")?.unwrap_or(1);
    for (layer, block) in shape.blocks.iter_mut().enumerate() {
        block.attention = attention.clone();
        if layer >= dense {
            // Experts that all tokens share are one, as wide as all of them.
            block.mlp.d_mlp = n_shared * experts.d_mlp;
            block.experts = Some(experts.clone());
        }
    }
    Ok(shape)
}

fn attention(
    settings: &Settings,
    like_llama: &AttentionShape,
    d_rotated: usize,
) -> Result<AttentionShape, ModelError> {
    let n_heads = like_llama.n_heads;
    let reason = "every head has keys and values of its own";
    settings.refuse("num_key_value_heads", &[json!(n_heads)], reason)?;
    let bias = settings.flag("attention_bias", false)?;
    let latent = LatentShape {
        query_rank: settings.count_if_any("q_lora_rank")?,
        key_value_rank: settings.count("kv_lora_rank")?,
        d_rotated,
        d_still: settings.count("qk_nope_head_dim")?,
        d_value: settings.count("v_head_dim")?,
        neighbours: settings.flag("rope_interleave", true)?,
        bias,
    };
    let d_head = latent.d_rotated + latent.d_still;
    let rope = config_json::rope(settings, d_rotated, &Defaults::LLAMA, 1.0)?;
    Ok(AttentionShape {
        n_kv_heads: n_heads,
        d_head,
        output_bias: bias,
        scale: score_scale(settings, &rope)? / (d_head as f64).sqrt(),
        rope: Some(rope),
        latent: Some(latent),
        ..like_llama.clone()
    })
}

/// What YaRN does to scores here, besides what it does to cosines and sines.
fn score_scale(settings: &Settings, rope: &Rope) -> Result<f64, ModelError> {
    let Some(RopeScaling::Yarn { factor, .. }) = rope.scaling else { return Ok(1.0) };
    let section = match settings.section("rope_parameters")? {
        Some(section) => Some(section),
        None => settings.section("rope_scaling")?,
    };
    let all_dim = section.map_or(Ok(None), |section| section.number_if_any("mscale_all_dim"))?;
    Ok(all_dim.map_or(1.0, |mscale| yarn_mscale(factor, mscale).powi(2)))
}

fn experts(settings: &Settings) -> Result<ExpertsShape, ModelError> {
    settings.refuse("scoring_func", &[json!("sigmoid")], "experts are scored by a sigmoid")?;
    settings.refuse(
        "topk_method",
        &[json!("noaux_tc")],
        "experts are chosen by corrected scores (noaux_tc)",
    )?;
    settings.refuse("moe_layer_freq", &[json!(1)], "every block behind the dense ones has experts")?;
    let count =
        |key: &str, default: usize| Ok::<_, ModelError>(settings.count_if_any(key)?.unwrap_or(default));
    let choice = Choice {
        n_experts: count("n_routed_experts", 256)?,
        experts_per_token: count("num_experts_per_tok", 8)?,
        n_groups: count("n_group", 8)?,
        groups_per_token: count("topk_group", 4)?,
        normalised: settings.flag("norm_topk_prob", true)?,
        scale: settings.positive_if_any("routed_scaling_factor")?.unwrap_or(2.5),
    };
    Ok(ExpertsShape { choice, d_mlp: count("moe_intermediate_size", 2048)? })
}
