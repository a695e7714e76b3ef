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

/// Gathers the `k` largest positive ones of each token, for which lists have room; of equal ones those of lower latents.
/// Otherwise like [`above`].
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
    let list = (first + token) as usize * k as usize;
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

/// What becomes of the numbers that the units of a cube hold, one each.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Kept {
    /// Whether this unit's is kept.
    pub(super) here: bool,
    /// Where it goes if it is.
    pub(super) slot: u32,
    /// How many units' are larger than the threshold.
    pub(super) larger: u32,
    /// How many units' are equal to it.
    pub(super) equal: u32,
}

/// Keeps numbers that are larger than the positive one whose bits are `threshold`, and of those equal to it the first `wanted`,
/// in their order; `larger` and `equal` of those before were like that. 0 stands for no number at all. Every unit of the cube
/// must come here.
#[cube]
pub(super) fn keep(value: f32, threshold: u32, wanted: u32, larger: u32, equal: u32) -> Kept {
    let bits = u32::reinterpret(value);
    // Both are counted in one sum, equal ones in its upper half.
    let mut mark = 0u32;
    if bits > threshold {
        mark = 1u32;
    }
    if bits == threshold {
        mark = 65536u32;
    }
    let place = place(mark);
    let equal_before = equal + (place.before >> 16u32);
    Kept {
        here: mark == 1 || (mark == 65536 && equal_before < wanted),
        slot: larger + (place.before & 65535) + equal_before.min(wanted),
        larger: place.total & 65535,
        equal: place.total >> 16u32,
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
    let mut larger = 0u32;
    let mut equal = 0u32;
    for round in 0..len.div_ceil(UNITS) {
        let i = round * UNITS + UNIT_POS;
        let mut candidate = 0u32;
        let mut value = 0.0f32;
        if i < len {
            candidate = candidates[i as usize];
            value = values[i as usize];
        }
        let kept = keep(value, prefix, wanted, larger, equal);
        if kept.here {
            candidates[kept.slot as usize] = candidate;
            values[kept.slot as usize] = value;
        }
        larger += kept.larger;
        equal += kept.equal;
        sync_cube();
    }
    // What is no number is larger than all: nothing else passes from now on.
    let smallest = f32::reinterpret(prefix);
    select(smallest <= f32::MAX, smallest, f32::MAX)
}
