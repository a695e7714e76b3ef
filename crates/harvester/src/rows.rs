//! From a batch of windows and what the model made of them to rows that count.

use burn::tensor::{Int, Tensor, TensorData};
use monosema_core::HookPoint;
use monosema_store::Rows;
use monosema_text::ContextBatch;
use monosema_transformer::{Capture, LanguageModel};

use crate::{HarvestError, windows::Windows};

/// Counted tokens and their vectors, on the way to the writer.
#[derive(Debug, Default)]
pub(crate) struct OwnedRows {
    pub(crate) token_ids: Vec<u32>,
    pub(crate) documents: Vec<u64>,
    pub(crate) positions: Vec<u32>,
    /// Within their documents.
    pub(crate) places: Vec<u64>,
    /// A hook each, `[n, width]`.
    pub(crate) vectors: Vec<Vec<f32>>,
}

impl OwnedRows {
    /// What the model makes of the wanted tokens of `windows` at each of `hooks`.
    pub(crate) fn compute(
        model: &LanguageModel,
        hooks: &[HookPoint],
        windows: &Windows,
    ) -> Result<Self, HarvestError> {
        let Windows { batch, wanted } = windows;
        let ids = batch.token_ids(model.info().d_vocab)?;
        let shape = [batch.n_contexts(), batch.seq_len()];
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, shape), model.device());
        let mut capture = Capture::new(hooks.iter().copied());
        model.run(tokens, &mut capture);
        let value = |&hook: &HookPoint| -> Vec<f32> {
            let x = capture.take(hook).expect("the plan has checked that the model has the hook");
            x.into_data().convert::<f32>().try_to_vec().expect("just converted")
        };
        let values: Vec<_> = hooks.iter().map(value).collect();
        Ok(Self::select(batch, &values, *wanted))
    }

    /// The first `limit` counted positions of `batch`. `values` are what the hooks saw, `[batch, seq, width]` each.
    fn select(batch: &ContextBatch, values: &[Vec<f32>], limit: usize) -> Self {
        // Padding included.
        let n_places = batch.n_contexts() * batch.seq_len();
        let mut rows = Self { vectors: values.iter().map(|_| Vec::new()).collect(), ..Self::default() };
        let limit = limit.min(batch.n_counted());
        for (rows, values) in rows.vectors.iter_mut().zip(values) {
            rows.reserve_exact(limit * (values.len() / n_places));
        }
        let windows = batch.contexts.iter().enumerate();
        let places = windows
            .flat_map(|(i, context)| (0..).zip(context.places()).map(move |place| (i, context, place)));
        for (i, context, (position, place)) in
            places.filter(|(_, context, (position, _))| context.counted[*position]).take(limit)
        {
            rows.places.push(place);
            rows.token_ids.push(context.tokens[position]);
            rows.documents.push(context.documents[position]);
            // A window is no longer than the model's context, which is far below 2³².
            rows.positions.push(position as u32);
            let place = i * batch.seq_len() + position;
            for (rows, values) in rows.vectors.iter_mut().zip(values) {
                let width = values.len() / n_places;
                rows.extend_from_slice(&values[place * width..(place + 1) * width]);
            }
        }
        rows
    }

    pub(crate) fn len(&self) -> usize {
        self.token_ids.len()
    }

    /// Appends `more` of the same hooks.
    pub(crate) fn append(&mut self, mut more: Self) {
        self.token_ids.append(&mut more.token_ids);
        self.documents.append(&mut more.documents);
        self.positions.append(&mut more.positions);
        self.places.append(&mut more.places);
        self.vectors.resize_with(more.vectors.len(), Vec::new);
        for (rows, mut more) in self.vectors.iter_mut().zip(more.vectors) {
            rows.append(&mut more);
        }
    }

    /// Takes the first `n`, of which there are so many.
    pub(crate) fn take_first(&mut self, n: usize) -> Self {
        let len = self.len();
        Self {
            token_ids: first(&mut self.token_ids, n),
            documents: first(&mut self.documents, n),
            positions: first(&mut self.positions, n),
            places: first(&mut self.places, n),
            vectors: self
                .vectors
                .iter_mut()
                .map(|rows| {
                    let width = rows.len() / len.max(1);
                    first(rows, n * width)
                })
                .collect(),
        }
    }

    /// Hands the rows to `f` as a writer takes them.
    pub(crate) fn with<T>(&self, f: impl FnOnce(Rows<'_>) -> T) -> T {
        let vectors: Vec<&[f32]> = self.vectors.iter().map(Vec::as_slice).collect();
        f(Rows {
            token_ids: &self.token_ids,
            documents: &self.documents,
            positions: &self.positions,
            places: &self.places,
            vectors: &vectors,
        })
    }
}

/// Takes the first `n` of `all`.
fn first<T>(all: &mut Vec<T>, n: usize) -> Vec<T> {
    let rest = all.split_off(n);
    std::mem::replace(all, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use monosema_text::Context;

    fn batch() -> ContextBatch {
        let context = |tokens: [u32; 3], document, counted: [bool; 3]| Context {
            tokens: tokens.to_vec(),
            documents: vec![document; 3],
            counted: counted.to_vec(),
            before: 10 * document,
        };
        let contexts =
            vec![context([5, 6, 7], 1, [false, true, true]), context([8, 9, 5], 2, [false, true, false])];
        ContextBatch { contexts }
    }

    #[test]
    fn counted_positions_keep_their_vectors() {
        // Two windows of three positions; hooks of widths 1 and 2.
        let values = [(0..6).map(|i| i as f32).collect(), (0..12).map(|i| 100.0 + i as f32).collect()];
        let rows = OwnedRows::select(&batch(), &values, usize::MAX);
        assert_eq!(rows.token_ids, [6, 7, 9]);
        assert_eq!(rows.documents, [1, 1, 2]);
        assert_eq!(rows.positions, [1, 2, 1]);
        assert_eq!(rows.places, [11, 12, 21]);
        assert_eq!(rows.vectors[0], [1.0, 2.0, 4.0]);
        assert_eq!(rows.vectors[1], [102.0, 103.0, 104.0, 105.0, 108.0, 109.0]);
    }

    #[test]
    fn the_limit_cuts_within_a_batch() {
        let rows = OwnedRows::select(&batch(), &[vec![0.0; 6]], 2);
        assert_eq!((rows.len(), rows.positions, rows.vectors[0].len()), (2, vec![1, 2], 2));
        assert_eq!(OwnedRows::select(&batch(), &[vec![0.0; 6]], 0).len(), 0);
    }
}
