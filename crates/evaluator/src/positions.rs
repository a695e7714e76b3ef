//! Which positions of a batch count, which predictions are made from them, and what is put in their place.

use monosema_text::{Context, ContextBatch, Flaws};

use crate::report::Tally;

/// Which token it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Token {
    /// Its document, counted from 0 in its text.
    pub(crate) document: u64,
    /// Its place in the document, through all of its windows.
    pub(crate) place: u64,
    /// Its position in its window.
    pub(crate) position: usize,
}

/// Counted positions of one batch of windows, as indices into `batch * seq`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Positions {
    /// Where activations are measured, and replaced when splicing.
    pub(crate) counted: Vec<usize>,
    /// Which tokens stand there.
    pub(crate) tokens: Vec<Token>,
    /// Those of them with a next token in their window.
    pub(crate) predicting: Vec<i32>,
    /// Which tokens stand there.
    pub(crate) predictors: Vec<Token>,
    /// The next token of each of [`Positions::predicting`].
    pub(crate) targets: Vec<u32>,
}

impl Positions {
    /// Those of `batch` that count.
    pub(crate) fn new(batch: &ContextBatch) -> Self {
        Self::of(batch, Context::counts)
    }

    /// Those of `batch` that `counts` says of.
    pub(crate) fn of(batch: &ContextBatch, counts: impl Fn(&Context, usize) -> bool) -> Self {
        let mut positions = Self::default();
        let seq_len = batch.seq_len();
        for (row, context) in batch.contexts.iter().enumerate() {
            let tokens = context.documents.iter().zip(context.places()).enumerate();
            let counted = tokens.filter(|&(position, _)| counts(context, position));
            for (position, (&document, place)) in counted {
                let (index, token) = (row * seq_len + position, Token { document, place, position });
                positions.counted.push(index);
                positions.tokens.push(token);
                if let Some(&next) = context.tokens.get(position + 1) {
                    positions
                        .predicting
                        .push(i32::try_from(index).expect("a batch has fewer than 2^31 tokens"));
                    positions.predictors.push(token);
                    positions.targets.push(next);
                }
            }
        }
        positions
    }

    /// The rows of `values [batch * seq, width]` at the counted positions.
    pub(crate) fn gather(&self, values: &[f32], width: usize) -> Vec<f32> {
        let mut rows = Vec::with_capacity(self.counted.len() * width);
        for &index in &self.counted {
            rows.extend_from_slice(&values[index * width..(index + 1) * width]);
        }
        rows
    }

    /// `values [batch * seq, width]` with the counted positions replaced, in order, by `rows`; the others are
    /// left exactly as they are.
    pub(crate) fn splice<'a>(
        &self,
        values: &[f32],
        width: usize,
        rows: impl IntoIterator<Item = &'a [f32]>,
    ) -> Vec<f32> {
        let mut spliced = values.to_vec();
        for (&index, row) in self.counted.iter().zip(rows) {
            spliced[index * width..(index + 1) * width].copy_from_slice(row);
        }
        spliced
    }

    /// How many tokens of `batch` count, and why the others do not.
    pub(crate) fn tally(&self, batch: &ContextBatch) -> Tally {
        let verdicts = batch.contexts.iter().flat_map(|context| context.verdicts.iter().copied());
        let tally: monosema_text::Tally = verdicts.collect();
        let mut flaws = Flaws::default();
        batch.contexts.iter().flat_map(|context| &context.flaws).for_each(|(_, found)| flaws += *found);
        Tally {
            contexts: batch.n_contexts() as u64,
            positions: tally.seen,
            counted_tokens: tally.counted,
            predictions: self.predicting.len() as u64,
            skipped_position: tally.skipped_position,
            skipped_bos: tally.skipped_bos,
            skipped_special: tally.skipped_special,
            skipped_token: tally.skipped_token,
            invalid_utf8: flaws.invalid_utf8,
            nul: flaws.nul,
        }
    }
}

#[cfg(test)]
mod tests {
    use monosema_text::Verdict;

    use super::*;

    fn context(counted: &[bool]) -> Context {
        let n = counted.len();
        let verdicts = counted.iter().enumerate().map(|(position, &counts)| match counts {
            true => Verdict::Counts,
            false if position == 0 => Verdict::Position,
            false => Verdict::Special,
        });
        Context {
            tokens: (10..10 + n as u32).collect(),
            documents: vec![0; n],
            verdicts: verdicts.collect(),
            ..Context::default()
        }
    }

    /// Two windows of four; the first token of each is skipped, and one special token.
    fn batch() -> ContextBatch {
        ContextBatch {
            contexts: vec![context(&[false, true, true, true]), context(&[false, true, false, true])],
        }
    }

    #[test]
    fn predictions_stay_within_their_window() {
        let positions = Positions::new(&batch());
        assert_eq!(positions.counted, [1, 2, 3, 5, 7]);
        assert_eq!(positions.predicting, [1, 2, 5]);
        assert_eq!(positions.targets, [12, 13, 12]);
        let token = |place| Token { document: 0, place, position: place as usize };
        assert_eq!(positions.tokens, [1, 2, 3, 1, 3].map(token));
        assert_eq!(positions.predictors, [1, 2, 1].map(token));
        let expected = Tally {
            contexts: 2,
            positions: 8,
            counted_tokens: 5,
            predictions: 3,
            skipped_position: 2,
            skipped_special: 1,
            ..Tally::default()
        };
        assert_eq!(positions.tally(&batch()), expected);
    }

    #[test]
    fn padding_is_neither_counted_nor_skipped() {
        let batch = ContextBatch {
            contexts: vec![context(&[false, true]), context(&[false, true, false, true]), context(&[false])],
        };
        let positions = Positions::new(&batch);
        assert_eq!(
            (positions.counted.as_slice(), positions.predicting.as_slice()),
            (&[1, 5, 7][..], &[5][..])
        );
        let tally = positions.tally(&batch);
        assert_eq!((tally.positions, tally.counted_tokens), (7, 3));
        assert_eq!((tally.skipped_position, tally.skipped_special), (3, 1));
    }

    #[test]
    fn splicing_replaces_counted_positions_and_nothing_else() {
        let positions = Positions::new(&batch());
        let values: Vec<f32> = (0..16).map(|v| v as f32).collect();
        assert_eq!(positions.gather(&values, 2), [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 10.0, 11.0, 14.0, 15.0]);
        let zeros = [0.0; 2];
        let spliced = positions.splice(&values, 2, std::iter::repeat(&zeros[..]));
        let expected = [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 8.0, 9.0, 0.0, 0.0, 12.0, 13.0, 0.0, 0.0];
        assert_eq!(spliced, expected);
        let back = positions.gather(&values, 2);
        assert_eq!(positions.splice(&spliced, 2, back.chunks(2)), values);
    }
}
