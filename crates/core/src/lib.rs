//! Words and contracts that cross crates: hook points, manifests, strict configuration, seeds, progress.
//!
//! Architecture invariant: this crate knows no tensors, no Arrow and no tokenizer. Whatever two crates
//! must agree on, and nothing else, lives here.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod ahead;
mod atomic;
pub mod config;
mod digest;
mod files;
mod hook;
pub mod manifest;
mod progress;
mod seed;

pub use ahead::Ahead;
pub use atomic::AtomicFile;
pub use digest::{Digest, Hasher, digest_bytes, digest_file};
pub use files::Files;
pub use hook::{BlockHook, HookPoint, UnknownHook};
pub use manifest::{Manifest, ManifestError, Stage};
pub use progress::Progress;
pub use seed::Seed;
