//! The dense path: matrix products over all latents, and what lies between them.

use std::ops::Range;

use burn::{
    backend::{TensorMetadata, ops::FloatTensorOps},
    tensor::{DType, Shape},
};
use burn_cubecl::{kernel::into_contiguous, ops::reshape, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{
    batch::{B, Batch, Found, row, square},
    gradients::Sums,
    launch::{arg, cubes, units, vector_size},
    lists::Lists,
    units::UNITS,
};
use crate::{Path, extension::Values};

/// Tokens that one unit adds up.
const TOKENS: u32 = 64;

/// Activations of pre-activations, in their place: those above 0, and what is no number. A unit a vector.
#[cube(launch_unchecked)]
fn activate<N: Size>(pre: &mut [Vector<f32, N>], bias: &[Vector<f32, N>], vectors: u32, width: u32) {
    let at = ABSOLUTE_POS;
    if at < vectors as usize {
        let values = pre[at] + bias[at % width as usize];
        let mut acts = Vector::<f32, N>::new(0.0f32);
        #[unroll]
        for i in 0..N::value() {
            let value = values.extract(i);
            if !(value <= 0.0f32) {
                acts.insert(i, value);
            }
        }
        pre[at] = acts;
    }
}

/// Puts the entries of tokens `first..first + tokens` into `dense [tokens, d_sae]`. A unit an entry.
#[cube(launch_unchecked)]
fn scatter(
    latents: &[u32],
    acts: &[f32],
    counts: &[u32],
    dense: &mut [f32],
    tokens: u32,
    first: u32,
    capacity: u32,
    d_sae: u32,
) {
    let slot = ABSOLUTE_POS as u32;
    let token = slot / capacity;
    if token < tokens && slot % capacity < counts[(first + token) as usize] {
        let entry = (first * capacity + slot) as usize;
        dense[token as usize * d_sae as usize + latents[entry] as usize] = acts[entry];
    }
}

/// Gradients of pre-activations, in the place of `error · W_decᵀ`. A unit a vector.
#[cube(launch_unchecked)]
fn back<N: Size>(
    products: &mut [Vector<f32, N>],
    acts: &[Vector<f32, N>],
    norms: &[Vector<f32, N>],
    vectors: u32,
    width: u32,
    of_error: f32,
    of_penalty: f32,
) {
    let at = ABSOLUTE_POS;
    if at < vectors as usize {
        let all = Vector::new(of_error) * products[at] + Vector::new(of_penalty) * norms[at % width as usize];
        let acts = acts[at];
        let mut pulls = Vector::<f32, N>::new(0.0f32);
        #[unroll]
        for i in 0..N::value() {
            if acts.extract(i) != 0.0f32 {
                pulls.insert(i, all.extract(i));
            }
        }
        products[at] = pulls;
    }
}

/// Of every latent over a stretch of TOKENS tokens: the sums of `acts` and of `pulls [tokens, d_sae]`, and on how many it
/// was active, `sums [3, stretches, d_sae]`. A unit a latent and stretch.
#[cube(launch_unchecked)]
fn columns(acts: &[f32], pulls: &[f32], sums: &mut [f32], tokens: u32, stretches: u32, d_sae: u32) {
    let unit = ABSOLUTE_POS as u32;
    let (stretch, latent) = (unit / d_sae, unit % d_sae);
    if stretch < stretches {
        let end = ((stretch + 1) * TOKENS).min(tokens);
        let mut act = 0.0f32;
        let mut pull = 0.0f32;
        let mut fired = 0.0f32;
        for token in stretch * TOKENS..end {
            let at = token as usize * d_sae as usize + latent as usize;
            let value = acts[at];
            if value != 0.0f32 {
                act += value;
                pull += pulls[at];
                fired += 1.0f32;
            }
        }
        let at = stretch as usize * d_sae as usize + latent as usize;
        let apart = stretches as usize * d_sae as usize;
        sums[at] = act;
        sums[at + apart] = pull;
        sums[at + 2 * apart] = fired;
    }
}

impl Batch {
    /// By matrix products over all latents; those of `lists` are active, or those with positive pre-activations.
    pub(super) fn dense(&self, lists: Option<&Lists>) -> Found {
        let Values { w_dec, b_dec, .. } = &self.parameters;
        let (of_error, of_penalty) = self.factors();
        let norms = self.norms();
        let w_dec_operand = self.operand(w_dec.clone());
        let mut totals: Option<Totals> = None;
        let mut on_stretch = |tokens: Range<usize>, acts: CubeTensor| {
            let acts_operand = self.operand(acts.clone());
            let x_hat = self.product(acts_operand.clone(), w_dec_operand.clone());
            let error = B::float_sub(B::float_add(x_hat, row(b_dec)), self.rows(&self.x, &tokens));
            let error_operand = self.operand(error.clone());
            let pulls = self.product(error_operand.clone(), B::float_transpose(w_dec_operand.clone()));
            self.back(&pulls, &acts, &norms, [of_error, of_penalty]);
            let columns = self.columns(&acts, &pulls, tokens.len());
            let of = |left, right| self.product(B::float_transpose(left), right);
            let found = Totals {
                enc: of(self.operand(pulls), self.rows(&self.encoded, &tokens)),
                dec: of(acts_operand, error_operand),
                columns,
                error: B::float_sum_dim(error.clone(), 0),
                squared_error: B::float_sum(square(error)),
            };
            totals = Some(match totals.take() {
                Some(before) => before.plus(found),
                None => found,
            });
        };
        match lists {
            Some(lists) => self.stretches().for_each(|tokens| {
                let acts = self.scattered(lists, &tokens);
                on_stretch(tokens, acts);
            }),
            None => self.for_pre_activations(|tokens, pre| {
                self.activate(&pre);
                on_stretch(tokens, pre);
            }),
        }
        let Totals { enc, dec, columns, error, squared_error } = totals.expect("there is a token");
        let column = |i: usize| {
            let column = self.rows(&columns, &(i..i + 1));
            reshape(into_contiguous(column), Shape::new([self.d_sae]))
        };
        let [acts, b_enc, fired] = [0, 1, 2].map(column);
        let penalty = B::float_sum(B::float_mul(acts.clone(), norms.clone()));
        let b_dec = self.of_b_dec(error, &b_enc);
        let sums = Sums { enc: into_contiguous(enc), dec: into_contiguous(dec), b_enc, acts };
        let (gradients, squares) = self.complete(sums, &norms, b_dec);
        let all = f64::from(self.read::<f32>(&B::float_sum(fired.clone()))[0]);
        Found {
            gradients,
            squared_error,
            penalty,
            squares,
            fired,
            share: all / (self.n * self.d_sae) as f64,
            floor: 0.0,
            // Not known; twice the mean is a beginning.
            most: (2.0 * all / self.n as f64) as usize,
            path: Path::Dense,
        }
    }

    fn activate(&self, pre: &CubeTensor) {
        let vector = vector_size(self.d_sae);
        let vectors = pre.shape().num_elements() / vector;
        unsafe {
            activate::launch_unchecked(
                &self.client,
                cubes(vectors.div_ceil(UNITS as usize)),
                units(),
                vector,
                arg(pre),
                arg(&self.parameters.b_enc),
                vectors as u32,
                (self.d_sae / vector) as u32,
            );
        }
    }

    fn back(&self, products: &CubeTensor, acts: &CubeTensor, norms: &CubeTensor, factors: [f32; 2]) {
        let vector = vector_size(self.d_sae);
        let vectors = acts.shape().num_elements() / vector;
        unsafe {
            back::launch_unchecked(
                &self.client,
                cubes(vectors.div_ceil(UNITS as usize)),
                units(),
                vector,
                arg(products),
                arg(acts),
                arg(norms),
                vectors as u32,
                (self.d_sae / vector) as u32,
                factors[0],
                factors[1],
            );
        }
    }

    /// The activations of `tokens` as a matrix, `[tokens, d_sae]`.
    fn scattered(&self, lists: &Lists, tokens: &Range<usize>) -> CubeTensor {
        let acts = self.zeros([tokens.len(), self.d_sae], DType::F32);
        unsafe {
            scatter::launch_unchecked(
                &self.client,
                cubes((tokens.len() * lists.capacity).div_ceil(UNITS as usize)),
                units(),
                arg(&lists.latents),
                arg(&lists.acts),
                arg(&lists.counts),
                arg(&acts),
                tokens.len() as u32,
                tokens.start as u32,
                lists.capacity as u32,
                self.d_sae as u32,
            );
        }
        acts
    }

    /// Of every latent: the sums of `acts` and of `pulls [tokens, d_sae]`, and on how many tokens it was active,
    /// `[3, d_sae]`.
    fn columns(&self, acts: &CubeTensor, pulls: &CubeTensor, tokens: usize) -> CubeTensor {
        let stretches = tokens.div_ceil(TOKENS as usize);
        let sums = self.empty([3, stretches, self.d_sae], DType::F32);
        unsafe {
            columns::launch_unchecked(
                &self.client,
                cubes((stretches * self.d_sae).div_ceil(UNITS as usize)),
                units(),
                arg(acts),
                arg(pulls),
                arg(&sums),
                tokens as u32,
                stretches as u32,
                self.d_sae as u32,
            );
        }
        reshape(B::float_sum_dim(sums, 1), Shape::new([3, self.d_sae]))
    }
}

/// What stretches of tokens add up to.
struct Totals {
    enc: CubeTensor,
    dec: CubeTensor,
    columns: CubeTensor,
    error: CubeTensor,
    squared_error: CubeTensor,
}

impl Totals {
    fn plus(self, other: Self) -> Self {
        Self {
            enc: B::float_add(self.enc, other.enc),
            dec: B::float_add(self.dec, other.dec),
            columns: B::float_add(self.columns, other.columns),
            error: B::float_add(self.error, other.error),
            squared_error: B::float_add(self.squared_error, other.squared_error),
        }
    }
}
