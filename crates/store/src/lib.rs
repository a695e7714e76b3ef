//! Activation shards in Parquet: schema, writer, reader, shuffle.
//!
//! A store is a directory of Parquet files, sealed by a manifest. A row is one token: its id, where it stood,
//! and one vector a hook. `README.md` of this crate specifies the files, for other programs too.
//!
//! Architecture invariant: this crate knows Arrow, and no tensors and no model. Vectors come and go as `&[f32]`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(target_endian = "big")]
compile_error!("vectors on disk are little-endian, and are copied as they are");

mod batches;
mod course;
mod dtype;
mod error;
mod row_group;
mod schema;
mod shard;
mod shuffle;
mod source;
mod store;
mod writer;

pub use batches::{Batch, BatchPlan, Batches, shuffled};
pub use dtype::VectorDtype;
pub use error::StoreError;
pub use row_group::RowGroup;
pub use schema::{DOCUMENT, HookColumn, Layout, POSITION, StoreSchema, TOKEN_ID, VERSION};
pub use source::{Activations, GroupNumbers, RowGroups};
pub use store::Store;
pub use writer::{Compression, Rows, Writer, WriterOptions, Written};
