//! The entries of some tokens: by token for what goes through the dictionary, by latent for what changes it.

use std::ops::Range;

use super::select::Entries;

/// The entries of some tokens, one token after the other.
pub(super) struct ByToken {
    /// Those of token `i` are at `ends[i - 1]..ends[i]`.
    ends: Vec<u32>,
    /// Of every entry; ascending within a token.
    pub(super) latents: Vec<u32>,
    /// Pre-activations.
    pub(super) values: Vec<f32>,
}

/// What a token and a latent do to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Entry {
    /// Within the task.
    pub(super) token: u32,
    pub(super) act: f32,
    /// Gradient of input·W_enc.
    pub(super) pull: f32,
}

/// The same entries, one latent after the other, tokens ascending.
pub(super) struct ByLatent {
    /// Those of latent `i` are at `begins[i]..begins[i + 1]`.
    begins: Vec<u32>,
    entries: Vec<Entry>,
}

impl ByToken {
    pub(super) fn new(tokens: Vec<Entries>) -> Self {
        let n = tokens.iter().map(Vec::len).sum();
        let mut by_token = Self {
            ends: Vec::with_capacity(tokens.len()),
            latents: Vec::with_capacity(n),
            values: Vec::with_capacity(n),
        };
        for entries in tokens {
            by_token.latents.extend(entries.iter().map(|(latent, _)| latent));
            by_token.values.extend(entries.iter().map(|(_, value)| value));
            by_token.ends.push(by_token.latents.len() as u32);
        }
        by_token
    }

    pub(super) fn tokens(&self) -> usize {
        self.ends.len()
    }

    /// Where the entries of a token are.
    #[inline(always)]
    pub(super) fn of(&self, token: usize) -> Range<usize> {
        let begin = token.checked_sub(1).map_or(0, |before| self.ends[before]);
        begin as usize..self.ends[token] as usize
    }

    /// Where those of them are that belong to some latents.
    #[inline(always)]
    pub(super) fn within(&self, token: usize, latents: &Range<usize>) -> Range<usize> {
        let all = self.of(token);
        let before = |end: usize| {
            all.start + self.latents[all.clone()].partition_point(|latent| (*latent as usize) < end)
        };
        before(latents.start)..before(latents.end)
    }

    /// Those whose activation is not 0, with it in place of the pre-activation.
    pub(super) fn active(&self, acts: &[f32]) -> Self {
        let mut active = Self { ends: Vec::with_capacity(self.tokens()), latents: vec![], values: vec![] };
        for token in 0..self.tokens() {
            for i in self.of(token) {
                if acts[i] != 0.0 {
                    active.latents.push(self.latents[i]);
                    active.values.push(acts[i]);
                }
            }
            active.ends.push(active.latents.len() as u32);
        }
        active
    }

    /// Puts latents first. `acts` and `pulls` have a number for every entry.
    pub(super) fn by_latent(&self, acts: &[f32], pulls: &[f32], d_sae: usize) -> ByLatent {
        let mut begins = vec![0_u32; d_sae + 2];
        for latent in &self.latents {
            begins[*latent as usize + 2] += 1;
        }
        for latent in 2..begins.len() {
            begins[latent] += begins[latent - 1];
        }
        // Each beginning is one place further on until its entries have moved it to where the next begins.
        let mut entries = vec![Entry::default(); self.latents.len()];
        let mut begin = 0;
        for (token, end) in self.ends.iter().enumerate() {
            for i in begin..*end as usize {
                let place = &mut begins[self.latents[i] as usize + 1];
                entries[*place as usize] = Entry { token: token as u32, act: acts[i], pull: pulls[i] };
                *place += 1;
            }
            begin = *end as usize;
        }
        begins.truncate(d_sae + 1);
        ByLatent { begins, entries }
    }
}

impl ByLatent {
    #[inline(always)]
    pub(super) fn of(&self, latent: usize) -> &[Entry] {
        &self.entries[self.begins[latent] as usize..self.begins[latent + 1] as usize]
    }
}
