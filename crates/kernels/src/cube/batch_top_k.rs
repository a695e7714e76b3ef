//! The largest of a whole batch: BatchTopK, of lists that hold at least those.

use burn::{
    backend::ops::IntTensorOps,
    tensor::{DType, TensorData},
};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    batch::{B, Batch},
    by_latent,
    launch::{arg, cubes, units},
    lists::{Counted, Lists},
    select::{self, keep},
    units::{UNITS, place},
};
use crate::{Last, Path};

/// A batch's smallest active pre-activation is taken to be no less than this much of the last one's. If it is, encoding is
/// repeated.
const GUESS: f32 = 0.8;

/// Bins of a digit of 8 bits: one for every unit.
const BINS: usize = UNITS as usize;

/// Tokens whose entries one cube counts.
const TOKENS: u32 = 8;

/// Counts in `bins [256]` the digit at `shift` of those entries whose higher digits are `found[0]`.
#[cube(launch_unchecked)]
fn histogram(
    acts: &[f32],
    counts: &[u32],
    found: &[u32],
    bins: &[Atomic<u32>],
    n: u32,
    capacity: u32,
    shift: u32,
) {
    let of_cube = Shared::<[Atomic<u32>]>::new_slice(BINS);
    of_cube[UNIT_POS as usize].store(0u32);
    sync_cube();
    let prefix = found[0];
    for i in 0..TOKENS {
        let token = CUBE_POS as u32 * TOKENS + i;
        if token < n {
            let list = token as usize * capacity as usize;
            let mut slot = UNIT_POS;
            while slot < counts[token as usize] {
                let bits = u32::reinterpret(acts[list + slot as usize]);
                if (bits >> shift) >> 8u32 == prefix {
                    of_cube[((bits >> shift) & 255) as usize].fetch_add(1u32);
                }
                slot += UNITS;
            }
        }
    }
    sync_cube();
    let n = of_cube[UNIT_POS as usize].load();
    if n > 0 {
        bins[UNIT_POS as usize].fetch_add(n);
    }
}

/// Adds a digit to `found`: `[0]` the digits of the number that is looked for, `[1]` which of those with these digits it
/// is, from the largest down, starting at 1. Empties the bins. One cube.
#[cube(launch_unchecked)]
fn choose(found: &mut [u32], bins: &[Atomic<u32>]) {
    let wanted = found[1];
    let prefix = found[0];
    let n = bins[(255 - UNIT_POS) as usize].load();
    let place = place(n);
    if place.before < wanted && wanted <= place.before + n {
        found[0] = (prefix << 8u32) | (255 - UNIT_POS);
        found[1] = wanted - place.before;
    }
    bins[UNIT_POS as usize].store(0u32);
}

/// How many of a token's entries are equal to what was found. A cube a token.
#[cube(launch_unchecked)]
fn ties(acts: &[f32], counts: &[u32], found: &[u32], ties: &mut [u32], n: u32, capacity: u32) {
    let token = CUBE_POS as u32;
    if token >= n {
        terminate!();
    }
    let list = token as usize * capacity as usize;
    let mut equal = 0u32;
    let mut slot = UNIT_POS;
    while slot < counts[token as usize] {
        if u32::reinterpret(acts[list + slot as usize]) == found[0] {
            equal += 1;
        }
        slot += UNITS;
    }
    let place = place(equal);
    if UNIT_POS == 0 {
        ties[token as usize] = place.total;
    }
}

/// Keeps what is larger than what was found, and of what is equal to it as many as are wanted, the first tokens' first.
/// `ties_before [n]` are those of the tokens before each. A cube a token.
#[cube(launch_unchecked)]
fn prune(
    latents: &mut [u32],
    acts: &mut [f32],
    counts: &mut [u32],
    found: &[u32],
    ties_before: &[u32],
    n: u32,
    capacity: u32,
) {
    let token = CUBE_POS as u32;
    if token >= n {
        terminate!();
    }
    let threshold = found[0];
    let list = token as usize * capacity as usize;
    let wanted = found[1] - found[1].min(ties_before[token as usize]);
    let len = counts[token as usize];
    let mut larger = 0u32;
    let mut equal = 0u32;
    for round in 0..len.div_ceil(UNITS) {
        let i = round * UNITS + UNIT_POS;
        let mut latent = 0u32;
        let mut act = 0.0f32;
        if i < len {
            latent = latents[list + i as usize];
            act = acts[list + i as usize];
        }
        let kept = keep(act, threshold, wanted, larger, equal);
        if kept.here {
            latents[list + kept.slot as usize] = latent;
            acts[list + kept.slot as usize] = act;
        }
        larger += kept.larger;
        equal += kept.equal;
        sync_storage();
    }
    if UNIT_POS == 0 {
        counts[token as usize] = larger + equal.min(wanted);
    }
}

impl Batch {
    /// The `wanted` largest of the batch; how many they are, and the most of a token before smaller ones were dropped; and the
    /// smallest of them.
    pub(super) fn largest_of_batch(&self, wanted: usize, k: usize, last: &Last) -> (Lists, Counted, f32) {
        let gather = |floor| match self.above_known(floor, last.most, |_| Path::Sparse) {
            (Some(lists), counted) => (lists, counted),
            (None, _) => unreachable!("the sparse path needs lists"),
        };
        let guess = GUESS * last.floor.max(0.0);
        let guessed = (guess > 0.0).then(|| gather(guess)).filter(|(_, counted)| counted.all >= wanted);
        let (lists, counted) = guessed.unwrap_or_else(|| gather(self.safe_floor(wanted, k)));
        if counted.all < wanted {
            return (lists, counted, 0.0);
        }
        let found = self.threshold(&lists, wanted);
        if counted.all > wanted {
            self.prune(&lists, &found);
        }
        let smallest = f32::from_bits(self.read::<u32>(&found)[0]);
        (lists, Counted { all: wanted, ..counted }, smallest)
    }

    /// A number below the `wanted`-th largest: the threshold among some of the entries is no larger than that among all.
    fn safe_floor(&self, wanted: usize, k: usize) -> f32 {
        let some = self.top_k(k.saturating_mul(4).min(select::MOST).min(self.d_sae));
        if self.counted(&some).all <= wanted {
            return 0.0;
        }
        // Positive numbers order as their bits do, so that this is the next smaller one.
        f32::from_bits(self.read::<u32>(&self.threshold(&some, wanted))[0].saturating_sub(1))
    }

    /// Bits of the `wanted`-th largest of all entries, of which there are no fewer, and how many of those equal to it are
    /// wanted, `[2]`.
    fn threshold(&self, lists: &Lists, wanted: usize) -> CubeTensor {
        let found = B::int_from_data(TensorData::new(vec![0u32, wanted as u32], [2]), &self.device);
        let bins = self.zeros([BINS], DType::U32);
        for shift in [24u32, 16, 8, 0] {
            unsafe {
                histogram::launch_unchecked(
                    &self.client,
                    cubes(self.n.div_ceil(TOKENS as usize)),
                    units(),
                    arg(&lists.acts),
                    arg(&lists.counts),
                    arg(&found),
                    arg(&bins),
                    self.n as u32,
                    lists.capacity as u32,
                    shift,
                );
                let (client, one) = (&self.client, CubeCount::new_single());
                choose::launch_unchecked(client, one, units(), arg(&found), arg(&bins));
            }
        }
        found
    }

    /// Keeps the entries that are no smaller than a threshold.
    fn prune(&self, lists: &Lists, found: &CubeTensor) {
        let (n, capacity) = (self.n as u32, lists.capacity as u32);
        let (ties, before) = (self.empty([self.n], DType::U32), self.empty([self.n + 1], DType::U32));
        let (acts, counts) = (&lists.acts, &lists.counts);
        unsafe {
            let cubes = cubes(self.n);
            ties::launch_unchecked(
                &self.client,
                cubes.clone(),
                units(),
                arg(acts),
                arg(counts),
                arg(found),
                arg(&ties),
                n,
                capacity,
            );
            let one = CubeCount::new_single();
            by_latent::line_up::launch_unchecked(&self.client, one, units(), arg(&ties), arg(&before), n);
            prune::launch_unchecked(
                &self.client,
                cubes,
                units(),
                arg(&lists.latents),
                arg(acts),
                arg(counts),
                arg(found),
                arg(&before),
                n,
                capacity,
            );
        }
    }
}
