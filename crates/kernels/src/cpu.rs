//! The step on host memory: plain slices, vectors of whatever width the processor has, threads of rayon's pool.

mod active;
mod adam;
mod encode;
mod exact;
mod gradients;
mod line;
mod pack;
#[cfg_attr(
    not(any(test, target_arch = "x86_64")),
    allow(dead_code, unused_variables, reason = "there are no instructions for pairs to use it with")
)]
mod pairs;
#[cfg_attr(
    not(any(test, target_arch = "x86_64")),
    allow(dead_code, unused_variables, reason = "there are no instructions for pairs to use it with")
)]
mod screened;
mod select;
mod step;
mod through;
mod tile;
mod tiles;
mod vectors;

pub(crate) use step::{Found, State, Values, screens, step};
