//! The step on devices for which CubeCL compiles: CUDA, and others that burn reaches through it. Each file holds kernels and
//! how they are launched.

#![allow(clippy::too_many_arguments, reason = "a kernel has an argument for every buffer")]
#![allow(clippy::neg_cmp_op_on_partial_ord, reason = "what is no number is to pass")]

mod adam;
mod batch;
mod batch_top_k;
mod by_latent;
mod dense;
mod gradients;
mod launch;
mod lists;
mod select;
mod sparse;
mod step;
mod through;
mod units;

pub(crate) use self::step::{step, supports};
