//! The MLPs of blocks, in the pieces between which hooks lie.

use burn::{module::Module, tensor::Tensor};

use super::{Activation, linear::Linear};

/// `down(activation(up(x)))`, or gated: `down(activation(gate(x)) * up(x))` (Shazeer, 2020, arXiv:2002.05202).
#[derive(Module, Debug)]
pub(crate) struct Mlp {
    /// `[d_model, d_mlp]`; gated, the gate's outputs, then those of `up`: one product for both, `[d_model, 2 d_mlp]`.
    pub(crate) up: Linear,
    /// `[d_mlp, d_model]`.
    pub(crate) down: Linear,
    #[module(skip)]
    pub(crate) activation: Activation,
    pub(crate) gated: bool,
}

impl Mlp {
    /// All of it.
    ///
    /// # Shapes
    /// `x` and the result: `[batch, seq, d_model]`.
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.down(self.post(self.pre(x)))
    }

    /// The first product: all that the activation needs.
    ///
    /// # Shapes
    /// `x`: `[batch, seq, d_model]`. Result: `[batch, seq, d_mlp]`, or twice as wide if gated.
    pub(crate) fn pre(&self, x: Tensor<3>) -> Tensor<3> {
        self.up.forward_sequence(x)
    }

    /// What of [`Mlp::pre`]'s result the activation function is applied to: `[batch, seq, d_mlp]`.
    pub(crate) fn shown_pre(&self, pre: &Tensor<3>) -> Tensor<3> {
        if !self.gated {
            return pre.clone();
        }
        let d_mlp = pre.dims()[2] / 2;
        pre.clone().narrow(2, 0, d_mlp)
    }

    /// `pre` with `shown` in place of what [`Mlp::shown_pre`] shows.
    pub(crate) fn replaced_pre(&self, pre: Tensor<3>, shown: Tensor<3>) -> Tensor<3> {
        if !self.gated {
            return shown;
        }
        let d_mlp = pre.dims()[2] / 2;
        Tensor::cat(vec![shown, pre.narrow(2, d_mlp, d_mlp)], 2)
    }

    /// What the last map reads: `[batch, seq, d_mlp]`, of the result of [`Mlp::pre`].
    pub(crate) fn post(&self, pre: Tensor<3>) -> Tensor<3> {
        let [batch, seq, width] = pre.dims();
        let pre = pre.reshape([batch * seq, width]);
        let post = if self.gated { self.activation.gated(pre) } else { self.activation.forward(pre) };
        let d_mlp = post.dims()[1];
        post.reshape([batch, seq, d_mlp])
    }

    /// # Shapes
    /// `post`: `[batch, seq, d_mlp]`. Result: `[batch, seq, d_model]`.
    pub(crate) fn down(&self, post: Tensor<3>) -> Tensor<3> {
        self.down.forward_sequence(post)
    }
}
