//! Multi-head latent attention: what keys and values are made of passes through a narrow latent, and so may queries
//! (DeepSeek-AI, 2024, arXiv:2405.04434, section 2.1; reference: `modeling_deepseek_v3.py` of transformers).

use burn::{module::Module, tensor::Tensor};

use super::{
    attention::Qkv,
    linear::Linear,
    norm::RmsNorm,
    positions::{Rotation, Tables},
    rotary::rotate,
};

/// What is added to the mean square in the norms of latents, whatever it is in other norms.
pub(super) const NORM_EPSILON: f64 = 1e-6;

/// From latents to queries, keys and values. A head's first dimensions are those that are rotated, whose keys all heads
/// share.
#[derive(Module, Debug)]
pub(crate) struct Latent {
    /// From the queries' latent, if they have one.
    pub(crate) queries: Option<Expansion>,
    /// From their latent: the rest of all heads' keys, then all heads' values.
    pub(crate) keys_values: Expansion,
    #[module(skip)]
    pub(crate) shape: LatentShape,
}

/// A latent's norm, and the map from it.
#[derive(Module, Debug)]
pub(crate) struct Expansion {
    pub(crate) norm: RmsNorm,
    pub(crate) map: Linear,
}

/// Widths of a [`Latent`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LatentShape {
    /// The width of the queries' latent, if they have one.
    pub(crate) query_rank: Option<usize>,
    /// The width of the latent of keys and values.
    pub(crate) key_value_rank: usize,
    /// How many of a head's dimensions are rotated.
    pub(crate) d_rotated: usize,
    /// How many are not.
    pub(crate) d_still: usize,
    /// The width of a head's values.
    pub(crate) d_value: usize,
    /// Whether the dimensions to be rotated are stored as pairs of neighbours, not half by half.
    pub(crate) neighbours: bool,
    /// Whether the maps to the latents have biases.
    pub(crate) bias: bool,
}

impl Latent {
    /// # Shapes
    /// `latents`: `[batch, seq, width]`, the queries or their latent, the latent of keys and values, and the rotated part
    /// of the keys, side by side.
    pub(crate) fn expand(&self, latents: Tensor<3>, n_heads: usize, tables: &Tables) -> Qkv {
        let LatentShape { key_value_rank, d_rotated, d_still, d_value, .. } = self.shape;
        let d_queries = latents.dims()[2] - key_value_rank - d_rotated;
        let part = |begin, width| latents.clone().narrow(2, begin, width);
        let queries = part(0, d_queries);
        let queries = match &self.queries {
            Some(expansion) => expansion.forward(queries),
            None => queries,
        };
        let kv = self.keys_values.forward(part(d_queries, key_value_rank));
        let still = heads(kv.clone().narrow(2, 0, n_heads * d_still), n_heads);
        let values = heads(kv.narrow(2, n_heads * d_still, n_heads * d_value), n_heads);
        let shared = heads(part(d_queries + key_value_rank, d_rotated), 1);
        let rotated = |x| match &tables.rotation {
            Some(Rotation { cos, sin, .. }) => rotate(x, cos.clone(), sin.clone()),
            None => x,
        };
        let keys = Tensor::cat(vec![rotated(shared).repeat_dim(1, n_heads), still], 3);
        [rotated(heads(queries, n_heads)), keys, values]
    }
}

impl Expansion {
    fn forward(&self, latent: Tensor<3>) -> Tensor<3> {
        self.map.forward_sequence(self.norm.forward(latent))
    }
}

/// `[batch, seq, heads * d]` to `[batch, heads, seq, d]`.
fn heads(x: Tensor<3>, n_heads: usize) -> Tensor<4> {
    let [batch, seq, width] = x.dims();
    x.reshape([batch, seq, n_heads, width / n_heads]).swap_dims(1, 2)
}

impl LatentShape {
    /// The row of a head's queries in a checkpoint that is row `row` here: there the dimensions to be rotated come last.
    pub(crate) fn stored_query_row(&self, row: usize) -> usize {
        let d_head = self.d_rotated + self.d_still;
        let (head, within) = (row / d_head, row % d_head);
        let within = match within.checked_sub(self.d_rotated) {
            Some(still) => still,
            None => self.d_still + self.stored_rotated_row(within),
        };
        head * d_head + within
    }

    /// The row in a checkpoint that is row `row` here of those to be rotated: half by half here.
    pub(crate) fn stored_rotated_row(&self, row: usize) -> usize {
        let half = self.d_rotated / 2;
        if self.neighbours { 2 * (row % half) + row / half } else { row }
    }

    /// The row in a checkpoint that is row `row` here of what expands the latent of keys and values: there each head's
    /// keys and values are together.
    pub(crate) fn stored_key_value_row(&self, row: usize, n_heads: usize) -> usize {
        let Self { d_still, d_value, .. } = *self;
        let (head, within) = match row.checked_sub(n_heads * d_still) {
            None => (row / d_still, row % d_still),
            Some(value) => (value / d_value, d_still + value % d_value),
        };
        head * (d_still + d_value) + within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(neighbours: bool) -> LatentShape {
        LatentShape {
            query_rank: None,
            key_value_rank: 2,
            d_rotated: 4,
            d_still: 2,
            d_value: 1,
            neighbours,
            bias: false,
        }
    }

    #[test]
    fn rows_come_from_where_checkpoints_have_them() {
        let rows =
            |neighbours| (0..12).map(|row| shape(neighbours).stored_query_row(row)).collect::<Vec<_>>();
        assert_eq!(rows(false), [2, 3, 4, 5, 0, 1, 8, 9, 10, 11, 6, 7]);
        assert_eq!(rows(true), [2, 4, 3, 5, 0, 1, 8, 10, 9, 11, 6, 7]);
        let keys_values = (0..6).map(|row| shape(true).stored_key_value_row(row, 2)).collect::<Vec<_>>();
        assert_eq!(keys_values, [0, 1, 3, 4, 2, 5]);
    }
}
