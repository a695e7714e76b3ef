//! Tokens in, logits out: the embedding and the output, which may be the same matrix.

use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor},
};

use crate::{
    ModelError,
    linear::{Linear, parameter},
    weights::Weights,
};

/// The embedding of tokens, and the map from final hidden states to logits.
#[derive(Module, Debug)]
pub(crate) struct Embedding {
    /// `[d_vocab, d_model]`.
    pub(crate) weight: Param<Tensor<2>>,
    /// None if it is the transposed embedding (tied).
    pub(crate) output: Option<Linear>,
}

impl Embedding {
    /// Takes the tensor `name [d_vocab, d_model]`, and `output` of the same shape unless it is `tied`.
    pub(crate) fn load(
        [name, output]: [&str; 2],
        shape: [usize; 2],
        tied: bool,
        weights: &mut Weights,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let values = weights.take(name, shape)?;
        let output = if tied {
            weights.take_copy(output, shape, &values, name)?;
            None
        } else {
            Some(Linear::from_torch(shape, weights.take(output, shape)?, None, device))
        };
        Ok(Self { weight: parameter(shape, values, device), output })
    }

    /// # Shapes
    /// `tokens`: `[batch, seq]`. Result: `[batch, seq, d_model]`.
    pub(crate) fn embed(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let [batch, seq] = tokens.dims();
        let rows = self.weight.val().select(0, tokens.reshape([batch * seq]));
        let d_model = rows.dims()[1];
        rows.reshape([batch, seq, d_model])
    }

    /// # Shapes
    /// `hidden`: `[n, d_model]`. Result: `[n, d_vocab]`.
    pub(crate) fn unembed(&self, hidden: Tensor<2>) -> Tensor<2> {
        match &self.output {
            Some(output) => output.forward(hidden),
            None => hidden.matmul(self.weight.val().transpose()),
        }
    }
}
