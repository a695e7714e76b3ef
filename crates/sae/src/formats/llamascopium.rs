//! Llamascopium (language-model-SAEs): a directory with `config.json` and `sae_weights.safetensors`
//! (<https://github.com/OpenMOSS/Llamascopium>, `models/sae.py`, `models/sparse_dictionary.py`; 2.0.0b34). Llama Scope R1-Distill has
//! the same configuration and the older names of tensors, those of `nn.Linear`.
//!
//! f = act(z·‖W_D‖)/‖W_D‖ with z = x·W_E + b_E, the norms only if `sparsity_include_decoder_norm`; x̂ = f·W_D + b_D. So a JumpReLU
//! compares z with θ/‖W_D‖. A TopK is one that multiplies activations by the norms, as Llamascopium itself exports it to SAELens:
//! activations are then ‖W_D‖ times as large, and x̂ the same.
//!
//! | `norm_activation` | here |
//! |---|---|
//! | `inference` | nothing: scales are in the weights |
//! | `dataset-wise` | x is √d_model/`dataset_average_activation_norm` times as large: folded in |
//! | `token-wise` | the same with each token's own norm; refused of transcoders, whose scale is that of what they are to give |
//! | `batch-wise` | refused: it depends on other tokens |

use std::{num::NonZeroUsize, path::Path};

use monosema_core::HookPoint;

use super::{
    DictionaryFormat, Opened,
    about::About,
    keys::Keys,
    sparsify::norm,
    tensor_file::{Shape, TensorFile, transposed},
};
use crate::{
    AuxK, Normalization, Output, SaeConfig, SaeError, Scales, Size, Weights,
    architecture::{jump_relu::JumpReluConfig, relu::ReluConfig, top_k::TopKConfig},
};

/// Name of the configuration.
pub const CONFIG: &str = "config.json";
/// Name of the weights.
pub const WEIGHTS: &str = "sae_weights.safetensors";

/// How the average norms at a hook are called.
const NORM: &str = "dataset_average_activation_norm.";

/// The [module](self)'s format.
pub(crate) struct Llamascopium;

/// What `config.json` says of the mathematics.
struct Config {
    architecture: SaeConfig,
    size: Size,
    has_b_dec: bool,
    includes_decoder_norm: bool,
    normalization: Norms,
    /// As they are called there.
    hooks: [String; 2],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Norms {
    None,
    Dataset,
    Token,
}

impl Config {
    fn take(keys: &mut Keys) -> Result<Self, SaeError> {
        let kind = keys.take_string_if_any("sae_type")?.unwrap_or_else(|| "sae".into());
        if kind != "sae" {
            let expected = "\"sae\" (others read or write at several hooks, or mix tokens)";
            return Err(keys.error("sae_type", expected, format!("\"{kind}\"")));
        }
        if keys.take_bool("use_glu_encoder")? == Some(true) {
            let expected = "false: an encoder with a gate of its own is no architecture here";
            return Err(keys.error("use_glu_encoder", expected, "true"));
        }
        let d_in = keys.take_size("d_model")?;
        let factor =
            keys.take("expansion_factor", "a number above 0", |v| v.as_f64().filter(|f| *f > 0.0))?;
        let factor = factor.ok_or_else(|| keys.error("expansion_factor", "a number above 0", "none"))?;
        // Cut, as `int` does it there.
        let d_sae = (d_in as f64 * factor) as usize;
        if d_sae == 0 {
            return Err(keys.error(
                "expansion_factor",
                "one that makes a latent at least",
                factor.to_string(),
            ));
        }
        let hooks = [keys.take_string("hook_point_in")?, keys.take_string("hook_point_out")?];
        let output = (hooks[0] != hooks[1]).then_some(Output { d_out: d_in, skip: false });
        let includes_decoder_norm = keys.take_bool("sparsity_include_decoder_norm")?.unwrap_or(true);
        Ok(Self {
            architecture: take_architecture(keys, d_sae, includes_decoder_norm)?,
            size: Size { d_in, d_sae, output },
            has_b_dec: keys.take_bool("use_decoder_bias")?.unwrap_or(true),
            includes_decoder_norm,
            normalization: take_norms(keys, output.is_some())?,
            hooks,
        })
    }
}

fn take_architecture(keys: &mut Keys, d_sae: usize, by_norm: bool) -> Result<SaeConfig, SaeError> {
    let name = keys.take_string_if_any("act_fn")?.unwrap_or_else(|| "relu".into()).to_lowercase();
    match name.as_str() {
        "relu" => Ok(ReluConfig { apply_b_dec_to_input: false }.into()),
        "jumprelu" => Ok(JumpReluConfig::default().into()),
        "topk" => {
            let k = keys.take_size("top_k")?;
            let expected = format!("at most {d_sae}, the number of latents");
            let k = NonZeroUsize::new(k).filter(|_| k <= d_sae);
            let k = k.ok_or_else(|| keys.error("top_k", &expected, "more"))?;
            let aux = AuxK::default();
            let apply_b_dec_to_input = false;
            Ok(TopKConfig { k, apply_b_dec_to_input, rescale_acts_by_decoder_norm: by_norm, aux }.into())
        }
        _ => {
            let expected = "\"relu\", \"jumprelu\" or \"topk\" (what is chosen in batches depends on other tokens: have \
                            Llamascopium convert it to jumprelu)";
            Err(keys.error("act_fn", expected, format!("\"{name}\"")))
        }
    }
}

fn take_norms(keys: &mut Keys, transcoder: bool) -> Result<Norms, SaeError> {
    let key = "norm_activation";
    let name = keys.take_string_if_any(key)?.unwrap_or_else(|| "dataset-wise".into());
    let refuse = |why: &str| Err(keys.error(key, why, format!("\"{name}\"")));
    match name.as_str() {
        "inference" => Ok(Norms::None),
        "dataset-wise" => Ok(Norms::Dataset),
        "token-wise" if !transcoder => Ok(Norms::Token),
        "token-wise" => {
            refuse("another of a transcoder: its scale is that of what it is to give, which is not known")
        }
        "batch-wise" => refuse("another: it depends on the other tokens of a batch"),
        _ => refuse("\"inference\", \"dataset-wise\" or \"token-wise\""),
    }
}

/// What tensors are called, and whether matrices are transposed.
struct Names {
    w_enc: &'static str,
    b_enc: &'static str,
    w_dec: &'static str,
    b_dec: &'static str,
    log_threshold: &'static str,
    linear: bool,
}

const NOW: Names = Names {
    w_enc: "W_E",
    b_enc: "b_E",
    w_dec: "W_D",
    b_dec: "b_D",
    log_threshold: "activation_function.log_jumprelu_threshold",
    linear: false,
};

const BEFORE: Names = Names {
    w_enc: "encoder.weight",
    b_enc: "encoder.bias",
    w_dec: "decoder.weight",
    b_dec: "decoder.bias",
    log_threshold: "log_jumprelu_threshold",
    linear: true,
};

impl Names {
    fn shapes(&self, config: &Config) -> Vec<Shape> {
        let Size { d_in, d_sae, .. } = config.size;
        let turned = |shape: [usize; 2]| if self.linear { vec![shape[1], shape[0]] } else { shape.into() };
        let mut shapes = vec![
            (self.w_enc, turned([d_in, d_sae])),
            (self.b_enc, vec![d_sae]),
            (self.w_dec, turned([d_sae, d_in])),
        ];
        if config.has_b_dec {
            shapes.push((self.b_dec, vec![d_in]));
        }
        if matches!(config.architecture, SaeConfig::JumpRelu(_)) {
            shapes.push((self.log_threshold, vec![d_sae]));
        }
        shapes
    }

    fn weights(&self, config: &Config, file: &TensorFile) -> Result<Weights, SaeError> {
        let Size { d_in, d_sae, .. } = config.size;
        let matrix = |name: &str, [rows, columns]: [usize; 2]| {
            let values = file.read(name)?;
            Ok::<_, SaeError>(if self.linear { transposed(&values, [columns, rows]) } else { values })
        };
        let w_dec = matrix(self.w_dec, [d_sae, d_in])?;
        let mut weights = Weights::default();
        if matches!(config.architecture, SaeConfig::JumpRelu(_)) {
            let mut thresholds: Vec<f32> = file.read(self.log_threshold)?.into_iter().map(f32::exp).collect();
            if config.includes_decoder_norm {
                for (threshold, row) in thresholds.iter_mut().zip(w_dec.chunks_exact(d_in)) {
                    // A latent that writes nothing is never active there; the largest number keeps it so.
                    *threshold = (f64::from(*threshold) / norm(row)).min(f64::from(f32::MAX)) as f32;
                }
            }
            weights.insert("threshold", thresholds, [d_sae]);
        }
        weights.insert("W_enc", matrix(self.w_enc, [d_in, d_sae])?, [d_in, d_sae]);
        weights.insert("b_enc", file.read(self.b_enc)?, [d_sae]);
        weights.insert("W_dec", w_dec, [d_sae, d_in]);
        let b_dec = if config.has_b_dec { file.read(self.b_dec)? } else { vec![0.0; d_in] };
        weights.insert("b_dec", b_dec, [d_in]);
        Ok(weights)
    }
}

impl DictionaryFormat for Llamascopium {
    const NAME: &'static str = "Llamascopium";

    const FILES: &'static [&'static str] = &[CONFIG, WEIGHTS];

    fn open(directory: &Path) -> Result<Opened, SaeError> {
        let mut keys = Keys::read(&directory.join(CONFIG))?;
        let config = Config::take(&mut keys)?;
        let file = TensorFile::safetensors(&directory.join(WEIGHTS))?;
        let names = if file.has(BEFORE.w_enc) { &BEFORE } else { &NOW };
        let norms: Vec<String> =
            file.names().filter(|name| name.starts_with(NORM)).map(str::to_owned).collect();
        let ignored: Vec<&str> = norms.iter().map(String::as_str).collect();
        file.check("this act_fn", &names.shapes(&config), &ignored)?;
        let scales = match config.normalization {
            Norms::Dataset => Some(scales(&config, &file, &keys)?),
            Norms::None | Norms::Token => None,
        };
        let normalization = match config.normalization {
            Norms::Token => Normalization::ConstantNormRescale,
            Norms::None | Norms::Dataset => Normalization::None,
        };
        let model_name = keys.take_string_if_any("model_name")?;
        let about = About { model_name, normalization, ..About::default() };
        let [hook, hook_out] = [("hook_point_in", 0), ("hook_point_out", 1)].map(|(key, index)| {
            let name: &String = &config.hooks[index];
            name.parse::<HookPoint>().map_err(|error| keys.error(key, "the name of a hook point", error))
        });
        Ok(Opened {
            architecture: config.architecture.clone(),
            size: config.size,
            about,
            hook,
            hook_out,
            scales,
            read: Box::new(move || Ok((names.weights(&config, &file)?, None))),
        })
    }
}

/// What activations were multiplied by in training.
fn scales(config: &Config, file: &TensorFile, keys: &Keys) -> Result<Scales, SaeError> {
    let root = (config.size.d_in as f64).sqrt();
    let scale = |hook: &str| {
        let name = format!("{NORM}{hook}");
        if !file.has(&name) {
            let expected = format!("\"inference\", or `{name}` among the tensors");
            return Err(keys.error("norm_activation", &expected, "\"dataset-wise\" without it"));
        }
        let norm = f64::from(file.number(&name)?);
        let expected = format!("\"inference\", or a `{name}` above 0");
        if norm > 0.0 { Ok(root / norm) } else { Err(keys.error("norm_activation", &expected, norm)) }
    };
    Ok(Scales { input: scale(&config.hooks[0])?, output: scale(&config.hooks[1])? })
}
