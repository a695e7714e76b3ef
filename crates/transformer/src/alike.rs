//! What is alike need be computed only once.
//!
//! With zero or a mean in place of every token but BOS, full windows are the same from a hook of the residual stream on.

use std::collections::BTreeMap;

use burn::tensor::{Device, Int, Tensor, TensorData};

/// Which of some things are alike.
#[derive(Debug, PartialEq)]
pub(crate) struct Alike {
    /// Of those that are alike, the first.
    pub(crate) firsts: Vec<usize>,
    /// For each, which of [`Alike::firsts`] it is like.
    pub(crate) which: Vec<usize>,
}

impl Alike {
    pub(crate) fn of(things: impl Iterator<Item: Ord>) -> Self {
        let (mut seen, mut firsts) = (BTreeMap::new(), Vec::new());
        let which = things.enumerate().map(|(index, thing)| {
            *seen.entry(thing).or_insert_with(|| {
                firsts.push(index);
                firsts.len() - 1
            })
        });
        Self { which: which.collect(), firsts }
    }
}

/// What `part`, which has something of each of `n`, has of one of them, bit by bit.
pub(crate) fn row(part: &TensorData, index: usize, n: usize) -> &[u8] {
    let bytes = part.as_bytes();
    let size = bytes.len() / n;
    &bytes[index * size..(index + 1) * size]
}

/// A tensor of indices.
pub(crate) fn indices(of: &[usize], device: &Device) -> Tensor<1, Int> {
    let of: Vec<i32> =
        of.iter().map(|&index| i32::try_from(index).expect("a batch has fewer than 2^31 tokens")).collect();
    let n = of.len();
    Tensor::from_data(TensorData::new(of, [n]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_those_that_are_alike_stands_for_them() {
        let found = Alike::of("abacba".chars());
        assert_eq!(found, Alike { firsts: vec![0, 1, 3], which: vec![0, 1, 0, 2, 1, 0] });
    }

    #[test]
    fn rows_are_alike_to_the_last_bit() {
        let which = |values: [f32; 8]| {
            let values = TensorData::new(values.to_vec(), [4, 2]);
            Alike::of((0..4).map(|index| row(&values, index, 4))).which
        };
        assert_eq!(which([1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0000002]), [0, 0, 0, 1]);
        assert_eq!(which([0.0, 0.0, 0.0, 0.0, 0.0, -0.0, 0.0, 0.0]), [0, 0, 1, 0]);
    }
}
