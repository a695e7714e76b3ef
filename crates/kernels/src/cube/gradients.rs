//! The gradients of a latent: its rows of both matrices, which are sums over the tokens on which it was active.

use burn::{backend::ops::FloatTensorOps, tensor::DType};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    batch::{B, Batch},
    by_latent::ByLatent,
    launch::{arg, cubes, units, vector_size},
    lists::Lists,
    units::{UNITS, sum, total},
};
use crate::extension::Values;

/// Units beside each other in a cube: columns.
const ACROSS: u32 = 64;

/// Units behind each other in a cube: entries of a latent that are added up apart.
const ALONG: u32 = UNITS / ACROSS;

/// Entries that a unit reads at a time, so that memory has something to do while sums wait.
const ABREAST: u32 = 4;

/// Of every latent: Σ pull · input and Σ act · error, `enc, dec [d_sae, width]`, and Σ pull and Σ act, `b_enc, sums [d_sae]`.
/// `entries` and `starts` are its tokens ([`super::by_latent`]), `acts` and `pulls [n, capacity]` what they refer to. A cube of
/// ACROSS × ALONG units for ACROSS columns of a latent: of those that are active on many tokens, many cubes.
#[cube(launch_unchecked)]
fn gather<N: Size>(
    input: &[Vector<f32, N>],
    error: &[Vector<f32, N>],
    entries: &[u32],
    starts: &[u32],
    acts: &[f32],
    pulls: &[f32],
    enc: &mut [Vector<f32, N>],
    dec: &mut [Vector<f32, N>],
    b_enc: &mut [f32],
    sums: &mut [f32],
    d_sae: u32,
    width: u32,
    capacity: u32,
) {
    let parts = width.div_ceil(ACROSS);
    let (latent, part) = (CUBE_POS as u32 / parts, CUBE_POS as u32 % parts);
    if latent >= d_sae {
        terminate!();
    }
    // A cube of one dimension: not every language that kernels become has planes in others.
    let (across, along) = (UNIT_POS % ACROSS, UNIT_POS / ACROSS);
    let column = part * ACROSS + across;
    let row = latent as usize * width as usize;
    let begin = starts[latent as usize];
    let end = starts[latent as usize + 1];
    let mut of_enc = Vector::<f32, N>::new(0.0f32);
    let mut of_dec = Vector::<f32, N>::new(0.0f32);
    if column < width {
        let mut i = begin + along;
        while i + (ABREAST - 1) * ALONG < end {
            #[unroll]
            for ahead in 0..ABREAST {
                let entry = entries[(i + ahead * ALONG) as usize];
                let at = (entry / capacity) as usize * width as usize + column as usize;
                of_enc += Vector::new(pulls[entry as usize]) * input[at];
                of_dec += Vector::new(acts[entry as usize]) * error[at];
            }
            i += ABREAST * ALONG;
        }
        while i < end {
            let entry = entries[i as usize];
            let at = (entry / capacity) as usize * width as usize + column as usize;
            of_enc += Vector::new(pulls[entry as usize]) * input[at];
            of_dec += Vector::new(acts[entry as usize]) * error[at];
            i += ALONG;
        }
    }
    let mut enc_parts = Shared::<[Vector<f32, N>]>::new_slice(UNITS as usize);
    let mut dec_parts = Shared::<[Vector<f32, N>]>::new_slice(UNITS as usize);
    enc_parts[UNIT_POS as usize] = of_enc;
    dec_parts[UNIT_POS as usize] = of_dec;
    sync_cube();
    if along == 0 && column < width {
        #[unroll]
        for part in 1..ALONG {
            of_enc += enc_parts[(part * ACROSS + across) as usize];
            of_dec += dec_parts[(part * ACROSS + across) as usize];
        }
        enc[row + column as usize] = of_enc;
        dec[row + column as usize] = of_dec;
    }
    if part == 0 {
        let mut act = 0.0f32;
        let mut pull = 0.0f32;
        let mut i = begin + UNIT_POS;
        while i < end {
            let entry = entries[i as usize] as usize;
            act += acts[entry];
            pull += pulls[entry];
            i += UNITS;
        }
        let act = sum(act);
        let pull = sum(pull);
        if UNIT_POS == 0 {
            sums[latent as usize] = act;
            b_enc[latent as usize] = pull;
        }
    }
}

/// Makes gradients of such sums: of `dec`, by what errors are multiplied by, by the penalty, and by what a decoder of unit rows
/// leaves out. Σ of the squares of all gradients of a latent goes to `squares [d_sae]`. A cube a latent.
#[cube(launch_unchecked)]
fn complete<N: Size>(
    w_dec: &[Vector<f32, N>],
    norms: &[f32],
    sums: &[f32],
    enc: &[Vector<f32, N>],
    dec: &mut [Vector<f32, N>],
    b_enc: &[f32],
    squares: &mut [f32],
    d_sae: u32,
    width: u32,
    of_error: f32,
    of_penalty: f32,
    #[comptime] unit_decoder: bool,
) {
    let latent = CUBE_POS as u32;
    if latent >= d_sae {
        terminate!();
    }
    let row = latent as usize * width as usize;
    let of_row = of_penalty * sums[latent as usize] / norms[latent as usize];
    let mut square = Vector::<f32, N>::new(0.0f32);
    let mut products = Vector::<f32, N>::new(0.0f32);
    let mut lengths = Vector::<f32, N>::new(0.0f32);
    let mut column = UNIT_POS;
    while column < width {
        let at = row + column as usize;
        let w = w_dec[at];
        let gradient = Vector::new(of_error) * dec[at] + Vector::new(of_row) * w;
        dec[at] = gradient;
        if comptime![unit_decoder] {
            products += gradient * w;
            lengths += w * w;
        } else {
            square += gradient * gradient;
        }
        square += enc[at] * enc[at];
        column += UNITS;
    }
    if comptime![unit_decoder] {
        let product = sum(total::<N>(products));
        let length = sum(total::<N>(lengths));
        let along = product / length.max(f32::MIN_POSITIVE);
        let mut column = UNIT_POS;
        while column < width {
            let at = row + column as usize;
            let gradient = dec[at] - Vector::new(along) * w_dec[at];
            dec[at] = gradient;
            square += gradient * gradient;
            column += UNITS;
        }
    }
    let square = sum(total::<N>(square));
    if UNIT_POS == 0 {
        let pull = b_enc[latent as usize];
        squares[latent as usize] = square + pull * pull;
    }
}

/// Latents whose rows one unit adds up.
const LATENTS: u32 = 256;

/// Σ weightsᵢ · rowsᵢ over stretches of LATENTS rows, `sums [stretches, width]`. A unit a column and stretch.
#[cube(launch_unchecked)]
fn weighted_sums(rows: &[f32], weights: &[f32], sums: &mut [f32], n: u32, stretches: u32, width: u32) {
    let unit = ABSOLUTE_POS as u32;
    let (stretch, column) = (unit / width, unit % width);
    if stretch < stretches {
        let end = ((stretch + 1) * LATENTS).min(n);
        let mut sum = 0.0f32;
        for row in stretch * LATENTS..end {
            sum += weights[row as usize] * rows[row as usize * width as usize + column as usize];
        }
        sums[unit as usize] = sum;
    }
}

/// What the gradients of latents are made of.
pub(super) struct Sums {
    /// Σ pull · input, `[d_sae, d_in]`.
    pub(super) enc: CubeTensor,
    /// Σ act · error, `[d_sae, d_in]`.
    pub(super) dec: CubeTensor,
    /// Σ pull, `[d_sae]`.
    pub(super) b_enc: CubeTensor,
    /// Σ act, `[d_sae]`.
    pub(super) acts: CubeTensor,
}

impl Batch {
    /// Over the entries of lists; `pulls` is theirs.
    pub(super) fn gather(
        &self,
        lists: &Lists,
        pulls: &CubeTensor,
        error: &CubeTensor,
        by: &ByLatent,
    ) -> Sums {
        let vector = vector_size(self.d_in);
        let width = (self.d_in / vector) as u32;
        let [enc, dec] = [0; 2].map(|_| self.empty([self.d_sae, self.d_in], DType::F32));
        let [b_enc, acts] = [0; 2].map(|_| self.empty([self.d_sae], DType::F32));
        unsafe {
            gather::launch_unchecked(
                &self.client,
                cubes(self.d_sae * width.div_ceil(ACROSS) as usize),
                units(),
                vector,
                arg(&self.input),
                arg(error),
                arg(&by.entries),
                arg(&by.starts),
                arg(&lists.acts),
                arg(pulls),
                arg(&enc),
                arg(&dec),
                arg(&b_enc),
                arg(&acts),
                self.d_sae as u32,
                width,
                lists.capacity as u32,
            );
        }
        Sums { enc, dec, b_enc, acts }
    }

    /// The gradients of all but the decoder's bias, that of which is given, and the squares of each latent's, `[d_sae]`.
    pub(super) fn complete(
        &self,
        sums: Sums,
        norms: &CubeTensor,
        b_dec: CubeTensor,
    ) -> (Values<B>, CubeTensor) {
        let (of_error, of_penalty) = self.factors();
        let squares = self.empty([self.d_sae], DType::F32);
        let vector = vector_size(self.d_in);
        let Sums { enc, dec, b_enc, acts } = sums;
        unsafe {
            complete::launch_unchecked(
                &self.client,
                cubes(self.d_sae),
                units(),
                vector,
                arg(&self.parameters.w_dec),
                arg(norms),
                arg(&acts),
                arg(&enc),
                arg(&dec),
                arg(&b_enc),
                arg(&squares),
                self.d_sae as u32,
                (self.d_in / vector) as u32,
                of_error,
                of_penalty,
                self.form.unit_decoder,
            );
        }
        (self.with_extras([enc, dec, b_enc, b_dec]), squares)
    }

    /// Σ weightsᵢ · rowsᵢ of a matrix `[d_sae, d_in]`, `[1, d_in]`; in f32 throughout.
    pub(super) fn weighted_sum(&self, rows: &CubeTensor, weights: &CubeTensor) -> CubeTensor {
        let stretches = self.d_sae.div_ceil(LATENTS as usize);
        let sums = self.empty([stretches, self.d_in], DType::F32);
        unsafe {
            weighted_sums::launch_unchecked(
                &self.client,
                cubes((stretches * self.d_in).div_ceil(UNITS as usize)),
                units(),
                arg(rows),
                arg(weights),
                arg(&sums),
                self.d_sae as u32,
                stretches as u32,
                self.d_in as u32,
            );
        }
        B::float_sum_dim(sums, 0)
    }
}
