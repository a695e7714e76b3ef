//! What the units of a cube do together. Every unit of the cube must come here.

use cubecl::prelude::*;

/// Units in a cube.
pub(super) const UNITS: u32 = 256;

/// Units in a plane at least.
pub(super) const SMALLEST_PLANE: u32 = 4;

/// Planes in a cube at most.
const PLANES: usize = (UNITS / SMALLEST_PLANE) as usize;

/// Where a unit's share of something that is laid out unit by unit lies.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Place {
    /// What the units before it have.
    pub(super) before: u32,
    /// What all have.
    pub(super) total: u32,
}

/// Lays out `n` of every unit.
#[cube]
pub(super) fn place(n: u32) -> Place {
    let mut sums = Shared::<[u32]>::new_slice(PLANES);
    // Planes come together again after loops of different lengths: what follows counts those that are here.
    sync_cube();
    let within = plane_inclusive_sum(n);
    if UNIT_POS_PLANE == PLANE_DIM - 1 {
        sums[PLANE_POS as usize] = within;
    }
    sync_cube();
    let mut before = within - n;
    let mut total = 0u32;
    for plane in 0..CUBE_DIM / PLANE_DIM {
        let sum = sums[plane as usize];
        if plane < PLANE_POS {
            before += sum;
        }
        total += sum;
    }
    sync_cube();
    Place { before, total }
}

/// The sum of every unit's `value`.
#[cube]
pub(super) fn sum(value: f32) -> f32 {
    let mut sums = Shared::<[f32]>::new_slice(PLANES);
    sync_cube();
    let of_plane = plane_sum(value);
    if UNIT_POS_PLANE == 0 {
        sums[PLANE_POS as usize] = of_plane;
    }
    sync_cube();
    let mut sum = 0.0f32;
    for plane in 0..CUBE_DIM / PLANE_DIM {
        sum += sums[plane as usize];
    }
    sync_cube();
    sum
}

/// The sum of a vector's numbers.
#[cube]
pub(super) fn total<N: Size>(vector: Vector<f32, N>) -> f32 {
    let mut total = 0.0f32;
    #[unroll]
    for i in 0..N::value() {
        total += vector.extract(i);
    }
    total
}
