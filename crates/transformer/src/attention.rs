//! Causal self-attention with grouped keys and values, for every family.

use burn::{
    module::Module,
    tensor::{Tensor, activation::softmax, module::attention, ops::AttentionModuleOptions},
};

use crate::{
    host,
    linear::Linear,
    positions::{Positions, Tables},
    rotary::rotate,
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

impl Attention {
    /// # Shapes
    /// `x` and the result: `[batch, seq, d_model]`.
    pub(crate) fn forward(&self, x: Tensor<3>, positions: &Positions) -> Tensor<3> {
        let [batch, seq, _] = x.dims();
        let Heads { n_heads, n_kv_heads, d_head, scale } = self.heads;
        let tables = positions.tables(seq, &x.device());
        let on_host = host::applies(&x);

        let qkv = self.qkv.forward_sequence(x);
        let qkv = qkv.reshape([batch, seq, n_heads + 2 * n_kv_heads, d_head]).swap_dims(1, 2);
        let rotated = qkv.clone().narrow(1, 0, n_heads + n_kv_heads);
        let v = qkv.narrow(1, n_heads + n_kv_heads, n_kv_heads);
        let rotated = match &tables.rotation {
            Some(rotation) => rotate(rotated, rotation.cos.clone(), rotation.sin.clone()),
            None => rotated,
        };
        let q = rotated.clone().narrow(1, 0, n_heads);
        let k = rotated.narrow(1, n_heads, n_kv_heads);

        let z = if on_host { fused(q, k, v, &tables, scale) } else { grouped(q, k, v, &tables, scale) };
        self.output.forward_sequence(z.swap_dims(1, 2).reshape([batch, seq, n_heads * d_head]))
    }
}

/// flex's own attention: parallel over heads, and key and value heads are shared without a copy.
fn fused(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, tables: &Tables, scale: f64) -> Tensor<4> {
    let is_causal = tables.is_causal;
    let mask = (!is_causal).then(|| tables.hidden.clone().unsqueeze::<4>());
    let options = AttentionModuleOptions { scale: Some(scale), is_causal, ..Default::default() };
    attention(q, k, v, mask, None, options)
}

/// Attention of plain tensor operations, for devices without a fused one and for gradients. The query heads of
/// a group become further rows of one product, so that keys and values need not be repeated.
///
/// # Shapes
/// `q`: `[batch, heads, seq, d_head]`; `k`, `v`: `[batch, kv_heads, seq, d_head]`. Result: as `q`.
fn grouped(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, tables: &Tables, scale: f64) -> Tensor<4> {
    let [batch, n_heads, seq, d_head] = q.dims();
    let n_kv_heads = k.dims()[1];
    let group_rows = n_heads / n_kv_heads * seq;
    let q = q.reshape([batch, n_kv_heads, group_rows, d_head]) * scale;
    let scores = q.matmul(k.transpose()).reshape([batch, n_heads, seq, seq]);
    let scores = scores.mask_fill(tables.hidden.clone().unsqueeze::<4>(), f32::NEG_INFINITY);
    let pattern = softmax(scores, 3).reshape([batch, n_kv_heads, group_rows, seq]);
    pattern.matmul(v).reshape([batch, n_heads, seq, d_head])
}
