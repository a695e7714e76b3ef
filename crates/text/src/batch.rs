//! Windows of about equal length, stacked; shorter ones padded at their ends.
//!
//! A language model that reads from left to right never looks at what comes after a token, so padding at the end
//! changes nothing before it: what a position is given is the same, but for rounding, as in a batch of its own.

use std::{cmp::Reverse, collections::VecDeque};

use crate::{Context, TextError};

/// What stands after the end of a window that is shorter than its batch: any token would do.
const PADDING: i32 = 0;

/// Tokens in the windows that are sorted by length among each other. A constant, so that the order of windows does not
/// depend on how many of them a batch takes.
const GATHERED_TOKENS: usize = 1 << 18;

/// Of so many places in a batch, at most one is padding.
const PLACES_PER_PADDING: usize = 8;

/// Windows of about equal length, at least one. Padding is no part of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextBatch {
    /// The windows.
    pub contexts: Vec<Context>,
}

impl ContextBatch {
    /// How many windows there are.
    pub fn n_contexts(&self) -> usize {
        self.contexts.len()
    }

    /// The length of the longest window, to which the others are padded.
    pub fn seq_len(&self) -> usize {
        self.contexts.iter().map(Context::len).max().unwrap_or(0)
    }

    /// How many tokens there are, padding aside.
    pub fn n_tokens(&self) -> usize {
        self.contexts.iter().map(Context::len).sum()
    }

    /// How many places of `[batch, seq]` are padding.
    pub fn n_padding(&self) -> usize {
        self.n_contexts() * self.seq_len() - self.n_tokens()
    }

    /// How many tokens count.
    pub fn n_counted(&self) -> usize {
        self.contexts.iter().map(Context::n_counted).sum()
    }

    /// The tokens `[batch, seq]`, row after row, for a model that knows the ids below `d_vocab`. Token `position` of
    /// window `row` is at `row * seq_len + position`.
    ///
    /// # Errors
    /// A token that the model does not know.
    pub fn token_ids(&self, d_vocab: usize) -> Result<Vec<i32>, TextError> {
        let seq_len = self.seq_len();
        let mut ids = Vec::with_capacity(self.n_contexts() * seq_len);
        for (row, context) in self.contexts.iter().enumerate() {
            for (&token, &document) in context.tokens.iter().zip(&context.documents) {
                let id = i32::try_from(token).ok().filter(|_| (token as usize) < d_vocab);
                ids.push(id.ok_or(TextError::OutsideVocabulary { document, token, d_vocab })?);
            }
            ids.resize((row + 1) * seq_len, PADDING);
        }
        Ok(ids)
    }
}

/// Stacks windows of about equal length: at least one, and otherwise as many as fit into `tokens` places, padding
/// included, as long as no more than an eighth of those is padding.
///
/// For that windows are taken together until they hold 262,144 tokens and sorted by length, the longest first and equal
/// ones in their order. So the windows of a document stay in their order, and windows that are all full do too. The order
/// of all is the same whatever `tokens` is. An error comes after the windows before it.
pub fn batches(
    contexts: impl Iterator<Item = Result<Context, TextError>>,
    tokens: usize,
) -> impl Iterator<Item = Result<ContextBatch, TextError>> {
    let mut contexts = contexts.fuse();
    let (mut gathered, mut failed) = (VecDeque::new(), None);
    std::iter::from_fn(move || {
        if gathered.is_empty() && failed.is_none() {
            (gathered, failed) = gather(&mut contexts);
        }
        match next_batch(&mut gathered, tokens) {
            Some(batch) => Some(Ok(batch)),
            None => failed.take().map(Err),
        }
    })
}

/// The next windows, the longest first, and what went wrong after them.
fn gather(
    contexts: &mut impl Iterator<Item = Result<Context, TextError>>,
) -> (VecDeque<Context>, Option<TextError>) {
    let (mut gathered, mut held, mut failed) = (Vec::new(), 0, None);
    while held < GATHERED_TOKENS
        && let Some(context) = contexts.next()
    {
        match context {
            Ok(context) => {
                held += context.len();
                gathered.push(context);
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    gathered.sort_by_key(|context: &Context| Reverse(context.len()));
    (gathered.into(), failed)
}

/// Takes the first of `gathered` that go together; `None` if there are none.
fn next_batch(gathered: &mut VecDeque<Context>, tokens: usize) -> Option<ContextBatch> {
    let longest = gathered.front()?.len();
    let (mut n, mut held) = (1, longest);
    while let Some(next) = gathered.get(n) {
        let places = (n + 1).saturating_mul(longest);
        let padding = places - (held + next.len());
        if places > tokens || PLACES_PER_PADDING.saturating_mul(padding) > places {
            break;
        }
        (n, held) = (n + 1, held + next.len());
    }
    Some(ContextBatch { contexts: gathered.drain(..n).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;

    fn context(tokens: &[u32]) -> Context {
        let n = tokens.len();
        let verdict = |i| if i > 0 { Verdict::Counts } else { Verdict::Position };
        Context {
            tokens: tokens.to_vec(),
            documents: vec![6; n],
            verdicts: (0..n).map(verdict).collect(),
            ..Context::default()
        }
    }

    /// Windows, length and tokens of each batch of up to `tokens` places, of windows of these lengths.
    fn shapes(lengths: &[usize], tokens: usize) -> Vec<(usize, usize, usize)> {
        let windows = lengths.iter().map(|&n| Ok(context(&vec![7; n])));
        batches(windows, tokens)
            .map(|b| b.map(|b| (b.n_contexts(), b.seq_len(), b.n_tokens())).unwrap())
            .collect()
    }

    #[test]
    fn windows_are_stacked_with_those_of_their_length() {
        assert_eq!(shapes(&[3, 3, 3, 2, 3, 3], 7), [(2, 3, 6), (2, 3, 6), (1, 3, 3), (1, 2, 2)]);
        assert_eq!(shapes(&[3, 2], 1), [(1, 3, 3), (1, 2, 2)]);
        // Of short windows there are more in a batch.
        assert_eq!(shapes(&[2, 4, 2, 4, 2, 2, 2], 8), [(2, 4, 8), (4, 2, 8), (1, 2, 2)]);
    }

    #[test]
    fn no_more_than_an_eighth_of_a_batch_is_padding() {
        // One place in 16 is padding, then 2 in 24 would be; 3 in 24 just may, and 4 in 32, but 6 in 40 may not.
        assert_eq!(shapes(&[8, 7, 6], 90), [(3, 8, 21)]);
        assert_eq!(shapes(&[8, 7, 6, 7, 6], 90), [(4, 8, 28), (1, 6, 6)]);
        assert_eq!(shapes(&[10, 2, 2, 2], 90), [(1, 10, 10), (3, 2, 6)]);
    }

    #[test]
    fn padding_is_a_few_percent() {
        // As of documents of all lengths, in no order.
        let lengths: Vec<usize> = (0..20_000).map(|i| 2 + i * 7919 % 510).collect();
        for tokens in [512, 2048, 16_384] {
            let shapes = shapes(&lengths, tokens);
            let places: usize = shapes.iter().map(|(n, seq_len, _)| n * seq_len).sum();
            let held: usize = lengths.iter().sum();
            assert!(shapes.iter().all(|(n, seq_len, _)| n * seq_len <= tokens));
            assert_eq!(shapes.iter().map(|(_, _, held)| held).sum::<usize>(), held);
            assert!(places - held < places / 16, "{tokens}: {places} places for {held} tokens");
        }
    }

    #[test]
    fn the_order_is_the_same_whatever_a_batch_takes() {
        let windows: Vec<Context> = (0..9000)
            .map(|i| Context {
                documents: vec![i / 3; 40 + (i * 31 % 7) as usize],
                ..context(&vec![7; 40 + (i * 31 % 7) as usize])
            })
            .collect();
        let order = |tokens| -> Vec<Context> {
            batches(windows.iter().cloned().map(Ok), tokens).flat_map(|b| b.unwrap().contexts).collect()
        };
        let expected = order(1);
        assert_eq!(expected.len(), windows.len());
        assert!(expected != windows && order(500) == expected && order(100_000) == expected);
        // Windows are put in order a few thousand at a time.
        let shortest = expected.iter().position(|window| window.len() == 40).unwrap();
        assert!(expected[shortest..].iter().any(|window| window.len() == 46));
        // Full windows stay as they are, and a last one that is short stays the last.
        let full: Vec<Context> = (0..9000)
            .map(|i| Context { documents: vec![i; 40], ..context(&[7; 40]) })
            .chain([context(&[7; 11])])
            .collect();
        let found = batches(full.iter().cloned().map(Ok), 400).flat_map(|b| b.unwrap().contexts);
        assert!(found.eq(full.iter().cloned()));
    }

    #[test]
    fn padding_is_at_the_end_of_a_window_and_counts_as_nothing() {
        let batch = ContextBatch { contexts: vec![context(&[1, 2]), context(&[3, 4, 5]), context(&[6, 7])] };
        assert_eq!(batch.token_ids(9).unwrap(), [1, 2, 0, 3, 4, 5, 6, 7, 0]);
        assert_eq!((batch.n_contexts(), batch.seq_len(), batch.n_tokens()), (3, 3, 7));
        assert_eq!((batch.n_padding(), batch.n_counted()), (2, 4));
    }

    #[test]
    fn errors_come_after_what_precedes_them() {
        let error = TextError::NoContexts { documents: 0, tokens: 0 };
        let windows = [Ok(context(&[1, 2])), Ok(context(&[1, 2, 3])), Err(error), Ok(context(&[3, 4]))];
        let all: Vec<_> = batches(windows.into_iter(), 4).map(|b| b.map_or(0, |b| b.n_tokens())).collect();
        assert_eq!(all, [3, 2, 0, 2]);
    }

    #[test]
    fn token_ids_are_checked_against_the_vocabulary() {
        let batch = ContextBatch { contexts: vec![context(&[1, 2]), context(&[3, 4])] };
        assert_eq!(batch.token_ids(5).unwrap(), [1, 2, 3, 4]);
        assert_eq!(batch.n_counted(), 2);
        let error = batch.token_ids(4).unwrap_err();
        let expected = matches!(error, TextError::OutsideVocabulary { document: 6, token: 4, d_vocab: 4 });
        assert!(expected, "{error}");
    }
}
