//! dictionary_learning: a directory with `ae.pt`, a pickle, and `config.json`
//! (<https://github.com/saprmarks/dictionary_learning>, `dictionary.py`, `trainers/*.py`, `utils.py`: `load_dictionary`; 0.1.0).
//!
//! | `dict_class` | here | b_dec subtracted |
//! |---|---|---|
//! | `AutoEncoder` | ReLU; decoder rows are given a norm of 1, as loading it there does | yes |
//! | `AutoEncoderNew` | ReLU | no |
//! | `GatedAutoEncoder` | Gated | yes |
//! | `AutoEncoderTopK` | TopK | yes |
//! | `BatchTopKSAE`, `MatryoshkaBatchTopKSAE` | JumpReLU of one threshold | yes |
//! | `JumpReluAutoEncoder` | JumpReLU | no |

use std::{num::NonZeroUsize, path::Path};

use monosema_core::{BlockHook, HookPoint};

use super::{
    DictionaryFormat, Opened,
    about::About,
    keys::Keys,
    module_names::Module,
    sparsify::norm,
    tensor_file::{TensorFile, transposed},
};
use crate::{
    AuxK, SaeConfig, SaeError, Size, Weights,
    architecture::{gated::GatedConfig, jump_relu::JumpReluConfig, relu::ReluConfig, top_k::TopKConfig},
};

/// Name of the configuration.
pub const CONFIG: &str = "config.json";
/// Name of the weights.
pub const WEIGHTS: &str = "ae.pt";

/// The [module](self)'s format.
pub(crate) struct DictionaryLearning;

/// The classes that are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    AutoEncoder,
    AutoEncoderNew,
    Gated,
    TopK,
    BatchTopK,
    Matryoshka,
    JumpRelu,
}

impl Class {
    const ALL: [(&'static str, Self); 7] = [
        ("AutoEncoder", Self::AutoEncoder),
        ("AutoEncoderNew", Self::AutoEncoderNew),
        ("GatedAutoEncoder", Self::Gated),
        ("AutoEncoderTopK", Self::TopK),
        ("BatchTopKSAE", Self::BatchTopK),
        ("MatryoshkaBatchTopKSAE", Self::Matryoshka),
        ("JumpReluAutoEncoder", Self::JumpRelu),
    ];

    fn take(keys: &mut Keys) -> Result<Self, SaeError> {
        let name = keys.take_string("dict_class")?;
        let known = Self::ALL.into_iter().find(|(known, _)| *known == name);
        let names: Vec<_> = Self::ALL.iter().map(|(name, _)| *name).collect();
        known.map(|(_, class)| class).ok_or_else(|| {
            keys.error("dict_class", &format!("one of {}", names.join(", ")), format!("\"{name}\""))
        })
    }

    /// `k` is asked for where there is one.
    fn config(self, k: impl FnOnce() -> Result<NonZeroUsize, SaeError>) -> Result<SaeConfig, SaeError> {
        let jump_relu =
            |apply_b_dec_to_input| JumpReluConfig { apply_b_dec_to_input, ..JumpReluConfig::default() };
        Ok(match self {
            Self::AutoEncoder => ReluConfig { apply_b_dec_to_input: true }.into(),
            Self::AutoEncoderNew => ReluConfig { apply_b_dec_to_input: false }.into(),
            Self::Gated => GatedConfig { apply_b_dec_to_input: true }.into(),
            Self::TopK => TopKConfig {
                k: k()?,
                apply_b_dec_to_input: true,
                rescale_acts_by_decoder_norm: false,
                aux: AuxK::default(),
            }
            .into(),
            Self::BatchTopK | Self::Matryoshka => jump_relu(true).into(),
            Self::JumpRelu => jump_relu(false).into(),
        })
    }

    /// What W_enc, b_enc, W_dec and b_dec are called, and whether matrices are those of `nn.Linear`: transposed.
    fn names(self) -> ([&'static str; 4], bool) {
        match self {
            Self::AutoEncoder => (["encoder.weight", "encoder.bias", "decoder.weight", "bias"], true),
            Self::AutoEncoderNew => {
                (["encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"], true)
            }
            Self::Gated => (["encoder.weight", "gate_bias", "decoder.weight", "decoder_bias"], true),
            Self::TopK | Self::BatchTopK => {
                (["encoder.weight", "encoder.bias", "decoder.weight", "b_dec"], true)
            }
            Self::Matryoshka | Self::JumpRelu => (["W_enc", "b_enc", "W_dec", "b_dec"], false),
        }
    }

    /// Other names here → there, `[d_sae]` each.
    fn vectors(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Gated => &[("r_mag", "r_mag"), ("b_mag", "mag_bias")],
            Self::JumpRelu => &[("threshold", "threshold")],
            _ => &[],
        }
    }

    /// What is there besides: counts, and the one threshold of all latents.
    fn ignored(self) -> &'static [&'static str] {
        match self {
            // A threshold that its `encode` uses only when it is asked to.
            Self::TopK | Self::BatchTopK => &["k", "threshold"],
            Self::Matryoshka => &["k", "threshold", "group_sizes"],
            _ => &[],
        }
    }

    /// Whether one threshold, found in training, takes the place of choosing in batches.
    fn has_one_threshold(self) -> bool {
        matches!(self, Self::BatchTopK | Self::Matryoshka)
    }
}

impl DictionaryFormat for DictionaryLearning {
    const NAME: &'static str = "dictionary_learning";

    const FILES: &'static [&'static str] = &[WEIGHTS, CONFIG];

    fn open(directory: &Path) -> Result<Opened, SaeError> {
        let mut keys = Keys::read(&directory.join(CONFIG))?;
        let mut trainer = keys.take_section("trainer")?;
        let mut buffer = keys.take_section_if_any("buffer")?;
        let class = Class::take(&mut trainer)?;
        let (d_in, d_sae) = (trainer.take_size("activation_dim")?, trainer.take_size("dict_size")?);
        let size = Size::new(d_in, d_sae);
        let file = TensorFile::pickle(&directory.join(WEIGHTS))?;
        let ([w_enc, b_enc, w_dec, b_dec], linear) = class.names();
        let turned = |shape: [usize; 2]| if linear { vec![shape[1], shape[0]] } else { shape.into() };
        let mut shapes = vec![
            (w_enc, turned([d_in, d_sae])),
            (b_enc, vec![d_sae]),
            (w_dec, turned([d_sae, d_in])),
            (b_dec, vec![d_in]),
        ];
        shapes.extend(class.vectors().iter().map(|(_, there)| (*there, vec![d_sae])));
        file.check("this dict_class", &shapes, class.ignored())?;
        let architecture = class.config(|| take_k(&mut trainer, &file, d_sae))?;
        let hook = hook(directory, &mut trainer, &mut buffer)?;
        let about = About {
            model_name: trainer.take_string_if_any("lm_name")?,
            context_size: buffer.take_size_if_any("ctx_len")?,
            ..About::default()
        };
        let read = move || Ok((weights(class, size, &file)?, None));
        Ok(Opened {
            architecture,
            size,
            about,
            hook,
            hook_out: Err(SaeError::no_hook_out(directory, "it is an autoencoder")),
            scales: None,
            read: Box::new(read),
        })
    }
}

/// How many latents are active: the configuration says it, and the file again.
fn take_k(trainer: &mut Keys, file: &TensorFile, d_sae: usize) -> Result<NonZeroUsize, SaeError> {
    let k = trainer.take_size("k")?;
    if file.has("k") {
        let there = file.number("k")?;
        if there != k as f32 {
            return Err(trainer.error("k", &format!("{there}, as {WEIGHTS} has it"), k));
        }
    }
    let expected = format!("at most {d_sae}, the number of latents");
    NonZeroUsize::new(k).filter(|_| k <= d_sae).ok_or_else(|| trainer.error("k", &expected, k))
}

/// Where it reads: the configuration names a module, or, by its authors' convention, a place in the stream.
fn hook(
    directory: &Path,
    trainer: &mut Keys,
    buffer: &mut Keys,
) -> Result<Result<HookPoint, SaeError>, SaeError> {
    let name = trainer.take_string_if_any("submodule_name")?.unwrap_or_default();
    let side = buffer.take_string_if_any("io")?;
    let unknown = |reason: String| Ok(Err(SaeError::no_hook(directory, reason)));
    if let Some(side) = side.filter(|side| side != "out") {
        return unknown(format!("it was trained on what goes \"{side}\" `{name}`"));
    }
    let sites = [
        ("resid_post_layer_", BlockHook::ResidPost),
        ("mlp_out_layer_", BlockHook::MlpOut),
        ("attn_out_layer_", BlockHook::AttnOut),
    ];
    let conventional = sites.into_iter().find_map(|(prefix, site)| {
        let layer = name.strip_prefix(prefix)?.parse().ok()?;
        Some(HookPoint::block(layer, site))
    });
    match conventional.or_else(|| Module::parse(&name).map(Module::output)) {
        Some(hook) => Ok(Ok(hook)),
        None => unknown(format!(
            "`trainer.submodule_name` in {CONFIG} is \"{name}\", not resid_post_layer_5 or a module such as \
             model.layers.5"
        )),
    }
}

fn weights(class: Class, size: Size, file: &TensorFile) -> Result<Weights, SaeError> {
    let Size { d_in, d_sae, .. } = size;
    let ([w_enc, b_enc, w_dec, b_dec], linear) = class.names();
    let matrix = |name: &str, [rows, columns]: [usize; 2]| {
        let values = file.read(name)?;
        Ok::<_, SaeError>(if linear { transposed(&values, [columns, rows]) } else { values })
    };
    let mut encoder = matrix(w_enc, [d_in, d_sae])?;
    let mut bias = file.read(b_enc)?;
    let mut decoder = matrix(w_dec, [d_sae, d_in])?;
    if class == Class::AutoEncoder {
        normalize_decoder(&mut encoder, &mut bias, &mut decoder, size);
    }
    let mut weights = Weights::default();
    weights.insert("W_enc", encoder, [d_in, d_sae]);
    weights.insert(if class == Class::Gated { "b_gate" } else { "b_enc" }, bias, [d_sae]);
    weights.insert("W_dec", decoder, [d_sae, d_in]);
    weights.insert("b_dec", file.read(b_dec)?, [d_in]);
    for (here, there) in class.vectors() {
        weights.insert(here, file.read(there)?, [d_sae]);
    }
    if class.has_one_threshold() {
        // Below 0 it was never found, and all that is positive is active: as a JumpReLU has it too.
        weights.insert("threshold", vec![file.number("threshold")?; d_sae], [d_sae]);
    }
    Ok(weights)
}

/// What `AutoEncoder.from_pretrained` does unless it is told not to: rows of W_dec get a norm of 1 and activations theirs. A row of
/// zeros, of which there NaN is made, stays.
fn normalize_decoder(encoder: &mut [f32], bias: &mut [f32], decoder: &mut [f32], size: Size) {
    let norms: Vec<f64> = decoder.chunks_exact(size.d_in).map(norm).collect();
    // As `torch.allclose` has it.
    if norms.iter().all(|norm| (norm - 1.0).abs() <= 1e-8 + 1e-5) {
        return;
    }
    let factors: Vec<f64> = norms.into_iter().map(|norm| if norm > 0.0 { norm } else { 1.0 }).collect();
    for (row, factor) in decoder.chunks_exact_mut(size.d_in).zip(&factors) {
        row.iter_mut().for_each(|w| *w = (f64::from(*w) / factor) as f32);
    }
    for row in encoder.chunks_exact_mut(size.d_sae).chain([bias]) {
        row.iter_mut().zip(&factors).for_each(|(w, factor)| *w = (f64::from(*w) * factor) as f32);
    }
}
