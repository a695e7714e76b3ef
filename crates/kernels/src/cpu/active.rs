//! The active latents of some tokens: by token for what goes through the dictionary, by latent for what changes it.

use super::select::Entries;

/// The entries of some tokens, one token after the other.
pub(super) struct ByToken {
    /// Those of token `i` are at `ends[i - 1]..ends[i]`.
    ends: Vec<u32>,
    pub(super) latents: Vec<u32>,
    acts: Vec<f32>,
}

/// An active latent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Entry {
    /// Within the task.
    pub(super) token: u32,
    pub(super) act: f32,
    /// Gradient of the pre-activation.
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
            acts: Vec::with_capacity(n),
        };
        for entries in tokens {
            by_token.latents.extend(entries.iter().map(|(latent, _)| latent));
            by_token.acts.extend(entries.iter().map(|(_, act)| act));
            by_token.ends.push(by_token.latents.len() as u32);
        }
        by_token
    }

    pub(super) fn tokens(&self) -> usize {
        self.ends.len()
    }

    /// Where the entries of a token begin, and those of the one before end.
    #[inline(always)]
    pub(super) fn begin(&self, token: usize) -> usize {
        token.checked_sub(1).map_or(0, |before| self.ends[before]) as usize
    }

    /// Latents and activations of a token.
    #[inline(always)]
    pub(super) fn of(&self, token: usize) -> (&[u32], &[f32]) {
        let range = self.begin(token)..self.begin(token + 1);
        (&self.latents[range.clone()], &self.acts[range])
    }

    /// Σ actsᵢ weightsᵢ over all tokens.
    pub(super) fn weighted(&self, weights: &[f32]) -> f64 {
        let terms = self.latents.iter().zip(&self.acts);
        terms.map(|(latent, act)| f64::from(act * weights[*latent as usize])).sum()
    }

    /// Puts latents first. `pulls` has a number for every entry.
    pub(super) fn by_latent(&self, pulls: &[f32], d_sae: usize) -> ByLatent {
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
                entries[*place as usize] = Entry { token: token as u32, act: self.acts[i], pull: pulls[i] };
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
