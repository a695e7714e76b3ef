//! One window of tokens, and what becomes of each of them.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::Flaws;

/// Whether a token counts, and if not, why not: of several reasons the first in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts: it is harvested and evaluated.
    Counts,
    /// Its position is left out: `skip_first`, `positions`.
    Position,
    /// It is BOS: `skip_bos`.
    Bos,
    /// It is another special token: `skip_special`.
    Special,
    /// It is none of the tokens asked for: `only_tokens`, `skip_tokens`.
    Token,
}

/// One window of tokens. All three lists have the same length, at most the plan's and at least 2, unless it was cut short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The tokens; a token's position is its index.
    pub tokens: Vec<u32>,
    /// The document each token belongs to: for BOS that of the token after it, for a separator that of the
    /// document it ends.
    pub documents: Vec<u64>,
    /// What becomes of each token.
    pub verdicts: Vec<Verdict>,
    /// How many tokens its first document has in windows before this one.
    pub before: u64,
    /// What there was that is seldom meant in documents that begin here, and at which position they do. Others are not listed.
    pub flaws: Vec<(usize, Flaws)>,
}

impl Context {
    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are none, which no window is.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Whether the token at `position` counts: is harvested and evaluated.
    pub fn counts(&self, position: usize) -> bool {
        self.verdicts[position] == Verdict::Counts
    }

    /// The positions of the tokens that count.
    pub fn counted(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len()).filter(|&position| self.counts(position))
    }

    /// How many tokens count.
    pub fn n_counted(&self) -> usize {
        self.counted().count()
    }

    /// The place of each token within its document, from 0 on through all of its windows, BOS and separators included: together
    /// with the document's number it names the token, whatever it is batched with and whoever reads other documents.
    pub fn places(&self) -> impl Iterator<Item = u64> {
        let mut last: Option<(u64, u64)> = None;
        self.documents.iter().map(move |&document| {
            let place = match last {
                None => self.before,
                Some((same, place)) if same == document => place + 1,
                Some(_) => 0,
            };
            last = Some((document, place));
            place
        })
    }

    /// Keeps the first `length` tokens.
    pub fn truncate(&mut self, length: usize) {
        self.tokens.truncate(length);
        self.documents.truncate(length);
        self.verdicts.truncate(length);
        self.flaws.retain(|&(position, _)| position < length);
    }
}

/// How many tokens there were, and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Tokens in windows.
    pub seen: u64,
    /// Those that count.
    pub counted: u64,
    /// Left out for their position.
    pub skipped_position: u64,
    /// Left out because they are BOS.
    pub skipped_bos: u64,
    /// Left out because they are other special tokens.
    pub skipped_special: u64,
    /// Left out because they are not among the tokens asked for.
    pub skipped_token: u64,
}

impl Tally {
    /// Counts one token.
    pub fn add(&mut self, verdict: Verdict) {
        self.seen += 1;
        *match verdict {
            Verdict::Counts => &mut self.counted,
            Verdict::Position => &mut self.skipped_position,
            Verdict::Bos => &mut self.skipped_bos,
            Verdict::Special => &mut self.skipped_special,
            Verdict::Token => &mut self.skipped_token,
        } += 1;
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.seen += other.seen;
        self.counted += other.counted;
        self.skipped_position += other.skipped_position;
        self.skipped_bos += other.skipped_bos;
        self.skipped_special += other.skipped_special;
        self.skipped_token += other.skipped_token;
    }
}

impl FromIterator<Verdict> for Tally {
    fn from_iter<I: IntoIterator<Item = Verdict>>(verdicts: I) -> Self {
        let mut tally = Self::default();
        verdicts.into_iter().for_each(|verdict| tally.add(verdict));
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_tallied_once() {
        use Verdict::{Bos, Counts, Position, Special, Token};
        let verdicts = [Position, Bos, Counts, Special, Counts, Token, Token, Counts];
        let mut tally = Tally::from_iter(verdicts);
        let expected = Tally {
            seen: 8,
            counted: 3,
            skipped_position: 1,
            skipped_bos: 1,
            skipped_special: 1,
            skipped_token: 2,
        };
        assert_eq!(tally, expected);
        tally += tally;
        assert_eq!((tally.seen, tally.counted, tally.skipped_token), (16, 6, 4));
        let mut context = Context {
            tokens: vec![7; 8],
            documents: vec![0; 8],
            verdicts: verdicts.to_vec(),
            ..Context::default()
        };
        assert_eq!(context.counted().collect::<Vec<_>>(), [2, 4, 7]);
        context.truncate(5);
        assert_eq!((context.len(), context.documents.len(), context.n_counted()), (5, 5, 2));
    }
}
