//! sparsify: a directory with `cfg.json` and `sae.safetensors`, named after the module whose output it reads
//! (<https://github.com/EleutherAI/sparsify>, `sparsify/sparse_coder.py`: `save_to_disk`, `load_from_disk`; 1.3.3):
//!
//! f = TopK(ReLU((x − b_dec)·encoder.weightᵀ + encoder.bias)), x̂ = f·W_dec + b_dec; of a transcoder f is of x, and x·W_skipᵀ may be
//! added. So TopK is all that it can hold. `multi_topk` is a term of the loss: with it `forward` there gives back what the 4k largest
//! reconstruct, and `encode` and `decode`, as here, what the k largest do.
//!
//! What is written says of itself, under `monosema`, what its directory's name may not; sparsify drops keys that it does not know.

use std::{num::NonZeroUsize, path::Path};

use burn::tensor::TensorData;
use monosema_core::{AtomicFile, HookPoint};
use serde_json::{Value, json};

use super::{
    DictionaryFormat, Opened,
    about::{self, About, OURS},
    keys::{Keys, as_usize},
    module_names::{Module, names},
    tensor_file::{TensorFile, check_finite, transposed, write_safetensors},
};
use crate::{
    AuxK, Dictionary, Normalization, Output, SaeConfig, SaeError, Size, Weights,
    architecture::top_k::TopKConfig,
};

/// Name of the configuration.
pub const CFG: &str = "cfg.json";
/// Name of the weights.
pub const WEIGHTS: &str = "sae.safetensors";

/// The [module](self)'s format.
pub(crate) struct Sparsify;

/// What `cfg.json` says of the mathematics.
struct Cfg {
    k: NonZeroUsize,
    size: Size,
}

impl Cfg {
    fn take(keys: &mut Keys) -> Result<Self, SaeError> {
        let activation = keys.take_string_if_any("activation")?;
        if let Some(other) = activation.filter(|activation| activation != "topk") {
            let expected =
                "\"topk\" (groupmax takes the largest of each of k groups, which is no architecture here)";
            return Err(keys.error("activation", expected, format!("\"{other}\"")));
        }
        // Of versions before 1.0.
        if keys.take_bool("signed")? == Some(true) {
            let expected = "false: latents may not be negative here";
            return Err(keys.error("signed", expected, "true"));
        }
        let d_in = keys.take_size("d_in")?;
        let latents = keys.take("num_latents", "a number, or 0 for expansion_factor", as_usize)?;
        let d_sae = match latents.filter(|&n| n > 0) {
            Some(n) => n,
            None => {
                let factor = keys.take_size("expansion_factor")?;
                let expected = "a factor by which d_in is a number of latents";
                let d_sae = d_in.checked_mul(factor);
                d_sae.ok_or_else(|| keys.error("expansion_factor", expected, factor.to_string()))?
            }
        };
        let k = keys.take_size("k")?;
        let k = NonZeroUsize::new(k).filter(|_| k <= d_sae);
        let k =
            k.ok_or_else(|| keys.error("k", "at most the number of latents", format!("{d_sae} latents")))?;
        let transcode = keys.take_bool("transcode")?.unwrap_or(false);
        let skip = keys.take_bool("skip_connection")?.unwrap_or(false);
        if skip && !transcode {
            let expected =
                "false unless `transcode`: an autoencoder with a skip connection has x itself to give back";
            return Err(keys.error("skip_connection", expected, "true"));
        }
        let output = transcode.then_some(Output { d_out: d_in, skip });
        Ok(Self { k, size: Size { d_in, d_sae, output } })
    }

    fn tensors(&self) -> Vec<(&'static str, Vec<usize>)> {
        let Size { d_in, d_sae, .. } = self.size;
        let mut tensors = vec![
            ("encoder.weight", vec![d_sae, d_in]),
            ("encoder.bias", vec![d_sae]),
            ("W_dec", vec![d_sae, d_in]),
            ("b_dec", vec![d_in]),
        ];
        if self.size.skips() {
            tensors.push(("W_skip", vec![d_in, d_in]));
        }
        tensors
    }
}

/// Where it reads and writes, by the name of its directory.
fn hooks(directory: &Path, transcoder: bool) -> [Result<HookPoint, SaeError>; 2] {
    let name = names(directory).into_iter().next().unwrap_or_default();
    let module = Module::parse(&name);
    let unknown = || format!("its directory is named `{name}`, not as a module (layers.5, layers.5.mlp, …)");
    let output = match module {
        Some(module) => Ok(module.output()),
        None if transcoder => Err(SaeError::no_hook_out(directory, unknown())),
        None => Err(SaeError::no_hook(directory, unknown())),
    };
    if !transcoder {
        return [output, Err(SaeError::no_hook_out(directory, "it is an autoencoder"))];
    }
    let input = match module {
        None => Err(unknown()),
        Some(module) => module
            .input()
            .ok_or_else(|| format!("it reads what goes into `{name}`, which is no hook of monosema's")),
    };
    [input.map_err(|reason| SaeError::no_hook(directory, reason)), output]
}

/// What the run's `config.json`, beside the directories of its modules, says of model and text, if it is there.
fn about_run(directory: &Path) -> About {
    let run = directory.canonicalize().ok().and_then(|d| Some(d.parent()?.join("config.json")));
    let Some(mut keys) = run.and_then(|file| Keys::read(&file).ok()) else { return About::default() };
    About {
        model_name: keys.take_string_if_any("model").unwrap_or_default(),
        dataset_path: keys.take_string_if_any("dataset").unwrap_or_default(),
        context_size: keys.take_size_if_any("ctx_len").unwrap_or_default(),
        ..About::default()
    }
}

impl DictionaryFormat for Sparsify {
    const NAME: &'static str = "sparsify";

    const FILES: &'static [&'static str] = &[CFG, WEIGHTS];

    fn open(directory: &Path) -> Result<Opened, SaeError> {
        let mut keys = Keys::read(&directory.join(CFG))?;
        let cfg = Cfg::take(&mut keys)?;
        let (size, transcoder) = (cfg.size, cfg.size.output.is_some());
        let file = TensorFile::safetensors(&directory.join(WEIGHTS))?;
        file.check("a sparse coder", &cfg.tensors(), &[])?;
        let ours = keys.take_section_if_any(OURS)?;
        let (about, hook, hook_out) = if ours.keys.is_empty() {
            let [hook, hook_out] = hooks(directory, transcoder);
            (about_run(directory), hook, hook_out)
        } else {
            about::from_json(ours, transcoder)?
        };
        let architecture = TopKConfig {
            k: cfg.k,
            apply_b_dec_to_input: !transcoder,
            rescale_acts_by_decoder_norm: false,
            aux: AuxK::default(),
        };
        let read = move || {
            let Size { d_in, d_sae, .. } = size;
            let mut weights = Weights::default();
            let encoder = transposed(&file.read("encoder.weight")?, [d_sae, d_in]);
            weights.insert("W_enc", encoder, [d_in, d_sae]);
            weights.insert("b_enc", file.read("encoder.bias")?, [d_sae]);
            weights.insert("W_dec", file.read("W_dec")?, [d_sae, d_in]);
            weights.insert("b_dec", file.read("b_dec")?, [d_in]);
            if size.skips() {
                weights.insert("W_skip", file.read("W_skip")?, [d_in, d_in]);
            }
            Ok((weights, None))
        };
        Ok(Opened {
            architecture: architecture.into(),
            size,
            about,
            hook,
            hook_out,
            scales: None,
            read: Box::new(read),
        })
    }

    fn expresses(dictionary: &Dictionary) -> Result<(), SaeError> {
        let refuse = |what: String| Err(SaeError::NotExpressible { format: Self::NAME, what });
        let config = dictionary.sae().config();
        if !matches!(config, SaeConfig::TopK(_)) {
            let kind = config.saelens_name().unwrap_or("chosen in batches");
            return refuse(format!("it is {kind}, and sparsify has topk alone"));
        }
        let normalization = dictionary.metadata().normalization;
        if normalization != Normalization::None {
            let name = normalization.name();
            return refuse(format!("it normalises each activation ({name}), and sparsify does not"));
        }
        if dictionary.d_out() != dictionary.d_in() {
            let (d_in, d_out) = (dictionary.d_in(), dictionary.d_out());
            return refuse(format!("it makes {d_out} values of {d_in}, and sparsify has as many of both"));
        }
        Ok(())
    }

    fn save(dictionary: &Dictionary, directory: &Path) -> Result<Vec<String>, SaeError> {
        Self::expresses(dictionary)?;
        let SaeConfig::TopK(config) = dictionary.sae().config() else { unreachable!("it was just checked") };
        let size = dictionary.size();
        let tensors = to_tensors(&config, size, dictionary.sae().to_weights());
        let file = directory.join(WEIGHTS);
        check_finite(&file, tensors.iter().map(|(name, data)| (*name, data)))?;
        write_safetensors(&file, tensors.iter().map(|(name, data)| (*name, data)))?;
        let mut ours = about::to_json(dictionary.metadata());
        ours.remove("sae_lens_version");
        let cfg = json!({
            "activation": "topk",
            // A whole number there; `num_latents` is what counts.
            "expansion_factor": size.d_sae.div_ceil(size.d_in),
            "normalize_decoder": true,
            "num_latents": size.d_sae,
            "k": config.k,
            "multi_topk": false,
            "skip_connection": size.skips(),
            "transcode": size.output.is_some(),
            "d_in": size.d_in,
            OURS: Value::Object(ours),
        });
        let path = directory.join(CFG);
        let json = serde_json::to_vec_pretty(&cfg).expect("the keys are strings");
        AtomicFile::write(&path, &json).map_err(|source| SaeError::Io { path, source })?;
        Ok(vec![WEIGHTS.to_owned(), CFG.to_owned()])
    }
}

/// The weights under sparsify's names. What it does always (subtract b_dec) or never (multiply by the decoder's norms) is
/// folded in where the dictionary does otherwise.
fn to_tensors(config: &TopKConfig, size: Size, weights: Weights) -> Vec<(&'static str, TensorData)> {
    let Size { d_in, d_sae, .. } = size;
    let mut values = std::collections::BTreeMap::new();
    for (name, data) in weights {
        values.insert(name, data.try_into_vec::<f32>().expect("weights are f32"));
    }
    let mut take = |name: &str| values.remove(name).expect("an affine map has it");
    let mut encoder = transposed(&take("W_enc"), [d_in, d_sae]);
    let (mut b_enc, mut w_dec, b_dec) = (take("b_enc"), take("W_dec"), take("b_dec"));
    if config.rescale_acts_by_decoder_norm {
        for latent in 0..d_sae {
            let row = &mut w_dec[latent * d_in..][..d_in];
            let norm = norm(row);
            // A latent that writes nothing is never chosen there; its activations are then 0 here.
            row.iter_mut().for_each(|w| *w = if norm > 0.0 { (f64::from(*w) / norm) as f32 } else { 0.0 });
            let column = encoder[latent * d_in..][..d_in].iter_mut();
            column.chain([&mut b_enc[latent]]).for_each(|w| *w = (f64::from(*w) * norm) as f32);
        }
    }
    if size.output.is_none() && !config.apply_b_dec_to_input {
        // x·W + b = (x − b_dec)·W + (b + b_dec·W)
        for (bias, column) in b_enc.iter_mut().zip(encoder.chunks_exact(d_in)) {
            let product: f64 = column.iter().zip(&b_dec).map(|(&w, &b)| f64::from(w) * f64::from(b)).sum();
            *bias = (f64::from(*bias) + product) as f32;
        }
    }
    let mut tensors = vec![
        ("encoder.weight", TensorData::new(encoder, [d_sae, d_in])),
        ("encoder.bias", TensorData::new(b_enc, [d_sae])),
        ("W_dec", TensorData::new(w_dec, [d_sae, d_in])),
        ("b_dec", TensorData::new(b_dec, [d_in])),
    ];
    if size.skips() {
        tensors.push(("W_skip", TensorData::new(take("W_skip"), [d_in, d_in])));
    }
    tensors
}

/// Of a row of W_dec.
pub(super) fn norm(row: &[f32]) -> f64 {
    row.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt()
}
