//! A language model on a device.

use std::{fmt, ops::Range, sync::Arc};

use burn::tensor::{Device, Int, Tensor};
use monosema_core::HookPoint;

use crate::{ModelInfo, Tap, blocks::Transformer, pass};

/// A frozen language model. Clones share the weights.
#[derive(Clone)]
pub struct LanguageModel {
    transformer: Arc<Transformer>,
    info: Arc<ModelInfo>,
    device: Device,
}

impl LanguageModel {
    pub(crate) fn new(transformer: Transformer, info: ModelInfo, device: &Device) -> Self {
        Self { transformer: transformer.into(), info: Arc::new(info), device: device.clone() }
    }
    /// What there is to know about the model.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The device that holds the weights; tokens must be on it too.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Runs the whole model over `tokens` and returns the final hidden states, normalised and ready for
    /// [`LanguageModel::unembed`]. `tap` is shown every hook it wants.
    ///
    /// # Shapes
    /// `tokens`: `[batch, seq]`, ids below `d_vocab`, `seq` up to `max_context`. Result: `[batch, seq, d_model]`;
    /// without a token it is empty and the tap is shown nothing.
    ///
    /// # Panics
    /// If `seq` exceeds `max_context`, or if the tap returns another shape than it was given.
    pub fn forward(&self, tokens: Tensor<2, Int>, tap: &mut dyn Tap) -> Tensor<3> {
        self.check_length(&tokens);
        let [batch, seq] = tokens.dims();
        if batch * seq == 0 {
            return Tensor::zeros([batch, seq, self.info.d_model], &self.device);
        }
        pass::forward(&self.transformer, tokens, tap)
    }

    /// Runs the model over `tokens` only as far as the last hook that `tap` wants; not at all if it wants none or
    /// there is no token.
    ///
    /// # Shapes
    /// As [`LanguageModel::forward`].
    ///
    /// # Panics
    /// As [`LanguageModel::forward`].
    pub fn run(&self, tokens: Tensor<2, Int>, tap: &mut dyn Tap) {
        self.check_length(&tokens);
        if tokens.shape().num_elements() > 0 {
            pass::run(&self.transformer, tokens, tap);
        }
    }

    /// Runs the model over `tokens` up to `hook` and stops there, so that it can go on more than once. `tap` is shown the
    /// hooks before that it wants.
    ///
    /// # Shapes
    /// As [`LanguageModel::forward`], of one token at least.
    ///
    /// # Panics
    /// As [`LanguageModel::forward`]; without a token; if the model has no such hook.
    pub fn pause(&self, tokens: Tensor<2, Int>, hook: HookPoint, tap: &mut dyn Tap) -> Paused {
        self.check_length(&tokens);
        assert!(tokens.shape().num_elements() > 0, "there is a token");
        assert!(self.transformer.shape.hooks().any(|other| other == hook), "the model has no {hook}");
        let pass = pass::Paused::at(&self.transformer, tokens, hook, tap);
        Paused { transformer: self.transformer.clone(), pass }
    }

    /// The logits of final hidden states. For a whole batch they are large: see
    /// [`losses`](crate::losses).
    ///
    /// # Shapes
    /// `hidden`: `[batch, seq, d_model]` as [`LanguageModel::forward`] returns it. Result: `[batch, seq, d_vocab]`.
    pub fn unembed(&self, hidden: Tensor<3>) -> Tensor<3> {
        let [batch, seq, d_model] = hidden.dims();
        if batch * seq == 0 {
            return Tensor::zeros([batch, seq, self.info.d_vocab], &self.device);
        }
        let logits = self.transformer.embedding.unembed(hidden.reshape([batch * seq, d_model]));
        logits.reshape([batch, seq, self.info.d_vocab])
    }

    /// As [`LanguageModel::unembed`], the logits of some tokens alone: `[n, d_model]` to `[n, tokens.len()]`.
    pub(crate) fn unembed_tokens(&self, hidden: Tensor<2>, tokens: Range<usize>) -> Tensor<2> {
        self.transformer.embedding.unembed_tokens(hidden, tokens)
    }

    fn check_length(&self, tokens: &Tensor<2, Int>) {
        let [_, seq] = tokens.dims();
        let ModelInfo { name, max_context, .. } = &*self.info;
        assert!(seq <= *max_context, "{name} takes sequences of up to {max_context} tokens, not {seq}");
    }
}

/// A pass that stands at a hook: what comes before is computed once, what comes behind as often as something is put there.
#[derive(Clone)]
pub struct Paused {
    transformer: Arc<Transformer>,
    pass: pass::Paused,
}

impl Paused {
    /// The value at the hook, `[batch, seq, width]`.
    pub fn value(&self) -> Tensor<3> {
        self.pass.value(&self.transformer)
    }

    /// What it holds, in bytes; the model, which it shares, is not counted.
    pub fn bytes(&self) -> usize {
        self.pass.bytes()
    }

    /// Goes on with `x` in place of that value, as [`LanguageModel::forward`] would with a tap that puts it there. `tap` is
    /// shown the hooks behind that it wants.
    ///
    /// # Panics
    /// If `x`, or what the tap returns, has another shape than was there.
    pub fn resume(&self, x: Tensor<3>, tap: &mut dyn Tap) -> Tensor<3> {
        self.pass.resume(&self.transformer, x, tap)
    }

    /// Goes on with each of `xs` in place of that value, as [`Paused::resume`] would without a tap. On the CPU several go side by
    /// side, and of sequences of one `x` that do not differ any more, one is computed for all.
    ///
    /// # Panics
    /// If one of `xs` has another shape than was there.
    pub fn resume_each(&self, xs: Vec<Tensor<3>>) -> Vec<Tensor<3>> {
        self.pass.resume_each(&self.transformer, xs)
    }
}

impl fmt::Debug for Paused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paused").finish_non_exhaustive()
    }
}

impl fmt::Debug for LanguageModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LanguageModel").field("info", &self.info).field("device", &self.device).finish()
    }
}
