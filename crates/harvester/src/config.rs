//! The `[harvest]` section.

use monosema_core::HookPoint;
use monosema_store::{Compression, Layout, Order, VectorDtype, WriterOptions};
use monosema_text::TextConfig;
use serde::{Deserialize, Serialize};

/// A harvest as a user asks for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HarvestConfig {
    /// Where to read activations, for instance `["blocks.9.hook_resid_post"]`. One pass over the text serves all.
    pub hooks: Vec<HookPoint>,
    /// Which text to run the model over.
    pub text: TextConfig,
    /// Stop after so many tokens that count and are kept, from the beginning of the text on; with `max_norm_multiple`, in the
    /// order in which they are stored. Default: all of the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Leave out a token if at any of the hooks its activation has a norm above so many times the median norm of the counted
    /// tokens of its batch (`batch_tokens` is part of the result then). Default: none is left out. 10 is what
    /// dictionary_learning advises, for models with massive activations at places that `[context]` cannot name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_norm_multiple: Option<f64>,
    /// Whether activations go from the model to the training as they are made, and none is stored. Default `false`.
    #[serde(default)]
    pub stream: bool,
    /// Where activations are stored, if not in the run's own directory: a place in an object store, such as
    /// `s3://bucket/acts`, from which training then reads them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Whether every hook has a directory of shards for itself, named after it, which can be used alone. Default `false`: one set
    /// of shards holds them all.
    #[serde(default)]
    pub hooks_apart: bool,
    /// The type activations are stored as. Default `f32`: as computed, and nothing overflows. `f16` halves disk
    /// and buffers at a relative error of 2⁻¹¹, but ends at 65504, which massive activations of large models pass;
    /// `bf16` has the range of f32 and a relative error of 2⁻⁸.
    #[serde(default)]
    pub dtype: VectorDtype,
    /// In which order rows lie on disk. Default `shuffled`: a random one of all rows, in which a training reads them without a
    /// shuffle buffer; `text`: as they are harvested.
    #[serde(default)]
    pub order: Order,
    /// How a vector lies in its column. Default `binary`; `list` for tools that want lists of numbers.
    #[serde(default)]
    pub layout: Layout,
    /// Tokens that the model runs over at once, in whole context windows and at least one. It changes speed and memory, and results by
    /// rounding only. Default: 2048 on the CPU, and what fits into the free memory of a GPU; what does not fit after all is
    /// halved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch_tokens: Option<usize>,
    /// Tokens in a shard. Default 65,536: two shards are held in memory.
    #[serde(default = "default_shard_tokens")]
    pub shard_tokens: u64,
    /// Tokens in a row group: what a reader reads at once where rows are in the order of the text. Default 4096.
    #[serde(default = "default_row_group_tokens")]
    pub row_group_tokens: u64,
    /// Compression of the vectors. Default `none`: zstd saves about 8 % and makes reading several times slower.
    #[serde(default)]
    pub compression: Compression,
}

impl HarvestConfig {
    /// A harvest of `hooks` from `text`, everything else as by default.
    pub fn new(hooks: Vec<HookPoint>, text: TextConfig) -> Self {
        Self {
            hooks,
            text,
            tokens: None,
            max_norm_multiple: None,
            stream: false,
            to: None,
            order: Order::default(),
            hooks_apart: false,
            dtype: VectorDtype::default(),
            layout: Layout::default(),
            batch_tokens: None,
            shard_tokens: default_shard_tokens(),
            row_group_tokens: default_row_group_tokens(),
            compression: Compression::default(),
        }
    }
}

fn default_shard_tokens() -> u64 {
    WriterOptions::default().shard_tokens
}

fn default_row_group_tokens() -> u64 {
    WriterOptions::default().row_group_tokens
}
