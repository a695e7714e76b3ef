//! What a form comes to in one step: its rules and coefficients, and what they ask of every latent.

use std::{iter::once, ops::Range};

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    charge::{Charge, Weighted},
    gated::Gated,
    jump::{self, Jump},
    pre_act::Below,
    rule::Rule,
    select::{Entries, Floors},
    values::{Sizes, Values},
    vectors::dot,
};
use crate::{Activation, Form, NORM_TINY, Penalty, Settings};

/// See the [module](self).
pub(super) struct Law<'a> {
    form: &'a Form,
    settings: &'a Settings,
    b_enc: &'a [f32],
    /// `b_mag` of a gated form.
    b_mag: &'a [f32],
    tokens: f64,
    /// ‖W_dec,i‖₂, if the loss knows them; empty otherwise.
    norms: Vec<f32>,
    /// θ of JumpReLU; empty otherwise.
    pub(super) thetas: Vec<f32>,
    /// exp(r_mag) of a gated form; empty otherwise.
    scales: Vec<f32>,
    /// What the pre-act loss weighs latents with; empty without one.
    below: Vec<f32>,
    /// Which latents each reconstruction has, and those before it had not.
    pub(super) groups: Vec<Range<usize>>,
}

impl<'a> Law<'a> {
    pub(super) fn new(
        form: &'a Form,
        settings: &'a Settings,
        parameters: &'a Values<&mut [f32]>,
        sizes: Sizes,
        dead: Option<&[f32]>,
    ) -> Self {
        let rows = parameters.w_dec.par_chunks(sizes.d_out);
        let has_norms = matches!(form.penalty, Penalty::L1 | Penalty::Tanh { .. }) || form.pre_act.is_some();
        let norms =
            if has_norms { rows.map(|row| Arch::new().dispatch(Norm(row))).collect() } else { vec![] };
        let more = &parameters.more[0];
        let thetas = match form.activation {
            Activation::JumpRelu { log: false, .. } => more.to_vec(),
            Activation::JumpRelu { log: true, .. } => more.iter().map(|log| log.exp()).collect(),
            _ => vec![],
        };
        let scales = match form.activation {
            Activation::Gated => more.iter().map(|log| log.exp()).collect(),
            _ => vec![],
        };
        let weight = form.pre_act.map(|coefficient| (coefficient / sizes.n as f64) as f32);
        let below = match (weight, dead) {
            (Some(weight), Some(dead)) => dead.iter().map(|dead| weight * dead).collect(),
            _ => vec![],
        };
        let begins = once(0).chain(form.prefixes.iter().copied());
        let groups = match form.prefixes.len() {
            0 => once(0..sizes.d_sae).collect(),
            _ => begins.zip(&form.prefixes).map(|(begin, end)| begin..*end).collect(),
        };
        let (b_enc, b_mag) = (&*parameters.b_enc, &*parameters.more[1]);
        Self { form, settings, b_enc, b_mag, tokens: sizes.n as f64, norms, thetas, scales, below, groups }
    }

    /// What the pre-activations of each latent must be above to matter, for JumpReLU.
    pub(super) fn floors(&self, bandwidth: f64) -> Floors {
        Floors::new(&jump::floors(&self.thetas, bandwidth as f32))
    }

    /// What makes activations of these entries, and gradients.
    pub(super) fn rule(&self, entries: &[Vec<Entries>]) -> Rule<'_> {
        match self.form.activation {
            Activation::Relu | Activation::TopK { .. } | Activation::BatchTopK { .. } => Rule::Positive,
            Activation::JumpRelu { bandwidth, ste_to_input, .. } => Rule::Jump(Jump {
                thetas: &self.thetas,
                bandwidth: bandwidth as f32,
                ste_to_input,
                of_step: self.of_step(entries),
                pre_act: self.below(),
            }),
            Activation::Gated => Rule::Gated(Gated {
                scales: &self.scales,
                b_gate: self.b_enc,
                b_mag: self.b_mag,
                charge: (self.form.penalty == Penalty::L1).then(|| self.weighted()),
            }),
        }
    }

    /// The penalty of activations.
    pub(super) fn charge(&self) -> Charge<'_> {
        match self.form.penalty {
            _ if self.form.activation == Activation::Gated => Charge::Nothing,
            Penalty::None | Penalty::Step | Penalty::TargetL0 { .. } => Charge::Nothing,
            Penalty::L1 => Charge::Norm(self.weighted()),
            Penalty::Power => Charge::Power { p: self.settings.p as f32, coefficient: self.of_penalty() },
            Penalty::Tanh { scale } => Charge::Tanh { scale: scale as f32, of: self.weighted() },
        }
    }

    /// The penalty, of what it comes to for a token on average.
    pub(super) fn penalty(&self, mean: f64) -> f64 {
        match self.form.penalty {
            Penalty::TargetL0 { target } => (mean / target - 1.0).powi(2),
            _ => mean,
        }
    }

    /// Of latents, where gradients depend on them.
    pub(super) fn norms(&self) -> Option<&[f32]> {
        let depend = self.settings.l1 != 0.0 || !self.below.is_empty();
        // What points along a row that keeps its norm is taken out again, and rounding would be left of it, which Adam makes large.
        let free = !self.form.unit_decoder;
        (depend && free && !self.norms.is_empty()).then_some(&self.norms)
    }

    /// Thetas whose logarithms are parameters.
    pub(super) fn log_of(&self) -> Option<&[f32]> {
        matches!(self.form.activation, Activation::JumpRelu { log: true, .. }).then_some(&self.thetas)
    }

    /// What magnitudes are multiplied by.
    pub(super) fn scales(&self) -> Option<&[f32]> {
        (self.form.activation == Activation::Gated).then_some(&self.scales)
    }

    /// What the pre-act loss weighs latents with, if there is one.
    pub(super) fn below(&self) -> Option<Below<'_>> {
        (!self.below.is_empty()).then_some(Below { weights: &self.below, norms: &self.norms })
    }

    /// λ / tokens.
    fn of_penalty(&self) -> f32 {
        (self.settings.l1 / self.tokens) as f32
    }

    fn weighted(&self) -> Weighted<'_> {
        Weighted { norms: &self.norms, coefficient: self.of_penalty() }
    }

    /// The gradient of each H(z − θ), where the penalty counts them.
    fn of_step(&self, entries: &[Vec<Entries>]) -> Option<f32> {
        match self.form.penalty {
            Penalty::Step => Some(self.of_penalty()),
            Penalty::TargetL0 { target } => {
                let active = |entries: &Entries| {
                    entries.iter().filter(|(latent, z)| *z > self.thetas[*latent as usize]).count()
                };
                let active: usize = entries.par_iter().flatten().map(active).sum();
                let off = active as f64 / self.tokens / target - 1.0;
                Some((self.settings.l1 * 2.0 * off / target / self.tokens) as f32)
            }
            _ => None,
        }
    }
}

/// ‖row‖₂, never 0.
struct Norm<'a>(&'a [f32]);

impl WithSimd for Norm<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        (dot(simd, self.0, self.0) + NORM_TINY).sqrt()
    }
}
