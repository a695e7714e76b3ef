//! From a token's active latents through the decoder to the error, and back to the gradients of their pre-activations.

use burn::{backend::ops::FloatTensorOps, tensor::DType};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    batch::{B, Batch},
    launch::{arg, cubes, units, vector_size},
    lists::Lists,
    units::{UNITS, sum, total},
};
use crate::NORM_TINY;

/// Rows that are read at a time, so that memory has something to do while sums wait.
const ABREAST: u32 = 4;

/// ‖row‖₂ of every row, never 0. A plane a row.
#[cube(launch_unchecked)]
fn norms<N: Size>(rows: &[Vector<f32, N>], norms: &mut [f32], height: u32, width: u32) {
    let row = CUBE_POS as u32 * (CUBE_DIM / PLANE_DIM) + PLANE_POS;
    let mut squares = Vector::<f32, N>::new(0.0f32);
    if row < height {
        let mut column = UNIT_POS_PLANE;
        while column < width {
            let values = rows[row as usize * width as usize + column as usize];
            squares += values * values;
            column += PLANE_DIM;
        }
    }
    sync_cube();
    let square = plane_sum(total::<N>(squares));
    if row < height && UNIT_POS_PLANE == 0 {
        norms[row as usize] = (square + NORM_TINY).sqrt();
    }
}

/// Of every token: `error = x̂ − x [n, width]`; of its entries, `pulls [n, capacity]`, the gradients of their
/// pre-activations; Σ error² and Σ acts · norms. A cube a token.
#[cube(launch_unchecked)]
fn through<N: Size>(
    x: &[Vector<f32, N>],
    w_dec: &[Vector<f32, N>],
    b_dec: &[Vector<f32, N>],
    norms: &[f32],
    latents: &[u32],
    acts: &[f32],
    counts: &[u32],
    error: &mut [Vector<f32, N>],
    pulls: &mut [f32],
    squared: &mut [f32],
    penalty: &mut [f32],
    tokens: u32,
    width: u32,
    capacity: u32,
    of_error: f32,
    of_penalty: f32,
) {
    let token = CUBE_POS as u32;
    if token >= tokens {
        terminate!();
    }
    let list = token as usize * capacity as usize;
    let row = token as usize * width as usize;
    let count = counts[token as usize];
    let whole = count / ABREAST * ABREAST;

    let mut squares = Vector::<f32, N>::new(0.0f32);
    let mut column = UNIT_POS;
    while column < width {
        let mut x_hat = b_dec[column as usize];
        let mut slot = 0u32;
        while slot < whole {
            #[unroll]
            for i in 0..ABREAST {
                let entry = list + (slot + i) as usize;
                let at = latents[entry] as usize * width as usize + column as usize;
                x_hat += Vector::new(acts[entry]) * w_dec[at];
            }
            slot += ABREAST;
        }
        while slot < count {
            let entry = list + slot as usize;
            let at = latents[entry] as usize * width as usize + column as usize;
            x_hat += Vector::new(acts[entry]) * w_dec[at];
            slot += 1;
        }
        let off = x_hat - x[row + column as usize];
        error[row + column as usize] = off;
        squares += off * off;
        column += UNITS;
    }
    let mut weighted = 0.0f32;
    let mut slot = UNIT_POS;
    while slot < count {
        let entry = list + slot as usize;
        weighted += acts[entry] * norms[latents[entry] as usize];
        slot += UNITS;
    }
    let squares = sum(total::<N>(squares));
    let weighted = sum(weighted);
    if UNIT_POS == 0 {
        squared[token as usize] = squares;
        penalty[token as usize] = weighted;
    }
    // Other units' errors are read from here on.
    sync_storage();

    let planes = CUBE_DIM / PLANE_DIM;
    let mut first = 0u32;
    while first < count {
        let slot = first + PLANE_POS;
        let mut products = Vector::<f32, N>::new(0.0f32);
        let mut latent = 0usize;
        if slot < count {
            latent = latents[list + slot as usize] as usize;
            let mut column = UNIT_POS_PLANE;
            while column < width {
                products += error[row + column as usize] * w_dec[latent * width as usize + column as usize];
                column += PLANE_DIM;
            }
        }
        sync_cube();
        let product = plane_sum(total::<N>(products));
        if slot < count && UNIT_POS_PLANE == 0 {
            pulls[list + slot as usize] = of_error * product + of_penalty * norms[latent];
        }
        first += planes;
    }
}

/// What comes of active latents.
pub(super) struct Through {
    /// x̂ − x, `[n, d_in]`.
    pub(super) error: CubeTensor,
    /// The gradients of the entries' pre-activations, `[n, capacity]`.
    pub(super) pulls: CubeTensor,
    /// Σ error², `[1]`.
    pub(super) squared_error: CubeTensor,
    /// Σ acts · norms, `[1]`.
    pub(super) penalty: CubeTensor,
}

impl Batch {
    /// From the entries of lists through the decoder and back.
    pub(super) fn through(&self, lists: &Lists, norms: &CubeTensor) -> Through {
        let vector = vector_size(self.d_in);
        let (of_error, of_penalty) = self.factors();
        let error = self.empty([self.n, self.d_in], DType::F32);
        let pulls = self.empty([self.n, lists.capacity], DType::F32);
        let [squared, penalty] = [0; 2].map(|_| self.empty([self.n], DType::F32));
        unsafe {
            through::launch_unchecked(
                &self.client,
                cubes(self.n),
                units(),
                vector,
                arg(&self.x),
                arg(&self.parameters.w_dec),
                arg(&self.parameters.b_dec),
                arg(norms),
                arg(&lists.latents),
                arg(&lists.acts),
                arg(&lists.counts),
                arg(&error),
                arg(&pulls),
                arg(&squared),
                arg(&penalty),
                self.n as u32,
                (self.d_in / vector) as u32,
                lists.capacity as u32,
                of_error,
                of_penalty,
            );
        }
        Through { error, pulls, squared_error: B::float_sum(squared), penalty: B::float_sum(penalty) }
    }

    /// ‖W_dec,i‖₂, `[d_sae]`.
    pub(super) fn norms(&self) -> CubeTensor {
        let norms = self.empty([self.d_sae], DType::F32);
        let vector = vector_size(self.d_in);
        // Planes have different numbers of units on different devices; none fewer than four.
        let planes = UNITS / self.client.properties().hardware.plane_size_max;
        unsafe {
            norms::launch_unchecked(
                &self.client,
                cubes(self.d_sae.div_ceil(planes as usize)),
                units(),
                vector,
                arg(&self.parameters.w_dec),
                arg(&norms),
                self.d_sae as u32,
                (self.d_in / vector) as u32,
            );
        }
        norms
    }
}
