//! Causal self-attention with grouped keys and values, for every family.

use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData, activation::softmax},
};
use rayon::prelude::*;

use crate::{
    host,
    linear::Linear,
    positions::{Positions, Rotation, Tables},
    rotary::{rotate, rotate_rows},
};

/// Multi-head attention; query heads share key and value heads in equal groups.
#[derive(Module, Debug)]
pub(crate) struct Attention {
    /// Queries, keys and values of all heads in one product.
    pub(crate) qkv: Linear,
    pub(crate) output: Linear,
    #[module(skip)]
    pub(crate) heads: Heads,
}

/// The shape of an [`Attention`].
#[derive(Clone, Debug)]
pub(crate) struct Heads {
    pub(crate) n_heads: usize,
    pub(crate) n_kv_heads: usize,
    pub(crate) d_head: usize,
    /// What scores are multiplied with before the softmax.
    pub(crate) scale: f64,
}

/// Queries, keys and values, rotated: `[batch, heads, seq, d_head]` each.
type Qkv = [Tensor<4>; 3];

impl Attention {
    /// # Shapes
    /// `x` and the result: `[batch, seq, d_model]`.
    pub(crate) fn forward(&self, x: Tensor<3>, positions: &Positions) -> Tensor<3> {
        let [batch, seq, _] = x.dims();
        let Heads { n_heads, n_kv_heads, d_head, scale } = self.heads;
        let tables = positions.tables(seq, &x.device());
        let qkv = self.qkv.forward_sequence(x);
        let [q, k, v] = if host::applies(&qkv) {
            self.heads.split_on_host(qkv, &tables)
        } else {
            self.heads.split(qkv, &tables)
        };

        // The query heads of a group become further rows of one product: keys and values need not be repeated.
        let group_rows = n_heads / n_kv_heads * seq;
        let q = q.reshape([batch, n_kv_heads, group_rows, d_head]);
        let scores = q.matmul(k.transpose()).reshape([batch, n_heads, seq, seq]);
        let pattern = tables.pattern(scores, scale).reshape([batch, n_kv_heads, group_rows, seq]);
        let z = pattern.matmul(v).reshape([batch, n_heads, seq, d_head]);
        self.output.forward_sequence(z.swap_dims(1, 2).reshape([batch, seq, n_heads * d_head]))
    }
}

impl Tables {
    /// The share of attention that each query pays to each key: softmax over the keys that it sees.
    ///
    /// # Shapes
    /// `scores` and the result: `[batch, heads, seq, seq]`.
    fn pattern(&self, scores: Tensor<4>, scale: f64) -> Tensor<4> {
        match &self.hidden {
            Some(hidden) => {
                let scores = (scores * scale).mask_fill(hidden.clone().unsqueeze::<4>(), f32::NEG_INFINITY);
                softmax(scores, 3)
            }
            None => host::map_rows(scores, |i, row| {
                let seen = self.seen(i % self.seq_len);
                row[..seen.start].fill(0.0);
                row[seen.end..].fill(0.0);
                host::softmax(&mut row[seen], scale as f32);
            }),
        }
    }
}

impl Heads {
    /// Separates and rotates the heads.
    ///
    /// # Shapes
    /// `qkv`: `[batch, seq, (heads + 2 kv_heads) d_head]`.
    fn split(&self, qkv: Tensor<3>, tables: &Tables) -> Qkv {
        let Self { n_heads, n_kv_heads, d_head, .. } = *self;
        let [batch, seq, _] = qkv.dims();
        let qkv = qkv.reshape([batch, seq, n_heads + 2 * n_kv_heads, d_head]).swap_dims(1, 2);
        let v = qkv.clone().narrow(1, n_heads + n_kv_heads, n_kv_heads);
        let rotated = qkv.narrow(1, 0, n_heads + n_kv_heads);
        let rotated = match &tables.rotation {
            Some(Rotation { cos, sin, .. }) => rotate(rotated, cos.clone(), sin.clone()),
            None => rotated,
        };
        [rotated.clone().narrow(1, 0, n_heads), rotated.narrow(1, n_heads, n_kv_heads), v]
    }

    /// As [`Heads::split`], in one pass.
    fn split_on_host(&self, qkv: Tensor<3>, tables: &Tables) -> Qkv {
        let Self { n_heads, n_kv_heads, .. } = *self;
        let (device, [batch, ..]) = (qkv.device(), qkv.dims());
        let data = qkv.into_data();
        let values = data.as_slice::<f32>().expect("weights and activations are f32");
        let rotation = tables.rotation.as_ref();
        let part =
            |first, n, rotation| self.gather(values, batch, first, n, rotation, tables.seq_len, &device);
        let (q, k) = (part(0, n_heads, rotation), part(n_heads, n_kv_heads, rotation));
        [q, k, part(n_heads + n_kv_heads, n_kv_heads, None)]
    }

    /// The `n` heads from head `first` on, out of rows of all heads.
    #[expect(clippy::too_many_arguments, reason = "one loop, three times")]
    fn gather(
        &self,
        rows: &[f32],
        batch: usize,
        first: usize,
        n: usize,
        rotation: Option<&Rotation>,
        seq: usize,
        device: &Device,
    ) -> Tensor<4> {
        let d = self.d_head;
        let width = (self.n_heads + 2 * self.n_kv_heads) * d;
        let mut gathered = vec![0.0; batch * n * seq * d];
        gathered.par_chunks_exact_mut(seq * d).enumerate().for_each(|(i, head)| {
            let (sequence, column) = (i / n, (first + i % n) * d);
            for (position, to) in head.chunks_exact_mut(d).enumerate() {
                to.copy_from_slice(&rows[(sequence * seq + position) * width + column..][..d]);
            }
            if let Some(Rotation { host: (cos, sin), .. }) = rotation {
                rotate_rows(head, d, cos, sin);
            }
        });
        Tensor::from_data(TensorData::new(gathered, [batch, n, seq, d]), device)
    }
}
