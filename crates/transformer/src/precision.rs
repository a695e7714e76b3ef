//! What the large products of a model are computed in.

use std::fmt;

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{DType, Tensor},
};
use serde::{Deserialize, Serialize};

/// What maps and attention are computed in. Everything between them (the residual stream, norms, rotations, activation
/// functions) stays f32, and so do all values that a tap sees. So does attention, its maps excepted, where there is no
/// kernel for it: on the CPU, within a window shorter than the sequence, and where a tap wants `attn.hook_pattern`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision. GPUs may round operands to TF32.
    #[default]
    F32,
    /// Operands and results of products with 8 significant bits, in half the memory: what most models were trained in.
    Bf16,
    /// With 11 significant bits, and nothing beyond 65,504: a model with larger values inside gives infinities.
    F16,
}

impl Precision {
    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }

    /// `module` with its matrices in this precision.
    pub(crate) fn apply<M: Module>(self, module: M) -> M {
        if self == Self::F32 { module } else { module.map(&mut Cast { to: self.dtype(), exact: false }) }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

/// Casts matrices. Vectors (biases, the weights of norms) are small, and what they are added to is f32.
struct Cast {
    to: DType,
    /// Within a router, which is kept: a small difference between two experts decides everything.
    exact: bool,
}

impl ModuleMapper for Cast {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.exact |= name == "router";
    }

    fn exit_module(&mut self, name: &str, _: &str) {
        self.exact &= name != "router";
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D < 2 || self.exact { param } else { param.map(|weight| weight.cast(self.to)) }
    }
}
