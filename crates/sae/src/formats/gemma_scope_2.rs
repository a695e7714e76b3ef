//! Gemma Scope 2: a directory with `params.safetensors` and, mostly, `config.json`: `w_enc`, `b_enc`, `threshold`, `w_dec`, `b_dec` of a
//! JumpReLU, b_dec not subtracted; of transcoders perhaps `affine_skip_connection` `[d_in, d_out]`
//! (<https://huggingface.co/google/gemma-scope-2>; SAELens 6.54.12, `pretrained_sae_loaders.py`: `gemma_3_sae_huggingface_loader`).
//!
//! The configuration names the modules; without one, the names of the directories do:
//! `gemma-scope-2-1b-pt/resid_post/layer_12_width_16k_l0_medium`. Cross-layer transcoders are refused: they write at many hooks.

use std::path::Path;

use monosema_core::{BlockHook, HookPoint};

use super::{
    DictionaryFormat, Opened,
    about::About,
    gemma_scope::{jump_relu, shapes},
    keys::Keys,
    module_names::{Module, names},
    tensor_file::{TensorFile, transposed},
};
use crate::{Output, SaeError, Size, architecture::jump_relu::JumpReluConfig};

/// Name of the weights.
pub const WEIGHTS: &str = "params.safetensors";
/// Name of the configuration, which may be missing.
pub const CONFIG: &str = "config.json";

const NAMES: [&str; 5] = ["w_enc", "b_enc", "w_dec", "b_dec", "threshold"];
const SKIP: &str = "affine_skip_connection";

/// The [module](self)'s format.
pub(crate) struct GemmaScope2;

/// Where it reads and, of a transcoder, writes; else why that is not known.
#[derive(Debug, PartialEq)]
struct Place {
    hook: Result<HookPoint, String>,
    hook_out: Option<Result<HookPoint, String>>,
}

/// A module of Gemma 3, `model.layers.12.output` or the like, as a hook.
fn module_hook(name: &str) -> Result<HookPoint, String> {
    let site = |layer: &str, site| {
        let Some(Module::Block(layer)) = Module::parse(layer) else { return None };
        Some(HookPoint::block(layer, site))
    };
    let sites = [
        // Gemma 3 normalises what the MLP gives, and adds that.
        (".post_feedforward_layernorm.output", BlockHook::MlpOut),
        (".post_attention_layernorm.output", BlockHook::AttnOut),
        (".self_attn.o_proj.input", BlockHook::AttnZ),
        (".output", BlockHook::ResidPost),
    ];
    let hook = sites.into_iter().find_map(|(suffix, of)| site(name.strip_suffix(suffix)?, of));
    hook.ok_or_else(|| format!("{CONFIG} says `{name}`, which is no hook of monosema's"))
}

impl Place {
    /// By the configuration.
    fn configured(hook: &str, hook_out: Option<&str>) -> Self {
        let transcoder = hook_out.filter(|out| *out != hook);
        Self { hook: module_hook(hook), hook_out: transcoder.map(module_hook) }
    }

    /// By the names of directories, the innermost first.
    fn named(names: &[String]) -> Self {
        let layer = names
            .iter()
            .find_map(|name| name.strip_prefix("layer_")?.split('_').next()?.parse::<usize>().ok());
        let at = |site| match layer {
            Some(layer) => Ok(HookPoint::block(layer, site)),
            None => Err(format!(
                "there is no {CONFIG}, and none of its directories is named as a layer (layer_12_…)"
            )),
        };
        // `resid_post`, `transcoder_all`, …
        let kinds = [
            ("resid_post", BlockHook::ResidPost),
            ("attn_out", BlockHook::AttnZ),
            ("mlp_out", BlockHook::MlpOut),
            ("transcoder", BlockHook::MlpOut),
        ];
        let kind = names.iter().find_map(|name| kinds.into_iter().find(|(kind, _)| name.starts_with(kind)));
        match kind {
            Some(("transcoder", site)) => Self {
                hook: Err(
                    "it reads what the norm before the MLP gives, which is no hook of monosema's".into()
                ),
                hook_out: Some(at(site)),
            },
            Some((_, site)) => Self { hook: at(site), hook_out: None },
            None => {
                let names = "resid_post, attn_out, mlp_out or transcoder";
                let reason = format!("there is no {CONFIG}, and none of its directories is named {names}");
                Self { hook: Err(reason), hook_out: None }
            }
        }
    }
}

impl DictionaryFormat for GemmaScope2 {
    const NAME: &'static str = "Gemma Scope 2";

    const FILES: &'static [&'static str] = &[WEIGHTS];

    const MORE_FILES: &'static [&'static str] = &[CONFIG];

    fn open(directory: &Path) -> Result<Opened, SaeError> {
        let config = directory.join(CONFIG);
        let mut keys = if config.is_file() { Keys::read(&config)? } else { Keys::none(&config) };
        if let Some(other) = keys.take_string_if_any("architecture")?.filter(|name| name != "jump_relu") {
            return Err(keys.error("architecture", "\"jump_relu\"", format!("\"{other}\"")));
        }
        let names = names(directory);
        let place = match keys.take_string_if_any("hf_hook_point_in")? {
            Some(hook) => Place::configured(&hook, keys.take_string_if_any("hf_hook_point_out")?.as_deref()),
            None => Place::named(&names),
        };
        let about = About {
            model_name: keys.take_string_if_any("model_name")?.or_else(|| model_name(&names)),
            ..About::default()
        };
        let file = TensorFile::safetensors(&directory.join(WEIGHTS))?;
        let [d_in, d_sae] = file.matrix("w_enc")?;
        let [_, d_out] = file.matrix("w_dec")?;
        let skip = file.has(SKIP);
        let output = (place.hook_out.is_some() || skip).then_some(Output { d_out, skip });
        let size = Size { d_in, d_sae, output };
        let shapes = shapes(NAMES, size);
        let mut all = shapes.clone();
        if skip {
            all.push((SKIP, vec![d_in, d_out]));
        }
        file.check("Gemma Scope 2", &all, &[])?;
        let read = move || {
            let mut weights = jump_relu(&file, &shapes)?;
            if skip {
                weights.insert("W_skip", transposed(&file.read(SKIP)?, [d_in, d_out]), [d_out, d_in]);
            }
            Ok((weights, None))
        };
        let unsaid = || Err("neither its directories nor its configuration say so".to_owned());
        Ok(Opened {
            architecture: JumpReluConfig::default().into(),
            size,
            about,
            hook: place.hook.map_err(|reason| SaeError::no_hook(directory, reason)),
            hook_out: place
                .hook_out
                .unwrap_or_else(unsaid)
                .map_err(|reason| SaeError::no_hook_out(directory, reason)),
            scales: None,
            read: Box::new(read),
        })
    }
}

/// The model of the release, whose directory is `gemma-scope-2-1b-pt`: `gemma-3-1b-pt`.
fn model_name(names: &[String]) -> Option<String> {
    names.iter().find_map(|name| Some(format!("gemma-3-{}", name.split("gemma-scope-2-").nth(1)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_of_the_configuration_are_hooks() {
        for (module, hook) in [
            ("model.layers.12.output", "blocks.12.hook_resid_post"),
            ("model.layers.3.self_attn.o_proj.input", "blocks.3.attn.hook_z"),
            ("model.layers.7.post_feedforward_layernorm.output", "blocks.7.hook_mlp_out"),
        ] {
            assert_eq!(module_hook(module).map(|hook| hook.to_string()), Ok(hook.to_owned()));
        }
        let input = "model.layers.7.pre_feedforward_layernorm.output";
        assert!(module_hook(input).unwrap_err().contains("no hook"));
        let place = Place::configured(input, Some("model.layers.7.post_feedforward_layernorm.output"));
        assert_eq!(place.hook_out, Some(Ok(HookPoint::block(7, BlockHook::MlpOut))));
    }

    #[test]
    fn directories_say_what_a_missing_configuration_does_not() {
        let place = |path: &str| {
            let mut names: Vec<_> = path.split('/').map(str::to_owned).collect();
            names.reverse();
            (Place::named(&names), model_name(&names))
        };
        let (found, model) = place("gemma-scope-2-1b-pt/resid_post/layer_12_width_16k_l0_medium");
        assert_eq!(found.hook, Ok(HookPoint::block(12, BlockHook::ResidPost)));
        assert_eq!(model.as_deref(), Some("gemma-3-1b-pt"));
        let (found, _) = place("transcoder_all/layer_1_width_16k_l0_small_affine");
        assert_eq!(found.hook_out, Some(Ok(HookPoint::block(1, BlockHook::MlpOut))));
        assert!(found.hook.is_err());
        assert!(place("resid_post/x").0.hook.unwrap_err().contains("as a layer"));
        assert!(place("layer_1_x").0.hook.unwrap_err().contains("resid_post"));
    }
}
