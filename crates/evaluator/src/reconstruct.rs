//! Tokens through the dictionary, in chunks that bound the latents held at once.

use std::ops::Range;

use burn::tensor::Device;
use monosema_sae::Dictionary;

use crate::{
    error::EvalError,
    host,
    metrics::{Block, Metrics, Shape},
    positions::Token,
};

/// Latents held at once.
const CHUNK_LATENTS: usize = 1 << 23;

/// How many tokens' latents are held at once.
pub(crate) fn chunk_rows(d_sae: usize) -> usize {
    (CHUNK_LATENTS / d_sae.max(1)).max(1)
}

/// What goes into a dictionary, and what should come out.
#[derive(Clone, Copy)]
pub(crate) struct Ends<'a> {
    /// What is read `[n, d_in]`.
    pub(crate) x: &'a [f32],
    /// What should come out `[n, d_in]`: of an autoencoder x.
    pub(crate) y: &'a [f32],
    /// The text's mean of y `[d_in]`.
    pub(crate) mean: &'a [f64],
    /// Which tokens they are `[n]`.
    pub(crate) tokens: &'a [Token],
}

/// Encodes and decodes, feeds `metrics` with what comes out beside what should, and returns `x_hat [n, d_in]`.
pub(crate) fn reconstruct(
    dictionary: &Dictionary,
    ends: Ends<'_>,
    device: &Device,
    metrics: &mut Metrics,
) -> Result<Vec<f32>, EvalError> {
    let Ends { x, y, mean, tokens } = ends;
    let shape = Shape { d_in: dictionary.d_in(), d_sae: dictionary.d_sae() };
    let mut reconstruction = Vec::with_capacity(x.len());
    for_each_chunk(dictionary, x, device, |rows, acts, x_hat| {
        let y = &y[rows.start * shape.d_in..rows.end * shape.d_in];
        metrics.add(&Block { shape, x: y, acts, x_hat, mean, tokens: &tokens[rows] });
        reconstruction.extend_from_slice(x_hat);
    })?;
    Ok(reconstruction)
}

/// Encodes and decodes `x [n, d_in]` and hands over, a chunk of rows at a time, latents `[rows, d_sae]` and x̂ `[rows, d_in]`.
pub(crate) fn for_each_chunk(
    dictionary: &Dictionary,
    x: &[f32],
    device: &Device,
    mut take: impl FnMut(Range<usize>, &[f32], &[f32]),
) -> Result<(), EvalError> {
    let d_in = dictionary.d_in();
    let chunk = chunk_rows(dictionary.d_sae());
    for (index, x) in x.chunks(chunk * d_in).enumerate() {
        let (first, rows) = (index * chunk, x.len() / d_in);
        let x = host::tensor(x.to_vec(), [rows, d_in], device);
        let acts = dictionary.encode(x.clone());
        let x_hat = host::values(dictionary.decode(acts.clone(), x), "decoding latents")?;
        take(first..first + rows, &host::values(acts, "encoding activations")?, &x_hat);
    }
    Ok(())
}
