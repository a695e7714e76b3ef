//! From a batch of windows and what the model made of them to rows that count.

use monosema_store::{HookColumn, Rows};
use monosema_text::ContextBatch;
use monosema_transformer::LanguageModel;

use crate::{Counts, HarvestError, HarvestPlan, forward::Forward, norms::NormFilter, windows::Windows};

/// Makes rows of one batch of windows after the other, up to the plan's limit in each time of reading.
pub(crate) struct RowMaker {
    /// Of the columns' hooks and of those that the filter looks at beside them: all that a harvest stores, so that every reader
    /// has the same rows.
    forward: Forward,
    /// What rows hold.
    columns: Vec<HookColumn>,
    filter: Option<NormFilter>,
    limit: u64,
    epoch: u64,
    /// Rows of this time of reading.
    made: u64,
}

impl RowMaker {
    /// Of `columns`, which are some of the plan's.
    pub(crate) fn new(plan: &HarvestPlan, model: LanguageModel, columns: &[HookColumn]) -> Self {
        let filter = plan.max_norm_multiple.map(NormFilter::new);
        let mut watched: Vec<_> = columns.iter().map(|column| column.hook).collect();
        if filter.is_some() {
            let others = plan.hooks.iter().map(|column| column.hook);
            watched.extend(others.filter(|hook| columns.iter().all(|column| column.hook != *hook)));
        }
        let limit = plan.limit().unwrap_or(u64::MAX);
        let forward = Forward::new(model, watched);
        Self { forward, columns: columns.to_vec(), filter, limit, epoch: 0, made: 0 }
    }

    /// Whether the filter has left anything of the text.
    pub(crate) fn check_any(&self) -> Result<(), HarvestError> {
        if self.made > 0 || self.filter.is_none() {
            return Ok(());
        }
        let reason = "nothing is left: at every token one of the hooks has a large norm; raise it, or harvest fewer \
                      hooks at once";
        Err(HarvestError::BadConfig { section: "harvest", key: "max_norm_multiple", reason: reason.into() })
    }

    /// Whether the limit is reached.
    pub(crate) fn is_done(&self) -> bool {
        self.made >= self.limit
    }

    /// What becomes of `windows` whose rows are there already. Only where rows do not depend on values.
    pub(crate) fn pass_by(&mut self, windows: &Windows) -> Counts {
        self.begin(windows);
        let n = windows.batch.n_counted();
        self.made += n as u64;
        Counts::of(windows, n)
    }

    /// Counts anew if they are the first of a time of reading.
    fn begin(&mut self, windows: &Windows) {
        if windows.epoch != self.epoch {
            (self.epoch, self.made) = (windows.epoch, 0);
        }
    }

    /// What the model makes of the tokens of `windows` that count, and what became of all of them.
    pub(crate) fn make(&mut self, windows: &Windows) -> Result<(OwnedRows, Counts), HarvestError> {
        if windows.epoch != self.epoch {
            self.check_any()?;
        }
        self.begin(windows);
        let left = usize::try_from(self.limit - self.made).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok((OwnedRows::none(self.columns.len()), Counts::default()));
        }
        let batch = &windows.batch;
        let values = self.forward.values(batch)?;
        let mut places: Vec<_> = counted_places(batch).collect();
        let n_places = batch.n_contexts() * batch.seq_len();
        if let Some(filter) = &self.filter {
            let vectors = values.iter().map(|values| Vectors { values, n: n_places });
            filter.retain(vectors, &mut places, |place| place.index);
        }
        places.truncate(left);
        // As far as the last that is taken, if the limit cuts anything off.
        let seen = match places.last() {
            Some(last) if places.len() == left => last.nth + 1,
            _ => batch.n_counted(),
        };
        let mut counts = Counts::of(windows, seen);
        counts.skipped_norm = (seen - places.len()) as u64;
        self.made += places.len() as u64;
        if self.is_done() {
            windows.end_epoch();
        }
        Ok((OwnedRows::select(batch, &self.columns, &values, &places), counts))
    }
}

/// A token that counts.
struct Place {
    window: usize,
    position: usize,
    /// Which of its document's tokens it is.
    in_document: u64,
    /// Where its vector lies, padding included.
    index: usize,
    /// Which of the batch's tokens that count it is.
    nth: usize,
}

/// In their order. Padding is none of them.
fn counted_places(batch: &ContextBatch) -> impl Iterator<Item = Place> {
    let windows = batch.contexts.iter().enumerate();
    let counted = windows.flat_map(|(window, context)| {
        let places = (0..).zip(context.places()).filter(|&(position, _)| context.counts(position));
        places.map(move |(position, in_document)| (window, position, in_document))
    });
    let seq_len = batch.seq_len();
    counted.enumerate().map(move |(nth, (window, position, in_document))| {
        let index = window * seq_len + position;
        Place { window, position, in_document, index, nth }
    })
}

/// What a hook saw, as vectors.
#[derive(Clone, Copy)]
pub(crate) struct Vectors<'a> {
    pub(crate) values: &'a [f32],
    /// How many there are.
    pub(crate) n: usize,
}

impl<'a> Vectors<'a> {
    pub(crate) fn get(&self, index: usize) -> &'a [f32] {
        let width = self.values.len() / self.n.max(1);
        &self.values[index * width..(index + 1) * width]
    }
}

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
    /// No row, of so many hooks.
    fn none(n_hooks: usize) -> Self {
        Self { vectors: vec![Vec::new(); n_hooks], ..Self::default() }
    }

    /// The tokens at `places` of `batch`. `values` are what the hooks saw, `[batch, seq, width]` each, of `columns` first.
    fn select(batch: &ContextBatch, columns: &[HookColumn], values: &[Vec<f32>], places: &[Place]) -> Self {
        let mut rows = Self::default();
        for &Place { window, position, in_document, .. } in places {
            let context = &batch.contexts[window];
            rows.places.push(in_document);
            rows.token_ids.push(context.tokens[position]);
            rows.documents.push(context.documents[position]);
            // A window is no longer than the model's context, which is far below 2³².
            rows.positions.push(position as u32);
        }
        let n = batch.n_contexts() * batch.seq_len();
        for (column, values) in columns.iter().zip(values) {
            let vectors = Vectors { values, n };
            let mut kept = Vec::with_capacity(places.len() * column.width);
            for place in places {
                lay_out(vectors.get(place.index), column.width, batch.seq_len(), &mut kept);
            }
            rows.vectors.push(kept);
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

/// Appends `vector` to `kept`, `width` wide. A pattern of attention has a value for each head and key, and in a batch of
/// windows shorter than the longest fewer keys than its column: the others are 0, as all are that lie ahead.
fn lay_out(vector: &[f32], width: usize, n_keys: usize, kept: &mut Vec<f32>) {
    if vector.len() == width {
        return kept.extend_from_slice(vector);
    }
    let n_heads = vector.len() / n_keys;
    let keys = width / n_heads;
    for head in vector.chunks_exact(n_keys) {
        kept.extend_from_slice(head);
        kept.resize(kept.len() + keys - n_keys, 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use monosema_core::HookPoint;
    use monosema_text::{Context, Verdict};

    fn batch() -> ContextBatch {
        let context = |tokens: [u32; 3], document, counted: [bool; 3]| Context {
            tokens: tokens.to_vec(),
            documents: vec![document; 3],
            verdicts: counted.map(|counts| if counts { Verdict::Counts } else { Verdict::Position }).to_vec(),
            before: 10 * document,
            flaws: Vec::new(),
        };
        let mut contexts =
            vec![context([5, 6, 7], 1, [false, true, true]), context([8, 9, 5], 2, [false, true, true])];
        // The last place is padding.
        contexts[1].truncate(2);
        ContextBatch { contexts }
    }

    fn column(width: usize) -> HookColumn {
        HookColumn { hook: HookPoint::Embed, width }
    }

    #[test]
    fn counted_positions_keep_their_vectors() {
        // Two windows of three positions; hooks of widths 1 and 2.
        let values = [(0..6).map(|i| i as f32).collect(), (0..12).map(|i| 100.0 + i as f32).collect()];
        let places: Vec<_> = counted_places(&batch()).collect();
        let rows = OwnedRows::select(&batch(), &[column(1), column(2)], &values, &places);
        assert_eq!(rows.token_ids, [6, 7, 9]);
        assert_eq!(rows.documents, [1, 1, 2]);
        assert_eq!(rows.positions, [1, 2, 1]);
        assert_eq!(rows.places, [11, 12, 21]);
        assert_eq!(rows.vectors[0], [1.0, 2.0, 4.0]);
        assert_eq!(rows.vectors[1], [102.0, 103.0, 104.0, 105.0, 108.0, 109.0]);
        // What is only watched is no part of the rows.
        let rows = OwnedRows::select(&batch(), &[column(1)], &values, &places[1..2]);
        assert_eq!((rows.len(), rows.token_ids, rows.vectors), (1, vec![7], vec![vec![2.0]]));
    }

    #[test]
    fn patterns_of_short_windows_are_laid_out_to_the_full_length() {
        // Two heads, two keys, to five.
        let mut kept = vec![9.0];
        lay_out(&[1.0, 2.0, 3.0, 4.0], 10, 2, &mut kept);
        assert_eq!(kept, [9.0, 1.0, 2.0, 0.0, 0.0, 0.0, 3.0, 4.0, 0.0, 0.0, 0.0]);
        lay_out(&[1.0, 2.0, 3.0, 4.0], 4, 2, &mut kept);
        assert_eq!(kept[11..], [1.0, 2.0, 3.0, 4.0]);
    }
}
