//! How kernels are launched.

use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::units::UNITS;

/// As many numbers as are read at a time from rows of this width.
pub(super) fn vector_size(width: usize) -> usize {
    if width.is_multiple_of(4) { 4 } else { 1 }
}

/// So many cubes, or a few more.
pub(super) fn cubes(n: usize) -> CubeCount {
    // No dimension may be larger than this on any device.
    const SIDE: usize = 1 << 15;
    let rows = n.div_ceil(SIDE).max(1);
    CubeCount::Static(n.div_ceil(rows).max(1) as u32, rows as u32, 1)
}

/// A tensor as kernels take it: numbers in order, without gaps. (burn's own operations leave gaps between rows where a device
/// likes that.)
pub(super) fn arg(tensor: &CubeTensor) -> BufferArg {
    assert!(tensor.is_contiguous(), "rows lie without gaps");
    tensor.clone().into_buffer_arg()
}

/// A cube of UNITS units.
pub(super) fn units() -> CubeDim {
    CubeDim::new_1d(UNITS)
}
