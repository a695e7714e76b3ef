//! What checkpoints of one family write in several ways, and what of their neighbours is refused.

use serde_json::json;

use crate::{
    damaged::{Copy, Raw, refused},
    fixture::Case,
};
use monosema_transformer::{Checkpoint, Family};

#[test]
fn every_family_has_its_own_types() {
    let mut types: Vec<&str> = Family::ALL.iter().flat_map(|family| family.model_types()).copied().collect();
    let mut architectures: Vec<&str> = Family::ALL.iter().filter_map(|f| f.gguf_architecture()).collect();
    for names in [&mut types, &mut architectures] {
        let n = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), n, "two families have one of {names:?}");
    }
    // A fixture of each, of either kind.
    let fixtures: Vec<String> =
        Case::all().iter().map(|case| case.checkpoint().info().family.to_string()).collect();
    assert!(Family::ALL.iter().all(|family| fixtures.contains(&family.to_string())), "{fixtures:?}");
}

/// Renamed, so that `from` in a name becomes `to`.
fn renamed(case: &str, from: &str, to: &str) -> Copy {
    Copy::of(case).tensors(|tensors| {
        *tensors = std::mem::take(tensors)
            .into_iter()
            .map(|(name, raw)| (name.replacen(from, to, 1), raw))
            .collect();
    })
}

#[test]
fn pythia_carries_buffers_along_and_calls_its_output_otherwise() {
    for (from, to) in [("embed_out.", "lm_head."), ("lm_head.", "embed_out.")] {
        renamed("pythia", from, to).open_directory().unwrap();
    }
    let original = Copy::of("pythia").tensors(|t| {
        for buffer in ["attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq"] {
            t.insert(format!("gpt_neox.layers.0.{buffer}"), Raw::zeros(&[2]));
        }
    });
    original.open_directory().unwrap();
    let counted = Checkpoint::open(original.0.path()).unwrap().info().n_parameters;
    assert_eq!(counted, Case::read("pythia").checkpoint().info().n_parameters);
    let extra =
        original.tensors(|t| drop(t.insert("gpt_neox.layers.0.attention.gate".into(), Raw::zeros(&[2]))));
    refused(extra.open_directory(), &["no tensor gpt_neox.layers.0.attention.gate"]);
}

#[test]
fn the_language_model_of_one_that_sees_is_found_under_every_prefix() {
    let seeing = "gemma3_vision";
    let n_parameters = Case::read(seeing).checkpoint().info().n_parameters;
    let text = |copy: &Copy| Checkpoint::open(copy.0.path()).unwrap().info().n_parameters;
    for (prefix, other) in [
        ("model.language_model.", "language_model.model."),
        ("language_model.model.", "model.language_model."),
    ] {
        let renamed = renamed(seeing, prefix, other);
        renamed.open_directory().unwrap();
        assert_eq!(text(&renamed), n_parameters);
    }
    let missing =
        Copy::of(seeing).tensors(|t| t.retain(|name, _| !name.ends_with("layers.1.mlp.up_proj.weight")));
    refused(missing.open_directory(), &["model.layers.1.mlp.up_proj.weight", "missing"]);
    // Nothing of the images' side is missed, and nothing beside it is let pass.
    let blind = Copy::of(seeing).tensors(|t| t.retain(|name, _| !name.contains("vision_tower")));
    blind.open_directory().unwrap();
    let extra =
        Copy::of(seeing).tensors(|t| drop(t.insert("model.audio_tower.weight".into(), Raw::zeros(&[2]))));
    refused(extra.open_directory(), &["no tensor model.audio_tower.weight"]);
}

/// Gemma 3's larger models leave out whatever is as in the configuration's code.
#[test]
fn what_gemma_leaves_out_is_what_its_code_has() {
    let config = json!({
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "text_config": {
            "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024
        },
        "vision_config": {"hidden_size": 1152},
    });
    let model = Copy::of("gemma3_vision").config(|c| *c = config);
    let info = Checkpoint::open(model.0.path()).unwrap().info().clone();
    assert_eq!((info.n_layers, info.d_model, info.d_vocab, info.max_context), (34, 2560, 262_208, 131_072));
    assert_eq!((info.blocks[0].n_heads, info.blocks[0].d_z, info.blocks[0].d_mlp), (8, 8 * 256, 10240));
}

#[test]
fn neighbours_that_are_not_implemented_are_named() {
    let of = |case: &str, key: &str, value: serde_json::Value| {
        Copy::of(case).config(|c| c[key] = value).open_directory()
    };
    refused(of("qwen3", "model_type", json!("qwen3_moe")), &["qwen3_moe", "qwen2, qwen3"]);
    refused(of("gemma2", "use_bidirectional_attention", json!(true)), &["use_bidirectional_attention"]);
    refused(of("gemma3_text", "attn_logit_softcapping", json!(50.0)), &["attn_logit_softcapping"]);
    refused(of("gemma2", "final_logit_softcapping", json!(0.0)), &["final_logit_softcapping"]);
    refused(of("gemma2", "sliding_window", json!(null)), &["sliding_window", "found none"]);
    refused(of("qwen2", "layer_types", json!(["full_attention"])), &["layer_types", "found 1"]);
    refused(of("pythia", "rotary_pct", json!(3.0)), &["at most the 16 of a head, found 48"]);
    refused(of("pythia", "rotary_pct", json!(0.2)), &["even number", "found 3"]);
    let moe = Copy::of("gguf_qwen3").bytes("model.gguf", |bytes| {
        let at = bytes.windows(5).position(|window| window == b"qwen3").unwrap();
        bytes[at..at + 5].copy_from_slice(b"qwenM");
    });
    refused(moe.open_gguf(), &["general.architecture \"qwenM\"", "qwen3"]);
}

/// Null switches a soft cap off, and no value is the default.
#[test]
fn soft_caps_are_on_unless_they_are_null() {
    let logits = |caps: Option<serde_json::Value>| {
        let model = Copy::of("gemma2").config(|c| {
            let c = c.as_object_mut().unwrap();
            c.remove("final_logit_softcapping");
            c.remove("attn_logit_softcapping");
            c.extend(caps.into_iter().map(|cap| ("final_logit_softcapping".to_owned(), cap)));
        });
        let device = burn::tensor::Device::flex();
        let case = Case::read("gemma2");
        let model = Checkpoint::open(model.0.path()).unwrap().load(&device).unwrap();
        let hidden = model.forward(case.tokens(&device), &mut monosema_transformer::NoTap);
        crate::fixture::values(model.unembed(hidden))
    };
    let [default, off] = [None, Some(json!(null))].map(logits);
    let worst = off
        .iter()
        .zip(&default)
        .map(|(off, default)| (30.0 * (off / 30.0).tanh() - default).abs())
        .fold(0.0, f64::max);
    assert!(worst < 1e-4, "{worst:.1e}");
    assert!(off.iter().zip(&default).any(|(off, default)| (off - default).abs() > 1e-3));
}
