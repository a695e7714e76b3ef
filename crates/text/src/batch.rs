//! Windows, stacked; shorter ones padded at their ends.
//!
//! A language model that reads from left to right never looks at what comes after a token, so padding at the end
//! changes nothing before it: what a position is given is the same, but for rounding, as in a batch of its own.

use crate::{Context, TextError};

/// What stands after the end of a window that is shorter than its batch: any token would do.
const PADDING: i32 = 0;

/// Consecutive windows, at least one. Padding is no part of them.
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

/// Stacks consecutive windows: at least one, and otherwise as many as fit into `tokens` places, padding included, as
/// long as no more than half of those are padding. An error ends a batch and is passed on.
pub fn batches(
    contexts: impl Iterator<Item = Result<Context, TextError>>,
    tokens: usize,
) -> impl Iterator<Item = Result<ContextBatch, TextError>> {
    let mut contexts = contexts.peekable();
    std::iter::from_fn(move || {
        let first = match contexts.next()? {
            Ok(first) => first,
            Err(error) => return Some(Err(error)),
        };
        let (mut longest, mut held) = (first.len(), first.len());
        let mut batch = vec![first];
        loop {
            let fits = |next: &Context| {
                let places = (batch.len() + 1) * longest.max(next.len());
                places <= tokens && 2 * (held + next.len()) >= places
            };
            match contexts.next_if(|next| next.as_ref().is_ok_and(fits)) {
                Some(Ok(next)) => {
                    longest = longest.max(next.len());
                    held += next.len();
                    batch.push(next);
                }
                _ => return Some(Ok(ContextBatch { contexts: batch })),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(tokens: &[u32]) -> Context {
        let n = tokens.len();
        Context {
            tokens: tokens.to_vec(),
            documents: vec![6; n],
            counted: (0..n).map(|i| i > 0).collect(),
            before: 0,
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
    fn consecutive_windows_are_stacked_in_their_order() {
        assert_eq!(shapes(&[3, 3, 3, 2, 3, 3], 7), [(2, 3, 6), (2, 3, 5), (2, 3, 6)]);
        assert_eq!(shapes(&[3, 2, 3], 9), [(3, 3, 8)]);
        assert_eq!(shapes(&[3, 2], 1), [(1, 3, 3), (1, 2, 2)]);
        // Of short windows there are more in a batch.
        assert_eq!(shapes(&[4, 4, 2, 2, 2, 2, 2], 8), [(2, 4, 8), (4, 2, 8), (1, 2, 2)]);
    }

    #[test]
    fn no_more_than_half_of_a_batch_is_padding() {
        // 10 + 2 of 2·10 are tokens; 10 + 2 + 2 of 3·10 would be less than half.
        assert_eq!(shapes(&[10, 2, 2, 2], 90), [(2, 10, 12), (2, 2, 4)]);
        // A long window that comes later would pad all before it.
        assert_eq!(shapes(&[2, 2, 2, 10], 90), [(3, 2, 6), (1, 10, 10)]);
    }

    #[test]
    fn padding_is_at_the_end_of_a_window_and_counts_as_nothing() {
        let batch = ContextBatch { contexts: vec![context(&[1, 2]), context(&[3, 4, 5]), context(&[6, 7])] };
        assert_eq!(batch.token_ids(9).unwrap(), [1, 2, 0, 3, 4, 5, 6, 7, 0]);
        assert_eq!((batch.n_contexts(), batch.seq_len(), batch.n_tokens(), batch.n_counted()), (3, 3, 7, 4));
    }

    #[test]
    fn errors_come_after_what_precedes_them() {
        let error = TextError::NoContexts { documents: 0, tokens: 0 };
        let windows = [Ok(context(&[1, 2])), Err(error), Ok(context(&[3, 4]))];
        let all: Vec<_> = batches(windows.into_iter(), 9).map(|b| b.is_ok()).collect();
        assert_eq!(all, [true, false, true]);
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
