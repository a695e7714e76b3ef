//! The values of one unit on all tokens.

/// A unit's values, largest first. Tokens that are not listed are at rest: their value is 0, and all that are listed are above it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Column {
    /// Value and token.
    pub(crate) entries: Vec<(f32, u32)>,
}

impl Column {
    /// Of a unit that is mostly at rest: those of the values that are positive.
    pub(crate) fn sparse(entries: impl IntoIterator<Item = (f32, u32)>) -> Self {
        Self::sorted(entries.into_iter().filter(|&(value, _)| value > 0.0).collect())
    }

    /// Of a unit with a value on every token, of either sign.
    pub(crate) fn dense(values: impl IntoIterator<Item = f32>) -> Self {
        Self::sorted(values.into_iter().zip(0..).collect())
    }

    fn sorted(mut entries: Vec<(f32, u32)>) -> Self {
        entries.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        Self { entries }
    }

    /// The largest `n` of `values`, one a token, less the next one: what a ReLU leaves whose bias lets `n` tokens through. (Values that equal the
    /// next one do not pass.)
    pub(crate) fn largest(values: Vec<f32>, n: usize) -> Self {
        let mut entries: Vec<(f32, u32)> = values.into_iter().zip(0..).collect();
        if n < entries.len() {
            let (_, &mut (bias, _), _) = entries.select_nth_unstable_by(n, |a, b| b.0.total_cmp(&a.0));
            entries.truncate(n);
            entries.iter_mut().for_each(|(value, _)| *value -= bias);
        }
        Self::sparse(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_sorted_and_cut() {
        let sparse = Column::sparse([(0.5, 0), (0.0, 1), (2.0, 2), (0.5, 3)]);
        assert_eq!(sparse.entries, [(2.0, 2), (0.5, 0), (0.5, 3)]);
        let dense = Column::dense([0.5, -1.0, 3.0]);
        assert_eq!(dense.entries, [(3.0, 2), (0.5, 0), (-1.0, 1)]);
        let largest = |n| Column::largest(vec![0.5, -1.0, 3.0], n).entries;
        assert_eq!(largest(1), [(2.5, 2)]);
        assert_eq!(largest(2), [(4.0, 2), (1.5, 0)]);
        assert_eq!(Column::largest(vec![1.0, 1.0, 2.0], 2).entries, [(1.0, 2)]);
    }
}
