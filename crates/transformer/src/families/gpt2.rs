//! GPT-2 (Radford et al., 2019, "Language Models are Unsupervised Multitask Learners").
//!
//! LayerNorm, learned positions, full attention, an MLP of two maps, the output tied to the embedding.
//! Reference: `modeling_gpt2.py` of transformers.

use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor},
};
use serde_json::json;

use super::{Configuration, GgufNames, HARMLESS_KEYS, Size};
use crate::{
    Activation, ModelError,
    attention::{Attention, Heads},
    embedding::Embedding,
    formats::{Settings, TensorSource},
    linear::{Linear, parameter},
    norm::LayerNorm,
    pass::Decoder,
    positions::Positions,
    weights::{Stored, Weights},
};

pub(crate) use Gpt2Config as Config;

/// The shape of a GPT-2.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpt2Config {
    /// The number of tokens.
    pub d_vocab: usize,
    /// The width of the residual stream.
    pub d_model: usize,
    /// The width of the MLPs.
    pub d_mlp: usize,
    /// The number of blocks.
    pub n_layers: usize,
    /// The number of heads; divides `d_model`.
    pub n_heads: usize,
    /// The longest sequence.
    pub max_context: usize,
    /// The MLP's activation function.
    pub activation: Activation,
    /// Added to the variance in norms.
    pub norm_epsilon: f64,
    /// Whether attention scores are divided by `sqrt(d_head)`.
    pub scaled_attention: bool,
    /// Whether the attention scores of block `L` are divided by `L + 1` too.
    pub scaled_by_layer: bool,
    /// Whether the output is the transposed embedding.
    pub tied: bool,
}

/// A GPT-2.
#[derive(Module, Debug)]
pub(crate) struct Gpt2 {
    embedding: Embedding,
    /// `[max_context, d_model]`.
    position_embedding: Param<Tensor<2>>,
    blocks: Vec<Block>,
    final_norm: LayerNorm,
    #[module(skip)]
    config: Gpt2Config,
    #[module(skip)]
    positions: Positions,
}

#[derive(Module, Debug)]
struct Block {
    attention_norm: LayerNorm,
    attention: Attention,
    mlp_norm: LayerNorm,
    up: Linear,
    down: Linear,
}

impl Decoder for Gpt2 {
    fn n_layers(&self) -> usize {
        self.blocks.len()
    }

    fn embed(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        self.embedding.embed(tokens)
    }

    fn add_positions(&self, x: Tensor<3>) -> Tensor<3> {
        let seq = x.dims()[1];
        x + self.position_embedding.val().narrow(0, 0, seq).unsqueeze()
    }

    fn attention(&self, layer: usize, x: Tensor<3>) -> Tensor<3> {
        let block = &self.blocks[layer];
        block.attention.forward(block.attention_norm.forward(x), &self.positions)
    }

    fn mlp(&self, layer: usize, x: Tensor<3>) -> Tensor<3> {
        let block = &self.blocks[layer];
        let [batch, seq, d_model] = x.dims();
        let x = block.mlp_norm.forward(x).reshape([batch * seq, d_model]);
        let acts = self.config.activation.forward(block.up.forward(x));
        block.down.forward(acts).reshape([batch, seq, d_model])
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

impl Configuration for Gpt2Config {
    const MODEL_TYPES: &[&str] = &["gpt2"];
    const ARCHITECTURES: &[&str] = &["GPT2LMHeadModel"];
    const GGUF_ARCHITECTURE: &str = "gpt2";
    const GGUF_NAMES: GgufNames = GgufNames {
        blocks: "transformer.h.",
        whole: &[
            ("token_embd.weight", "transformer.wte.weight"),
            ("position_embd.weight", "transformer.wpe.weight"),
            ("output_norm.weight", "transformer.ln_f.weight"),
            ("output_norm.bias", "transformer.ln_f.bias"),
            ("output.weight", "lm_head.weight"),
        ],
        parts: &[
            ("attn_norm", "ln_1"),
            ("attn_qkv", "attn.c_attn"),
            ("attn_output", "attn.c_proj"),
            ("ffn_norm", "ln_2"),
            ("ffn_up", "mlp.c_fc"),
            ("ffn_down", "mlp.c_proj"),
        ],
    };

    fn from_config_json(_: &str, settings: &Settings) -> Result<Self, ModelError> {
        let d_model = settings.count("n_embd")?;
        let name = settings.text("activation_function")?.unwrap_or("gelu_new");
        let activation = Activation::from_name(name).ok_or_else(|| {
            let known = format!("expected one of {}", Activation::NAMES);
            settings.unsupported(format!("activation_function {name:?}"), known)
        })?;
        let config = Self {
            d_vocab: settings.count("vocab_size")?,
            d_model,
            d_mlp: settings.count_if_any("n_inner")?.unwrap_or(4 * d_model),
            n_layers: settings.count("n_layer")?,
            n_heads: settings.count("n_head")?,
            max_context: settings.count("n_positions")?,
            activation,
            norm_epsilon: settings.positive_if_any("layer_norm_epsilon")?.unwrap_or(1e-5),
            scaled_attention: settings.flag("scale_attn_weights", true)?,
            scaled_by_layer: settings.flag("scale_attn_by_inverse_layer_idx", false)?,
            tied: settings.flag("tie_word_embeddings", true)?,
        };
        settings.refuse("quantization_config", &[], "fetch the model's unquantised weights")?;
        settings.refuse("add_cross_attention", &[], "there is nothing to attend to")?;
        settings.warn_of_unread(HARMLESS_KEYS);
        config.check(settings, "n_head")?;
        Ok(config)
    }

    fn from_gguf(settings: &Settings, tensors: &dyn TensorSource) -> Result<Self, ModelError> {
        let embedding = tensors.tensors().get("token_embd.weight");
        let d_vocab = embedding.and_then(|tensor| tensor.shape.first().copied());
        let n_heads = settings.count("attention.head_count")?;
        settings.refuse(
            "attention.head_count_kv",
            &[json!(n_heads)],
            "GPT-2 has as many key as query heads",
        )?;
        let config = Self {
            d_vocab: d_vocab.ok_or_else(|| settings.wrong("vocab_size", "there is no token_embd.weight"))?,
            d_model: settings.count("embedding_length")?,
            d_mlp: settings.count("feed_forward_length")?,
            n_layers: settings.count("block_count")?,
            n_heads,
            max_context: settings.count("context_length")?,
            activation: Activation::GeluTanh,
            norm_epsilon: settings.positive("attention.layer_norm_epsilon")?,
            scaled_attention: true,
            scaled_by_layer: false,
            tied: !tensors.tensors().contains_key("output.weight"),
        };
        settings.warn_of_unread(&["vocab_size"]);
        config.check(settings, "attention.head_count")?;
        Ok(config)
    }

    fn size(&self) -> Size {
        let Self { n_layers, d_model, d_vocab, max_context, .. } = *self;
        Size { n_layers, d_model, d_vocab, max_context }
    }

    /// The original checkpoint lacks the prefix that saving with the output's class adds.
    fn own_name(name: &str) -> String {
        if name.starts_with("transformer.") || name == "lm_head.weight" {
            name.to_owned()
        } else {
            format!("transformer.{name}")
        }
    }

    /// The conversion turns Conv1D weights into Linear ones.
    fn gguf_stored(&self, own: &str) -> Stored {
        if own.contains(".c_") && own.ends_with(".weight") { Stored::Transposed } else { Stored::AsIs }
    }

    fn is_buffer(name: &str) -> bool {
        name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias")
    }

    fn is_copy(&self, name: &str) -> bool {
        self.tied && name == "lm_head.weight"
    }

    fn load(&self, weights: &mut Weights, device: &Device) -> Result<Box<dyn Decoder>, ModelError> {
        let c = self;
        let names = ["transformer.wte.weight", "lm_head.weight"];
        let embedding = Embedding::load(names, [c.d_vocab, c.d_model], c.tied, weights, device)?;
        let context = [c.max_context, c.d_model];
        let blocks =
            (0..c.n_layers).map(|layer| c.load_block(layer, weights, device)).collect::<Result<_, _>>()?;
        Ok(Box::new(Gpt2 {
            embedding,
            position_embedding: parameter(context, weights.take("transformer.wpe.weight", context)?, device),
            blocks,
            final_norm: c.load_norm("transformer.ln_f", weights, device)?,
            config: c.clone(),
            positions: Positions::new(None, None),
        }))
    }
}

impl Gpt2Config {
    fn check(&self, settings: &Settings, key: &str) -> Result<(), ModelError> {
        if self.d_model.is_multiple_of(self.n_heads) {
            return Ok(());
        }
        Err(settings
            .wrong(key, format!("expected a divisor of the width {}, found {}", self.d_model, self.n_heads)))
    }

    fn load_block(&self, layer: usize, weights: &mut Weights, device: &Device) -> Result<Block, ModelError> {
        let (d_model, d_head) = (self.d_model, self.d_model / self.n_heads);
        let at = |name: &str| format!("transformer.h.{layer}.{name}");
        let attention_norm = self.load_norm(&at("ln_1"), weights, device)?;
        let mlp_norm = self.load_norm(&at("ln_2"), weights, device)?;
        // Conv1D has its weight as `[d_in, d_out]`.
        let mut conv1d = |name: &str, d_out: usize, d_in: usize| {
            let weight = weights.take(&at(&format!("{name}.weight")), [d_in, d_out])?;
            let bias = weights.take(&at(&format!("{name}.bias")), [d_out])?;
            Ok::<_, ModelError>(Linear::new([d_in, d_out], weight, Some(bias), device))
        };
        let scale = if self.scaled_attention { 1.0 / (d_head as f64).sqrt() } else { 1.0 };
        let divisor = if self.scaled_by_layer { layer as f64 + 1.0 } else { 1.0 };
        Ok(Block {
            attention_norm,
            attention: Attention {
                qkv: conv1d("attn.c_attn", 3 * d_model, d_model)?,
                output: conv1d("attn.c_proj", d_model, d_model)?,
                heads: Heads {
                    n_heads: self.n_heads,
                    n_kv_heads: self.n_heads,
                    d_head,
                    scale: scale / divisor,
                },
            },
            mlp_norm,
            up: conv1d("mlp.c_fc", self.d_mlp, d_model)?,
            down: conv1d("mlp.c_proj", d_model, self.d_mlp)?,
        })
    }

    fn load_norm(&self, name: &str, weights: &mut Weights, device: &Device) -> Result<LayerNorm, ModelError> {
        let mut vector = |kind: &str| {
            let values = weights.take(&format!("{name}.{kind}"), [self.d_model])?;
            Ok::<_, ModelError>(parameter([self.d_model], values, device))
        };
        Ok(LayerNorm { weight: vector("weight")?, bias: vector("bias")?, epsilon: self.norm_epsilon })
    }
}
