//! How near latents of one dictionary are to each other.

use burn::tensor::Device;
use rayon::prelude::*;

use super::{cosines::for_each_block, directions::Directions, error::CompareError};

/// Of larger dictionaries the neighbours of so many latents are looked for, evenly spaced: the rest would say the same.
const LATENTS: usize = 8192;

/// The largest cosine of each row of `w_dec [d_sae, d_out]` with another one; of dictionaries of over 8,192 latents, of as many evenly
/// spaced ones with all others. Empty if there are no two.
pub(crate) fn nearest_others(w_dec: &[f32], d_out: usize, device: &Device) -> Result<Vec<f64>, CompareError> {
    of_at_most(LATENTS, w_dec, d_out, device)
}

fn of_at_most(most: usize, w_dec: &[f32], d_out: usize, device: &Device) -> Result<Vec<f64>, CompareError> {
    let d_sae = w_dec.len() / d_out;
    if d_sae < 2 {
        return Ok(Vec::new());
    }
    let stride = d_sae.div_ceil(most);
    let looked_at: Vec<f32> = w_dec.chunks_exact(d_out).step_by(stride).flatten().copied().collect();
    let all = Directions::of(w_dec.to_vec(), d_out);
    let mut nearest = Vec::new();
    for_each_block(&Directions::of(looked_at, d_out), &all, device, |first, cosines| {
        let rows = cosines.par_chunks_exact(d_sae).enumerate().map(|(row, cosines)| {
            let (before, after) = cosines.split_at((first + row) * stride);
            let others = before.iter().chain(&after[1..]);
            let largest = others.copied().fold(f32::NEG_INFINITY, f32::max);
            // Rounding may leave a hair beyond.
            f64::from(largest.clamp(-1.0, 1.0))
        });
        nearest.par_extend(rows);
    })?;
    Ok(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_worked_out_by_hand() {
        // Directions at 0°, 90°, 60° and 180°, of several lengths.
        let rows = [2.0, 0.0, 0.0, 3.0, 0.5, 0.75f32.sqrt(), -0.1, 0.0];
        let device = Device::flex();
        let close = |found: &[f64], expected: &[f64]| {
            assert_eq!(found.len(), expected.len());
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
        };
        let cos30 = 0.75f64.sqrt();
        close(&nearest_others(&rows, 2, &device).unwrap(), &[0.5, cos30, cos30, 0.0]);
        // Every other one, with all others.
        close(&of_at_most(2, &rows, 2, &device).unwrap(), &[0.5, cos30]);
        assert!(nearest_others(&rows[..2], 2, &device).unwrap().is_empty());
    }
}
