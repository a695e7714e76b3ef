//! Tokens in, logits out: the embedding and the output, which may be the same matrix.

use std::ops::Range;

use burn::{
    module::{Module, Param},
    tensor::{DType, Int, Tensor},
};

use super::linear::{Linear, product};
use crate::host;

/// The embedding of tokens and positions, and the map from final hidden states to logits.
#[derive(Module, Debug)]
pub(crate) struct Embedding {
    /// `[d_vocab, d_model]`.
    pub(crate) weight: Param<Tensor<2>>,
    /// What embedded tokens are multiplied with.
    #[module(skip)]
    pub(crate) scale: Option<f64>,
    /// `[max_context, d_model]`, where positions are embedded.
    pub(crate) positions: Option<Param<Tensor<2>>>,
    /// None if it is the transposed embedding (tied).
    pub(crate) output: Option<Linear>,
    /// Logits are kept within this by a hyperbolic tangent.
    #[module(skip)]
    pub(crate) soft_cap: Option<f64>,
}

impl Embedding {
    /// # Shapes
    /// `tokens`: `[batch, seq]`. Result: `[batch, seq, d_model]`, without positions.
    pub(crate) fn embed(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let [batch, seq] = tokens.dims();
        let rows = self.weight.val().select(0, tokens.reshape([batch * seq]));
        let d_model = rows.dims()[1];
        let rows = rows.reshape([batch, seq, d_model]).cast(DType::F32);
        match self.scale {
            Some(scale) => rows * scale,
            None => rows,
        }
    }

    /// Adds the embedding of the positions, if there is one.
    ///
    /// # Shapes
    /// `x` and the result: `[batch, seq, d_model]`.
    pub(crate) fn add_positions(&self, x: Tensor<3>) -> Tensor<3> {
        let Some(positions) = &self.positions else { return x };
        let seq = x.dims()[1];
        x + positions.val().narrow(0, 0, seq).cast(DType::F32).unsqueeze()
    }

    /// # Shapes
    /// `hidden`: `[n, d_model]`. Result: `[n, d_vocab]`.
    pub(crate) fn unembed(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.capped(match &self.output {
            Some(output) => output.forward(hidden),
            None => product(hidden, self.weight.val().transpose()),
        })
    }

    /// As [`Embedding::unembed`], the logits of some tokens alone.
    ///
    /// # Shapes
    /// `hidden`: `[n, d_model]`. Result: `[n, tokens.len()]`.
    pub(crate) fn unembed_tokens(&self, hidden: Tensor<2>, tokens: Range<usize>) -> Tensor<2> {
        self.capped(match &self.output {
            Some(output) => output.forward_columns(hidden, tokens),
            None => {
                let embedded = self.weight.val().narrow(0, tokens.start, tokens.len());
                product(hidden, embedded.transpose())
            }
        })
    }

    fn capped(&self, logits: Tensor<2>) -> Tensor<2> {
        match self.soft_cap {
            Some(cap) => soft_capped(logits, cap),
            None => logits,
        }
    }
}

/// `cap tanh(x / cap)` (Bello et al., 2016, arXiv:1611.09940).
fn soft_capped(x: Tensor<2>, cap: f64) -> Tensor<2> {
    if host::applies(&x) {
        return host::map(x, |x| host::soft_cap(x, cap as f32));
    }
    (x / cap).tanh() * cap
}
