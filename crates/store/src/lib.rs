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
mod filling;
mod merge;
mod order;
mod part;
mod past_cache;
mod permutation;
mod place;
mod quality;
mod rank;
mod row_group;
mod schema;
mod shard;
mod shard_bytes;
mod shard_file;
mod shuffle;
mod source;
mod store;
mod stored;
mod values;
mod writer;

pub use batches::{Batch, BatchPlan, Batches, shuffled};
pub use dtype::VectorDtype;
pub use error::StoreError;
pub use order::Order;
pub use part::{Part, join, parts, whole_work};
pub use permutation::Permutation;
pub use place::Place;
pub use quality::{Excess, Quality};
pub use row_group::RowGroup;
pub use schema::{DOCUMENT, HookColumn, Layout, ORDER, POSITION, StoreSchema, TOKEN_ID, VERSION};
pub use shard::number as shard_number;
pub use source::{Activations, GroupNumbers, RowGroups};
pub use store::Store;
pub use stored::{Stored, makers};
pub use writer::{Compression, Rows, Writer, WriterOptions, Written};
