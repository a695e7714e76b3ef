//! What can be wrong with a harvest.

use monosema_core::ManifestError;
use monosema_store::StoreError;
use monosema_text::{Tally, TextError};
use monosema_transformer::ModelError;

/// A harvest that cannot be planned or finished.
#[derive(Debug, thiserror::Error)]
pub enum HarvestError {
    /// The text, the tokenizer or the `[context]` section.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The activations.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The disk is full.
    #[error("{source} (about {bytes} bytes of the harvest are still to come)")]
    NoRoom {
        /// What the rest of the harvest needs.
        bytes: u64,
        /// What did not fit.
        source: StoreError,
    },
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A setting that cannot work.
    #[error("[{section}] {key}: {reason}")]
    BadConfig {
        /// The section.
        section: &'static str,
        /// The setting.
        key: &'static str,
        /// Expected and found.
        reason: String,
    },
    /// The device's memory does not hold what one window needs.
    #[error(
        "the device's memory does not hold one window: {reason}\nset a shorter [context] length, [model] precision = \"bf16\" \
         or another device"
    )]
    OutOfMemory {
        /// What the device said.
        reason: String,
    },
    /// The device failed.
    #[error("the device failed: {reason}")]
    Device {
        /// What it said.
        reason: String,
    },
    /// There is text, but nothing of it counts.
    #[error(
        "none of the text's {} tokens counts: {} are left out by their position, {} as BOS, {} as other special tokens \
         and {} by their token; see [context] skip_first, positions, skip_bos, skip_special, only_tokens and \
         skip_tokens",
        tally.seen, tally.skipped_position, tally.skipped_bos, tally.skipped_special, tally.skipped_token
    )]
    NothingCounts {
        /// Tokens in windows, and what became of them.
        tally: Tally,
    },
}
