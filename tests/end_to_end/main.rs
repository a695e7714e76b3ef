//! The binary on the embedded demo, as a user runs it: the pipeline, interruption, and bad input.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod harvest;
mod inspect;
mod pipeline;
mod places;
mod run;
mod stream;
mod training;
