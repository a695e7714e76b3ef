//! How large a dictionary is.

use serde::{Deserialize, Serialize};

/// How large a dictionary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Width of the activations that are read.
    pub d_in: usize,
    /// Number of latents.
    pub d_sae: usize,
    /// What comes out of a transcoder; `None` of an autoencoder, which gives back what it reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
}

/// What comes out of a transcoder (Dunefsky et al. 2024, <https://arxiv.org/abs/2406.11944>).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Its width.
    pub d_out: usize,
    /// Whether x·W_skipᵀ is added to it (Paulo et al. 2025, <https://arxiv.org/abs/2501.18823>).
    pub skip: bool,
}

impl Size {
    /// Of an autoencoder.
    pub const fn new(d_in: usize, d_sae: usize) -> Self {
        Self { d_in, d_sae, output: None }
    }

    /// Whether x·W_skipᵀ is added to what is decoded.
    pub fn skips(self) -> bool {
        self.output.is_some_and(|output| output.skip)
    }

    /// Width of what comes out.
    pub fn d_out(self) -> usize {
        self.output.map_or(self.d_in, |output| output.d_out)
    }
}
