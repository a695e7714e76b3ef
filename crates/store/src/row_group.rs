//! Tokens and their vectors on the way from where they come from to the shuffle buffer.

use arrow::buffer::Buffer;

use crate::{Rows, StoreError, StoreSchema};

/// A token, and where it stood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) id: u32,
    pub(crate) position: u32,
    pub(crate) document: u64,
}

/// Tokens and their vectors of one hook or two, in the dtype in which they are kept. A copy shares the vectors.
#[derive(Clone, Debug, Default)]
pub struct RowGroup {
    pub(crate) tokens: Vec<Token>,
    /// Of the first hook and of the second, if there is one.
    pub(crate) vectors: [Vectors; 2],
}

/// The vectors of a hook.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vectors {
    /// Their bytes, in pages of whole vectors.
    pub(crate) pages: Vec<Buffer>,
    /// Bytes of one.
    pub(crate) row_bytes: usize,
}

impl RowGroup {
    /// Of `rows`, which are as `schema` says, the vectors of its first hook and of its second, if there is one.
    ///
    /// # Errors
    /// Parts of unequal length; a number that is not finite or that the dtype cannot hold.
    pub fn new(schema: &StoreSchema, rows: Rows<'_>) -> Result<Self, StoreError> {
        schema.check_rows(&rows)?;
        let tokens = rows.token_ids.iter().zip(rows.positions).zip(rows.documents);
        let tokens = tokens.map(|((&id, &position), &document)| Token { id, position, document }).collect();
        let mut vectors = <[Vectors; 2]>::default();
        for ((vectors, column), values) in vectors.iter_mut().zip(&schema.hooks).zip(rows.vectors) {
            let mut bytes = Vec::new();
            schema.dtype.encode(values, &mut bytes);
            let row_bytes = column.width * schema.dtype.bytes();
            *vectors = Vectors { pages: vec![Buffer::from_vec(bytes)], row_bytes };
        }
        Ok(Self { tokens, vectors })
    }

    /// The vectors of every row; nothing of a second hook that there is not.
    pub(crate) fn rows(&self) -> impl Iterator<Item = [&[u8]; 2]> {
        let [first, second] = &self.vectors;
        let mut second = second.iter();
        first.iter().map(move |vector| [vector, second.next().unwrap_or_default()])
    }
}

impl Vectors {
    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.pages.iter().flat_map(|page| page.chunks_exact(self.row_bytes))
    }
}
