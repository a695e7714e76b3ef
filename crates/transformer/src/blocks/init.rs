//! Models of random weights.

use burn::tensor::Device;
use rand::Rng;

use super::{
    Block, BlockShape, Linear, NormKind, Shape, Transformer,
    attention::Attention,
    embedding::Embedding,
    linear::parameter,
    mlp::Mlp,
    norm::{LayerNorm, Norm, RmsNorm},
    positions::Positions,
    qk_norm::QkNorm,
    random::normal,
};

/// The standard deviation of weights.
const STD: f64 = 0.02;

impl Transformer {
    /// A model of random weights: normal with standard deviation 0.02, on maps into the residual stream less by
    /// `sqrt(2 n_layers)` (Radford et al., 2019); biases 0, norms 1. `shape` has been checked, and is one without latents or experts.
    pub(crate) fn init(shape: &Shape, rng: &mut impl Rng, device: &Device) -> Self {
        let into_stream = STD / (2.0 * shape.blocks.len() as f64).sqrt();
        let mut init = Init { shape, into_stream, rng, device };
        let Shape { d_vocab, d_model, max_context, .. } = *shape;
        let mut embedded = |n: usize| parameter([n, d_model], normal(n * d_model, STD, init.rng), device);
        let weight = embedded(d_vocab);
        let embedded_positions = shape.embedded_positions.then(|| embedded(max_context));
        let blocks = shape.blocks.iter().zip(shape.positions());
        let blocks = blocks.map(|(block, positions)| init.block(block, positions)).collect();
        let output = (!shape.tied).then(|| init.linear(d_vocab, d_model, STD, false));
        Self {
            embedding: Embedding {
                weight,
                scale: shape.embedding_scale,
                positions: embedded_positions,
                output,
                soft_cap: shape.logit_soft_cap,
            },
            blocks,
            final_norm: init.norm(),
            shape: shape.clone(),
        }
    }
}

struct Init<'a, R> {
    shape: &'a Shape,
    into_stream: f64,
    rng: &'a mut R,
    device: &'a Device,
}

impl<R: Rng> Init<'_, R> {
    fn block(&mut self, shape: &BlockShape, positions: Positions) -> Block {
        assert!(shape.attention.latent.is_none() && shape.experts.is_none(), "only frozen models have these");
        let (d_model, into_stream) = (self.shape.d_model, self.into_stream);
        let attention = &shape.attention;
        let (queries, keys) = (attention.d_queries(), attention.d_keys());
        let qk_norm = attention.qk_norm_widths().map(|widths| {
            let [query, key] = widths.map(|width| self.rms_norm(width));
            QkNorm { query, key, queries, keys }
        });
        let attention = Attention {
            qkv: self.linear(queries + 2 * keys, d_model, STD, attention.qkv_bias),
            qk_norm,
            latent: None,
            output: self.linear(d_model, queries, into_stream, attention.output_bias),
            heads: attention.heads(),
            positions,
        };
        let mlp = &shape.mlp;
        let d_up = if mlp.gated { 2 * mlp.d_mlp } else { mlp.d_mlp };
        let mlp = Mlp {
            up: self.linear(d_up, d_model, STD, mlp.bias),
            down: self.linear(d_model, mlp.d_mlp, into_stream, mlp.bias),
            activation: mlp.activation,
            gated: mlp.gated,
        };
        let (before, after) = (shape.norms.before(), shape.norms.after());
        Block {
            attention_norm: before.then(|| self.norm()),
            attention,
            post_attention_norm: after.then(|| self.norm()),
            mlp_norm: before.then(|| self.norm()),
            mlp,
            experts: None,
            post_mlp_norm: after.then(|| self.norm()),
            parallel: shape.parallel,
        }
    }

    fn linear(&mut self, d_out: usize, d_in: usize, std: f64, bias: bool) -> Linear {
        let weight = normal(d_out * d_in, std, self.rng);
        Linear::new([d_in, d_out], weight, bias.then(|| vec![0.0; d_out]), self.device)
    }

    fn norm(&self) -> Norm {
        let RmsNorm { weight, epsilon } = self.rms_norm(self.shape.d_model);
        match self.shape.norm {
            NormKind::Rms => Norm::Rms(RmsNorm { weight, epsilon }),
            NormKind::Layer => {
                let d_model = self.shape.d_model;
                let bias = parameter([d_model], vec![0.0; d_model], self.device);
                Norm::Layer(LayerNorm { weight, bias, epsilon })
            }
        }
    }

    fn rms_norm(&self, width: usize) -> RmsNorm {
        RmsNorm {
            weight: parameter([width], vec![1.0; width], self.device),
            epsilon: self.shape.norm_epsilon,
        }
    }
}
