//! Text to tokens to packed context windows.
//!
//! [`Corpus`] streams documents out of files, [`Tokenizer`] turns them into token ids, [`contexts`] packs
//! those into windows for a language model, and [`batches`] stacks windows. Harvesting and
//! evaluation share all of it, so that both see and count the same tokens.
//!
//! Architecture invariant: this crate knows no tensors and no model. A whole corpus is never in memory:
//! one document is (a `.txt` file is one document), and a few megabytes of them while they are tokenised.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batch;
mod context;
mod corpus;
mod counting;
mod error;
mod estimate;
mod find;
mod formats;
mod limit;
mod merges;
mod pack;
mod positions;
mod special;
mod token_name;
mod tokenizer;
mod window;

pub use batch::{ContextBatch, batches};
pub use context::{Bos, ContextConfig, ContextPlan, Separator};
pub use corpus::{Beside, Corpus, Document, Documents, Flaws, InvalidUtf8, TextConfig};
pub use error::TextError;
pub use estimate::Estimate;
pub use limit::limited;
pub use merges::check_merges;
pub use monosema_remote::SourceFile;
pub use pack::contexts;
pub use positions::Positions;
pub use token_name::TokenName;
pub use tokenizer::{SpecialTokens, Tokenizer};
pub use window::{Context, Tally, Verdict};
