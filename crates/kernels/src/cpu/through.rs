//! From the entries of some tokens through the decoder to the error, and back to the gradients of their pre-activations.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::{
    active::{ByLatent, ByToken},
    charge::Charge,
    dense,
    rule::{self, Rule, Sums},
    select::Entries,
    skip::Skip,
    vectors::{ABREAST, add, add_rows, dot, squares},
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
        let (errors, squared) = self.errors(simd, &acts, decoder.groups);
        let mut pulls = self.back(simd, &errors, decoder.groups);
        let mut sums = match rule.has_sums(&charge) {
            true => vec![Sums::default(); d_sae],
            false => Vec::new(),
        };
        let [penalty, aux] = match rule {
            Rule::Positive => [rule::positive(entries, &charge, &mut pulls, &mut sums), 0.0],
            Rule::Jump(jump) => jump.pulls(entries, &charge, &mut pulls, &mut sums),
            Rule::Gated(gated) => {
                let all = [0..d_sae];
                let (errors, squared) = self.errors(simd, &entries.values, &all);
                let of_gate = self.back(simd, &errors, &all);
                let penalty = gated.pulls(entries, &acts, &of_gate, &mut pulls, &mut sums);
                [penalty, 0.5 * f64::from(decoder.of_error) * squared[0]]
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

impl Through<'_> {
    /// What `acts` make of the decoder, and how far that is from the target: what each group sees of the gradients, and
    /// Σ ‖y − x̂‖² of each reconstruction.
    #[inline(always)]
    fn errors<S: Simd>(&self, simd: S, acts: &[f32], groups: &[Range<usize>]) -> (Vec<f32>, Vec<f64>) {
        let Self { decoder, entries, part: Part { x, y } } = self;
        let d_out = decoder.b_dec.len();
        let mut errors = Vec::with_capacity(groups.len() * y.len());
        for _ in 0..entries.tokens() {
            errors.extend_from_slice(decoder.b_dec);
        }
        if let Some(skip) = decoder.skip {
            skip.add(simd, x, &mut errors);
        }
        for (i, group) in groups.iter().enumerate() {
            if i > 0 {
                errors.extend_from_within((i - 1) * y.len()..);
            }
            let x_hat = &mut errors[i * y.len()..];
            match decoder.packed {
                None => decode(entries, group, acts, decoder.dec, d_out, x_hat),
                Some(packed) => packed.decode(simd, entries, acts, x_hat),
            }
        }
        let mut squared = vec![0.0; groups.len()];
        for (errors, squared) in errors.chunks_exact_mut(y.len()).zip(&mut squared) {
            for (error, y) in errors.chunks_exact_mut(d_out).zip(y.chunks_exact(d_out)) {
                error.iter_mut().zip(y).for_each(|(error, y)| *error -= y);
                *squared += squares(simd, error);
                error.iter_mut().for_each(|error| *error *= decoder.of_error);
            }
        }
        // A latent is part of its own group's reconstruction and of all that follow.
        for i in (1..groups.len()).rev() {
            let (before, after) = errors.split_at_mut(i * y.len());
            add(&mut before[(i - 1) * y.len()..], 1.0, &after[..y.len()]);
        }
        (errors, squared)
    }

    /// ⟨error, decᵢ⟩ of every entry, with the error that its group sees.
    #[inline(always)]
    fn back<S: Simd>(&self, simd: S, errors: &[f32], groups: &[Range<usize>]) -> Vec<f32> {
        let Self { decoder, entries, part } = self;
        let d_out = decoder.b_dec.len();
        if let Some(packed) = decoder.packed {
            return packed.back(simd, entries, errors);
        }
        let mut dots = Vec::with_capacity(entries.latents.len());
        for token in 0..entries.tokens() {
            for (group, errors) in groups.iter().zip(errors.chunks_exact(part.y.len())) {
                let error = &errors[token * d_out..][..d_out];
                for latent in &entries.latents[entries.within(token, group)] {
                    dots.push(dot(simd, error, &decoder.dec[*latent as usize * d_out..][..d_out]));
                }
            }
        }
        dots
    }
}

/// Adds Σ actsᵢ · decᵢ over a token's latents of `group` to its row of `x_hat [n, d_out]`.
#[inline(always)]
fn decode(
    entries: &ByToken,
    group: &Range<usize>,
    acts: &[f32],
    dec: &[f32],
    d_out: usize,
    x_hat: &mut [f32],
) {
    let row = |latent: u32| &dec[latent as usize * d_out..][..d_out];
    for (token, x_hat) in x_hat.chunks_exact_mut(d_out).enumerate() {
        let range = entries.within(token, group);
        let (fours, ones) = entries.latents[range.clone()].as_chunks::<ABREAST>();
        let (act_fours, act_ones) = acts[range].as_chunks::<ABREAST>();
        for ([a, b, c, d], acts) in fours.iter().zip(act_fours) {
            add_rows(x_hat, *acts, [row(*a), row(*b), row(*c), row(*d)]);
        }
        for (latent, act) in ones.iter().zip(act_ones) {
            add(x_hat, *act, row(*latent));
        }
    }
}
