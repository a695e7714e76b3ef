//! What a harvest saw, and what became of it.

use std::{collections::BTreeMap, fmt, ops::AddAssign};

use monosema_text::{Flaws, Tally};
use serde::Serialize;

use crate::windows::Windows;

/// Numbers of what a harvest saw. Every token that was seen is stored or left out for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Documents of which tokens were seen.
    pub documents: u64,
    /// Context windows that the model is run over.
    pub contexts: u64,
    /// Places beside them that hold no token, where windows of several lengths are in a batch. They are never stored.
    pub padding: u64,
    /// Tokens in windows as far as the limit `tokens` goes, BOS and separators included.
    pub seen: u64,
    /// Tokens left out for their position (`skip_first`, `positions`).
    pub skipped_position: u64,
    /// Tokens left out because they are BOS.
    pub skipped_bos: u64,
    /// Tokens left out because they are other special tokens.
    pub skipped_special: u64,
    /// Tokens left out by `only_tokens` and `skip_tokens`.
    pub skipped_token: u64,
    /// Tokens left out for the norm of their activations (`max_norm_multiple`).
    pub skipped_norm: u64,
    /// Invalid sequences of UTF-8 that U+FFFD was read for, in the whole of the documents whose first token was seen.
    pub invalid_utf8: u64,
    /// NUL characters in those.
    pub nul: u64,
}

impl Counts {
    /// Of `windows`, as far as the `n`-th of their counted tokens, or all of them if there are no more.
    pub(crate) fn of(windows: &Windows, n: usize) -> Self {
        let batch = &windows.batch;
        let (mut tally, mut documents, mut flaws) = (Tally::default(), 0, Flaws::default());
        for context in &batch.contexts {
            let mut seen = 0;
            for (place, &verdict) in context.places().zip(&context.verdicts) {
                if n < batch.n_counted() && tally.counted == n as u64 {
                    break;
                }
                tally.add(verdict);
                documents += u64::from(place == 0);
                seen += 1;
            }
            context.flaws.iter().filter(|(at, _)| *at < seen).for_each(|(_, found)| flaws += *found);
        }
        let Tally { seen, counted: _, skipped_position, skipped_bos, skipped_special, skipped_token } = tally;
        let Flaws { invalid_utf8, nul } = flaws;
        Self {
            documents,
            contexts: batch.n_contexts() as u64,
            padding: batch.n_padding() as u64,
            seen,
            skipped_position,
            skipped_bos,
            skipped_special,
            skipped_token,
            skipped_norm: 0,
            invalid_utf8,
            nul,
        }
    }

    /// Tokens stored.
    pub fn tokens(&self) -> u64 {
        let Self { skipped_position, skipped_bos, skipped_special, skipped_token, skipped_norm, .. } = self;
        self.seen - skipped_position - skipped_bos - skipped_special - skipped_token - skipped_norm
    }

    /// Padding as a share of all places that the model is run over: `seen` tokens and the padding beside them.
    pub fn padding_share(&self) -> f64 {
        self.padding as f64 / (self.seen + self.padding).max(1) as f64
    }

    /// As a manifest counts them.
    pub fn by_name(&self) -> BTreeMap<String, u64> {
        let Self { documents, contexts, padding, seen, .. } = *self;
        let counts = [
            ("documents", documents),
            ("contexts", contexts),
            ("padding", padding),
            ("tokens", self.tokens()),
            ("tokens_seen", seen),
            ("skipped_position", self.skipped_position),
            ("skipped_bos", self.skipped_bos),
            ("skipped_special", self.skipped_special),
            ("skipped_token", self.skipped_token),
            ("skipped_norm", self.skipped_norm),
            ("invalid_utf8", self.invalid_utf8),
            ("nul", self.nul),
        ];
        counts.into_iter().map(|(name, n)| (name.to_owned(), n)).collect()
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.documents += other.documents;
        self.contexts += other.contexts;
        self.padding += other.padding;
        self.seen += other.seen;
        self.skipped_position += other.skipped_position;
        self.skipped_bos += other.skipped_bos;
        self.skipped_special += other.skipped_special;
        self.skipped_token += other.skipped_token;
        self.skipped_norm += other.skipped_norm;
        self.invalid_utf8 += other.invalid_utf8;
        self.nul += other.nul;
    }
}

/// Why tokens were left out: `of 1200 seen, left out: 100 by position, 3 for their norm`.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = [
            (self.skipped_position, "by position"),
            (self.skipped_bos, "BOS"),
            (self.skipped_special, "other special tokens"),
            (self.skipped_token, "by token"),
            (self.skipped_norm, "for their norm"),
        ];
        let left_out: Vec<_> =
            reasons.iter().filter(|(n, _)| *n > 0).map(|(n, reason)| format!("{n} {reason}")).collect();
        write!(f, "of {} seen", self.seen)?;
        if !left_out.is_empty() {
            write!(f, ", left out: {}", left_out.join(", "))?;
        }
        if self.padding > 0 {
            write!(f, "; {:.1} % padding", 100.0 * self.padding_share())?;
        }
        if self.invalid_utf8 > 0 {
            write!(f, "; {} invalid UTF-8 sequences replaced", self.invalid_utf8)?;
        }
        if self.nul > 0 {
            write!(f, "; {} NUL characters", self.nul)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use monosema_text::{Context, ContextBatch, Verdict};

    use super::*;

    /// Two windows: `<s> a b` of document 1, and `b </s> c` of 1 and 2.
    fn windows() -> Windows {
        use Verdict::{Bos, Counts, Special, Token};
        let context = |documents: [u64; 3], before, verdicts: [Verdict; 3], flaws| Context {
            tokens: vec![7; 3],
            documents: documents.to_vec(),
            verdicts: verdicts.to_vec(),
            before,
            flaws: vec![flaws],
        };
        let contexts = vec![
            context([1, 1, 1], 0, [Bos, Counts, Token], (1, Flaws { invalid_utf8: 1, nul: 0 })),
            context([1, 1, 2], 3, [Counts, Special, Counts], (2, Flaws { invalid_utf8: 0, nul: 2 })),
        ];
        Windows::new(ContextBatch { contexts })
    }

    #[test]
    fn tokens_are_counted_up_to_the_last_that_is_wanted() {
        let counts = |n| {
            let counts = Counts::of(&windows(), n);
            let Counts { documents, seen, skipped_bos, skipped_special, skipped_token, .. } = counts;
            assert_eq!((counts.contexts, counts.invalid_utf8), (2, 1));
            assert_eq!(counts.nul, if documents == 2 { 2 } else { 0 });
            assert_eq!(counts.tokens(), n.min(3) as u64);
            (documents, seen, skipped_bos, skipped_special, skipped_token)
        };
        assert_eq!(counts(9), (2, 6, 1, 1, 1));
        assert_eq!(counts(3), (2, 6, 1, 1, 1));
        assert_eq!(counts(2), (1, 4, 1, 0, 1));
        assert_eq!(counts(1), (1, 2, 1, 0, 0));
    }

    #[test]
    fn all_is_told_in_words() {
        let mut counts = Counts::of(&windows(), 3);
        counts += counts;
        counts.skipped_norm = 1;
        counts.padding = 4;
        assert_eq!(
            counts.to_string(),
            "of 12 seen, left out: 2 BOS, 2 other special tokens, 2 by token, 1 for their norm; 25.0 % padding; 2 \
             invalid UTF-8 sequences replaced; 4 NUL characters"
        );
        assert_eq!(counts.by_name()["tokens"], 5);
        assert_eq!(counts.by_name()["tokens_seen"], 12);
        assert_eq!(Counts { seen: 3, ..Counts::default() }.to_string(), "of 3 seen");
    }
}
