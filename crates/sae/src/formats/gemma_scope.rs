//! Gemma Scope: a directory with `params.npz` (Lieberum et al. 2024, <https://arxiv.org/abs/2408.05147>):
//! `W_enc`, `b_enc`, `threshold`, `W_dec`, `b_dec` of a JumpReLU, b_dec not subtracted.
//!
//! Nothing there says what it is of but the names of its directories, as in the releases:
//! `gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71`. Transcoders read what a norm made of the stream, which is no hook here.
//! Those on embeddings (`layer_…` is then `embedding`) are refused: they are in units that no hook has.

use std::path::Path;

use monosema_core::{BlockHook, HookPoint};

use super::{
    DictionaryFormat, Opened,
    about::About,
    module_names::names,
    tensor_file::{Shape, TensorFile},
};
use crate::{Output, SaeError, Size, Weights, architecture::jump_relu::JumpReluConfig};

/// Name of the weights.
pub const WEIGHTS: &str = "params.npz";

/// The [module](self)'s format.
pub(crate) struct GemmaScope;

/// What the names of its directories say.
#[derive(Debug, PartialEq)]
struct Place {
    /// `gemma-2-2b`, `gemma-2-9b-it`, …
    model_name: Option<String>,
    /// `res`, `mlp`, `att` or `transcoders`.
    site: Option<String>,
    layer: Option<usize>,
    embedding: bool,
}

impl Place {
    /// By the names of directories, the innermost first.
    fn of(names: &[String]) -> Self {
        // gemma-scope-2b-pt-res, alone or within `models--google--…`, which is how the hub's cache has it.
        let release = names.iter().find_map(|name| {
            let mut parts = name.split("gemma-scope-").nth(1)?.split('-');
            let (size, tuning, site) = (parts.next()?, parts.next()?, parts.next()?);
            let tuned = match tuning {
                "pt" => "",
                "it" => "-it",
                _ => return None,
            };
            Some((format!("gemma-2-{size}{tuned}"), site.to_owned()))
        });
        let (model_name, site) = release.unzip();
        let layer = names.iter().find_map(|name| name.strip_prefix("layer_")?.parse().ok());
        let embedding = names.iter().any(|name| name == "embedding" || name.starts_with("embedding_"));
        Self { model_name, site, layer, embedding }
    }

    fn is_transcoder(&self) -> bool {
        self.site.as_deref() == Some("transcoders")
    }

    /// Where it reads or, of a transcoder, writes.
    fn hook(&self) -> Result<HookPoint, String> {
        let site = match self.site.as_deref() {
            Some("res") => BlockHook::ResidPost,
            Some("mlp" | "transcoders") => BlockHook::MlpOut,
            Some("att") => BlockHook::AttnZ,
            _ => {
                return Err("none of its directories is named as a release (gemma-scope-2b-pt-res, …)".into());
            }
        };
        match self.layer {
            Some(layer) => Ok(HookPoint::block(layer, site)),
            None => Err("none of its directories is named as a layer (layer_20)".into()),
        }
    }
}

impl DictionaryFormat for GemmaScope {
    const NAME: &'static str = "Gemma Scope";

    const FILES: &'static [&'static str] = &[WEIGHTS];

    fn open(directory: &Path) -> Result<Opened, SaeError> {
        let file = TensorFile::npz(&directory.join(WEIGHTS))?;
        let place = Place::of(&names(directory));
        if place.embedding {
            let reason =
                "it is of embeddings before Gemma multiplies them by √d_model, which no hook has".into();
            return Err(SaeError::Refused { file: file.path().to_owned(), reason });
        }
        let [d_in, d_sae] = file.matrix("W_enc")?;
        let [_, d_out] = file.matrix("W_dec")?;
        let output = place.is_transcoder().then_some(Output { d_out, skip: false });
        let size = Size { d_in, d_sae, output };
        let shapes = shapes(["W_enc", "b_enc", "W_dec", "b_dec", "threshold"], size);
        file.check("Gemma Scope", &shapes, &[])?;
        let (hook, hook_out) = (place.hook(), place.hook());
        let hook = match place.is_transcoder() {
            true => Err("it reads what the norm before the MLP gives, which is no hook of monosema's".into()),
            false => hook,
        };
        let about = About { model_name: place.model_name, ..About::default() };
        Ok(Opened {
            architecture: JumpReluConfig::default().into(),
            size,
            about,
            hook: hook.map_err(|reason: String| SaeError::no_hook(directory, reason)),
            hook_out: hook_out.map_err(|reason| SaeError::no_hook_out(directory, reason)),
            scales: None,
            read: Box::new(move || Ok((jump_relu(&file, &shapes)?, None))),
        })
    }
}

/// The tensors of a JumpReLU under these names, which are those of W_enc, b_enc, W_dec, b_dec and threshold.
pub(super) fn shapes(names: [&'static str; 5], size: Size) -> Vec<Shape> {
    let Size { d_in, d_sae, .. } = size;
    let d_out = size.d_out();
    let shapes = [vec![d_in, d_sae], vec![d_sae], vec![d_sae, d_out], vec![d_out], vec![d_sae]];
    names.into_iter().zip(shapes).collect()
}

/// [`shapes`] read, under our names.
pub(super) fn jump_relu(file: &TensorFile, shapes: &[Shape]) -> Result<Weights, SaeError> {
    let mut weights = Weights::default();
    for (ours, (theirs, shape)) in ["W_enc", "b_enc", "W_dec", "b_dec", "threshold"].into_iter().zip(shapes) {
        let data = burn::tensor::TensorData::new(file.read(theirs)?, shape.clone());
        weights.insert_data(ours, data);
    }
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> Place {
        let mut names: Vec<_> = path.split('/').map(str::to_owned).collect();
        names.reverse();
        Place::of(&names)
    }

    #[test]
    fn directories_say_model_and_hook() {
        for (path, model, hook) in [
            (
                "x/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71",
                "gemma-2-2b",
                "blocks.20.hook_resid_post",
            ),
            (
                "hub/models--google--gemma-scope-9b-it-res/snapshots/0a1b/layer_9/width_16k/average_l0_14",
                "gemma-2-9b-it",
                "blocks.9.hook_resid_post",
            ),
            ("gemma-scope-2b-pt-att/layer_0/width_16k/average_l0_104", "gemma-2-2b", "blocks.0.attn.hook_z"),
            (
                "gemma-scope-27b-pt-mlp/layer_3/width_131k/average_l0_5",
                "gemma-2-27b",
                "blocks.3.hook_mlp_out",
            ),
        ] {
            let place = place(path);
            assert_eq!(place.model_name.as_deref(), Some(model));
            assert_eq!(place.hook().map(|hook| hook.to_string()), Ok(hook.to_owned()));
        }
    }

    #[test]
    fn what_directories_do_not_say_is_told() {
        assert!(place("layer_20/width_16k/average_l0_71").hook().unwrap_err().contains("as a release"));
        assert!(place("gemma-scope-2b-pt-res/width_16k").hook().unwrap_err().contains("as a layer"));
        assert!(place("gemma-scope-2b-pt-res/embedding/width_4k").embedding);
        assert!(place("gemma-scope-2b-pt-transcoders/layer_1/width_16k").is_transcoder());
    }
}
