//! What can be wrong with a harvest.

use monosema_core::ManifestError;
use monosema_store::StoreError;
use monosema_text::TextError;
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
    /// There is text, but nothing of it counts.
    #[error(
        "none of the text's {seen} tokens counts: every one is special, or among the first {skip_first} of its \
         window; see [context] skip_first and skip_special"
    )]
    NothingCounts {
        /// Tokens in windows.
        seen: u64,
        /// `skip_first` of the plan.
        skip_first: usize,
    },
}
