//! Causal self-attention with grouped keys and values, for every family.

use std::ops::Range;

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
        let Heads { n_heads, d_head, scale, .. } = self.heads;
        let tables = positions.tables(seq, &x.device());
        let qkv = self.qkv.forward_sequence(x);
        let [q, k, v] = if host::applies(&qkv) {
            self.heads.split_on_host(qkv, &tables)
        } else {
            self.heads.split(qkv, &tables)
        };

        let z = attend(&q, &k, &v, &tables, scale, QUERIES);
        self.output.forward_sequence(z.swap_dims(1, 2).reshape([batch, seq, n_heads * d_head]))
    }
}

/// How many queries are worked on at a time: with a context of 8192, scores of all of them would take gigabytes.
const QUERIES: usize = 512;

/// `softmax(q kᵀ scale) v` over the keys that each query sees, `queries_at_once` at a time: no block has more keys
/// than its last query sees, nor any before those that its first one sees.
///
/// # Shapes
/// `q` and the result: `[batch, heads, seq, d_head]`; `k`, `v`: `[batch, kv_heads, seq, d_head]`.
fn attend(
    q: &Tensor<4>,
    k: &Tensor<4>,
    v: &Tensor<4>,
    tables: &Tables,
    scale: f64,
    queries_at_once: usize,
) -> Tensor<4> {
    let [batch, n_heads, seq, d_head] = q.dims();
    let n_kv_heads = k.dims()[1];
    let block = |begin: usize| {
        let queries = begin..(begin + queries_at_once).min(seq);
        let keys = tables.seen(begin).start..queries.end;
        // The query heads of a group become further rows of one product: keys and values need not be repeated.
        let group_rows = n_heads / n_kv_heads * queries.len();
        let q = q.clone().narrow(2, begin, queries.len()).reshape([batch, n_kv_heads, group_rows, d_head]);
        let [k, v] = [k, v].map(|x| x.clone().narrow(2, keys.start, keys.len()));
        let scores = q.matmul(k.transpose()).reshape([batch, n_heads, queries.len(), keys.len()]);
        let pattern = tables.pattern(scores, scale, queries.clone(), keys.clone());
        let z = pattern.reshape([batch, n_kv_heads, group_rows, keys.len()]).matmul(v);
        z.reshape([batch, n_heads, queries.len(), d_head])
    };
    let mut blocks: Vec<_> = (0..seq).step_by(queries_at_once).map(block).collect();
    if blocks.len() == 1 { blocks.remove(0) } else { Tensor::cat(blocks, 2) }
}

impl Tables {
    /// The share of attention that each query pays to each key: softmax over the keys that it sees.
    ///
    /// # Shapes
    /// `scores` and the result: `[batch, heads, queries, keys]`.
    fn pattern(&self, scores: Tensor<4>, scale: f64, queries: Range<usize>, keys: Range<usize>) -> Tensor<4> {
        match &self.hidden {
            Some(hidden) => {
                let hidden = hidden.clone().slice([queries, keys]).unsqueeze::<4>();
                softmax((scores * scale).mask_fill(hidden, f32::NEG_INFINITY), 3)
            }
            None => host::map_rows(scores, |i, row| {
                let seen = self.seen(queries.start + i % queries.len());
                let seen = seen.start - keys.start..seen.end - keys.start;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{random::normal, rotary::Rotary};
    use monosema_core::Seed;

    fn random(shape: [usize; 4], name: &str, device: &Device) -> Tensor<4> {
        let values = normal(shape.iter().product(), 1.0, &mut Seed(1).stream(name));
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    fn worst(a: &TensorData, b: &TensorData) -> f32 {
        assert_eq!(a.shape(), b.shape());
        a.iter::<f32>().zip(b.iter::<f32>()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn blocks_of_queries_and_both_paths_agree() {
        let run = |device: &Device, window: Option<usize>, queries: usize| {
            let tables = Positions::new(None, window).tables(11, device);
            let [q, k, v] =
                [("q", 6), ("k", 2), ("v", 2)].map(|(name, heads)| random([2, heads, 11, 4], name, device));
            attend(&q, &k, &v, &tables, 0.5, queries).into_data()
        };
        for window in [None, Some(3), Some(1)] {
            let whole = run(&Device::flex(), window, 11);
            for queries in [1, 2, 4, 10] {
                for device in [Device::flex(), Device::flex().autodiff()] {
                    let error = worst(&run(&device, window, queries), &whole);
                    assert!(error < 1e-6, "window {window:?}, {queries} queries: {error:.1e}");
                }
            }
        }
    }

    #[test]
    fn heads_are_separated_alike_on_both_paths() {
        let heads = Heads { n_heads: 4, n_kv_heads: 2, d_head: 6, scale: 1.0 };
        for rotary in [None, Some(Rotary::new(6, 100.0, None))] {
            let split = |device: &Device| {
                let tables = Positions::new(rotary.clone(), None).tables(5, device);
                let qkv = random([1, 3, 5, 8 * 6], "qkv", device).squeeze_dim(0);
                if host::applies(&qkv) {
                    heads.split_on_host(qkv, &tables)
                } else {
                    heads.split(qkv, &tables)
                }
            };
            let pairs = split(&Device::flex()).into_iter().zip(split(&Device::flex().autodiff()));
            for (fast, plain) in pairs {
                assert!(worst(&fast.into_data(), &plain.into_data()) < 1e-6);
            }
        }
    }
}
