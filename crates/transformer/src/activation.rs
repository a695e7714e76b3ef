//! Activation functions of MLPs, by the names that config.json gives them.

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};

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
        let d = gate_up.dims()[1] / 2;
        let up = gate_up.clone().narrow(1, d, d);
        self.forward(gate_up.narrow(1, 0, d)) * up
    }

    /// Applies the function to every element.
    pub(crate) fn forward(self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Silu => activation::silu(x),
            Self::Gelu => activation::gelu(x),
            Self::GeluTanh => activation::gelu_approximate(x),
            Self::Relu => activation::relu(x),
        }
    }
}
