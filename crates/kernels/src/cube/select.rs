//! Which pre-activations are active, gathered token by token in ascending order of latents.

use cubecl::prelude::*;

use super::units::{UNITS, place};

/// The largest k that [`top_k`] can select.
pub(super) const MOST: usize = 1024;

/// Candidates that a token has room for: `MOST`, and what a cube looks at between two looks at how many there are.
const ROOM: usize = 2 * MOST;

/// Shared memory of a cube that selects the largest, in bytes: candidates, their values, bins, and some to spare.
pub(super) const SHARED: usize = 10 * ROOM;

/// Bins of a digit of 8 bits: one for every unit.
const BINS: usize = UNITS as usize;

/// How many numbers are above `floor`, or not comparable with it: what is no number stays, for all to see.
#[cube]
fn count_above<N: Size>(values: Vector<f32, N>, floor: f32) -> u32 {
    let mut n = 0u32;
    #[unroll]
    for i in 0..N::value() {
        if !(values.extract(i) <= floor) {
            n += 1;
        }
    }
    n
}

/// The pre-activations at `at` of a row, `width` vectors wide, that begins at `row`; zeros beyond its end.
#[cube]
fn load<N: Size>(
    pre: &[Vector<f32, N>],
    bias: &[Vector<f32, N>],
    row: usize,
    at: u32,
    width: u32,
) -> Vector<f32, N> {
    let mut values = Vector::<f32, N>::new(0.0f32);
    if at < width {
        values = pre[row + at as usize] + bias[at as usize];
    }
    values
}

/// Gathers what is above a floor of 0 or more: of `tokens` tokens, whose rows `pre [tokens, width]` holds and which are
/// tokens `first..` of the lists `latents, acts [n, capacity]`. `counts [n]` says how many there are, even if that is more
/// than there is room for. A cube a token.
#[cube(launch_unchecked)]
pub(super) fn above<N: Size>(
    pre: &[Vector<f32, N>],
    bias: &[Vector<f32, N>],
    floor: &[f32],
    latents: &mut [u32],
    acts: &mut [f32],
    counts: &mut [u32],
    tokens: u32,
    first: u32,
    width: u32,
    capacity: u32,
) {
    let token = CUBE_POS as u32;
    if token >= tokens {
        terminate!();
    }
    let floor = floor[0];
    let row = token as usize * width as usize;
    let list = (first + token) as usize * capacity as usize;
    let mut len = 0u32;
    for round in 0..width.div_ceil(UNITS) {
        let at = round * UNITS + UNIT_POS;
        let values = load::<N>(pre, bias, row, at, width);
        let n = count_above::<N>(values, floor);
        let place = place(n);
        if n > 0 {
            let mut slot = len + place.before;
            #[unroll]
            for i in 0..N::value() {
                let value = values.extract(i);
                if !(value <= floor) {
                    if slot < capacity {
                        latents[list + slot as usize] = at * N::value() as u32 + i as u32;
                        acts[list + slot as usize] = value;
                    }
                    slot += 1;
                }
            }
        }
        len += place.total;
    }
    if UNIT_POS == 0 {
        counts[(first + token) as usize] = len;
    }
}

/// Gathers the `k` largest positive ones of each token; of equal ones those of lower latents. Otherwise like [`above`].
///
/// Candidates are gathered in shared memory above a floor, which rises to the `k`-th largest whenever they would
/// overflow. After the first ROOM of them that is rare: of numbers in no particular order, about k·ln(d_sae / ROOM) more
/// pass.
#[cube(launch_unchecked)]
pub(super) fn top_k<N: Size>(
    pre: &[Vector<f32, N>],
    bias: &[Vector<f32, N>],
    latents: &mut [u32],
    acts: &mut [f32],
    counts: &mut [u32],
    tokens: u32,
    first: u32,
    width: u32,
    k: u32,
    capacity: u32,
) {
    let token = CUBE_POS as u32;
    if token >= tokens {
        terminate!();
    }
    let row = token as usize * width as usize;
    let mut candidates = Shared::<[u32]>::new_slice(ROOM);
    let mut values_of = Shared::<[f32]>::new_slice(ROOM);
    let mut len = 0u32;
    let mut floor = 0.0f32;
    for round in 0..width.div_ceil(UNITS) {
        let at = round * UNITS + UNIT_POS;
        let values = load::<N>(pre, bias, row, at, width);
        let mut n = count_above::<N>(values, floor);
        let place_of = place(n);
        let mut before = place_of.before;
        let mut total = place_of.total;
        if len + total > ROOM as u32 {
            floor = keep_largest(&mut candidates, &mut values_of, len, k);
            len = k;
            n = count_above::<N>(values, floor);
            let place_of = place(n);
            before = place_of.before;
            total = place_of.total;
        }
        if n > 0 {
            let mut slot = len + before;
            #[unroll]
            for i in 0..N::value() {
                let value = values.extract(i);
                if !(value <= floor) {
                    candidates[slot as usize] = at * N::value() as u32 + i as u32;
                    values_of[slot as usize] = value;
                    slot += 1;
                }
            }
        }
        len += total;
    }
    sync_cube();
    if len > k {
        keep_largest(&mut candidates, &mut values_of, len, k);
        len = k;
    }
    let list = (first + token) as usize * capacity as usize;
    let mut slot = UNIT_POS;
    while slot < len {
        latents[list + slot as usize] = candidates[slot as usize];
        acts[list + slot as usize] = values_of[slot as usize];
        slot += UNITS;
    }
    if UNIT_POS == 0 {
        counts[(first + token) as usize] = len;
    }
}

/// Of `len` candidates, more than `k`, keeps the `k` largest in their order, of equal ones the first. Returns the smallest
/// that is kept; above it, that is, what is no number if this is none.
///
/// Positive numbers order as their bits do: the `k`-th largest is found digit by digit.
#[cube]
fn keep_largest(candidates: &mut Shared<[u32]>, values: &mut Shared<[f32]>, len: u32, k: u32) -> f32 {
    let bins = Shared::<[Atomic<u32>]>::new_slice(BINS);
    let mut found = Shared::<[u32]>::new_slice(2usize);
    let mut prefix = 0u32;
    let mut wanted = k;
    sync_cube();
    #[unroll]
    for digit in 0..4u32 {
        let shift = 24 - 8 * digit;
        bins[UNIT_POS as usize].store(0u32);
        sync_cube();
        let mut i = UNIT_POS;
        while i < len {
            let bits = u32::reinterpret(values[i as usize]);
            // Two shifts: one by 32 is not defined.
            if (bits >> shift) >> 8u32 == prefix {
                bins[((bits >> shift) & 255) as usize].fetch_add(1u32);
            }
            i += UNITS;
        }
        sync_cube();
        // Units look at bins from the largest down.
        let n = bins[(255 - UNIT_POS) as usize].load();
        let place = place(n);
        if place.before < wanted && wanted <= place.before + n {
            found[0] = 255 - UNIT_POS;
            found[1] = wanted - place.before;
        }
        sync_cube();
        prefix = (prefix << 8u32) | found[0];
        wanted = found[1];
        sync_cube();
    }
    // What is equal to the k-th largest stays while there is room; counted in the upper half of the same sums.
    let mut kept = 0u32;
    let mut equal = 0u32;
    for round in 0..len.div_ceil(UNITS) {
        let i = round * UNITS + UNIT_POS;
        let mut above = 0u32;
        let mut ties = 0u32;
        let mut candidate = 0u32;
        let mut value = 0.0f32;
        if i < len {
            candidate = candidates[i as usize];
            value = values[i as usize];
            let bits = u32::reinterpret(value);
            if bits > prefix {
                above = 1u32;
            }
            if bits == prefix {
                ties = 1u32;
            }
        }
        let place = place(above + (ties << 16u32));
        let ties_before = equal + (place.before >> 16u32);
        let slot = kept + (place.before & 65535) + ties_before.min(wanted);
        if above == 1 || (ties == 1 && ties_before < wanted) {
            candidates[slot as usize] = candidate;
            values[slot as usize] = value;
        }
        kept += place.total & 65535;
        equal += place.total >> 16u32;
        sync_cube();
    }
    // What is no number is larger than all: nothing else passes from now on.
    let smallest = f32::reinterpret(prefix);
    select(smallest <= f32::MAX, smallest, f32::MAX)
}
