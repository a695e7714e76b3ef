//! The parts that decoder-only transformers of all families are put together from, and the whole: a [`Shape`] says
//! which. What runs in which order is for [`pass`](crate::pass) to say.

mod activation;
mod attention;
mod embedding;
mod experts;
mod init;
mod latent;
mod linear;
mod load;
mod mlp;
mod norm;
mod positions;
mod qk_norm;
mod random;
mod rope_scaling;
mod rotary;
mod shape;

pub use activation::Activation;
pub use rope_scaling::RopeScaling;

pub(crate) use experts::Choice;
pub(crate) use latent::LatentShape;
pub(crate) use linear::{Linear, transposed};
pub(crate) use load::Names;
pub(crate) use norm::Norm;
pub(crate) use shape::{
    AttentionShape, BlockShape, ExpertsShape, MlpShape, NormKind, Norms, QkNormKind, Rope, Shape,
};

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

use attention::{Attention, Heads, Scores};
use embedding::Embedding;
use experts::Experts;
use mlp::Mlp;
use positions::Positions;

/// A decoder-only transformer, to be trained or frozen.
#[derive(Module, Debug)]
pub(crate) struct Transformer {
    pub(crate) embedding: Embedding,
    pub(crate) blocks: Vec<Block>,
    pub(crate) final_norm: Norm,
    #[module(skip)]
    pub(crate) shape: Shape,
}

/// One block. Norms are there or not; see [`Norms`].
#[derive(Module, Debug)]
pub(crate) struct Block {
    pub(crate) attention_norm: Option<Norm>,
    pub(crate) attention: Attention,
    pub(crate) post_attention_norm: Option<Norm>,
    pub(crate) mlp_norm: Option<Norm>,
    pub(crate) mlp: Mlp,
    pub(crate) experts: Option<Experts>,
    pub(crate) post_mlp_norm: Option<Norm>,
    /// Whether the MLP reads what the block receives, as attention does.
    pub(crate) parallel: bool,
}

impl Transformer {
    /// The device that holds the weights.
    pub(crate) fn device(&self) -> Device {
        self.embedding.weight.val().device()
    }
}

/// `norm`, if there is one, of `x [batch, seq, d_model]`.
pub(crate) fn normed(norm: Option<&Norm>, x: Tensor<3>) -> Tensor<3> {
    match norm {
        Some(norm) => norm.forward(x),
        None => x,
    }
}

impl AttentionShape {
    fn heads(&self) -> Heads {
        let Self { n_heads, n_kv_heads, d_head, scale, soft_cap, .. } = *self;
        Heads { n_heads, n_kv_heads, d_head, scores: Scores { scale, soft_cap } }
    }

    fn positions(&self) -> Positions {
        Positions::new(self.rope.clone(), self.window)
    }
}

impl Shape {
    /// What each block needs to know about positions. Blocks that treat them alike share their tables.
    fn positions(&self) -> Vec<Positions> {
        let mut positions: Vec<Positions> = Vec::new();
        for block in &self.blocks {
            let AttentionShape { rope, window, .. } = &block.attention;
            let alike =
                |other: &BlockShape| other.attention.rope == *rope && other.attention.window == *window;
            let earlier = self.blocks[..positions.len()].iter().position(alike);
            positions.push(match earlier {
                Some(earlier) => positions[earlier].clone(),
                None => block.attention.positions(),
            });
        }
        positions
    }
}
