//! What activations make of the decoder, how far that is from the target, and what every latent sees of that.

use std::ops::Range;

use pulp::Simd;

use super::{
    active::ByToken,
    through::{Decoder, Part},
    vectors::{ABREAST, add, add_rows, dot, squares},
};

/// Reconstructions of some tokens: one, or one for every group of latents, made of it and of those before it.
pub(super) struct Reconstruction {
    /// What latents of each group see of the errors: the gradient of every x̂ that they are part of, `[groups, n, d_out]`.
    pub(super) errors: Vec<f32>,
    /// Σ ‖y − x̂‖² of each.
    pub(super) squared: Vec<f64>,
    /// ⟨error, decᵢ⟩ of every entry.
    pub(super) dots: Vec<f32>,
}

impl Reconstruction {
    /// Of entries that are active as `acts` says.
    #[inline(always)]
    pub(super) fn new<S: Simd>(
        simd: S,
        decoder: &Decoder<'_>,
        part: Part<'_>,
        entries: &ByToken,
        acts: &[f32],
        groups: &[Range<usize>],
    ) -> Self {
        let mut errors = Vec::with_capacity(groups.len() * part.y.len());
        for _ in 0..entries.tokens() {
            errors.extend_from_slice(decoder.b_dec);
        }
        if let Some(skip) = decoder.skip {
            skip.add(simd, part.x, &mut errors);
        }
        errors.resize(groups.len() * part.y.len(), 0.0);

        let active = acts.contains(&0.0).then(|| entries.active(acts));
        let active = active.as_ref().map_or((entries, acts), |active| (active, &active.values[..]));
        let mut squared = vec![0.0; groups.len()];
        let mut rows = Rows { errors: &mut errors, of_group: part.y.len(), width: decoder.b_dec.len() };
        let dots = match decoder.packed {
            None => {
                let mut dots = Vec::with_capacity(entries.latents.len());
                for token in 0..entries.tokens() {
                    rows.decode(decoder.dec, active, token, groups);
                    rows.finish(simd, part.y, token, decoder.of_error, &mut squared);
                    rows.back(simd, decoder.dec, entries, token, groups, &mut dots);
                }
                dots
            }
            Some(packed) => {
                packed.decode(simd, active.0, active.1, rows.errors);
                for token in 0..entries.tokens() {
                    rows.finish(simd, part.y, token, decoder.of_error, &mut squared);
                }
                packed.back(simd, entries, rows.errors)
            }
        };
        Self { errors, squared, dots }
    }
}

/// Rows of every group and token, while they are made: reconstructions first, then errors.
struct Rows<'a> {
    errors: &'a mut [f32],
    /// Numbers of a group.
    of_group: usize,
    /// Numbers of a token.
    width: usize,
}

impl Rows<'_> {
    #[inline(always)]
    fn at(&self, group: usize, token: usize) -> Range<usize> {
        let begin = group * self.of_group + token * self.width;
        begin..begin + self.width
    }

    /// Adds what a token's latents decode to: to the first group's row its own, to others theirs and what is in the row before.
    #[inline(always)]
    fn decode(
        &mut self,
        dec: &[f32],
        (entries, acts): (&ByToken, &[f32]),
        token: usize,
        groups: &[Range<usize>],
    ) {
        let row = |latent: u32| &dec[latent as usize * self.width..][..self.width];
        for (i, group) in groups.iter().enumerate() {
            if i > 0 {
                self.errors.copy_within(self.at(i - 1, token), self.at(i, token).start);
            }
            let range = entries.within(token, group);
            let at = self.at(i, token);
            let x_hat = &mut self.errors[at];
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

    /// Turns a token's reconstructions into what its latents see of their errors, and adds up their squares.
    #[inline(always)]
    fn finish<S: Simd>(&mut self, simd: S, y: &[f32], token: usize, of_error: f32, squared: &mut [f64]) {
        let y = &y[token * self.width..][..self.width];
        for (i, squared) in squared.iter_mut().enumerate() {
            let at = self.at(i, token);
            let error = &mut self.errors[at];
            error.iter_mut().zip(y).for_each(|(error, y)| *error -= y);
            *squared += squares(simd, error);
            error.iter_mut().for_each(|error| *error *= of_error);
        }
        // A latent is part of its own group's reconstruction and of all that follow.
        for i in (1..squared.len()).rev() {
            let (before, after) = (self.at(i - 1, token), self.at(i, token));
            let (befores, afters) = self.errors.split_at_mut(after.start);
            add(&mut befores[before], 1.0, &afters[..self.width]);
        }
    }

    /// ⟨error, decᵢ⟩ of a token's entries, with the error that the group of each sees.
    #[inline(always)]
    fn back<S: Simd>(
        &self,
        simd: S,
        dec: &[f32],
        entries: &ByToken,
        token: usize,
        groups: &[Range<usize>],
        dots: &mut Vec<f32>,
    ) {
        for (i, group) in groups.iter().enumerate() {
            let error = &self.errors[self.at(i, token)];
            for latent in &entries.latents[entries.within(token, group)] {
                dots.push(dot(simd, error, &dec[*latent as usize * self.width..][..self.width]));
            }
        }
    }
}
