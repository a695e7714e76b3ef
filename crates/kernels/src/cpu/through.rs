//! From the entries of some tokens through the decoder to the error, and back to the gradients of their pre-activations.

use std::{ops::Range, slice::from_ref};

use pulp::{Arch, Simd, WithSimd};

use super::{
    active::{ByLatent, ByToken},
    charge::Charge,
    dense,
    reconstruction::Reconstruction,
    rule::{self, Rule, Sums},
    select::Entries,
    skip::Skip,
};

/// What the tasks share.
#[derive(Clone, Copy)]
pub(super) struct Decoder<'a> {
    /// `[d_sae, d_out]`.
    pub(super) dec: &'a [f32],
    pub(super) d_sae: usize,
    /// `[d_out]`.
    pub(super) b_dec: &'a [f32],
    pub(super) skip: Option<&'a Skip>,
    /// Which latents each reconstruction has, and those before it had not.
    pub(super) groups: &'a [Range<usize>],
    /// The gradient of a token's squared error is this times the error.
    pub(super) of_error: f32,
    pub(super) rule: Rule<'a>,
    pub(super) charge: Charge<'a>,
    /// `dec` for matrix products; absent if a latent is looked up whenever it is active.
    pub(super) packed: Option<&'a dense::Packed>,
}

/// Some tokens.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    /// `[n, d_in]`.
    pub(super) x: &'a [f32],
    /// `[n, d_out]`.
    pub(super) y: &'a [f32],
}

/// What comes of some tokens.
pub(super) struct Block {
    /// What latents of each group see of the errors: the gradient of every x̂ that they are part of, `[groups, n, d_out]`.
    pub(super) errors: Vec<f32>,
    /// Numbers of a group of them.
    pub(super) of_group: usize,
    pub(super) entries: ByLatent,
    /// Of every latent; empty if they are sums over its entries.
    pub(super) sums: Vec<Sums<f32>>,
    /// Σ ‖y − x̂‖² of the last group.
    pub(super) squared_error: f64,
    /// The same, summed over groups.
    pub(super) reconstruction: f64,
    /// Before its coefficient.
    pub(super) penalty: f64,
    /// What these tokens add to the loss by a gate's reconstruction, or take back of the pre-act loss.
    pub(super) aux: f64,
}

impl Block {
    /// Of some tokens and their entries.
    pub(super) fn new(decoder: Decoder<'_>, entries: Vec<Entries>, part: Part<'_>) -> Self {
        Arch::new().dispatch(Through { decoder, entries: ByToken::new(entries), part })
    }

    /// Those of the last reconstruction, which are its own, `[n, d_out]`.
    pub(super) fn last_errors(&self) -> &[f32] {
        &self.errors[self.errors.len() - self.of_group..]
    }

    /// Those of a group, `[n, d_out]`.
    #[inline(always)]
    pub(super) fn errors_of(&self, group: usize) -> &[f32] {
        &self.errors[group * self.of_group..][..self.of_group]
    }
}

struct Through<'a> {
    decoder: Decoder<'a>,
    entries: ByToken,
    part: Part<'a>,
}

impl WithSimd for Through<'_> {
    type Output = Block;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Block {
        let Self { decoder, entries, part } = &self;
        let Decoder { rule, charge, d_sae, .. } = *decoder;
        let acts = rule.acts(entries);
        let Reconstruction { errors, squared, dots: mut pulls } =
            Reconstruction::new(simd, decoder, *part, entries, &acts, decoder.groups);
        let mut sums = match rule.has_sums(&charge) {
            true => vec![Sums::default(); d_sae],
            false => Vec::new(),
        };
        let [penalty, aux] = match rule {
            Rule::Positive => [rule::positive(entries, &charge, &mut pulls, &mut sums), 0.0],
            Rule::Jump(jump) => jump.pulls(entries, &charge, &mut pulls, &mut sums),
            Rule::Gated(gated) => {
                let all = 0..d_sae;
                let by_gate =
                    Reconstruction::new(simd, decoder, *part, entries, &entries.values, from_ref(&all));
                let penalty = gated.pulls(entries, &acts, &by_gate.dots, &mut pulls, &mut sums);
                [penalty, 0.5 * f64::from(decoder.of_error) * by_gate.squared[0]]
            }
        };
        Block {
            errors,
            of_group: part.y.len(),
            entries: entries.by_latent(&acts, &pulls, d_sae),
            sums,
            squared_error: squared.last().copied().unwrap_or_default(),
            reconstruction: squared.iter().sum(),
            penalty,
            aux,
        }
    }
}
