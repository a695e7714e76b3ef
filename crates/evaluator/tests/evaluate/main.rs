//! Evaluation on a tiny real model: fixed points, invariances, and the definitions worked out the long way.

#![allow(clippy::unwrap_used)]
#![allow(clippy::result_large_err, reason = "the library's own error, in helpers of tests")]

mod browser;
mod figures;
mod inspection;
mod labelled;
mod reference;
mod refusals;
mod reports;
mod world;
