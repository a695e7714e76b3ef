//! Llama and what is built like it: Llama 1 to 3 (Touvron et al., 2023, arXiv:2302.13971; Grattafiori et al.,
//! 2024, arXiv:2407.21783), SmolLM2, and Mistral with its sliding window (Jiang et al., 2023, arXiv:2310.06825).
//!
//! RMSNorm, rotary positions, grouped-query attention, gated MLP. Reference: `modeling_llama.py` and
//! `modeling_mistral.py` of transformers.

use std::path::Path;

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use monosema_core::Seed;

use super::Size;
use crate::{
    Activation, LanguageModel, ModelError, ModelInfo, RopeScaling,
    attention::{Attention, Heads},
    embedding::Embedding,
    linear::{Linear, parameter},
    norm::RmsNorm,
    pass::{self, Decoder},
    positions::Positions,
    random::normal,
    rotary::Rotary,
    tap::NoTap,
    weights::Weights,
};

mod checkpoint;
mod save;

pub use save::SavedDtype;

pub(crate) use LlamaConfig as Config;

/// The shape of a Llama.
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// The number of tokens.
    pub d_vocab: usize,
    /// The width of the residual stream.
    pub d_model: usize,
    /// The width of the MLPs.
    pub d_mlp: usize,
    /// The number of blocks.
    pub n_layers: usize,
    /// The number of query heads.
    pub n_heads: usize,
    /// The number of key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// The width of a head; even.
    pub d_head: usize,
    /// The longest sequence.
    pub max_context: usize,
    /// What the MLP's gate goes through.
    pub activation: Activation,
    /// Added to the mean square in norms.
    pub norm_epsilon: f64,
    /// The base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies were changed for longer contexts.
    pub rope_scaling: Option<RopeScaling>,
    /// A position sees only this many positions, itself included.
    pub sliding_window: Option<usize>,
    /// Whether the attention's four maps have biases.
    pub attention_bias: bool,
    /// Whether the MLP's three maps have biases.
    pub mlp_bias: bool,
    /// Whether the output is the transposed embedding.
    pub tied: bool,
}

/// A Llama, to be trained or frozen.
#[derive(Module, Debug)]
pub struct Llama {
    embedding: Embedding,
    blocks: Vec<Block>,
    final_norm: RmsNorm,
    #[module(skip)]
    config: LlamaConfig,
    #[module(skip)]
    positions: Positions,
}

#[derive(Module, Debug)]
struct Block {
    attention_norm: RmsNorm,
    attention: Attention,
    mlp_norm: RmsNorm,
    mlp: GatedMlp,
}

/// `down(activation(gate(x)) * up(x))` (Shazeer, 2020, arXiv:2002.05202).
#[derive(Module, Debug)]
struct GatedMlp {
    /// The gate's outputs, then those of `up`: one product for both.
    gate_up: Linear,
    down: Linear,
}

impl GatedMlp {
    fn forward(&self, x: Tensor<3>, activation: Activation) -> Tensor<3> {
        let [batch, seq, d_model] = x.dims();
        let gate_up = self.gate_up.forward(x.reshape([batch * seq, d_model]));
        self.down.forward(activation.gated(gate_up)).reshape([batch, seq, d_model])
    }
}

impl Llama {
    /// A model of random weights: normal with standard deviation 0.02, on maps into the residual stream less by
    /// `sqrt(2 n_layers)` (Radford et al., 2019); biases 0, norms 1. The same seed gives the same weights.
    ///
    /// # Errors
    /// If `config` contradicts itself.
    pub fn init(config: &LlamaConfig, seed: Seed, device: &Device) -> Result<Self, ModelError> {
        config.check(Path::new("LlamaConfig"))?;
        let mut rng = seed.stream("llama.init");
        let shape = [config.d_vocab, config.d_model];
        let embedding = normal(config.d_vocab * config.d_model, 0.02, &mut rng);
        let into_stream = 0.02 / (2.0 * config.n_layers as f64).sqrt();
        let mut linear = |d_out: usize, d_in: usize, std: f64, bias: bool| {
            let weight = normal(d_out * d_in, std, &mut rng);
            Linear::new([d_in, d_out], weight, bias.then(|| vec![0.0; d_out]), device)
        };
        let c = config;
        let d_heads = c.n_heads * c.d_head;
        let norm = || RmsNorm {
            weight: parameter([c.d_model], vec![1.0; c.d_model], device),
            epsilon: c.norm_epsilon,
        };

        let mut block = || Block {
            attention_norm: norm(),
            attention: Attention {
                qkv: linear(d_heads + 2 * c.n_kv_heads * c.d_head, c.d_model, 0.02, c.attention_bias),
                output: linear(c.d_model, d_heads, into_stream, c.attention_bias),
                heads: c.heads(),
            },
            mlp_norm: norm(),
            mlp: GatedMlp {
                gate_up: linear(2 * c.d_mlp, c.d_model, 0.02, c.mlp_bias),
                down: linear(c.d_model, c.d_mlp, into_stream, c.mlp_bias),
            },
        };
        let blocks = (0..c.n_layers).map(|_| block()).collect();
        let output = (!c.tied).then(|| linear(c.d_vocab, c.d_model, 0.02, false));
        Ok(Self {
            embedding: Embedding { weight: parameter(shape, embedding, device), output },
            blocks,
            final_norm: norm(),
            config: c.clone(),
            positions: c.positions(),
        })
    }

    /// Its shape.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// The logits of the next token at every position. On an autodiff device gradients flow through it.
    ///
    /// # Shapes
    /// `tokens`: `[batch, seq]`, `seq` up to `max_context`. Result: `[batch, seq, d_vocab]`.
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let [batch, seq] = tokens.dims();
        let hidden = pass::forward(self, tokens, &mut NoTap);
        let logits = self.unembed(hidden.reshape([batch * seq, self.config.d_model]));
        logits.reshape([batch, seq, self.config.d_vocab])
    }

    /// The model, frozen, under a name.
    pub fn freeze_as(&self, name: &str) -> LanguageModel {
        let model = self.valid();
        let config = super::FamilyConfig::Llama(self.config.clone());
        let info = ModelInfo::new(name.to_owned(), &config, model.num_params() as u64);
        let device = model.embedding.weight.val().device();
        LanguageModel::new(Box::new(model), info, &device)
    }

    /// Takes the weights of a checkpoint.
    fn load(config: &LlamaConfig, weights: &mut Weights, device: &Device) -> Result<Self, ModelError> {
        let c = config;
        let names = ["model.embed_tokens.weight", "lm_head.weight"];
        let embedding = Embedding::load(names, [c.d_vocab, c.d_model], c.tied, weights, device)?;
        let blocks =
            (0..c.n_layers).map(|layer| Block::load(c, layer, weights, device)).collect::<Result<_, _>>()?;
        Ok(Self {
            embedding,
            blocks,
            final_norm: c.load_norm("model.norm", weights, device)?,
            config: c.clone(),
            positions: c.positions(),
        })
    }
}

impl Block {
    fn load(
        c: &LlamaConfig,
        layer: usize,
        weights: &mut Weights,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let at = |name: &str| format!("model.layers.{layer}.{name}");
        let (queries, keys) = (c.n_heads * c.d_head, c.n_kv_heads * c.d_head);
        // Several maps of the same input make one map.
        let mut linear = |parent: &str, parts: &[(&str, usize)], d_in: usize, has_bias: bool| {
            let (mut weight, mut bias) = (Vec::new(), Vec::new());
            for (name, d_out) in parts {
                weight.extend(weights.take(&at(&format!("{parent}.{name}.weight")), [*d_out, d_in])?);
                bias.extend(
                    weights
                        .take_if(has_bias, &at(&format!("{parent}.{name}.bias")), [*d_out])?
                        .into_iter()
                        .flatten(),
                );
            }
            let d_out = parts.iter().map(|(_, d_out)| d_out).sum();
            Ok::<_, ModelError>(Linear::from_torch([d_out, d_in], weight, has_bias.then_some(bias), device))
        };
        let qkv = [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)];
        let attention = Attention {
            qkv: linear("self_attn", &qkv, c.d_model, c.attention_bias)?,
            output: linear("self_attn", &[("o_proj", c.d_model)], queries, c.attention_bias)?,
            heads: c.heads(),
        };
        let mlp = GatedMlp {
            gate_up: linear("mlp", &[("gate_proj", c.d_mlp), ("up_proj", c.d_mlp)], c.d_model, c.mlp_bias)?,
            down: linear("mlp", &[("down_proj", c.d_model)], c.d_mlp, c.mlp_bias)?,
        };
        Ok(Self {
            attention_norm: c.load_norm(&at("input_layernorm"), weights, device)?,
            attention,
            mlp_norm: c.load_norm(&at("post_attention_layernorm"), weights, device)?,
            mlp,
        })
    }
}

impl Decoder for Llama {
    fn n_layers(&self) -> usize {
        self.blocks.len()
    }

    fn embed(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        self.embedding.embed(tokens)
    }

    fn attention(&self, layer: usize, x: Tensor<3>) -> Tensor<3> {
        let block = &self.blocks[layer];
        block.attention.forward(block.attention_norm.forward(x), &self.positions)
    }

    fn mlp(&self, layer: usize, x: Tensor<3>) -> Tensor<3> {
        let block = &self.blocks[layer];
        block.mlp.forward(block.mlp_norm.forward(x), self.config.activation)
    }

    fn normalize(&self, x: Tensor<3>) -> Tensor<3> {
        self.final_norm.normalize(x)
    }

    fn scale(&self, normalized: Tensor<3>) -> Tensor<3> {
        self.final_norm.scale(normalized)
    }

    fn unembed(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.embedding.unembed(hidden)
    }
}

impl LlamaConfig {
    fn heads(&self) -> Heads {
        let scale = 1.0 / (self.d_head as f64).sqrt();
        Heads { n_heads: self.n_heads, n_kv_heads: self.n_kv_heads, d_head: self.d_head, scale }
    }

    fn positions(&self) -> Positions {
        let rotary = Rotary::new(self.d_head, self.rope_theta, self.rope_scaling.as_ref());
        Positions::new(Some(rotary), self.sliding_window)
    }

    fn size(&self) -> Size {
        let Self { n_layers, d_model, d_vocab, max_context, .. } = *self;
        Size { n_layers, d_model, d_vocab, max_context }
    }

    fn load_norm(&self, name: &str, weights: &mut Weights, device: &Device) -> Result<RmsNorm, ModelError> {
        let weight = weights.take(&format!("{name}.weight"), [self.d_model])?;
        Ok(RmsNorm { weight: parameter([self.d_model], weight, device), epsilon: self.norm_epsilon })
    }

    /// Whether the numbers fit together; `file` is where they are from.
    fn check(&self, file: &Path) -> Result<(), ModelError> {
        let wrong = |key: &str, reason: String| {
            Err(ModelError::Config { file: file.to_owned(), key: key.to_owned(), reason })
        };
        let counts = [
            ("d_vocab", self.d_vocab),
            ("d_model", self.d_model),
            ("d_mlp", self.d_mlp),
            ("n_layers", self.n_layers),
            ("n_heads", self.n_heads),
            ("n_kv_heads", self.n_kv_heads),
            ("d_head", self.d_head),
            ("max_context", self.max_context),
            ("sliding_window", self.sliding_window.unwrap_or(1)),
        ];
        if let Some((key, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return wrong(key, "expected a number above 0, found 0".into());
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            let (heads, kv) = (self.n_heads, self.n_kv_heads);
            return wrong(
                "num_key_value_heads",
                format!("expected a divisor of the {heads} heads, found {kv}"),
            );
        }
        if !self.d_head.is_multiple_of(2) {
            return wrong(
                "head_dim",
                format!("expected an even number (rotary pairs), found {}", self.d_head),
            );
        }
        for (key, x) in [("norm_epsilon", self.norm_epsilon), ("rope_theta", self.rope_theta)] {
            if !(x.is_finite() && x > 0.0) {
                return wrong(key, format!("expected a number above 0, found {x}"));
            }
        }
        match &self.rope_scaling {
            Some(scaling) => scaling.check(self.d_head).or_else(|(key, reason)| wrong(key, reason)),
            None => Ok(()),
        }
    }
}
