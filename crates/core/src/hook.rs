//! Hook points: where in a forward pass the residual stream, what is written to it, or what attention and MLP are
//! about to write can be read or replaced. Names are TransformerLens's.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A place in the forward pass. The derived order is the order of execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HookPoint {
    /// `hook_embed`: the token embedding, before any positional embedding.
    Embed,
    /// `blocks.L.…`: within block `layer`, counted from 0.
    Block {
        /// The block, from 0.
        layer: usize,
        /// The place within it.
        site: BlockHook,
    },
    /// `ln_final.hook_normalized`: the final norm as TransformerLens shows it.
    FinalNormalized,
}

/// A place within one transformer block, in order of execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockHook {
    /// `hook_resid_pre`: the residual stream as the block receives it.
    ResidPre,
    /// `attn.hook_pattern`: the share of attention that each position pays to each, `[batch, query, heads * keys]`.
    AttnPattern,
    /// `attn.hook_z`: the values that each head has gathered, `[batch, seq, heads * d_head]`, before the output map.
    AttnZ,
    /// `hook_attn_out`: what attention adds to the stream.
    AttnOut,
    /// `hook_resid_mid`: the stream between attention and MLP.
    ResidMid,
    /// `mlp.hook_pre`: what the MLP's activation function is applied to, `[batch, seq, d_mlp]`.
    MlpPre,
    /// `mlp.hook_post`: what the MLP's last map reads, `[batch, seq, d_mlp]`.
    MlpPost,
    /// `hook_mlp_out`: what the MLP adds to the stream.
    MlpOut,
    /// `hook_resid_post`: the residual stream as the block leaves it.
    ResidPost,
}

impl BlockHook {
    /// Every site, in order of execution.
    pub const ALL: [Self; 9] = [
        Self::ResidPre,
        Self::AttnPattern,
        Self::AttnZ,
        Self::AttnOut,
        Self::ResidMid,
        Self::MlpPre,
        Self::MlpPost,
        Self::MlpOut,
        Self::ResidPost,
    ];

    /// Its name within the block.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResidPre => "hook_resid_pre",
            Self::AttnPattern => "attn.hook_pattern",
            Self::AttnZ => "attn.hook_z",
            Self::AttnOut => "hook_attn_out",
            Self::ResidMid => "hook_resid_mid",
            Self::MlpPre => "mlp.hook_pre",
            Self::MlpPost => "mlp.hook_post",
            Self::MlpOut => "hook_mlp_out",
            Self::ResidPost => "hook_resid_post",
        }
    }
}

impl HookPoint {
    /// `blocks.{layer}.{site}`.
    pub fn block(layer: usize, site: BlockHook) -> Self {
        Self::Block { layer, site }
    }

    /// The block this hook lies in, if it lies in one.
    pub fn layer(self) -> Option<usize> {
        match self {
            Self::Block { layer, .. } => Some(layer),
            Self::Embed | Self::FinalNormalized => None,
        }
    }

    /// Every hook point that a model with `n_layers` blocks may have, in order of execution. Some have fewer: it is for
    /// the model to say.
    pub fn all(n_layers: usize) -> impl Iterator<Item = Self> {
        let blocks = (0..n_layers).flat_map(|layer| BlockHook::ALL.map(|site| Self::Block { layer, site }));
        std::iter::once(Self::Embed).chain(blocks).chain(std::iter::once(Self::FinalNormalized))
    }
}

impl fmt::Display for HookPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embed => f.write_str("hook_embed"),
            Self::Block { layer, site } => write!(f, "blocks.{layer}.{}", site.name()),
            Self::FinalNormalized => f.write_str("ln_final.hook_normalized"),
        }
    }
}

/// A string that names no hook point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown hook `{0}`: expected hook_embed, blocks.L.hook_resid_pre, blocks.L.attn.hook_pattern, \
     blocks.L.attn.hook_z, blocks.L.hook_attn_out, blocks.L.hook_resid_mid, blocks.L.mlp.hook_pre, \
     blocks.L.mlp.hook_post, blocks.L.hook_mlp_out, blocks.L.hook_resid_post (L = 0, 1, …) or \
     ln_final.hook_normalized"
)]
pub struct UnknownHook(pub String);

impl FromStr for HookPoint {
    type Err = UnknownHook;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let block = || {
            let (layer, site) = name.strip_prefix("blocks.")?.split_once('.')?;
            // `parse` alone would take "+1" and "01", which name the same layer twice.
            let layer = layer.parse::<usize>().ok().filter(|l| l.to_string() == layer)?;
            let site = BlockHook::ALL.into_iter().find(|s| s.name() == site)?;
            Some(Self::Block { layer, site })
        };
        match name {
            "hook_embed" => Ok(Self::Embed),
            "ln_final.hook_normalized" => Ok(Self::FinalNormalized),
            _ => block().ok_or_else(|| UnknownHook(name.to_owned())),
        }
    }
}

impl TryFrom<String> for HookPoint {
    type Error = UnknownHook;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

impl From<HookPoint> for String {
    fn from(hook: HookPoint) -> Self {
        hook.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_back_to_its_hook() {
        let hooks: Vec<_> = HookPoint::all(12).collect();
        assert_eq!(hooks.len(), 12 * 9 + 2);
        for hook in hooks {
            assert_eq!(hook.to_string().parse(), Ok(hook));
        }
    }

    #[test]
    fn order_is_the_order_of_execution() {
        let hooks: Vec<_> = HookPoint::all(11).collect();
        assert!(hooks.is_sorted(), "blocks.10 must come after blocks.9");
    }

    #[test]
    fn near_misses_are_refused() {
        for name in [
            "",
            "blocks.8",
            "blocks.08.hook_resid_pre",
            "blocks.+1.hook_mlp_out",
            "blocks.1.resid_pre",
            "blocks.1.hook_z",
        ] {
            assert_eq!(name.parse::<HookPoint>(), Err(UnknownHook(name.to_owned())));
        }
    }
}
