//! What a decoder-only transformer is made of. A family of models reads its configuration into this; everything else
//! is the same for all families.

use std::path::Path;

use monosema_core::HookPoint;

use super::{
    Activation, Choice, LatentShape, RopeScaling,
    rope_scaling::{Wrong, above_zero},
};
use crate::{ModelError, info::BlockInfo};

/// The shape of a [`Transformer`](super::Transformer).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shape {
    /// The number of tokens.
    pub(crate) d_vocab: usize,
    /// The width of the residual stream.
    pub(crate) d_model: usize,
    /// The longest sequence.
    pub(crate) max_context: usize,
    /// What embedded tokens are multiplied with.
    pub(crate) embedding_scale: Option<f64>,
    /// Whether positions are embedded, `[max_context, d_model]`.
    pub(crate) embedded_positions: bool,
    pub(crate) norm: NormKind,
    /// Added to the mean square, or the variance, in norms.
    pub(crate) norm_epsilon: f64,
    pub(crate) blocks: Vec<BlockShape>,
    /// Whether the output is the transposed embedding.
    pub(crate) tied: bool,
    /// Logits are kept within this by a hyperbolic tangent.
    pub(crate) logit_soft_cap: Option<f64>,
}

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// A weight.
    Rms,
    /// A weight and a bias.
    Layer,
}

/// The shape of one block.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BlockShape {
    pub(crate) norms: Norms,
    /// Whether attention and MLP both read what the block receives.
    pub(crate) parallel: bool,
    pub(crate) attention: AttentionShape,
    pub(crate) mlp: MlpShape,
    /// The experts of a mixture, besides the MLP.
    pub(crate) experts: Option<ExpertsShape>,
}

/// Where attention and MLP have norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Norms {
    /// Of what they read.
    Before,
    /// Of what they write.
    After,
    /// Of both.
    Both,
}

impl Norms {
    pub(crate) fn before(self) -> bool {
        self != Self::After
    }

    pub(crate) fn after(self) -> bool {
        self != Self::Before
    }
}

/// The shape of a block's attention.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AttentionShape {
    /// The number of query heads.
    pub(crate) n_heads: usize,
    /// The number of key and value heads; divides `n_heads`.
    pub(crate) n_kv_heads: usize,
    /// The width of a head.
    pub(crate) d_head: usize,
    /// Whether the maps to queries, keys and values have biases.
    pub(crate) qkv_bias: bool,
    /// Whether the output map has one.
    pub(crate) output_bias: bool,
    /// Whether, and over what, queries and keys are normalised.
    pub(crate) qk_norm: Option<QkNormKind>,
    /// What scores are multiplied with before the softmax.
    pub(crate) scale: f64,
    /// Scores are kept within this by a hyperbolic tangent.
    pub(crate) soft_cap: Option<f64>,
    /// How queries and keys are rotated, if they are.
    pub(crate) rope: Option<Rope>,
    /// A position sees only this many positions, itself included.
    pub(crate) window: Option<usize>,
    /// The latents that queries, keys and values are made of, if they are.
    pub(crate) latent: Option<LatentShape>,
}

/// Over what queries and keys are normalised (always by their root mean square).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QkNormKind {
    /// Each head by itself.
    Head,
    /// All heads as one.
    Whole,
}

/// Rotary positions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rope {
    /// How many of a head's dimensions, its first ones, are rotated; even.
    pub(crate) d_rotated: usize,
    /// The base of the frequencies.
    pub(crate) theta: f64,
    /// How the frequencies were changed for longer contexts.
    pub(crate) scaling: Option<RopeScaling>,
}

/// The shape of a block's MLP.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MlpShape {
    /// Its width.
    pub(crate) d_mlp: usize,
    /// Whether what it reads is multiplied with a gate.
    pub(crate) gated: bool,
    /// Whether its maps have biases.
    pub(crate) bias: bool,
    /// What it, or its gate, goes through.
    pub(crate) activation: Activation,
}

/// The shape of a mixture of experts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExpertsShape {
    pub(crate) choice: Choice,
    /// The width of each.
    pub(crate) d_mlp: usize,
}

impl Shape {
    /// The hooks that the model has, in order of execution.
    pub(crate) fn hooks(&self) -> impl Iterator<Item = HookPoint> {
        HookPoint::all(self.blocks.len()).filter(|hook| match *hook {
            HookPoint::Block { layer, site } => self.blocks[layer].info().lacks(site).is_none(),
            HookPoint::Embed | HookPoint::FinalNormalized => true,
        })
    }

    /// Whether the numbers fit together; `file` is where they are from. Keys are those of config.json.
    pub(crate) fn check(&self, file: &Path) -> Result<(), ModelError> {
        let found = self.check_values().and_then(|()| self.blocks.iter().try_for_each(BlockShape::check));
        found.map_err(|(key, reason)| ModelError::Config { file: file.to_owned(), key: key.into(), reason })
    }

    fn check_values(&self) -> Result<(), Wrong> {
        let counts = [
            ("vocab_size", self.d_vocab),
            ("hidden_size", self.d_model),
            ("num_hidden_layers", self.blocks.len()),
            ("max_position_embeddings", self.max_context),
        ];
        counts.into_iter().try_for_each(|(key, count)| above_zero(key, count as f64))?;
        above_zero("norm_epsilon", self.norm_epsilon)?;
        above_zero("embedding_scale", self.embedding_scale.unwrap_or(1.0))?;
        above_zero("final_logit_softcapping", self.logit_soft_cap.unwrap_or(1.0))
    }
}

impl BlockShape {
    /// What those who look at hooks need to know.
    pub(crate) fn info(&self) -> BlockInfo {
        BlockInfo {
            n_heads: self.attention.n_heads,
            d_z: self.attention.d_z(),
            d_mlp: self.mlp.d_mlp,
            parallel: self.parallel,
            experts: self.experts.is_some(),
        }
    }

    fn check(&self) -> Result<(), Wrong> {
        above_zero("intermediate_size", self.mlp.d_mlp as f64)?;
        self.experts.as_ref().map_or(Ok(()), ExpertsShape::check)?;
        self.attention.check()
    }
}

impl AttentionShape {
    /// The width of all query heads.
    pub(crate) fn d_queries(&self) -> usize {
        self.n_heads * self.d_head
    }

    /// The width of what all heads gather.
    pub(crate) fn d_z(&self) -> usize {
        self.n_heads * self.latent.map_or(self.d_head, |latent| latent.d_value)
    }

    /// The width of all key heads, or of all value heads.
    pub(crate) fn d_keys(&self) -> usize {
        self.n_kv_heads * self.d_head
    }

    /// The widths of the norms of queries and of keys, if there are any.
    pub(crate) fn qk_norm_widths(&self) -> Option<[usize; 2]> {
        self.qk_norm.map(|kind| match kind {
            QkNormKind::Head => [self.d_head; 2],
            QkNormKind::Whole => [self.d_queries(), self.d_keys()],
        })
    }

    fn check(&self) -> Result<(), Wrong> {
        let counts = [
            ("num_attention_heads", self.n_heads),
            ("num_key_value_heads", self.n_kv_heads),
            ("head_dim", self.d_head),
            ("sliding_window", self.window.unwrap_or(1)),
        ];
        counts.into_iter().try_for_each(|(key, count)| above_zero(key, count as f64))?;
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            let Self { n_heads, n_kv_heads, .. } = self;
            let reason = format!("expected a divisor of the {n_heads} heads, found {n_kv_heads}");
            return Err(("num_key_value_heads", reason));
        }
        above_zero("attention scale", self.scale)?;
        if let Some(latent) = &self.latent {
            above_zero("q_lora_rank", latent.query_rank.unwrap_or(1) as f64)?;
            above_zero("kv_lora_rank", latent.key_value_rank as f64)?;
            above_zero("qk_nope_head_dim", latent.d_still as f64)?;
            above_zero("v_head_dim", latent.d_value as f64)?;
        }
        above_zero("attn_logit_softcapping", self.soft_cap.unwrap_or(1.0))?;
        let Some(rope) = &self.rope else { return Ok(()) };
        if !rope.d_rotated.is_multiple_of(2) || !(1..=self.d_head).contains(&rope.d_rotated) {
            let reason = format!(
                "expected an even number of dimensions to rotate (pairs), at most the {} of a head, found {}",
                self.d_head, rope.d_rotated
            );
            return Err(("head_dim", reason));
        }
        above_zero("rope_theta", rope.theta)?;
        rope.scaling.as_ref().map_or(Ok(()), |scaling| scaling.check(rope.d_rotated))
    }
}

impl ExpertsShape {
    fn check(&self) -> Result<(), Wrong> {
        let Choice { n_experts, experts_per_token, n_groups, groups_per_token, scale, .. } = self.choice;
        let counts = [
            ("moe_intermediate_size", self.d_mlp),
            ("n_routed_experts", n_experts),
            ("num_experts_per_tok", experts_per_token),
            ("n_group", n_groups),
            ("topk_group", groups_per_token),
        ];
        counts.into_iter().try_for_each(|(key, count)| above_zero(key, count as f64))?;
        above_zero("routed_scaling_factor", scale)?;
        if !n_experts.is_multiple_of(n_groups) || n_experts / n_groups < 2 {
            let reason = format!(
                "expected groups of equal size, two of {n_experts} experts at least, found {n_groups}"
            );
            return Err(("n_group", reason));
        }
        if groups_per_token > n_groups {
            return Err((
                "topk_group",
                format!("expected {n_groups} groups at most, found {groups_per_token}"),
            ));
        }
        let at_most = groups_per_token * (n_experts / n_groups);
        if experts_per_token > at_most {
            let reason = format!("expected the {at_most} experts of {groups_per_token} groups at most");
            return Err(("num_experts_per_tok", format!("{reason}, found {experts_per_token}")));
        }
        Ok(())
    }
}

#[cfg(test)]
impl Shape {
    /// Two small blocks, as GPT-2 has them.
    pub(crate) fn small() -> Self {
        let attention = AttentionShape {
            n_heads: 2,
            n_kv_heads: 2,
            d_head: 4,
            qkv_bias: true,
            output_bias: true,
            qk_norm: None,
            scale: 0.5,
            soft_cap: None,
            rope: None,
            window: None,
            latent: None,
        };
        let mlp = MlpShape { d_mlp: 12, gated: false, bias: true, activation: Activation::Gelu };
        let block = BlockShape { norms: Norms::Before, parallel: false, attention, mlp, experts: None };
        Self {
            d_vocab: 7,
            d_model: 6,
            max_context: 100,
            embedding_scale: None,
            embedded_positions: true,
            norm: NormKind::Layer,
            norm_epsilon: 1e-5,
            blocks: vec![block; 2],
            tied: true,
            logit_soft_cap: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_named() {
        Shape::small().check(Path::new("f")).unwrap();
        let wrong = |change: fn(&mut Shape)| {
            let mut shape = Shape::small();
            change(&mut shape);
            shape.check(Path::new("f")).unwrap_err().to_string()
        };
        let rope = |d_rotated, theta| Some(Rope { d_rotated, theta, scaling: None });
        let of =
            |message: String, key: &str| assert!(message.starts_with(&format!("f: {key}: ")), "{message}");
        of(wrong(|s| s.blocks.clear()), "num_hidden_layers");
        of(wrong(|s| s.norm_epsilon = f64::NAN), "norm_epsilon");
        of(wrong(|s| s.blocks[1].mlp.d_mlp = 0), "intermediate_size");
        of(wrong(|s| s.blocks[1].attention.n_kv_heads = 0), "num_key_value_heads");
        of(wrong(|s| s.blocks[1].attention.n_heads = 3), "num_key_value_heads");
        of(wrong(|s| s.blocks[1].attention.window = Some(0)), "sliding_window");
        of(wrong(|s| s.blocks[1].attention.soft_cap = Some(-1.0)), "attn_logit_softcapping");
        let rotated = |d_rotated, theta| {
            let mut shape = Shape::small();
            shape.blocks[0].attention.rope = rope(d_rotated, theta);
            shape.check(Path::new("f"))
        };
        rotated(2, 10.0).unwrap();
        for d_rotated in [0, 3, 6] {
            of(rotated(d_rotated, 10.0).unwrap_err().to_string(), "head_dim");
        }
        of(rotated(2, f64::INFINITY).unwrap_err().to_string(), "rope_theta");
    }
}
