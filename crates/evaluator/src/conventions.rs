//! What SAELens and SAEBench would say of a dictionary: the figures of their own evaluations, for who has to compare with numbers
//! made by them.
//!
//! `run_evals` of `sae_lens/evals.py`, SAELens 6.54.12, and `sae_bench/evals/core`, SAEBench 0.6.0. They count other tokens than we do by
//! default, replace others when they splice and ablate, and have means of means of batches; see `CONVENTIONS.md` of this crate, and
//! `scripts/conformance.sh`, which holds both against the originals. Sums are in f64 here, and in f32 there.

use std::collections::BTreeSet;

use burn::tensor::{Device, Tensor};
use monosema_sae::Dictionary;
use monosema_text::{ContextBatch, Tokenizer};
use monosema_transformer::{LanguageModel, Paused};
use serde::{Deserialize, Serialize};

use crate::{
    dictionary::WeightFacts,
    error::EvalError,
    host,
    metrics::{Figures, Loss, dot, square_distance, square_norm},
    positions::Positions,
    predictions,
    reconstruct::for_each_chunk,
};

/// Whose figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Convention {
    /// SAELens's evaluation.
    SaeLens,
    /// SAEBench's `core`, with its defaults.
    SaeBench,
}

impl Convention {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SaeLens => "SAELens",
            Self::SaeBench => "SAEBench core",
        }
    }

    /// Its figures, in the order in which it has them.
    pub fn figures(self) -> impl Iterator<Item = &'static ConventionFigure> {
        let also = if self == Self::SaeBench { &OF_SAEBENCH[..] } else { &[] };
        FIGURES.iter().chain(also)
    }

    /// Whether x̂ is spliced in at special tokens too, which are not measured.
    fn splices_everywhere(self) -> bool {
        self == Self::SaeBench
    }
}

/// A figure of another program.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ConventionFigure {
    /// What it is called there.
    pub name: &'static str,
    /// The one of ours that is nearest to it, if there is one.
    pub ours: Option<&'static str>,
    /// Its formula: M are all tokens that are not special, ⟨·⟩ is the mean over them, ⟨·⟩_b over those of one batch.
    pub formula: &'static str,
    /// Its formula in SAEBench, where that is another.
    pub in_saebench: Option<&'static str>,
}

const fn figure(name: &'static str, ours: Option<&'static str>, formula: &'static str) -> ConventionFigure {
    ConventionFigure { name, ours, formula, in_saebench: None }
}

const fn two(figure: ConventionFigure, in_saebench: &'static str) -> ConventionFigure {
    ConventionFigure { in_saebench: Some(in_saebench), ..figure }
}

/// What both have.
const FIGURES: [ConventionFigure; 17] = [
    figure(
        "kl_div_score",
        Some("kl_recovered"),
        "(kl_div_with_ablation − kl_div_with_sae) / kl_div_with_ablation",
    ),
    two(
        figure(
            "kl_div_with_sae",
            Some("kl"),
            "⟨Σ_v p_clean(v) log(p_clean(v) / p_sae(v))⟩, last positions of windows too; x̂ spliced in at M",
        ),
        "the same, x̂ spliced in at every position",
    ),
    figure("kl_div_with_ablation", Some("kl.zero"), "the same with 0 spliced in at every position"),
    figure(
        "ce_loss_score",
        Some("loss_recovered.zero"),
        "(ce_loss_with_ablation − ce_loss_with_sae) / (ce_loss_with_ablation − ce_loss_without_sae)",
    ),
    figure(
        "ce_loss_with_ablation",
        Some("ce.zero"),
        "⟨−log p(next token)⟩ with 0 spliced in at every position",
    ),
    two(
        figure("ce_loss_with_sae", Some("ce.sae"), "⟨−log p(next token)⟩ with x̂ spliced in at M"),
        "the same, x̂ spliced in at every position",
    ),
    figure("ce_loss_without_sae", Some("ce.clean"), "⟨−log p(next token)⟩"),
    figure("l2_norm_in", None, "⟨‖x‖⟩"),
    figure("l2_norm_out", None, "⟨‖x̂‖⟩"),
    figure("l2_ratio", Some("l2_ratio"), "⟨‖x̂‖ / ‖x‖⟩, 1 in place of ‖x‖ < 1e-4"),
    figure("relative_reconstruction_bias", Some("rel_bias"), "mean over batches of ⟨‖x̂‖²⟩_b / ⟨x·x̂⟩_b"),
    figure("l0", Some("l0"), "⟨#{i : f_i ≠ 0}⟩"),
    figure("l1", Some("l1"), "⟨Σ_i |f_i|⟩"),
    two(
        figure("explained_variance", Some("ev.r2"), "1 − ⟨‖x − x̂‖²⟩ / (⟨‖x‖²⟩ − ‖⟨x⟩‖²)"),
        "1 − e / (s − q²): e, s and q are means over batches of ⟨‖x − x̂‖²⟩_b, ⟨‖x‖²⟩_b and mean_d ⟨x_d²⟩_b, where ‖⟨x⟩‖² is meant",
    ),
    figure(
        "explained_variance_legacy",
        Some("ev.legacy"),
        "⟨1 − ‖x − x̂‖² / ‖x − ⟨x⟩_b‖²⟩, about the mean of the batch",
    ),
    two(
        figure("mse", Some("mse"), "⟨‖x − x̂‖²⟩"),
        "⟨‖x − x̂‖² / n_b⟩, n_b the measured tokens of the batch: divided by them twice",
    ),
    figure("cossim", Some("cos"), "⟨x·x̂ / (‖x‖ ‖x̂‖)⟩, not a number once x̂ = 0"),
];

/// What SAEBench has besides.
const OF_SAEBENCH: [ConventionFigure; 7] = [
    figure("frac_alive", None, "#{i : density_i > 0} / d_sae: 1 − dead"),
    figure("freq_over_1_percent", None, "#{i : density_i > 0.01} / d_sae"),
    figure("freq_over_10_percent", None, "#{i : density_i > 0.1} / d_sae"),
    figure("normalized_freq_over_1_percent", None, "Σ density_i over those above 0.01 / Σ density_i"),
    figure("normalized_freq_over_10_percent", None, "Σ density_i over those above 0.1 / Σ density_i"),
    figure(
        "average_max_encoder_cosine_sim",
        None,
        "mean_i of the largest cosine of a column of W_enc with another (of 8,192 latents at most)",
    ),
    figure(
        "average_max_decoder_cosine_sim",
        None,
        "mean_i of the largest cosine of a row of W_dec with another (of 8,192 latents at most)",
    ),
];

/// Below this they divide by 1 in place of ‖x‖.
const SMALLEST_NORM: f64 = 1e-4;

/// Its sums over a text.
#[derive(Clone, Debug)]
pub(crate) struct Sums {
    convention: Convention,
    tokens: f64,
    norm_in: f64,
    norm_out: f64,
    ratio: f64,
    active: f64,
    value: f64,
    square_error: f64,
    legacy: f64,
    cosine: f64,
    square: f64,
    x: Vec<f64>,
    /// On how many tokens each latent is not 0.
    fired: Vec<u64>,
    batches: f64,
    /// Of each batch: the bias, and means of ‖x − x̂‖², ‖x‖², and of the squares of single dimensions.
    bias: f64,
    mean_error: f64,
    mean_square: f64,
    mean_square_of_one: f64,
    predictions: f64,
    ce: [f64; 3],
    kl: [f64; 2],
}

/// A pass that stands at the hook, and what is known of it.
pub(crate) struct Standing<'a> {
    pub(crate) model: &'a LanguageModel,
    pub(crate) batch: &'a ContextBatch,
    pub(crate) paused: &'a Paused,
    /// The final hidden states of the untouched model.
    pub(crate) clean: &'a Tensor<3>,
    /// What is at the hook `[batch * seq, d_in]`.
    pub(crate) y: &'a [f32],
    pub(crate) device: &'a Device,
}

/// The tokens that they leave out: those that begin and end texts.
pub(crate) fn special(tokenizer: &Tokenizer) -> BTreeSet<u32> {
    let special = tokenizer.special();
    special.bos.into_iter().chain(special.eos).collect()
}

impl Sums {
    /// Of nothing yet, of a dictionary with `d_sae` latents that reads `d_in` dimensions.
    pub(crate) fn new(convention: Convention, d_in: usize, d_sae: usize) -> Self {
        Self {
            convention,
            tokens: 0.0,
            norm_in: 0.0,
            norm_out: 0.0,
            ratio: 0.0,
            active: 0.0,
            value: 0.0,
            square_error: 0.0,
            legacy: 0.0,
            cosine: 0.0,
            square: 0.0,
            x: vec![0.0; d_in],
            fired: vec![0; d_sae],
            batches: 0.0,
            bias: 0.0,
            mean_error: 0.0,
            mean_square: 0.0,
            mean_square_of_one: 0.0,
            predictions: 0.0,
            ce: [0.0; 3],
            kl: [0.0; 2],
        }
    }

    /// Counts a batch.
    pub(crate) fn add(
        &mut self,
        dictionary: &Dictionary,
        special: &BTreeSet<u32>,
        at: &Standing<'_>,
    ) -> Result<(), EvalError> {
        let width = dictionary.d_in();
        let positions = Positions::of(at.batch, |window, t| !special.contains(&window.tokens[t]));
        if positions.counted.is_empty() {
            return Ok(());
        }
        let x = positions.gather(at.y, width);
        let mut x_hat = Vec::with_capacity(x.len());
        for_each_chunk(dictionary, &x, at.device, |_, acts, out| {
            for acts in acts.chunks_exact(self.fired.len()) {
                for (fired, &f) in self.fired.iter_mut().zip(acts) {
                    *fired += u64::from(f != 0.0);
                    self.active += f64::from(u8::from(f != 0.0));
                    self.value += f64::from(f.abs());
                }
            }
            x_hat.extend_from_slice(out);
        })?;
        self.add_reconstruction(&x, &x_hat, width);
        let spliced = match self.convention.splices_everywhere() {
            false => positions.splice(at.y, width, x_hat.chunks_exact(width)),
            true => {
                let all = Positions::of(at.batch, |_, _| true);
                let mut x_hat = Vec::with_capacity(at.y.len());
                for_each_chunk(dictionary, &all.gather(at.y, width), at.device, |_, _, out| {
                    x_hat.extend_from_slice(out);
                })?;
                all.splice(at.y, width, x_hat.chunks_exact(width))
            }
        };
        let [batch, seq, _] = at.paused.value().dims();
        let instead_of_y = |spliced| host::tensor(spliced, [batch, seq, width], at.device);
        let zeros = vec![0.0; at.y.len()];
        let passes = at.paused.resume_each(vec![instead_of_y(spliced), instead_of_y(zeros)]);
        self.add_losses(at, &positions, &passes)
    }

    fn add_reconstruction(&mut self, x: &[f32], x_hat: &[f32], width: usize) {
        let rows = || x.chunks_exact(width).zip(x_hat.chunks_exact(width));
        let n = (x.len() / width) as f64;
        let mut sum = vec![0.0; width];
        let (mut square_out, mut product) = (0.0, 0.0);
        let before = (self.square_error, self.square);
        for (x, x_hat) in rows() {
            sum.iter_mut().zip(x).for_each(|(sum, &x)| *sum += f64::from(x));
            let (norm, norm_out) = (square_norm(x).sqrt(), square_norm(x_hat).sqrt());
            self.norm_in += norm;
            self.norm_out += norm_out;
            self.ratio += norm_out / if norm < SMALLEST_NORM { 1.0 } else { norm };
            self.square += norm * norm;
            self.square_error += square_distance(x, x_hat);
            square_out += norm_out * norm_out;
            product += dot(x, x_hat);
            self.cosine += dot(x, x_hat) / (norm * norm_out);
        }
        for (x, x_hat) in rows() {
            let spread = x.iter().zip(&sum).map(|(&x, sum)| (f64::from(x) - sum / n).powi(2));
            self.legacy += 1.0 - square_distance(x, x_hat) / spread.sum::<f64>();
        }
        self.tokens += n;
        self.batches += 1.0;
        self.bias += square_out / product;
        let (error, square) = (self.square_error - before.0, self.square - before.1);
        self.mean_error += error / n;
        self.mean_square += square / n;
        self.mean_square_of_one += square / (n * width as f64);
        self.x.iter_mut().zip(sum).for_each(|(all, sum)| *all += sum);
    }

    fn add_losses(
        &mut self,
        at: &Standing<'_>,
        positions: &Positions,
        passes: &[Tensor<3>],
    ) -> Result<(), EvalError> {
        let mut targets = positions.predicting.iter().zip(&positions.targets).peekable();
        let mut places = Vec::with_capacity(positions.counted.len());
        let mut ids = Vec::with_capacity(places.capacity());
        let mut predicts = Vec::with_capacity(places.capacity());
        for &index in &positions.counted {
            let place = i32::try_from(index).expect("a batch has fewer than 2^31 tokens");
            let target = targets.next_if(|(predicting, _)| **predicting == place).map(|(_, &target)| target);
            places.push(place);
            // Of a position without a target only the divergence is looked at.
            ids.push(target.unwrap_or(0));
            predicts.push(target.is_some());
        }
        let losses = predictions::losses(at.model, at.clean, passes, &places, &ids)?;
        let predicting = |losses: &[Loss]| {
            losses
                .iter()
                .zip(&predicts)
                .filter(|(_, predicts)| **predicts)
                .map(|(loss, _)| loss.ce)
                .sum::<f64>()
        };
        self.predictions += positions.predicting.len() as f64;
        for (sum, losses) in self.ce.iter_mut().zip(&losses) {
            *sum += predicting(losses);
        }
        for (sum, losses) in self.kl.iter_mut().zip(&losses[1..]) {
            *sum += losses.iter().map(|loss| loss.kl).sum::<f64>();
        }
        Ok(())
    }

    /// Counts what `other` counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.norm_in += other.norm_in;
        self.norm_out += other.norm_out;
        self.ratio += other.ratio;
        self.active += other.active;
        self.value += other.value;
        self.square_error += other.square_error;
        self.legacy += other.legacy;
        self.cosine += other.cosine;
        self.square += other.square;
        self.batches += other.batches;
        self.bias += other.bias;
        self.mean_error += other.mean_error;
        self.mean_square += other.mean_square;
        self.mean_square_of_one += other.mean_square_of_one;
        self.predictions += other.predictions;
        self.x.iter_mut().zip(&other.x).for_each(|(sum, theirs)| *sum += theirs);
        self.fired.iter_mut().zip(&other.fired).for_each(|(sum, theirs)| *sum += theirs);
        self.ce.iter_mut().zip(other.ce).for_each(|(sum, theirs)| *sum += theirs);
        self.kl.iter_mut().zip(other.kl).for_each(|(sum, theirs)| *sum += theirs);
    }

    /// Its figures, by its names.
    pub(crate) fn figures(&self, weights: &WeightFacts) -> Figures {
        let each = |sum: f64| sum / self.tokens;
        let [clean, sae, zero] = self.ce.map(|sum| sum / self.predictions);
        let [kl, kl_zero] = self.kl.map(each);
        let (explained, mse) = match self.convention {
            Convention::SaeLens => {
                let mean: f64 = self.x.iter().map(|&sum| each(sum).powi(2)).sum();
                (1.0 - each(self.square_error) / (each(self.square) - mean), each(self.square_error))
            }
            Convention::SaeBench => {
                let [error, square, one] = [self.mean_error, self.mean_square, self.mean_square_of_one]
                    .map(|sum| sum / self.batches);
                (1.0 - error / (square - one * one), each(self.mean_error))
            }
        };
        let density: Vec<f64> = self.fired.iter().map(|&fired| each(fired as f64)).collect();
        let share = |over: f64| density.iter().filter(|&&d| d > over).count() as f64 / density.len() as f64;
        let of_all =
            |over: f64| density.iter().filter(|&&d| d > over).sum::<f64>() / density.iter().sum::<f64>();
        let values = [
            (kl_zero - kl) / kl_zero,
            kl,
            kl_zero,
            (zero - sae) / (zero - clean),
            zero,
            sae,
            clean,
            each(self.norm_in),
            each(self.norm_out),
            each(self.ratio),
            self.bias / self.batches,
            each(self.active),
            each(self.value),
            explained,
            each(self.legacy),
            mse,
            each(self.cosine),
            share(0.0),
            share(0.01),
            share(0.1),
            of_all(0.01),
            of_all(0.1),
            weights.nearest_encoder_cos_mean.unwrap_or(f64::NAN),
            weights.nearest_decoder_cos_mean.unwrap_or(f64::NAN),
        ];
        let named = self.convention.figures().zip(values);
        named.map(|(figure, value)| (figure.name.to_owned(), Some(value).filter(|v| v.is_finite()))).collect()
    }
}
