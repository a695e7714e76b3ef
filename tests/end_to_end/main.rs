//! The binary on the embedded demo, as a user runs it: the pipeline, interruption, and bad input.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod compare;
mod convert;
mod elsewhere;
mod harvest;
mod hub;
// A hub of our own, as the tests of what it is asked use it.
#[allow(dead_code, reason = "those tests ask for more")]
#[path = "../../crates/remote/tests/hub/server.rs"]
mod hub_server;
mod inspect;
mod judged;
mod pipeline;
mod places;
mod run;
mod several;
mod stream;
mod training;
