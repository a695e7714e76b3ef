//! The transformer crate against transformers, on the fixtures in `tests/fixtures/transformer`.

#![allow(clippy::unwrap_used)]

mod damaged;
mod every_tensor;
mod families;
mod fixture;
mod golden;
mod hooks;
mod losses;
mod pickles;
mod refusals;
mod strict;
mod training;
