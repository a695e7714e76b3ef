//! A batch on its way: its rows come in any order, each decoded, changed and measured while it is in the cache.

use std::mem::MaybeUninit;

use arrow::datatypes::ToByteSlice;

use crate::{
    Batch, VectorDtype,
    batches::Columns,
    past_cache::{CACHED_BYTES, settle, write, write_cached},
    row_group::Token,
};

/// What is done to each token's vectors once they are decoded, if anything is.
pub(crate) type Visit = Option<Box<dyn FnMut(&mut [f32], &mut [f32]) -> f64 + Send>>;

/// A batch that is being filled.
pub(crate) struct Filling {
    /// Its vectors have room, and no length yet.
    batch: Batch,
    columns: Columns,
    dtype: VectorDtype,
    /// What the visitor said of each row that there is.
    sums: Vec<Option<f64>>,
    /// The vectors of a row.
    decoded: [Vec<f32>; 2],
    write: fn(&[u8], &mut [MaybeUninit<f32>]),
}

impl Filling {
    /// Of at most `rows` rows.
    pub(crate) fn new(rows: usize, columns: Columns, dtype: VectorDtype) -> Self {
        let [width, width_out] = columns.widths();
        let bytes = rows * (width + width_out) * size_of::<f32>();
        Self {
            batch: Batch {
                x: Vec::with_capacity(rows * width),
                y: Vec::with_capacity(rows * width_out),
                n: 0,
                width,
                width_out,
                token_ids: vec![0; rows],
                documents: vec![0; rows],
                positions: vec![0; rows],
                sum: 0.0,
            },
            columns,
            dtype,
            sums: vec![None; rows],
            decoded: [vec![0.0; width], vec![0.0; width_out]],
            write: if bytes < CACHED_BYTES { write_cached } else { write },
        }
    }

    /// Rows that there are.
    pub(crate) fn rows(&self) -> usize {
        self.batch.n
    }

    /// Makes a token and the bytes of its vectors the row `row`, which has none yet.
    pub(crate) fn put(&mut self, row: usize, token: Token, vectors: [&[u8]; 2], visit: &mut Visit) {
        assert!(self.sums[row].is_none(), "row {row} has its token");
        let Batch { x, y, width, width_out, token_ids, documents, positions, n, .. } = &mut self.batch;
        (token_ids[row], positions[row], documents[row]) = (token.id, token.position, token.document);
        let targets = [
            &mut x.spare_capacity_mut()[row * *width..][..*width],
            &mut y.spare_capacity_mut()[row * *width_out..][..*width_out],
        ];
        let mut sum = 0.0;
        if visit.is_none() && self.dtype == VectorDtype::F32 {
            targets.into_iter().zip(vectors).for_each(|(target, bytes)| (self.write)(bytes, target));
        } else {
            let [first, second] = &mut self.decoded;
            self.dtype.decode(vectors[0], first);
            self.dtype.decode(vectors[1], second);
            if let Some(visit) = visit {
                sum = visit(first, second);
            }
            targets
                .into_iter()
                .zip([first, second])
                .for_each(|(target, values)| (self.write)(values.to_byte_slice(), target));
        }
        *n += 1;
        self.sums[row] = Some(sum);
    }

    /// The batch of the rows that there are, from the first on. Nothing is left.
    pub(crate) fn finish(&mut self) -> Batch {
        settle();
        let mut batch = std::mem::take(&mut self.batch);
        let n = batch.n;
        // In the order of the rows, so that it does not depend on that in which they came.
        let sums = self.sums[..n].iter().copied().sum::<Option<f64>>();
        batch.sum = sums.expect("no row is left out");
        // SAFETY: each of these rows was written.
        unsafe {
            batch.x.set_len(n * batch.width);
            batch.y.set_len(n * batch.width_out);
        }
        batch.token_ids.truncate(n);
        batch.documents.truncate(n);
        batch.positions.truncate(n);
        batch
    }

    /// Another one of the same kind.
    pub(crate) fn another(&self, rows: usize) -> Self {
        Self::new(rows, self.columns, self.dtype)
    }
}

impl Drop for Filling {
    /// Nobody may see the memory before.
    fn drop(&mut self) {
        settle();
    }
}
