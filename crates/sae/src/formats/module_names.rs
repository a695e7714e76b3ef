//! The names that PyTorch models give their parts, as hooks: what other tools say in place of a hook.

use std::path::{Component, Path};

use monosema_core::{BlockHook, HookPoint};

/// Lists of blocks, in Hugging Face's models.
const BLOCKS: [&str; 3] = ["layers", "h", "blocks"];

/// What stands before them.
const ABOVE: [&str; 5] = ["model", "transformer", "gpt_neox", "language_model", "text_model"];

/// Token embeddings.
const EMBEDDINGS: [&str; 4] = ["embed_tokens", "wte", "embed_in", "embedding"];

/// A part of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Module {
    Embedding,
    Block(usize),
    Attention(usize),
    Mlp(usize),
}

impl Module {
    /// `layers.5`, `model.layers.5.mlp`, `h.3.attn`, `embed_tokens`, …; `None` of any other.
    pub(super) fn parse(name: &str) -> Option<Self> {
        // `layers_5`, where a dot would be a nuisance in a file's name.
        let name = name.replacen("layers_", "layers.", 1);
        let parts: Vec<&str> = name.split('.').collect();
        let above = parts.iter().take_while(|part| ABOVE.contains(part)).count();
        match parts[above..] {
            [part] if EMBEDDINGS.contains(&part) => Some(Self::Embedding),
            [list, layer, ref inner @ ..] if BLOCKS.contains(&list) => {
                let layer = layer.parse().ok()?;
                match inner {
                    [] => Some(Self::Block(layer)),
                    ["mlp"] => Some(Self::Mlp(layer)),
                    ["attn" | "self_attn" | "attention"] => Some(Self::Attention(layer)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Where what it gives can be read. Models that normalise what attention and MLP give (Gemma 2 and 3, OLMo 2) do so between
    /// the module and the hook.
    pub(super) fn output(self) -> HookPoint {
        match self {
            Self::Embedding => HookPoint::Embed,
            Self::Block(layer) => HookPoint::block(layer, BlockHook::ResidPost),
            Self::Attention(layer) => HookPoint::block(layer, BlockHook::AttnOut),
            Self::Mlp(layer) => HookPoint::block(layer, BlockHook::MlpOut),
        }
    }

    /// Where what it is given can be read. Attention and MLP are given what a norm made of the stream, which is no hook.
    pub(super) fn input(self) -> Option<HookPoint> {
        match self {
            Self::Block(layer) => Some(HookPoint::block(layer, BlockHook::ResidPre)),
            Self::Embedding | Self::Attention(_) | Self::Mlp(_) => None,
        }
    }
}

/// The names of the directories that `directory` is in, its own first.
pub(super) fn names(directory: &Path) -> Vec<String> {
    // Of `.` and `dictionary/..` too.
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let normal = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    };
    let mut names: Vec<_> = directory.components().filter_map(normal).collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_and_the_hooks_where_they_write() {
        for (name, hook) in [
            ("layers.5", "blocks.5.hook_resid_post"),
            ("layers_5", "blocks.5.hook_resid_post"),
            ("model.layers.12.mlp", "blocks.12.hook_mlp_out"),
            ("gpt_neox.layers.3", "blocks.3.hook_resid_post"),
            ("transformer.h.0.attn", "blocks.0.hook_attn_out"),
            ("model.language_model.layers.7.self_attn", "blocks.7.hook_attn_out"),
            ("embed_tokens", "hook_embed"),
        ] {
            assert_eq!(Module::parse(name).map(|m| m.output().to_string()).as_deref(), Some(hook), "{name}");
        }
        for name in ["layers", "layers.x", "layers.1.mlp.down_proj", "5", "", "model", "dictionary"] {
            assert_eq!(Module::parse(name), None, "{name}");
        }
    }
}
