//! The step on host memory: plain slices, vectors of whatever width the processor has, threads of rayon's pool.

mod active;
mod adam;
mod encode;
mod exact;
mod gradients;
mod line;
mod pack;
mod pairs;
mod screened;
mod select;
mod step;
mod through;
mod tile;
mod tiles;
mod vectors;

pub(crate) use step::{State, Values, screens, step};
