//! The forward pass that every family shares: what runs in which order, where it can be tapped, where it ends.

use std::ops::ControlFlow;

use burn::tensor::{Int, Tensor};
use monosema_core::{BlockHook, HookPoint};

use crate::Tap;

/// A decoder-only transformer with sequential residual blocks, in the pieces between which hooks lie. All
/// tensors are `[batch, seq, d_model]` unless said.
pub(crate) trait Decoder: Send + Sync {
    /// How many blocks there are.
    fn n_layers(&self) -> usize;

    /// Embeds `tokens [batch, seq]`, without positions.
    fn embed(&self, tokens: Tensor<2, Int>) -> Tensor<3>;

    /// Adds what the model knows about positions to the embedding, if anything.
    fn add_positions(&self, x: Tensor<3>) -> Tensor<3> {
        x
    }

    /// What the attention of block `layer` adds to the residual stream `x`; its norm included.
    fn attention(&self, layer: usize, x: Tensor<3>) -> Tensor<3>;

    /// What the MLP of block `layer` adds to the residual stream `x`; its norm included.
    fn mlp(&self, layer: usize, x: Tensor<3>) -> Tensor<3>;

    /// The final norm without its weight and bias.
    fn normalize(&self, x: Tensor<3>) -> Tensor<3>;

    /// The weight and bias of the final norm.
    fn scale(&self, normalized: Tensor<3>) -> Tensor<3>;

    /// Logits `[n, d_vocab]` of final hidden states `[n, d_model]`.
    fn unembed(&self, hidden: Tensor<2>) -> Tensor<2>;
}

/// Runs `model` over `tokens` and returns the hidden states after the final norm.
pub(crate) fn forward(model: &dyn Decoder, tokens: Tensor<2, Int>, tap: &mut dyn Tap) -> Tensor<3> {
    match pass(model, tokens, &mut Hooks { tap, last: None }) {
        ControlFlow::Continue(hidden) => hidden,
        ControlFlow::Break(()) => unreachable!("only a last hook ends a pass early"),
    }
}

/// Runs `model` over `tokens` just as far as the last hook that `tap` wants.
pub(crate) fn run(model: &dyn Decoder, tokens: Tensor<2, Int>, tap: &mut dyn Tap) {
    let last = HookPoint::all(model.n_layers()).filter(|&hook| tap.wants(hook)).last();
    if last.is_some() {
        let _ended = pass(model, tokens, &mut Hooks { tap, last });
    }
}

fn pass(model: &dyn Decoder, tokens: Tensor<2, Int>, hooks: &mut Hooks) -> ControlFlow<(), Tensor<3>> {
    let x = hooks.at(HookPoint::Embed, model.embed(tokens))?;
    let mut x = model.add_positions(x);
    for layer in 0..model.n_layers() {
        let at = |site| HookPoint::block(layer, site);
        x = hooks.at(at(BlockHook::ResidPre), x)?;
        let attn_out = hooks.at(at(BlockHook::AttnOut), model.attention(layer, x.clone()))?;
        x = hooks.at(at(BlockHook::ResidMid), x + attn_out)?;
        let mlp_out = hooks.at(at(BlockHook::MlpOut), model.mlp(layer, x.clone()))?;
        x = hooks.at(at(BlockHook::ResidPost), x + mlp_out)?;
    }
    let normalized = hooks.at(HookPoint::FinalNormalized, model.normalize(x))?;
    ControlFlow::Continue(model.scale(normalized))
}

struct Hooks<'a> {
    tap: &'a mut dyn Tap,
    /// Where the pass ends, if it does not run through.
    last: Option<HookPoint>,
}

impl Hooks<'_> {
    fn at(&mut self, hook: HookPoint, x: Tensor<3>) -> ControlFlow<(), Tensor<3>> {
        let x = if self.tap.wants(hook) {
            let expected = x.dims();
            let x = self.tap.visit(hook, x);
            assert_eq!(x.dims(), expected, "the tap changed the shape at {hook}");
            x
        } else {
            x
        };
        if self.last == Some(hook) { ControlFlow::Break(()) } else { ControlFlow::Continue(x) }
    }
}
