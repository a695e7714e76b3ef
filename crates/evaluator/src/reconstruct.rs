//! Tokens through the dictionary, in chunks that bound the latents held at once.

use monosema_sae::Dictionary;

use burn::tensor::Device;

use crate::{
    error::EvalError,
    host,
    metrics::{Block, Metrics, Shape},
};

/// Latents held at once.
const CHUNK_LATENTS: usize = 1 << 23;

/// How many tokens' latents are held at once.
pub(crate) fn chunk_rows(d_sae: usize) -> usize {
    (CHUNK_LATENTS / d_sae.max(1)).max(1)
}

/// Encodes and decodes `x [n, d_in]`, feeds `metrics` with what comes out beside what should, `y [n, d_in]` (of an
/// autoencoder x), and returns `x_hat [n, d_in]`. `mean` is the text's mean of y.
pub(crate) fn reconstruct(
    dictionary: &Dictionary,
    x: &[f32],
    y: &[f32],
    mean: &[f64],
    device: &Device,
    metrics: &mut Metrics,
) -> Result<Vec<f32>, EvalError> {
    let shape = Shape { d_in: dictionary.d_in(), d_sae: dictionary.d_sae() };
    let mut reconstruction = Vec::with_capacity(x.len());
    let chunk = chunk_rows(shape.d_sae) * shape.d_in;
    for (x, y) in x.chunks(chunk).zip(y.chunks(chunk)) {
        let n = x.len() / shape.d_in;
        let tokens = host::tensor(x.to_vec(), [n, shape.d_in], device);
        let acts = dictionary.encode(tokens.clone());
        let x_hat = host::values(dictionary.decode(acts.clone(), tokens), "decoding latents")?;
        let acts = host::values(acts, "encoding activations")?;
        metrics.add(&Block { shape, x: y, acts: &acts, x_hat: &x_hat, mean });
        reconstruction.extend(x_hat);
    }
    Ok(reconstruction)
}
