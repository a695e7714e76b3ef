//! Causal self-attention with grouped keys and values, in the pieces between which hooks lie.

use std::ops::Range;

use burn::{
    module::Module,
    tensor::{
        DType, Device, Tensor, TensorData, activation::softmax, module::attention,
        ops::AttentionModuleOptions,
    },
};
use rayon::prelude::*;

use super::{
    latent::Latent,
    linear::Linear,
    positions::{Positions, Rotation, Tables},
    qk_norm::QkNorm,
    rotary::{rotate, rotate_rows},
};
use crate::host;

/// Multi-head attention; query heads share key and value heads in equal groups.
#[derive(Module, Debug)]
pub(crate) struct Attention {
    /// Queries, keys and values of all heads in one product; or their latents.
    pub(crate) qkv: Linear,
    pub(crate) qk_norm: Option<QkNorm>,
    /// What makes queries, keys and values of latents.
    pub(crate) latent: Option<Latent>,
    pub(crate) output: Linear,
    #[module(skip)]
    pub(crate) heads: Heads,
    #[module(skip)]
    pub(crate) positions: Positions,
}

/// The shape of an [`Attention`].
#[derive(Clone, Debug)]
pub(crate) struct Heads {
    pub(crate) n_heads: usize,
    pub(crate) n_kv_heads: usize,
    pub(crate) d_head: usize,
    pub(crate) scores: Scores,
}

/// What scores go through before the softmax.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scores {
    /// What they are multiplied with.
    pub(crate) scale: f64,
    /// Then they are kept within this by a hyperbolic tangent.
    pub(crate) soft_cap: Option<f64>,
}

/// Queries, keys and values, rotated: `[batch, heads, seq, d_head]` each (values may be of another width).
pub(super) type Qkv = [Tensor<4>; 3];

impl Attention {
    /// What every head gathers: `[batch, seq, heads d_head]`.
    ///
    /// # Shapes
    /// `x`: `[batch, seq, d_model]`.
    pub(crate) fn z(&self, x: Tensor<3>) -> Tensor<3> {
        let tables = self.positions.tables(x.dims()[1], &x.device());
        let [q, k, v] = self.qkv(x, &tables);
        let scores = self.heads.scores;
        // A window is a mask of all pairs of positions to burn's kernels; ours leaves out what lies before it.
        let whole = tables.window >= tables.seq_len;
        let fused = whole && !tables.masked_on_host && !q.device().is_autodiff();
        merged(if fused {
            attend_fused(q, k, v, scores, self.output.precision())
        } else {
            attend(&q, &k, &v, &tables, scores, QUERIES)
        })
    }

    /// The share of attention that each position pays to each, and the values that it is paid to: what
    /// [`Attention::gather`] takes.
    ///
    /// # Shapes
    /// `x`: `[batch, seq, d_model]`. Results: `[batch, query, heads * keys]`, `[batch, kv_heads, seq, d_head]`.
    pub(crate) fn pattern(&self, x: Tensor<3>) -> (Tensor<3>, Tensor<4>) {
        let seq = x.dims()[1];
        let tables = self.positions.tables(seq, &x.device());
        let [q, k, v] = self.qkv(x, &tables);
        (merged(tables.pattern(&q, &k, self.heads.scores, 0..seq)), v)
    }

    /// What every head gathers of `values` by `pattern`: [`Attention::z`] in two steps.
    pub(crate) fn gather(&self, pattern: Tensor<3>, values: &Tensor<4>) -> Tensor<3> {
        let [batch, seq, width] = pattern.dims();
        let n_heads = self.heads.n_heads;
        let pattern = pattern.reshape([batch, seq, n_heads, width / n_heads]).swap_dims(1, 2);
        merged(gather(pattern, values.clone()))
    }

    /// # Shapes
    /// `z`: `[batch, seq, heads d_head]`. Result: `[batch, seq, d_model]`.
    pub(crate) fn output(&self, z: Tensor<3>) -> Tensor<3> {
        self.output.forward_sequence(z)
    }

    fn qkv(&self, x: Tensor<3>, tables: &Tables) -> Qkv {
        let mut qkv = self.qkv.forward_sequence(x);
        if let Some(latent) = &self.latent {
            return latent.expand(qkv, self.heads.n_heads, tables);
        }
        if let Some(norm) = &self.qk_norm {
            qkv = norm.forward(qkv);
        }
        if host::applies(&qkv) {
            self.heads.split_on_host(qkv, tables)
        } else {
            self.heads.split(qkv, tables)
        }
    }
}

/// How many queries are worked on at a time: with a context of 8192, scores of all of them would take gigabytes.
const QUERIES: usize = 512;

/// `softmax(q kᵀ scale) v` over the keys that each query sees, `queries_at_once` at a time: no block has more keys
/// than its last query sees, nor any before those that its first one sees.
///
/// # Shapes
/// `q`: `[batch, heads, seq, d_head]`; `k`: `[batch, kv_heads, seq, d_head]`; `v`: `[batch, kv_heads, seq, d_value]`.
/// Result: `[batch, heads, seq, d_value]`.
fn attend(
    q: &Tensor<4>,
    k: &Tensor<4>,
    v: &Tensor<4>,
    tables: &Tables,
    scores: Scores,
    queries_at_once: usize,
) -> Tensor<4> {
    let seq = q.dims()[2];
    let block = |begin: usize| {
        let queries = begin..(begin + queries_at_once).min(seq);
        let keys = tables.seen(begin).start..queries.end;
        let q = q.clone().narrow(2, begin, queries.len());
        let [k, v] = [k, v].map(|x| x.clone().narrow(2, keys.start, keys.len()));
        gather(tables.pattern(&q, &k, scores, queries), v)
    };
    let mut blocks: Vec<_> = (0..seq).step_by(queries_at_once).map(block).collect();
    if blocks.len() == 1 { blocks.remove(0) } else { Tensor::cat(blocks, 2) }
}

/// As [`attend`] without a window, in one kernel of the device where burn has one, and in `precision`.
fn attend_fused(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, scores: Scores, precision: DType) -> Tensor<4> {
    let Scores { scale, soft_cap } = scores;
    let options = AttentionModuleOptions { scale: Some(scale), softcap: soft_cap, is_causal: true };
    let group = q.dims()[1] / k.dims()[1];
    let [k, v] = [k, v].map(|x| {
        let [batch, n_kv_heads, seq, d] = x.dims();
        let repeated = x.unsqueeze_dim::<5>(2).expand([batch, n_kv_heads, group, seq, d]);
        repeated.reshape([batch, n_kv_heads * group, seq, d]).cast(precision)
    });
    attention(q.cast(precision), k, v, None, None, options).cast(DType::F32)
}

/// `pattern v`, where the query heads of a group are further rows of one product: values need not be repeated.
///
/// # Shapes
/// `pattern`: `[batch, heads, queries, keys]`; `v`: `[batch, kv_heads, keys, d]`. Result: `[batch, heads, queries, d]`.
fn gather(pattern: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    let [batch, n_heads, queries, keys] = pattern.dims();
    let [_, n_kv_heads, _, d] = v.dims();
    let pattern = pattern.reshape([batch, n_kv_heads, n_heads / n_kv_heads * queries, keys]);
    pattern.matmul(v).reshape([batch, n_heads, queries, d])
}

/// The heads side by side: `[batch, heads, seq, d]` to `[batch, seq, heads * d]`.
fn merged(x: Tensor<4>) -> Tensor<3> {
    let [batch, n_heads, seq, d] = x.dims();
    x.swap_dims(1, 2).reshape([batch, seq, n_heads * d])
}

impl Tables {
    /// The share of attention that each of `queries` pays to each key: softmax over the keys that it sees. The keys
    /// are those up to the last query.
    ///
    /// # Shapes
    /// `q`: `[batch, heads, queries, d_head]`; `k`: `[batch, kv_heads, keys, d_head]`. Result: `[batch, heads, queries,
    /// keys]`.
    fn pattern(&self, q: &Tensor<4>, k: &Tensor<4>, scores: Scores, queries: Range<usize>) -> Tensor<4> {
        let [batch, n_heads, n_queries, d_head] = q.dims();
        let [_, n_kv_heads, n_keys, _] = k.dims();
        let keys = queries.end - n_keys..queries.end;
        let Scores { scale, soft_cap } = scores;
        let q = q.clone().reshape([batch, n_kv_heads, n_heads / n_kv_heads * n_queries, d_head]);
        let x = q.matmul(k.clone().transpose()).reshape([batch, n_heads, n_queries, n_keys]);
        if !self.masked_on_host {
            let hidden = self.hidden().clone().slice([queries, keys]).unsqueeze::<4>();
            let x = match soft_cap {
                Some(cap) => (x * (scale / cap)).tanh() * cap,
                None => x * scale,
            };
            return softmax(x.mask_fill(hidden, f32::NEG_INFINITY), 3);
        }
        host::map_rows(x, |i, row| {
            let seen = self.seen(queries.start + i % n_queries);
            let seen = seen.start - keys.start..seen.end - keys.start;
            row[..seen.start].fill(0.0);
            row[seen.end..].fill(0.0);
            let row = &mut row[seen];
            if let Some(cap) = soft_cap {
                let (scale, cap) = (scale as f32, cap as f32);
                row.iter_mut().for_each(|x| *x = host::soft_cap(*x * scale, cap));
                host::softmax(row, 1.0);
            } else {
                host::softmax(row, scale as f32);
            }
        })
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
            if let Some(Rotation { host: (cos, sin), half, .. }) = rotation {
                rotate_rows(head, d, *half, cos, sin);
            }
        });
        Tensor::from_data(TensorData::new(gathered, [batch, n, seq, d]), device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::{Rope, random::normal};
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
    fn blocks_of_queries_and_all_paths_agree() {
        let run = |device: &Device, window: Option<usize>, soft_cap: Option<f64>, queries: usize| {
            let tables = Positions::new(None, window).tables(11, device);
            let [q, k, v] =
                [("q", 6), ("k", 2), ("v", 2)].map(|(name, heads)| random([2, heads, 11, 4], name, device));
            attend(&q, &k, &v, &tables, Scores { scale: 0.5, soft_cap }, queries).into_data()
        };
        for (window, cap) in
            [(None, None), (Some(3), None), (Some(1), None), (None, Some(1.5)), (Some(3), Some(1.5))]
        {
            let whole = run(&Device::flex(), window, cap, 11);
            for queries in [1, 2, 4, 10] {
                for device in [Device::flex(), Device::flex().autodiff()] {
                    let error = worst(&run(&device, window, cap, queries), &whole);
                    assert!(error < 1e-6, "window {window:?}, {queries} queries: {error:.1e}");
                }
            }
            if window.is_none() {
                let fused = |precision| {
                    let [q, k, v] = [("q", 6), ("k", 2), ("v", 2)]
                        .map(|(name, heads)| random([2, heads, 11, 4], name, &Device::flex()));
                    attend_fused(q, k, v, Scores { scale: 0.5, soft_cap: cap }, precision).into_data()
                };
                assert!(worst(&fused(DType::F32), &whole) < 1e-6, "cap {cap:?}");
                // Of values that are rounded by 2⁻⁹.
                let rounded = worst(&fused(DType::BF16), &whole);
                assert!((1e-4..4e-2).contains(&rounded), "cap {cap:?}: {rounded:.1e}");
            }
        }
    }

    #[test]
    fn heads_are_separated_alike_on_both_paths() {
        let scores = Scores { scale: 1.0, soft_cap: None };
        let heads = Heads { n_heads: 4, n_kv_heads: 2, d_head: 6, scores };
        let rope = |d_rotated| Some(Rope { d_rotated, theta: 100.0, scaling: None });
        for rope in [None, rope(6), rope(4)] {
            let split = |device: &Device| {
                let tables = Positions::new(rope.clone(), None).tables(5, device);
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
