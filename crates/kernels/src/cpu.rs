//! The step on host memory: plain slices, vectors of whatever width the processor has, threads of rayon's pool.

mod activate;
mod active;
mod adam;
mod aux;
mod bias;
mod charge;
mod dense;
mod encode;
mod exact;
mod gated;
mod gradients;
mod jump;
mod law;
mod line;
mod pack;
#[cfg_attr(
    not(any(test, target_arch = "x86_64")),
    allow(dead_code, unused_variables, reason = "there are no instructions for pairs to use it with")
)]
mod pairs;
mod pre_act;
mod reconstruction;
mod rule;
#[cfg_attr(
    not(any(test, target_arch = "x86_64")),
    allow(dead_code, unused_variables, reason = "there are no instructions for pairs to use it with")
)]
mod screened;
mod select;
mod skip;
mod step;
#[cfg(test)]
mod tests;
mod through;
mod tile;
mod tiles;
mod values;
mod vectors;

pub(crate) use self::{
    step::{screens, step},
    values::{Examples, Found, State, Values},
};
