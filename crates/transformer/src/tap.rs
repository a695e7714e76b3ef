//! Taps: the one way to read and to change what flows through a model.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use monosema_core::HookPoint;

/// Looks at hook points during a forward pass and may replace what it sees.
pub trait Tap {
    /// Whether [`Tap::visit`] is to be called at `hook`. The answer must not change during a pass.
    fn wants(&self, hook: HookPoint) -> bool;

    /// Is shown the value `x` at `hook` and returns the value that the pass goes on with, of the same shape.
    /// Called in the order of execution.
    ///
    /// # Shapes
    /// `x` and the result: `[batch, seq, width]`, see [`ModelInfo::width`](crate::ModelInfo::width).
    fn visit(&mut self, hook: HookPoint, x: Tensor<3>) -> Tensor<3>;
}

/// Taps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTap;

impl Tap for NoTap {
    fn wants(&self, _: HookPoint) -> bool {
        false
    }

    fn visit(&mut self, _: HookPoint, x: Tensor<3>) -> Tensor<3> {
        x
    }
}

/// Keeps the values at some hook points.
#[derive(Clone, Debug)]
pub struct Capture {
    values: BTreeMap<HookPoint, Option<Tensor<3>>>,
}

impl Capture {
    /// Will keep the values at `hooks`.
    pub fn new(hooks: impl IntoIterator<Item = HookPoint>) -> Self {
        Self { values: hooks.into_iter().map(|hook| (hook, None)).collect() }
    }

    /// What it holds, in bytes.
    pub fn bytes(&self) -> usize {
        let bytes = |value: &Tensor<3>| value.shape().num_elements() * value.dtype().size();
        self.values.values().flatten().map(bytes).sum()
    }

    /// The value at `hook` in the last pass, `[batch, seq, width]`; `None` as in [`Capture::take`].
    pub fn get(&self, hook: HookPoint) -> Option<&Tensor<3>> {
        self.values.get(&hook)?.as_ref()
    }

    /// The value at `hook` in the last pass, `[batch, seq, width]`; `None` if it was not asked for, not
    /// reached yet, or taken before.
    pub fn take(&mut self, hook: HookPoint) -> Option<Tensor<3>> {
        self.values.get_mut(&hook)?.take()
    }
}

impl Tap for Capture {
    fn wants(&self, hook: HookPoint) -> bool {
        self.values.contains_key(&hook)
    }

    fn visit(&mut self, hook: HookPoint, x: Tensor<3>) -> Tensor<3> {
        self.values.insert(hook, Some(x.clone()));
        x
    }
}

/// Replaces the value at one hook point by a function of it.
#[derive(Clone, Debug)]
pub struct Replace<F> {
    hook: HookPoint,
    f: F,
}

impl<F: FnMut(Tensor<3>) -> Tensor<3>> Replace<F> {
    /// Will replace `x` at `hook` by `f(x)`, which must be of the same shape `[batch, seq, width]`.
    pub fn new(hook: HookPoint, f: F) -> Self {
        Self { hook, f }
    }
}

impl<F: FnMut(Tensor<3>) -> Tensor<3>> Tap for Replace<F> {
    fn wants(&self, hook: HookPoint) -> bool {
        hook == self.hook
    }

    fn visit(&mut self, _: HookPoint, x: Tensor<3>) -> Tensor<3> {
        (self.f)(x)
    }
}
