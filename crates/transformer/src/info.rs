//! What there is to know about a model without its weights.

use monosema_core::{BlockHook, HookPoint};
use serde::{Deserialize, Serialize};

use crate::{
    Family, ModelError,
    blocks::{BlockShape, Shape},
};

/// What there is to know about a model without its weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Its name as the checkpoint gives it, else that of the directory or file.
    pub name: String,
    /// Its family.
    pub family: Family,
    /// How many blocks it has.
    pub n_layers: usize,
    /// The width of the residual stream.
    pub d_model: usize,
    /// The number of logits; the tokenizer may know fewer tokens.
    pub d_vocab: usize,
    /// The longest sequence that the model was made for.
    pub max_context: usize,
    /// The number of weights; a tied output counts once.
    pub n_parameters: u64,
    /// The widths within each block. Empty in what was written before there were any.
    #[serde(default)]
    pub blocks: Vec<BlockInfo>,
}

/// Widths within one block, and which hooks it lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockInfo {
    /// The number of attention's heads.
    pub n_heads: usize,
    /// The width of `attn.hook_z`, all heads together.
    pub d_z: usize,
    /// The width of `mlp.hook_pre` and `mlp.hook_post`.
    pub d_mlp: usize,
    /// Whether attention and MLP both read what the block receives: then there is no `hook_resid_mid`.
    pub parallel: bool,
    /// Whether the MLP is a mixture of experts: then there are no `mlp.hook_pre` and `mlp.hook_post`.
    pub experts: bool,
}

impl ModelInfo {
    pub(crate) fn new(name: String, family: Family, shape: &Shape, n_parameters: u64) -> Self {
        Self {
            name,
            family,
            n_layers: shape.blocks.len(),
            d_model: shape.d_model,
            d_vocab: shape.d_vocab,
            max_context: shape.max_context,
            n_parameters,
            blocks: shape.blocks.iter().map(BlockShape::info).collect(),
        }
    }

    /// The hooks that the model has, in order of execution.
    pub fn hooks(&self) -> impl Iterator<Item = HookPoint> {
        HookPoint::all(self.n_layers).filter(|&hook| self.check_hook(hook).is_ok())
    }

    /// Whether the model has `hook`.
    ///
    /// # Errors
    /// [`ModelError::NoSuchHook`] if not.
    pub fn check_hook(&self, hook: HookPoint) -> Result<(), ModelError> {
        self.width(hook, 1).map(drop)
    }

    /// The width of the values at `hook` in sequences of `seq_len`: that of a pattern depends on it, `n_heads * seq_len`.
    ///
    /// # Errors
    /// [`ModelError::NoSuchHook`] if the model lacks it.
    pub fn width(&self, hook: HookPoint, seq_len: usize) -> Result<usize, ModelError> {
        let lacks = |reason: String| Err(ModelError::NoSuchHook { model: self.name.clone(), hook, reason });
        let HookPoint::Block { layer, site } = hook else { return Ok(self.d_model) };
        let Some(block) = self.blocks.get(layer) else {
            let last = self.n_layers.saturating_sub(1);
            return lacks(format!("its {} blocks are blocks.0 to blocks.{last}", self.n_layers));
        };
        if let Some(reason) = block.lacks(site) {
            return lacks(reason.to_owned());
        }
        Ok(match site {
            BlockHook::ResidPre
            | BlockHook::AttnOut
            | BlockHook::ResidMid
            | BlockHook::MlpOut
            | BlockHook::ResidPost => self.d_model,
            BlockHook::AttnPattern => block.n_heads.saturating_mul(seq_len),
            BlockHook::AttnZ => block.d_z,
            BlockHook::MlpPre | BlockHook::MlpPost => block.d_mlp,
        })
    }
}

impl BlockInfo {
    /// Why the block has no such hook, if it has none.
    pub(crate) fn lacks(&self, site: BlockHook) -> Option<&'static str> {
        match site {
            BlockHook::ResidMid if self.parallel => Some(
                "attention and MLP of this block both read its hook_resid_pre, and there is nothing between them",
            ),
            BlockHook::MlpPre | BlockHook::MlpPost if self.experts => {
                Some("the MLP of this block is a mixture of experts, which each have their own")
            }
            _ => None,
        }
    }
}
