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

use super::Family;
use crate::{
    Activation, LanguageModel, ModelError, ModelInfo, RopeScaling,
    blocks::{AttentionShape, BlockShape, MlpShape, NormKind, Norms, Rope, Shape, Transformer},
    pass,
    tap::NoTap,
};

mod config;
mod save;

pub use save::SavedDtype;

pub(crate) use config::FAMILY;

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
    transformer: Transformer,
    #[module(skip)]
    config: LlamaConfig,
}

impl Llama {
    /// A model of random weights: normal with standard deviation 0.02, on maps into the residual stream less by
    /// `sqrt(2 n_layers)` (Radford et al., 2019); biases 0, norms 1. The same seed gives the same weights.
    ///
    /// # Errors
    /// If `config` contradicts itself.
    pub fn init(config: &LlamaConfig, seed: Seed, device: &Device) -> Result<Self, ModelError> {
        let shape = config.shape();
        shape.check(Path::new("LlamaConfig"))?;
        let transformer = Transformer::init(&shape, &mut seed.stream("llama.init"), device);
        Ok(Self { transformer, config: config.clone() })
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
        let hidden = pass::forward(&self.transformer, tokens, &mut NoTap);
        let rows = hidden.reshape([batch * seq, self.config.d_model]);
        self.transformer.embedding.unembed(rows).reshape([batch, seq, self.config.d_vocab])
    }

    /// The model, frozen, under a name.
    pub fn freeze_as(&self, name: &str) -> LanguageModel {
        let model = self.transformer.valid();
        let info = ModelInfo::new(name.to_owned(), Family::Llama, &model.shape, model.num_params() as u64);
        let device = model.device();
        LanguageModel::new(model, info, &device)
    }
}

impl LlamaConfig {
    fn shape(&self) -> Shape {
        let rope =
            Rope { d_rotated: self.d_head, theta: self.rope_theta, scaling: self.rope_scaling.clone() };
        let block = BlockShape {
            norms: Norms::Before,
            parallel: false,
            attention: AttentionShape {
                n_heads: self.n_heads,
                n_kv_heads: self.n_kv_heads,
                d_head: self.d_head,
                qkv_bias: self.attention_bias,
                output_bias: self.attention_bias,
                qk_norm: None,
                scale: 1.0 / (self.d_head as f64).sqrt(),
                soft_cap: None,
                rope: Some(rope),
                window: self.sliding_window,
                latent: None,
            },
            mlp: MlpShape {
                d_mlp: self.d_mlp,
                gated: true,
                bias: self.mlp_bias,
                activation: self.activation,
            },
            experts: None,
        };
        Shape {
            d_vocab: self.d_vocab,
            d_model: self.d_model,
            max_context: self.max_context,
            embedding_scale: None,
            embedded_positions: false,
            norm: NormKind::Rms,
            norm_epsilon: self.norm_epsilon,
            blocks: vec![block; self.n_layers],
            tied: self.tied,
            logit_soft_cap: None,
        }
    }
}
