//! Where to stop: after so many tokens that count.

use crate::{Context, TextError};

/// The windows of `contexts` up to the `limit`-th token that counts, the last one cut short after it. Attention that looks
/// back alone makes the cut invisible to what stands before it.
///
/// It is the text's order that decides what is first, so this comes before [`batches`](crate::batches), which sort windows
/// by length.
pub fn limited(
    mut contexts: impl Iterator<Item = Result<Context, TextError>>,
    limit: Option<u64>,
) -> impl Iterator<Item = Result<Context, TextError>> {
    let mut left = limit.unwrap_or(u64::MAX);
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        Some(contexts.next()?.map(|mut context| {
            if let Some(last) = nth_counted(&context, left) {
                context.truncate(last + 1);
                left = 0;
            } else {
                left -= context.n_counted() as u64;
            }
            context
        }))
    })
}

/// The position of the `n`-th counted token (from 1), if there are so many.
fn nth_counted(context: &Context, n: u64) -> Option<usize> {
    let index = usize::try_from(n - 1).ok()?;
    context.counted().nth(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict::{self, Counts, Position, Special};

    #[test]
    fn a_limit_is_reached_exactly() {
        let context = |verdicts: [Verdict; 4]| Context {
            tokens: vec![7; 4],
            documents: vec![0; 4],
            verdicts: verdicts.to_vec(),
            ..Context::default()
        };
        let all = [context([Position, Counts, Counts, Counts]), context([Position, Counts, Special, Counts])];
        let windows = |limit| limited(all.clone().into_iter().map(Ok), limit).map(Result::unwrap);
        let counted = |limit| {
            let windows: Vec<_> = windows(limit).collect();
            (windows.len(), windows.iter().map(Context::n_counted).sum::<usize>())
        };
        assert_eq!(counted(None), (2, 5));
        assert_eq!(counted(Some(9)), (2, 5));
        assert_eq!(counted(Some(5)), (2, 5));
        assert_eq!(counted(Some(4)), (2, 4));
        assert_eq!(counted(Some(3)), (1, 3));
        assert_eq!(counted(Some(1)), (1, 1));
        let cut = windows(Some(4)).last().unwrap();
        assert_eq!((cut.len(), cut.documents.len(), cut.verdicts.len()), (2, 2, 2));
    }
}
