//! What SAELens would say of a dictionary: the figures of its own evaluation, for who has to compare with numbers made by it.
//!
//! `run_evals` of `sae_lens/evals.py`, SAELens 6.54.12. It counts other tokens than we do by default, replaces others when it
//! ablates, and has means of means of batches; see `CONVENTIONS.md` of this crate. Sums are in f64 here, and in f32 there.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{Device, Tensor};
use monosema_sae::Dictionary;
use monosema_text::{ContextBatch, Tokenizer};
use monosema_transformer::{LanguageModel, NoTap, Paused};
use serde::Serialize;

use crate::{
    error::EvalError,
    host,
    metrics::{Figures, dot, square_distance, square_norm},
    positions::Positions,
    predictions,
    reconstruct::for_each_chunk,
};

/// A figure of SAELens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SaeLensFigure {
    /// What SAELens calls it.
    pub name: &'static str,
    /// The one of ours that is nearest to it, if there is one.
    pub ours: Option<&'static str>,
    /// Its formula: M are all tokens that are not special, ⟨·⟩ is the mean over them, ⟨·⟩_b over those of one batch.
    pub formula: &'static str,
}

const fn figure(name: &'static str, ours: Option<&'static str>, formula: &'static str) -> SaeLensFigure {
    SaeLensFigure { name, ours, formula }
}

/// Its figures, in its order.
pub const SAELENS_FIGURES: [SaeLensFigure; 17] = [
    figure(
        "kl_div_score",
        Some("kl_recovered"),
        "(kl_div_with_ablation − kl_div_with_sae) / kl_div_with_ablation",
    ),
    figure(
        "kl_div_with_sae",
        Some("kl"),
        "⟨Σ_v p_clean(v) log(p_clean(v) / p_sae(v))⟩, last positions of windows too; x̂ spliced in at M",
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
    figure("ce_loss_with_sae", Some("ce.sae"), "⟨−log p(next token)⟩ with x̂ spliced in at M"),
    figure("ce_loss_without_sae", Some("ce.clean"), "⟨−log p(next token)⟩"),
    figure("l2_norm_in", None, "⟨‖x‖⟩"),
    figure("l2_norm_out", None, "⟨‖x̂‖⟩"),
    figure("l2_ratio", Some("l2_ratio"), "⟨‖x̂‖ / ‖x‖⟩, 1 in place of ‖x‖ < 1e-4"),
    figure("relative_reconstruction_bias", Some("rel_bias"), "mean over batches of ⟨‖x̂‖²⟩_b / ⟨x·x̂⟩_b"),
    figure("l0", Some("l0"), "⟨#{i : f_i ≠ 0}⟩"),
    figure("l1", Some("l1"), "⟨Σ_i |f_i|⟩"),
    figure("explained_variance", Some("ev.r2"), "1 − ⟨‖x − x̂‖²⟩ / (⟨‖x‖²⟩ − ‖⟨x⟩‖²)"),
    figure(
        "explained_variance_legacy",
        Some("ev.legacy"),
        "⟨1 − ‖x − x̂‖² / ‖x − ⟨x⟩_b‖²⟩, about the mean of the batch",
    ),
    figure("cossim", Some("cos"), "⟨x·x̂ / (‖x‖ ‖x̂‖)⟩, not a number once x̂ = 0"),
    figure("mse", Some("mse"), "⟨‖x − x̂‖²⟩"),
];

/// Below this SAELens divides by 1 in place of ‖x‖.
const SMALLEST_NORM: f64 = 1e-4;

/// Its sums over a text.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums {
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
    batches: f64,
    bias: f64,
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

/// The tokens that SAELens leaves out: those that begin and end texts.
pub(crate) fn special(tokenizer: &Tokenizer) -> BTreeSet<u32> {
    let special = tokenizer.special();
    special.bos.into_iter().chain(special.eos).collect()
}

impl Sums {
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
            self.active += acts.iter().filter(|&&f| f != 0.0).count() as f64;
            self.value += acts.iter().map(|&f| f64::from(f.abs())).sum::<f64>();
            x_hat.extend_from_slice(out);
        })?;
        self.add_reconstruction(&x, &x_hat, width);
        let [batch, seq, _] = at.paused.value().dims();
        let go_on =
            |spliced| at.paused.resume(host::tensor(spliced, [batch, seq, width], at.device), &mut NoTap);
        let sae = go_on(positions.splice(at.y, width, x_hat.chunks_exact(width)));
        let zero = go_on(vec![0.0; at.y.len()]);
        self.add_losses(at, &positions, &[sae, zero])
    }

    fn add_reconstruction(&mut self, x: &[f32], x_hat: &[f32], width: usize) {
        let rows = || x.chunks_exact(width).zip(x_hat.chunks_exact(width));
        let n = (x.len() / width) as f64;
        let mut sum = vec![0.0; width];
        let (mut square_out, mut product) = (0.0, 0.0);
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
        self.add_x(&sum);
    }

    fn add_x(&mut self, sum: &[f64]) {
        self.x.resize(sum.len(), 0.0);
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
        let predicting = |losses: &[crate::metrics::Loss]| {
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
        let Self { tokens, norm_in, norm_out, ratio, active, value, square_error, legacy, .. } = other;
        self.tokens += tokens;
        self.norm_in += norm_in;
        self.norm_out += norm_out;
        self.ratio += ratio;
        self.active += active;
        self.value += value;
        self.square_error += square_error;
        self.legacy += legacy;
        self.cosine += other.cosine;
        self.square += other.square;
        self.batches += other.batches;
        self.bias += other.bias;
        self.predictions += other.predictions;
        self.ce.iter_mut().zip(other.ce).for_each(|(sum, theirs)| *sum += theirs);
        self.kl.iter_mut().zip(other.kl).for_each(|(sum, theirs)| *sum += theirs);
        self.add_x(&other.x);
    }

    /// Its figures, by its names.
    pub(crate) fn figures(&self) -> Figures {
        let each = |sum: f64| sum / self.tokens;
        let [clean, sae, zero] = self.ce.map(|sum| sum / self.predictions);
        let [kl, kl_zero] = self.kl.map(each);
        let mean_square: f64 = self.x.iter().map(|&sum| each(sum).powi(2)).sum();
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
            1.0 - each(self.square_error) / (each(self.square) - mean_square),
            each(self.legacy),
            each(self.cosine),
            each(self.square_error),
        ];
        let named = SAELENS_FIGURES.iter().zip(values);
        named
            .map(|(figure, value)| (figure.name.to_owned(), Some(value).filter(|value| value.is_finite())))
            .collect::<BTreeMap<_, _>>()
    }
}
