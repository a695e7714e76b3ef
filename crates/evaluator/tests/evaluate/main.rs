//! Evaluation on a tiny real model: fixed points, invariances, and the definitions worked out the long way.

#![allow(clippy::unwrap_used)]

mod browser;
mod figures;
mod inspection;
mod labelled;
mod reference;
mod refusals;
mod reports;
mod world;
