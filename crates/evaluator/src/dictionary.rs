//! What a plan and a report say about the dictionary.

use std::{
    fmt,
    fmt::Write,
    path::{Path, PathBuf},
};

use burn::tensor::Device;
use monosema_core::{Digest, HookPoint, digest_bytes, digest_file};
use monosema_sae::{Description, Dictionary, Metadata, Size, formats::Format};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    compare::{CompareError, neighbours::nearest_others},
    error::EvalError,
    metrics::{Better, Definition},
};

/// The hook and the sizes of a dictionary: all that a plan depends on, whether it is trained yet or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DictionaryShape {
    /// Where its activations come from.
    pub hook: HookPoint,
    /// Where what comes out belongs, of a transcoder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_out: Option<HookPoint>,
    /// Their width.
    pub d_in: usize,
    /// How many latents it has.
    pub d_sae: usize,
}

impl DictionaryShape {
    /// Of a dictionary of this size.
    fn new(size: Size, metadata: &Metadata) -> Self {
        let Metadata { hook, hook_out, .. } = *metadata;
        Self { hook, hook_out, d_in: size.d_in, d_sae: size.d_sae }
    }

    /// Where what comes out is spliced in: of an autoencoder where it reads.
    pub fn target(&self) -> HookPoint {
        self.hook_out.unwrap_or(self.hook)
    }

    /// What its two matrices take as f32.
    pub(crate) fn weight_bytes(&self) -> u64 {
        8 * self.d_in as u64 * self.d_sae as u64
    }

    /// Of a dictionary in memory.
    pub fn of(dictionary: &Dictionary) -> Self {
        Self::new(dictionary.size(), dictionary.metadata())
    }
}

impl From<&Description> for DictionaryShape {
    fn from(description: &Description) -> Self {
        Self::new(description.size, &description.metadata)
    }
}

impl fmt::Display for DictionaryShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {} latents at {}", self.d_in, self.d_sae, self.hook)?;
        self.hook_out.map_or(Ok(()), |hook| write!(f, " to give {hook}"))
    }
}

/// The dictionary of a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DictionaryFacts {
    /// Where it was read from, as configured.
    pub path: String,
    /// Its hook and sizes.
    #[serde(flatten)]
    pub shape: DictionaryShape,
    /// Its architecture and what can be chosen of it.
    pub architecture: Value,
    /// Where it comes from, as far as it says.
    pub metadata: Value,
    /// What its weights look like.
    pub weights: WeightFacts,
}

/// Statistics of the weights. `None` where the architecture has no such weights, or they are all zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WeightFacts {
    /// Smallest norm of a decoder row.
    pub decoder_norm_min: Option<f64>,
    /// Mean norm of the decoder rows.
    pub decoder_norm_mean: Option<f64>,
    /// Largest norm of a decoder row.
    pub decoder_norm_max: Option<f64>,
    /// Mean cosine between what a latent reads (its column of `W_enc`) and writes (its row of `W_dec`).
    pub encoder_decoder_cos_mean: Option<f64>,
    /// Mean over latents of the largest cosine of their column of `W_enc` with another one, likewise.
    pub nearest_encoder_cos_mean: Option<f64>,
    /// Mean over latents of the largest cosine of their decoder row with another one; of more than 8,192 latents, over as many, evenly
    /// spaced.
    pub nearest_decoder_cos_mean: Option<f64>,
    /// The largest of those cosines: near 1, two latents write the same.
    pub nearest_decoder_cos_max: Option<f64>,
}

/// What [`WeightFacts`] are, by their names there.
pub const WEIGHT_DEFINITIONS: [Definition; 7] = [
    weights_definition("decoder_norm_min", "min_i ‖W_dec,i‖", "Smallest norm of a decoder row."),
    weights_definition("decoder_norm_mean", "mean_i ‖W_dec,i‖", "Mean norm of the decoder rows."),
    weights_definition("decoder_norm_max", "max_i ‖W_dec,i‖", "Largest norm of a decoder row."),
    weights_definition(
        "encoder_decoder_cos_mean",
        "mean_i cos(W_enc,i, W_dec,i)",
        "How alike a latent reads and writes: 1 if it is found by what it stands for alone.",
    ),
    weights_definition(
        "nearest_encoder_cos_mean",
        "mean_i max_{j ≠ i} cos(W_enc,i, W_enc,j), of 8,192 latents at most, evenly spaced",
        "How near latents read to each other.",
    ),
    weights_definition(
        "nearest_decoder_cos_mean",
        "mean_i max_{j ≠ i} cos(W_dec,i, W_dec,j), of 8,192 latents at most, evenly spaced",
        "How near latents write to each other: high where features are split among several.",
    ),
    weights_definition(
        "nearest_decoder_cos_max",
        "max_i max_{j ≠ i} cos(W_dec,i, W_dec,j), likewise",
        "Near 1, two latents write the same.",
    ),
];

const fn weights_definition(name: &'static str, formula: &'static str, meaning: &'static str) -> Definition {
    let source = "SAEBench core: Karvonen et al. 2025, arXiv 2503.09532";
    Definition { name, unit: "", better: Better::Neither, formula, meaning, source }
}

impl WeightFacts {
    /// In the order of [`WEIGHT_DEFINITIONS`].
    pub fn values(&self) -> [Option<f64>; WEIGHT_DEFINITIONS.len()] {
        [
            self.decoder_norm_min,
            self.decoder_norm_mean,
            self.decoder_norm_max,
            self.encoder_decoder_cos_mean,
            self.nearest_encoder_cos_mean,
            self.nearest_decoder_cos_mean,
            self.nearest_decoder_cos_max,
        ]
    }
}

impl DictionaryFacts {
    /// Of `dictionary`, which was read from `directory`.
    pub(crate) fn new(directory: &Path, dictionary: &Dictionary, device: &Device) -> Result<Self, EvalError> {
        let Metadata {
            model_name,
            hook: _,
            hook_out: _,
            normalization,
            context_size,
            prepend_bos,
            dataset_path,
            scale,
            facts,
            other,
        } = dictionary.metadata();
        let metadata = json!({
            "normalization": normalization,
            "model_name": model_name,
            "context_size": context_size,
            "prepend_bos": prepend_bos,
            "dataset_path": dataset_path,
            "scale": scale,
            "facts": facts,
            "other": other,
        });
        Ok(Self {
            path: directory.display().to_string(),
            shape: DictionaryShape::of(dictionary),
            architecture: serde_json::to_value(dictionary.sae().config())
                .expect("a configuration has string keys"),
            metadata,
            weights: weights(dictionary, device)?,
        })
    }
}

/// A digest of the files of the dictionary in `directory`, whoever made it.
pub(crate) fn digest(directory: &Path) -> Result<Digest, EvalError> {
    let names = Format::of(directory).map_or_else(|_| Vec::new(), |format| format.files_in(directory));
    let mut lines = String::new();
    for name in names {
        let path: PathBuf = directory.join(name);
        let digest = digest_file(&path).map_err(|source| EvalError::Io { path, source })?;
        writeln!(lines, "{digest}  {name}").expect("a string can be written to");
    }
    Ok(digest_bytes(lines.as_bytes()))
}

fn weights(dictionary: &Dictionary, device: &Device) -> Result<WeightFacts, EvalError> {
    let weights = dictionary.sae().to_weights();
    let values = |wanted: &str| {
        let data = weights.iter().find(|(name, _)| *name == wanted)?.1;
        data.as_slice::<f32>().ok()
    };
    let Some(w_dec) = values("W_dec") else { return Ok(WeightFacts::default()) };
    let (d_in, d_sae) = (dictionary.d_in(), dictionary.d_sae());
    let norm = |row: &[f32]| row.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt();
    let norms: Vec<f64> = w_dec.chunks_exact(d_in).map(norm).collect();
    let mean =
        |values: &[f64]| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
    let cosines: Vec<f64> = values("W_enc").map_or_else(Vec::new, |w_enc| {
        // Column i of [d_in, d_sae], summed row by row: strided reads of large matrices are slow.
        let (mut products, mut squares) = (vec![0.0; d_sae], vec![0.0; d_sae]);
        for (d, row) in w_enc.chunks_exact(d_sae).enumerate() {
            for (i, &w) in row.iter().enumerate() {
                products[i] += f64::from(w) * f64::from(w_dec[i * d_in + d]);
                squares[i] += f64::from(w).powi(2);
            }
        }
        let lengths = squares.iter().zip(&norms).map(|(square, norm)| f64::sqrt(*square) * norm);
        products
            .iter()
            .zip(lengths)
            .filter(|(_, length)| *length > 0.0)
            .map(|(p, length)| p / length)
            .collect()
    });
    let failed = |error: CompareError| EvalError::Device {
        doing: "comparing the latents with each other",
        reason: error.to_string(),
    };
    let nearest = nearest_others(w_dec, dictionary.d_out(), device).map_err(failed)?;
    let columns = |w_enc: &[f32]| (0..d_in * d_sae).map(|at| w_enc[at % d_in * d_sae + at / d_in]).collect();
    let columns: Vec<f32> = values("W_enc").map_or_else(Vec::new, columns);
    let nearest_encoders = nearest_others(&columns, d_in, device).map_err(failed)?;
    Ok(WeightFacts {
        decoder_norm_min: norms.iter().copied().reduce(f64::min),
        decoder_norm_mean: mean(&norms),
        decoder_norm_max: norms.iter().copied().reduce(f64::max),
        encoder_decoder_cos_mean: mean(&cosines),
        nearest_encoder_cos_mean: mean(&nearest_encoders),
        nearest_decoder_cos_mean: mean(&nearest),
        nearest_decoder_cos_max: nearest.iter().copied().reduce(f64::max),
    })
}
