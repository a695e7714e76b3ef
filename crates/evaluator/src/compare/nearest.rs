//! For each latent the one of the other dictionary that is most like it; mean max cosine similarity.

use burn::tensor::Device;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{cosines::for_each_block, directions::Directions, error::CompareError, side::Side};

/// Bins of the histogram between 0 and 1.
const BINS: u32 = 20;

/// How many columns of a block a thread looks at.
const COLUMNS: usize = 4096;

/// The nearest row of another set of directions, and the cosine with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Nearest {
    /// Its number.
    pub(super) place: usize,
    /// The cosine, as f64 has it.
    pub(super) cosine: f64,
}

/// The latents of one dictionary, each with the nearest of another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NearestLatents {
    /// Latents by the cosine.
    pub histogram: CosineHistogram,
    /// For each latent the number of the nearest one; `None` for those that are left out.
    pub nearest: Vec<Option<usize>>,
    /// The cosines between their rows of `W_dec`.
    pub cosine: Vec<Option<f32>>,
}

/// Latents by a cosine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CosineHistogram {
    /// Edges of the bins, from 0 to 1; one more than there are bins.
    pub edges: Vec<f64>,
    /// Latents in each bin, which holds its lower edge and not its upper one; the last holds both.
    pub latents: Vec<u64>,
    /// Latents with a cosine below 0; they are in no bin.
    pub negative: u64,
}

impl NearestLatents {
    /// With the numbers that latents have in their dictionaries.
    pub(super) fn new(from: &Side, to: &Side, nearest: &[Nearest]) -> Self {
        let mut all = Self {
            histogram: CosineHistogram::of(nearest.iter().map(|nearest| nearest.cosine)),
            nearest: vec![None; from.facts.d_sae],
            cosine: vec![None; from.facts.d_sae],
        };
        for (&latent, found) in from.latents.iter().zip(nearest) {
            all.nearest[latent] = Some(to.latents[found.place]);
            all.cosine[latent] = Some(found.cosine as f32);
        }
        all
    }
}

impl CosineHistogram {
    /// Of these cosines.
    pub(super) fn of(cosines: impl IntoIterator<Item = f64>) -> Self {
        let edges = (0..=BINS).map(|edge| f64::from(edge) / f64::from(BINS)).collect();
        let mut histogram = Self { edges, latents: vec![0; BINS as usize], negative: 0 };
        for cosine in cosines {
            if cosine < 0.0 {
                histogram.negative += 1;
            } else {
                // The last edge that is not above it; that of 1 has no bin of its own.
                let bin = histogram.edges.partition_point(|&edge| edge <= cosine) - 1;
                histogram.latents[bin.min(BINS as usize - 1)] += 1;
            }
        }
        histogram
    }
}

/// For each row of `a` the nearest of `b`, and for each row of `b` the nearest of `a`; of equally near ones the first.
pub(super) fn both_ways(
    a: &Directions,
    b: &Directions,
    device: &Device,
) -> Result<[Vec<Nearest>; 2], CompareError> {
    let mut of_a = Vec::with_capacity(a.n());
    let mut of_b = vec![(f32::NEG_INFINITY, 0); b.n()];
    for_each_block(a, b, device, |first, block| {
        let rows = block.par_chunks_exact(b.n()).map(|row| {
            let best = row.iter().enumerate().fold((f32::NEG_INFINITY, 0), |best, (place, &cosine)| {
                if cosine > best.0 { (cosine, place) } else { best }
            });
            best.1
        });
        of_a.par_extend(rows);
        of_b.par_chunks_mut(COLUMNS).enumerate().for_each(|(chunk, best)| {
            for (row, cosines) in block.chunks_exact(b.n()).enumerate() {
                for (best, &cosine) in best.iter_mut().zip(&cosines[chunk * COLUMNS..]) {
                    if cosine > best.0 {
                        *best = (cosine, first + row);
                    }
                }
            }
        });
    })?;
    let of_a =
        of_a.into_par_iter().enumerate().map(|(i, place)| Nearest { place, cosine: a.cosine(i, b, place) });
    let of_b = of_b
        .into_par_iter()
        .enumerate()
        .map(|(j, (_, place))| Nearest { place, cosine: b.cosine(j, a, place) });
    Ok([of_a.collect(), of_b.collect()])
}

/// Mean max cosine similarity.
pub(super) fn mean(nearest: &[Nearest]) -> f64 {
    nearest.iter().map(|nearest| nearest.cosine).sum::<f64>() / nearest.len() as f64
}

/// The share with a cosine above `threshold`.
pub(super) fn share_above(nearest: &[Nearest], threshold: f64) -> f64 {
    nearest.iter().filter(|nearest| nearest.cosine > threshold).count() as f64 / nearest.len() as f64
}
