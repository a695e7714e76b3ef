//! Activation functions of MLPs, by the names that config.json gives them.

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};

use crate::host;

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * Φ(x)` with the exact error function.
    Gelu,
    /// `x * Φ(x)` by its tanh approximation.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
}

impl Activation {
    /// The names that [`Activation::from_name`] knows.
    pub(crate) const NAMES: &str = "silu, swish, gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu";

    /// By the name in `transformers.activations.ACT2FN`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "silu" | "swish" => Some(Self::Silu),
            "gelu" => Some(Self::Gelu),
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Some(Self::GeluTanh),
            "relu" => Some(Self::Relu),
            _ => None,
        }
    }

    /// A name that [`Activation::from_name`] reads back, and transformers too.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Silu => "silu",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_new",
            Self::Relu => "relu",
        }
    }

    /// `f(gate) * up`.
    ///
    /// # Shapes
    /// `gate_up`: `[n, 2 d]`, the gate first. Result: `[n, d]`.
    pub(crate) fn gated(self, gate_up: Tensor<2>) -> Tensor<2> {
        if host::applies(&gate_up) {
            return match self {
                Self::Silu => host::gate(gate_up, silu),
                Self::Gelu => host::gate(gate_up, gelu),
                Self::GeluTanh => host::gate(gate_up, gelu_tanh),
                Self::Relu => host::gate(gate_up, relu),
            };
        }
        let d = gate_up.dims()[1] / 2;
        let up = gate_up.clone().narrow(1, d, d);
        self.forward(gate_up.narrow(1, 0, d)) * up
    }

    /// Applies the function to every element.
    pub(crate) fn forward(self, x: Tensor<2>) -> Tensor<2> {
        if host::applies(&x) {
            return match self {
                Self::Silu => host::map(x, silu),
                Self::Gelu => host::map(x, gelu),
                Self::GeluTanh => host::map(x, gelu_tanh),
                Self::Relu => host::map(x, relu),
            };
        }
        match self {
            Self::Silu => activation::silu(x),
            Self::Gelu => activation::gelu(x),
            Self::GeluTanh => activation::gelu_approximate(x),
            Self::Relu => activation::relu(x),
        }
    }
}

#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + host::exp(-x))
}

#[inline(always)]
fn relu(x: f32) -> f32 {
    x.max(0.0)
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + host::erf(std::f32::consts::FRAC_1_SQRT_2 * x))
}

/// `x / 2 * (1 + tanh(u)) = x * sigmoid(2 u)` with `u = sqrt(2 / π) (x + 0.044715 x³)`.
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    const TWICE_SQRT_2_OVER_PI: f32 = 1.595_769;
    x / (1.0 + host::exp(-TWICE_SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    /// The host's kernels against burn's operations, which take over wherever gradients are recorded.
    #[test]
    fn both_paths_compute_the_same() {
        let device = Device::flex();
        let x = Tensor::<1, burn::tensor::Int>::arange(-400..400, &device).float().reshape([10, 80]) * 0.05;
        for f in [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::Relu] {
            assert_eq!(Activation::from_name(f.name()), Some(f));
            // Errors are to be small beside what is multiplied, which may be large where the product is not.
            let paths = |g: &dyn Fn(Tensor<2>) -> Tensor<2>, factors: Tensor<2>| {
                let plain = g(Tensor::from_data(x.to_data(), &device.clone().autodiff())).into_data();
                let (fast, factors) = (g(x.clone()).into_data(), factors.into_data());
                let pairs = fast.iter::<f32>().zip(plain.iter::<f32>()).zip(factors.iter::<f32>());
                pairs.map(|((a, b), factor)| (a - b).abs() / (factor.abs() + b.abs())).fold(0.0, f32::max)
            };
            let up = x.clone().narrow(1, 40, 40);
            let error = paths(&|x| f.forward(x), x.ones_like()).max(paths(&|x| f.gated(x), up.abs() + 1.0));
            assert!(error < 1e-6, "{f:?}: {error:.1e}");
        }
    }
}
