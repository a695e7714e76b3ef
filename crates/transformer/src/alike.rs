//! What is alike need be computed only once.
//!
//! With zero or a mean in place of every token but BOS, all windows are the same from there on.

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

    /// Of sequences or rows that are there in several parts, each with as many: those are alike of which all parts are, bit by bit.
    pub(crate) fn sequences(n: usize, parts: &[TensorData]) -> Self {
        let parts: Vec<&[u8]> = parts.iter().map(TensorData::as_bytes).collect();
        let of = |index: usize| {
            parts.iter().map(move |part| &part[part.len() / n * index..part.len() / n * (index + 1)])
        };
        Self::of((0..n).map(|index| of(index).collect::<Vec<_>>()))
    }
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
    fn what_is_alike_is_so_in_all_parts_and_to_the_last_bit() {
        let part = |values: [f32; 8]| TensorData::new(values.to_vec(), [4, 2]);
        let same = part([1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0000002]);
        let zeros = part([0.0, 0.0, 0.0, 0.0, 0.0, -0.0, 0.0, 0.0]);
        let which = |parts: &[TensorData]| Alike::sequences(4, parts).which;
        assert_eq!(which(&[same.clone()]), [0, 0, 0, 1]);
        assert_eq!(which(&[zeros.clone()]), [0, 0, 1, 0]);
        assert_eq!(which(&[same, zeros]), [0, 0, 1, 2]);
    }
}
