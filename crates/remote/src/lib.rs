//! Files that are elsewhere: the Hugging Face hub and object stores.
//!
//! [`hub`] resolves `hf:owner/name@revision` to files in the hub's ordinary cache; [`SourceFile`] is a file of text that
//! may be anywhere and is fetched when its turn comes.
//!
//! Architecture invariant: async ends here. Callers see calls that block, and fetches that were begun and can be
//! waited for. What the files hold is not known here.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
pub mod hub;
mod object;
mod runtime;
mod source;

pub use error::RemoteError;
pub use object::{Folder, RemoteFile, is_object};
pub use source::{Fetched, Fetching, SourceFile, Sources, is_remote};
