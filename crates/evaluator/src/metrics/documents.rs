//! Sums by document: what a resample draws.

use std::collections::BTreeMap;

use super::{Block, Prediction, Shape, Sums};

/// More are not kept apart: neighbours are then taken together. Far more than an interval needs, and a bound on memory.
const MOST: usize = 2048;

/// What the sums of a text of so many tokens take at most, for a dictionary that gives `d_in` dimensions: for each document, moments of
/// activations and of errors.
pub(crate) fn bytes(tokens: u64, d_in: usize) -> u64 {
    tokens.min(MOST as u64).saturating_mul(2 * size_of::<f64>() as u64 * d_in as u64)
}

/// The sums of one text, by document.
#[derive(Clone, Debug)]
pub(super) struct Documents {
    shape: Shape,
    /// Documents whose numbers agree but for so many of the lowest bits are taken as one.
    shift: u32,
    sums: BTreeMap<u64, Sums>,
}

impl Documents {
    pub(super) fn new(shape: Shape) -> Self {
        Self { shape, shift: 0, sums: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, block: &Block<'_>) {
        let mut from = 0;
        for tokens in block.tokens.chunk_by(|a, b| a.document == b.document) {
            let to = from + tokens.len();
            self.of(tokens[0].document).add(&block.part(from..to));
            from = to;
        }
    }

    pub(super) fn add_predictions(&mut self, predictions: &[Prediction]) {
        for predictions in predictions.chunk_by(|a, b| a.token.document == b.token.document) {
            self.of(predictions[0].token.document).add_predictions(predictions);
        }
    }

    /// In the order of the text.
    pub(super) fn sums(&self) -> impl Iterator<Item = &Sums> {
        self.sums.values()
    }

    fn of(&mut self, document: u64) -> &mut Sums {
        while self.sums.len() >= MOST && !self.sums.contains_key(&(document >> self.shift)) {
            self.halve();
        }
        let new = || Sums::new(self.shape);
        self.sums.entry(document >> self.shift).or_insert_with(new)
    }

    fn halve(&mut self) {
        self.shift += 1;
        for (document, sums) in std::mem::take(&mut self.sums) {
            let new = || Sums::new(self.shape);
            self.sums.entry(document >> 1).or_insert_with(new).merge(&sums, 1);
        }
    }
}
