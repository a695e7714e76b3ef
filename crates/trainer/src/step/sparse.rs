//! The step on active latents alone, on the CPU: the gradients of autodiff for a fraction of the work.
//!
//! Only encoding is dense. Few latents are active on a token, and only they take part in what follows: decoding, the
//! gradient of their pre-activations, and the gradients of their own rows of the weights ([`active`]). While many are
//! active (the first steps of a training), matrix products over all of them are faster ([`all`]); see [`DENSE`].
//!
//! Weights are held latent by latent (`W_enc` transposed), so that a latent's gradients are made in one pass over the
//! tokens on which it was active. Every sum has an order of its own that does not depend on the number of threads: the
//! same seed gives the same bits on any number of cores.

mod active;
mod all;
mod vectors;

use burn::tensor::{Device, Tensor, TensorData};
use monosema_sae::{Sae, SaeConfig, Size, SparseForm, Weights};
use pulp::Arch;
use rayon::prelude::*;

use self::{
    active::Active,
    all::All,
    vectors::{add, dot, transposed},
};
use super::{StepStats, TrainStep, clip};
use crate::{Rates, TrainPlan};

/// Tokens that one task works on.
const ROWS: usize = 128;

/// Latents that it encodes at once: their pre-activations stay in the cache until they are looked at.
const TILE: usize = 512;

/// From this share of active latents on, matrix products over all of them are taken to be faster. With two threads and
/// AVX-512 they are from 7.6 % on at 576 → 4,608, and from 3.8 % on at 768 → 12,288, where W_dec leaves the cache.
const DENSE: f64 = 0.05;

/// Numbers that one task of the optimiser works on.
const CHUNK: usize = 1 << 14;

/// Gradients on the host, global clipping, Adam.
pub struct SparseStep {
    config: SaeConfig,
    form: SparseForm,
    size: Size,
    device: Device,
    weights: Rows,
    gradients: Rows,
    /// Adam's moments.
    first: Rows,
    second: Rows,
    time: i32,
    betas: [f64; 2],
    eps: f64,
    grad_clip: f64,
    path: Path,
}

/// How a step goes on after encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// By matrix products over all latents.
    Dense,
    /// Over the active latents.
    Sparse,
}

/// A value for every parameter.
#[derive(Clone, Debug)]
struct Rows {
    /// `[d_sae, d_in]`.
    enc: Vec<f32>,
    /// `[d_sae, d_in]`.
    dec: Vec<f32>,
    /// `[d_sae]`.
    b_enc: Vec<f32>,
    /// `[d_in]`.
    b_dec: Vec<f32>,
}

impl Rows {
    fn zeros(Size { d_in, d_sae }: Size) -> Self {
        let matrix = vec![0.0; d_sae * d_in];
        Self { enc: matrix.clone(), dec: matrix, b_enc: vec![0.0; d_sae], b_dec: vec![0.0; d_in] }
    }

    fn parts(&mut self) -> [&mut Vec<f32>; 4] {
        [&mut self.enc, &mut self.dec, &mut self.b_enc, &mut self.b_dec]
    }
}

/// What the tasks share: parameters, and what follows from them once a step.
#[derive(Clone, Copy)]
struct Shared<'a> {
    size: Size,
    weights: &'a Rows,
    /// ‖W_dec,i‖₂ of every latent.
    norms: &'a [f32],
    /// 2 / tokens: the gradient of a token's squared error is this times the error.
    of_error: f32,
    /// λ / tokens: the gradient of the penalty is this times the norm.
    of_penalty: f32,
}

/// What one task found on its tokens.
struct Block<Latents> {
    latents: Latents,
    /// Gradient of x̂, `[rows, d_in]`.
    error: Vec<f32>,
    squared_error: f64,
    penalty: f64,
}

/// The latents of some tokens, all of them or the active ones.
trait Latents: Sized + Send + Sync {
    /// Encodes `input [rows, d_in]`.
    fn encode(shared: Shared<'_>, input: &[f32]) -> Self;

    /// Adds acts·W_dec to `x_hat [rows, d_in]`.
    fn decode(&self, shared: Shared<'_>, x_hat: &mut [f32]);

    /// Σ actsᵢ‖W_dec,i‖₂ over all tokens.
    fn penalty(&self, shared: Shared<'_>) -> f64;

    /// Computes the gradients of the pre-activations from those of x̂, `error [rows, d_in]`.
    fn pull(&mut self, shared: Shared<'_>, error: &[f32]);

    /// The gradients of both matrices, the penalty's aside, into `enc` and `dec` (`[d_sae, d_in]`), and what each
    /// latent comes to.
    fn gradients(
        blocks: &[Block<Self>],
        input: &[f32],
        size: Size,
        enc: &mut [f32],
        dec: &mut [f32],
    ) -> Vec<Total>;
}

/// What a latent comes to over all tokens.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    acts: f32,
    /// Of the gradients of its pre-activations.
    pulls: f32,
    /// On how many tokens it was active.
    fired: u32,
}

impl SparseStep {
    /// Begins to train `sae` with the plan's optimiser; `None` if its architecture has no [`SparseForm`], or if
    /// `device` is not host memory.
    pub fn new(sae: &Sae, plan: &TrainPlan, device: &Device) -> Option<Self> {
        let (config, size) = (sae.config(), sae.size());
        let form = config.sparse_form()?;
        if *device != Device::flex() {
            return None;
        }
        let mut weights = Rows::zeros(size);
        for (name, data) in sae.to_weights().iter() {
            let values = data.as_slice::<f32>().ok()?;
            match name {
                "W_enc" => weights.enc = transposed(values, size.d_in, size.d_sae),
                "W_dec" => weights.dec = values.to_vec(),
                "b_enc" => weights.b_enc = values.to_vec(),
                "b_dec" => weights.b_dec = values.to_vec(),
                other => unreachable!("a sparse form has four weights, and {other} is none of them"),
            }
        }
        let zeros = Rows::zeros(size);
        Some(Self {
            config,
            form,
            size,
            device: device.clone(),
            weights,
            gradients: zeros.clone(),
            first: zeros.clone(),
            second: zeros,
            time: 0,
            betas: plan.adam_betas,
            eps: plan.adam_eps,
            grad_clip: plan.grad_clip,
            path: Path::Dense,
        })
    }

    /// A step by a path of the caller's choice. [`TrainStep::step`] takes the one that suits the last step's density.
    pub fn step_by(&mut self, path: Path, x: Tensor<2>, rates: Rates) -> StepStats {
        match path {
            Path::Dense => self.run::<All>(x, rates),
            Path::Sparse => self.run::<Active>(x, rates),
        }
    }

    fn run<L: Latents>(&mut self, x: Tensor<2>, rates: Rates) -> StepStats {
        let [n, d_in] = x.dims();
        let data = x.into_data();
        let x = data.as_slice::<f32>().expect("activations are f32");
        let shifted = self.form.apply_b_dec_to_input.then(|| vectors::minus(x, &self.weights.b_dec));
        let input = shifted.as_deref().unwrap_or(x);
        let norms: Vec<f32> = {
            let rows = self.weights.dec.par_chunks(d_in);
            rows.map(|row| Arch::new().dispatch(|| (dot(row, row) + SparseForm::TINY).sqrt())).collect()
        };
        let shared = Shared {
            size: self.size,
            weights: &self.weights,
            norms: &norms,
            of_error: 2.0 / n as f32,
            of_penalty: (rates.l1 / n as f64) as f32,
        };
        let tasks = x.par_chunks(ROWS * d_in).zip(input.par_chunks(ROWS * d_in));
        let blocks: Vec<Block<L>> = tasks.map(|(x, input)| Block::new(shared, x, input)).collect();
        let of_penalty = shared.of_penalty;
        let Rows { enc, dec, .. } = &mut self.gradients;
        let totals = L::gradients(&blocks, input, self.size, enc, dec);
        self.gradients_of_rest(&totals, &blocks, &norms, of_penalty);
        let grad_norm = self.adam(rates.lr);

        let fired: Vec<f32> = totals.iter().map(|total| total.fired as f32).collect();
        let active: u64 = totals.iter().map(|total| u64::from(total.fired)).sum();
        let share = active as f64 / (n * self.size.d_sae) as f64;
        self.path = if share >= DENSE { Path::Dense } else { Path::Sparse };
        let mean = |of: fn(&Block<L>) -> f64| blocks.iter().map(of).sum::<f64>() / n as f64;
        let (squared_error, penalty) = (mean(|block| block.squared_error), mean(|block| block.penalty));
        let scalar = |value: f64| self.tensor(vec![value as f32]);
        StepStats {
            loss: scalar(squared_error + rates.l1 * penalty),
            squared_error: scalar(squared_error),
            penalty: scalar(penalty),
            grad_norm: scalar(grad_norm),
            fired: self.tensor(fired),
        }
    }

    fn tensor(&self, values: Vec<f32>) -> Tensor<1> {
        let n = values.len();
        Tensor::from_data(TensorData::new(values, [n]), &self.device)
    }

    /// Gradients of the biases, and the penalty's of the decoder.
    fn gradients_of_rest<L: Latents>(
        &mut self,
        totals: &[Total],
        blocks: &[Block<L>],
        norms: &[f32],
        of_penalty: f32,
    ) {
        let d_in = self.size.d_in;
        let Rows { dec, b_enc, b_dec, .. } = &mut self.gradients;
        let rows = dec.par_chunks_mut(d_in).zip(self.weights.dec.par_chunks(d_in));
        rows.zip(totals.par_iter().zip(norms)).for_each(|((gradient, row), (total, norm))| {
            Arch::new().dispatch(|| add(gradient, of_penalty * total.acts / norm, row));
        });
        b_enc.iter_mut().zip(totals).for_each(|(gradient, total)| *gradient = total.pulls);
        b_dec.fill(0.0);
        for block in blocks {
            block.error.chunks_exact(d_in).for_each(|error| add(b_dec, 1.0, error));
        }
        if self.form.apply_b_dec_to_input {
            for (total, row) in totals.iter().zip(self.weights.enc.chunks_exact(d_in)) {
                add(b_dec, -total.pulls, row);
            }
        }
    }

    /// Clips the gradients by their norm together, and takes Adam's step (Kingma and Ba 2015, algorithm 1). Returns the
    /// norm before.
    fn adam(&mut self, lr: f64) -> f64 {
        let squares = self.gradients.parts().map(|part| {
            let chunks = part.par_chunks(CHUNK);
            let sums: Vec<f64> =
                chunks.map(|chunk| Arch::new().dispatch(|| vectors::squares(chunk))).collect();
            sums.iter().sum::<f64>()
        });
        let norm = squares.iter().sum::<f64>().sqrt();
        let factor = (self.grad_clip / (norm + clip::EPSILON)).min(1.0) as f32;
        self.time += 1;
        // 1 − β in double precision, as PyTorch has it: in single, 1 − 0.999 is off by 5e-5 of itself.
        let [rest_1, rest_2] = self.betas.map(|beta| (1.0 - beta) as f32);
        let [beta_1, beta_2] = self.betas.map(|beta| beta as f32);
        let [correct_1, correct_2] = self.betas.map(|beta| (1.0 / (1.0 - beta.powi(self.time))) as f32);
        let (lr, eps) = (lr as f32, self.eps as f32);
        let parts = self.weights.parts().into_iter().zip(self.gradients.parts());
        let moments = self.first.parts().into_iter().zip(self.second.parts());
        for ((weights, gradients), (first, second)) in parts.zip(moments) {
            let tasks = weights.par_chunks_mut(CHUNK).zip(gradients.par_chunks(CHUNK));
            let moments = first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK));
            tasks.zip(moments).for_each(|((weights, gradients), (first, second))| {
                Arch::new().dispatch(|| {
                    for (((w, g), m), v) in weights.iter_mut().zip(gradients).zip(first).zip(second) {
                        let g = g * factor;
                        *m = beta_1 * *m + rest_1 * g;
                        *v = beta_2 * *v + rest_2 * g * g;
                        *w -= lr * (*m * correct_1) / ((*v * correct_2).sqrt() + eps);
                    }
                });
            });
        }
        norm
    }
}

impl TrainStep for SparseStep {
    fn step(&mut self, x: Tensor<2>, rates: Rates) -> StepStats {
        let path = self.path;
        let stats = self.step_by(path, x, rates);
        if self.path != path {
            tracing::debug!("step {}: the next one takes the {:?} path", self.time, self.path);
        }
        stats
    }

    fn sae(&self) -> Sae {
        let Size { d_in, d_sae } = self.size;
        let Rows { enc, dec, b_enc, b_dec } = &self.weights;
        let mut weights = Weights::default();
        weights.insert("W_enc", transposed(enc, d_sae, d_in), [d_in, d_sae]);
        weights.insert("W_dec", dec.clone(), [d_sae, d_in]);
        weights.insert("b_enc", b_enc.clone(), [d_sae]);
        weights.insert("b_dec", b_dec.clone(), [d_in]);
        Sae::from_weights(&self.config, weights, &self.device)
    }
}

impl<L: Latents> Block<L> {
    /// Encodes `input`, decodes, compares with `x`, and goes back to the pre-activations; both `[rows, d_in]`.
    fn new(shared: Shared<'_>, x: &[f32], input: &[f32]) -> Self {
        let d_in = shared.size.d_in;
        let mut latents = L::encode(shared, input);
        let mut error = shared.weights.b_dec.repeat(x.len() / d_in);
        latents.decode(shared, &mut error);
        let squared_error = Arch::new().dispatch(|| {
            let mut sum = 0.0;
            for (error, x) in error.chunks_exact_mut(d_in).zip(x.chunks_exact(d_in)) {
                error.iter_mut().zip(x).for_each(|(x_hat, x)| *x_hat -= x);
                sum += f64::from(dot(error, error));
                error.iter_mut().for_each(|error| *error *= shared.of_error);
            }
            sum
        });
        latents.pull(shared, &error);
        let penalty = latents.penalty(shared);
        Self { latents, error, squared_error, penalty }
    }
}
