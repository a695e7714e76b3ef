//! Taking the weights of a checkpoint. Tensors have one name each here, whatever a checkpoint calls them: llama.cpp's,
//! which are the same for all families (`gguf/constants.py`).

use burn::tensor::Device;

use super::{
    Block, BlockShape, Linear, MlpShape, NormKind, Shape, Transformer,
    attention::Attention,
    embedding::Embedding,
    linear::parameter,
    mlp::Mlp,
    norm::{LayerNorm, Norm, RmsNorm},
    positions::Positions,
    qk_norm::QkNorm,
};
use crate::{ModelError, Precision, weights::Weights};

mod experts;
mod latent;

/// What checkpoints on the Hugging Face hub call the tensors of a family, without the kind (`weight`, `bias`). Each
/// pair is the name here and the name there; a family has the tensors that its lists name. `*` stands for a number.
#[derive(Debug)]
pub(crate) struct Names {
    /// Of tensors outside blocks.
    pub(crate) whole: &'static [(&'static str, &'static str)],
    /// What names of block `L` begin with there, before `L` and a dot. Here it is `blk.`.
    pub(crate) blocks: &'static str,
    /// Of tensors within blocks, in several lists so that families can share some.
    pub(crate) parts: &'static [&'static [(&'static str, &'static str)]],
}

/// What names of blocks begin with here.
const BLOCKS: &str = "blk.";

impl Names {
    /// The name here of what the hub calls `name`.
    pub(crate) fn own(&self, name: &str) -> Option<String> {
        self.renamed(name, self.blocks, BLOCKS, |(own, hub)| (hub, own))
    }

    /// What the hub calls the tensor `own`.
    pub(crate) fn on_hub(&self, own: &str) -> Option<String> {
        self.renamed(own, BLOCKS, self.blocks, |pair| pair)
    }

    /// Whether blocks have the tensor `part`.
    fn has(&self, part: &str) -> bool {
        self.parts.iter().copied().flatten().any(|(own, _)| *own == part)
    }

    fn renamed(
        &self,
        name: &str,
        blocks_from: &str,
        blocks_to: &str,
        from_to: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str),
    ) -> Option<String> {
        let (stem, kind) = name.rsplit_once('.')?;
        if let Some((_, to)) = self.whole.iter().map(|&pair| from_to(pair)).find(|(from, _)| *from == stem) {
            return Some(format!("{to}.{kind}"));
        }
        let (layer, part) = stem.strip_prefix(blocks_from)?.split_once('.')?;
        let mut parts = self.parts.iter().copied().flatten().map(|&pair| from_to(pair));
        let (to, number) = parts.find_map(|(from, to)| Some((to, number_in(part, from)?)))?;
        Some(format!("{blocks_to}{layer}.{}.{kind}", to.replace('*', number)))
    }
}

/// What stands in `name` where `pattern` has `*`: a number, or nothing if it has none. `None` if it is another name.
fn number_in<'a>(name: &'a str, pattern: &str) -> Option<&'a str> {
    let Some((before, after)) = pattern.split_once('*') else { return (name == pattern).then_some("") };
    let number = name.strip_prefix(before)?.strip_suffix(after)?;
    (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(number)
}

impl Transformer {
    /// Takes the weights of a model of `shape`, whose family has the tensors `names`.
    pub(crate) fn load(
        shape: &Shape,
        names: &Names,
        weights: &mut Weights,
        precision: Precision,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let mut loader = Loader { shape, names, weights, device };
        let embedding = precision.apply(loader.embedding()?);
        let positions = shape.positions();
        let blocks = shape.blocks.iter().zip(positions).enumerate();
        let blocks = blocks.map(|(layer, (block, positions))| {
            // One after the other, so that no more than one is there twice.
            loader.block(layer, block, positions).map(|block| precision.apply(block))
        });
        let blocks = blocks.collect::<Result<_, _>>()?;
        let final_norm = loader.norm("output_norm")?;
        Ok(Self { embedding, blocks, final_norm, shape: shape.clone() })
    }
}

/// Some of a map's outputs: under which name, and how many.
type Part<'a> = (&'a str, usize);

struct Loader<'a, 'w> {
    shape: &'a Shape,
    names: &'a Names,
    weights: &'a mut Weights<'w>,
    device: &'a Device,
}

impl Loader<'_, '_> {
    fn embedding(&mut self) -> Result<Embedding, ModelError> {
        let (name, output_name) = ("token_embd.weight", "output.weight");
        let Shape { d_vocab, d_model, max_context, tied, .. } = *self.shape;
        let values = self.weights.take(name, [d_vocab, d_model])?;
        let output = if tied {
            self.weights.take_copy(output_name, [d_vocab, d_model], &values, name)?;
            None
        } else {
            Some(self.linear("", &[("output", d_vocab)], d_model, false)?)
        };
        let context = [max_context, d_model];
        let positions =
            self.weights.take_if(self.shape.embedded_positions, "position_embd.weight", context)?;
        Ok(Embedding {
            weight: parameter([d_vocab, d_model], values, self.device),
            scale: self.shape.embedding_scale,
            positions: positions.map(|values| parameter(context, values, self.device)),
            output,
            soft_cap: self.shape.logit_soft_cap,
        })
    }

    fn block(&mut self, layer: usize, shape: &BlockShape, positions: Positions) -> Result<Block, ModelError> {
        let prefix = format!("{BLOCKS}{layer}.");
        let at = |part: &str| format!("{prefix}{part}");
        let (before, after) = (shape.norms.before(), shape.norms.after());
        Ok(Block {
            attention_norm: self.norm_if(before, &at("attn_norm"))?,
            attention: self.attention(&prefix, shape, positions)?,
            post_attention_norm: self.norm_if(after, &at("post_attention_norm"))?,
            mlp_norm: self.norm_if(before, &at("ffn_norm"))?,
            mlp: self.shared_mlp(&prefix, shape)?,
            experts: shape
                .experts
                .as_ref()
                .map(|experts| self.experts(&prefix, shape, experts))
                .transpose()?,
            post_mlp_norm: self.norm_if(after, &at("post_ffw_norm"))?,
            parallel: shape.parallel,
        })
    }

    fn attention(
        &mut self,
        prefix: &str,
        shape: &BlockShape,
        positions: Positions,
    ) -> Result<Attention, ModelError> {
        let (shape, d_model) = (&shape.attention, self.shape.d_model);
        let (queries, keys) = (shape.d_queries(), shape.d_keys());
        let merged = [("attn_qkv", queries + 2 * keys)];
        let apart = [("attn_q", queries), ("attn_k", keys), ("attn_v", keys)];
        let parts: &[Part] = if self.names.has("attn_qkv") { &merged } else { &apart };
        let (qkv, latent) = match &shape.latent {
            None => (self.linear(prefix, parts, d_model, shape.qkv_bias)?, None),
            Some(latent) => {
                (self.latents(prefix, shape, latent)?, Some(self.latent(prefix, shape.n_heads, latent)?))
            }
        };
        let qk_norm = shape.qk_norm_widths().map(|[d_query, d_key]| {
            let query = self.rms_norm(&format!("{prefix}attn_q_norm"), d_query)?;
            let key = self.rms_norm(&format!("{prefix}attn_k_norm"), d_key)?;
            Ok::<_, ModelError>(QkNorm { query, key, queries, keys })
        });
        Ok(Attention {
            qkv,
            qk_norm: qk_norm.transpose()?,
            latent,
            output: self.linear(prefix, &[("attn_output", d_model)], shape.d_z(), shape.output_bias)?,
            heads: shape.heads(),
            positions,
        })
    }

    /// The MLP that all tokens go through.
    fn shared_mlp(&mut self, prefix: &str, shape: &BlockShape) -> Result<Mlp, ModelError> {
        self.mlp(prefix, if shape.experts.is_some() { "_shexp" } else { "" }, &shape.mlp)
    }

    /// The MLP whose tensors' names end with `suffix`.
    fn mlp(&mut self, prefix: &str, suffix: &str, shape: &MlpShape) -> Result<Mlp, ModelError> {
        let d_model = self.shape.d_model;
        let [gate, up, down] = ["ffn_gate", "ffn_up", "ffn_down"].map(|name| format!("{name}{suffix}"));
        let apart = [(gate.as_str(), shape.d_mlp), (&up, shape.d_mlp)];
        let merged = [(up.as_str(), 2 * shape.d_mlp)];
        let parts: &[Part] = match (shape.gated, self.names.has("ffn_gate")) {
            (false, _) => &apart[1..],
            (true, true) => &apart,
            (true, false) => &merged,
        };
        Ok(Mlp {
            up: self.linear(prefix, parts, d_model, shape.bias)?,
            down: self.linear(prefix, &[(&down, d_model)], shape.d_mlp, shape.bias)?,
            activation: shape.activation,
            gated: shape.gated,
        })
    }

    /// Maps of the same input as one map.
    fn linear(
        &mut self,
        prefix: &str,
        parts: &[Part],
        d_in: usize,
        has_bias: bool,
    ) -> Result<Linear, ModelError> {
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for (name, d_out) in parts {
            weight.extend(self.weights.take(&format!("{prefix}{name}.weight"), [*d_out, d_in])?);
            let part = self.weights.take_if(has_bias, &format!("{prefix}{name}.bias"), [*d_out])?;
            bias.extend(part.into_iter().flatten());
        }
        let d_out = parts.iter().map(|(_, d_out)| d_out).sum();
        Ok(Linear::from_torch([d_out, d_in], weight, has_bias.then_some(bias), self.device))
    }

    fn norm_if(&mut self, wanted: bool, name: &str) -> Result<Option<Norm>, ModelError> {
        wanted.then(|| self.norm(name)).transpose()
    }

    fn norm(&mut self, name: &str) -> Result<Norm, ModelError> {
        let Shape { d_model, norm, .. } = *self.shape;
        let RmsNorm { weight, epsilon } = self.rms_norm(name, d_model)?;
        Ok(match norm {
            NormKind::Rms => Norm::Rms(RmsNorm { weight, epsilon }),
            NormKind::Layer => {
                let bias = self.weights.take(&format!("{name}.bias"), [d_model])?;
                let bias = parameter([d_model], bias, self.device);
                Norm::Layer(LayerNorm { weight, bias, epsilon })
            }
        })
    }

    fn rms_norm(&mut self, name: &str, width: usize) -> Result<RmsNorm, ModelError> {
        let weight = self.weights.take(&format!("{name}.weight"), [width])?;
        Ok(RmsNorm { weight: parameter([width], weight, self.device), epsilon: self.shape.norm_epsilon })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        let names = Names {
            whole: &[("output_norm", "model.norm")],
            blocks: "model.layers.",
            parts: &[
                &[("attn_q", "self_attn.q_proj")],
                &[("ffn_up", "mlp.up_proj"), ("ffn_up_exps.*", "mlp.experts.*.up_proj")],
            ],
        };
        for (own, hub) in [
            ("output_norm.weight", "model.norm.weight"),
            ("blk.12.attn_q.weight", "model.layers.12.self_attn.q_proj.weight"),
            ("blk.0.ffn_up.bias", "model.layers.0.mlp.up_proj.bias"),
            ("blk.0.ffn_up_exps.17.weight", "model.layers.0.mlp.experts.17.up_proj.weight"),
        ] {
            assert_eq!(names.own(hub).as_deref(), Some(own));
            assert_eq!(names.on_hub(own).as_deref(), Some(hub));
        }
        assert_eq!(names.own("model.layers.0.self_attn.z_proj.weight"), None);
        assert_eq!(names.own("model.layers.0"), None);
        assert_eq!(names.own("model.layers.0.mlp.experts.x.up_proj.weight"), None);
        assert_eq!(names.own("model.layers.0.mlp.experts.up_proj.weight"), None);
        assert_eq!(names.on_hub("blk.0.attn_k.weight"), None);
        assert!(names.has("ffn_up") && !names.has("output_norm"));
    }
}
