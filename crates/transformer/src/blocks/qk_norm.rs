//! Norms of queries and keys before they are rotated: of each head (Qwen 3, Gemma 3) or of all heads as one (OLMo 2).

use burn::{module::Module, tensor::Tensor};

use super::norm::{RmsNorm, host_values, inverse_root_mean_square};
use crate::host;

/// Normalises what one [`Attention::qkv`](super::attention::Attention) gives.
#[derive(Module, Debug)]
pub(crate) struct QkNorm {
    /// `[d_head]`, or `[heads d_head]` where all heads are normalised as one.
    pub(crate) query: RmsNorm,
    /// `[d_head]`, or `[kv_heads d_head]`.
    pub(crate) key: RmsNorm,
    /// How many queries there are a position: `heads d_head`.
    pub(crate) queries: usize,
    /// How many keys: `kv_heads d_head`.
    pub(crate) keys: usize,
}

impl QkNorm {
    /// # Shapes
    /// `qkv` and the result: `[batch, seq, queries + keys + values]`.
    pub(crate) fn forward(&self, qkv: Tensor<3>) -> Tensor<3> {
        let Self { query, key, queries, keys } = self;
        if host::applies(&qkv) {
            let parts = [query, key].map(|norm| (host_values(&norm.weight), norm.epsilon));
            return host::map_rows(qkv, |_, row| {
                let (row_queries, rest) = row.split_at_mut(*queries);
                for (part, (weight, epsilon)) in [row_queries, &mut rest[..*keys]].into_iter().zip(&parts) {
                    for head in part.chunks_exact_mut(weight.len()) {
                        let factor = inverse_root_mean_square(head, *epsilon);
                        head.iter_mut().zip(weight).for_each(|(x, w)| *x *= factor * w);
                    }
                }
            });
        }
        let [batch, seq, width] = qkv.dims();
        let normed = |norm: &RmsNorm, begin: usize, width: usize| {
            let d = norm.weight.dims()[0];
            let part = qkv.clone().narrow(2, begin, width).reshape([batch, seq * width / d, d]);
            norm.forward(part).reshape([batch, seq, width])
        };
        let rest = qkv.clone().narrow(2, queries + keys, width - queries - keys);
        Tensor::cat(vec![normed(query, 0, *queries), normed(key, *queries, *keys), rest], 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::linear::parameter;
    use burn::tensor::{Device, TensorData};

    /// Two heads of queries, one of keys, one of values, two wide each.
    #[test]
    fn by_hand_on_both_paths() {
        for device in [Device::flex(), Device::flex().autodiff()] {
            let norm = |weight: &[f32]| RmsNorm {
                weight: parameter([weight.len()], weight.to_vec(), &device),
                epsilon: 0.0,
            };
            let forward = |query: &[f32], values: [f32; 8]| {
                let (query, key) = (norm(query), norm(&[10.0, 10.0]));
                let qkv = Tensor::from_data(TensorData::new(values.to_vec(), [1, 1, 8]), &device);
                let normed = QkNorm { query, key, queries: 4, keys: 2 }.forward(qkv);
                normed.into_data().iter::<f32>().collect::<Vec<_>>()
            };
            // Root mean squares of the heads: 5, 2 and 1.
            let heads = forward(&[1.0, 2.0], [7.0, 1.0, 2.0, 2.0, 1.0, -1.0, 3.0, 4.0]);
            assert_eq!(heads, [1.4, 0.4, 1.0, 2.0, 10.0, -10.0, 3.0, 4.0]);
            // Of all queries: 2.
            let whole = forward(&[1.0, 1.0, 1.0, 3.0], [2.0, -2.0, 2.0, 2.0, 1.0, -1.0, 3.0, 4.0]);
            assert_eq!(whole, [1.0, -1.0, 1.0, 3.0, 10.0, -10.0, 3.0, 4.0]);
        }
    }
}
