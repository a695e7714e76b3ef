//! What a model that only counts would reach: unigrams, and bigrams smoothed by them.

use std::collections::BTreeMap;

/// Counts of single tokens and of pairs.
pub(crate) struct Counts {
    singles: Vec<u64>,
    pairs: BTreeMap<(u32, u32), u64>,
    total: u64,
}

impl Counts {
    /// Counts `tokens`, ids below `d_vocab`.
    pub(crate) fn new(tokens: &[u32], d_vocab: usize) -> Self {
        let mut singles = vec![0; d_vocab];
        let mut pairs = BTreeMap::new();
        for &token in tokens {
            singles[token as usize] += 1;
        }
        for pair in tokens.windows(2) {
            *pairs.entry((pair[0], pair[1])).or_default() += 1;
        }
        Self { singles, pairs, total: tokens.len() as u64 }
    }

    /// `-ln p(next)` with one added to every count.
    pub(crate) fn unigram_loss(&self, next: u32) -> f64 {
        -self.unigram(next).ln()
    }

    /// `-ln p(next | token)`: the pair's count with one unigram distribution added (Dirichlet smoothing).
    pub(crate) fn bigram_loss(&self, token: u32, next: u32) -> f64 {
        let pair = *self.pairs.get(&(token, next)).unwrap_or(&0) as f64;
        -((pair + self.unigram(next)) / (self.singles[token as usize] as f64 + 1.0)).ln()
    }

    fn unigram(&self, next: u32) -> f64 {
        (self.singles[next as usize] + 1) as f64 / (self.total + self.singles.len() as u64) as f64
    }
}
