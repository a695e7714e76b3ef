//! Windows of equal length, stacked.

use crate::{Context, TextError};

/// Windows of equal length, at least one.
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

    /// The length of each window.
    pub fn seq_len(&self) -> usize {
        self.contexts.first().map_or(0, Context::len)
    }

    /// How many tokens count.
    pub fn n_counted(&self) -> usize {
        self.contexts.iter().map(Context::n_counted).sum()
    }

    /// The tokens `[batch, seq]`, row after row, for a model that knows the ids below `d_vocab`.
    ///
    /// # Errors
    /// A token that the model does not know.
    pub fn token_ids(&self, d_vocab: usize) -> Result<Vec<i32>, TextError> {
        let mut ids = Vec::with_capacity(self.n_contexts() * self.seq_len());
        for context in &self.contexts {
            for (&token, &document) in context.tokens.iter().zip(&context.documents) {
                let id = i32::try_from(token).ok().filter(|_| (token as usize) < d_vocab);
                ids.push(id.ok_or(TextError::OutsideVocabulary { document, token, d_vocab })?);
            }
        }
        Ok(ids)
    }
}

/// Stacks up to `n` (at least one) consecutive windows of equal length. An error ends a batch and is passed on.
pub fn batches(
    contexts: impl Iterator<Item = Result<Context, TextError>>,
    n: usize,
) -> impl Iterator<Item = Result<ContextBatch, TextError>> {
    let mut contexts = contexts.peekable();
    std::iter::from_fn(move || {
        let first = match contexts.next()? {
            Ok(first) => first,
            Err(error) => return Some(Err(error)),
        };
        let seq_len = first.len();
        let mut batch = vec![first];
        while batch.len() < n {
            match contexts.next_if(|next| next.as_ref().is_ok_and(|c| c.len() == seq_len)) {
                Some(Ok(next)) => batch.push(next),
                _ => break,
            }
        }
        Some(Ok(ContextBatch { contexts: batch }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(tokens: &[u32]) -> Context {
        let n = tokens.len();
        Context { tokens: tokens.to_vec(), documents: vec![6; n], counted: (0..n).map(|i| i > 0).collect() }
    }

    #[test]
    fn consecutive_windows_of_one_length_are_stacked() {
        let lengths = [3, 3, 3, 2, 3, 3];
        let windows = lengths.map(|n| Ok(context(&vec![7; n])));
        let shapes: Vec<_> = batches(windows.into_iter(), 2)
            .map(|b| b.map(|b| (b.n_contexts(), b.seq_len())).unwrap())
            .collect();
        assert_eq!(shapes, [(2, 3), (1, 3), (1, 2), (2, 3)]);
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
