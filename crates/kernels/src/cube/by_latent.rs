//! The active latents' lists by token, turned into lists by latent: a counting sort, in ascending order of tokens.

use burn::tensor::DType;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{
    batch::Batch,
    launch::{arg, cubes, units},
    lists::Lists,
    units::{UNITS, place},
};

/// Tokens that are counted together, and laid out one after the other.
const TOKENS: u32 = 32;

/// Counts the entries of every latent in every block of tokens, `in_block [blocks, d_sae]`. A unit an entry.
#[cube(launch_unchecked)]
fn count(latents: &[u32], counts: &[u32], in_block: &[Atomic<u32>], n: u32, capacity: u32, d_sae: u32) {
    let slot = ABSOLUTE_POS as u32;
    let token = slot / capacity;
    if token < n && slot % capacity < counts[token as usize] {
        let block = (token / TOKENS) as usize;
        in_block[block * d_sae as usize + latents[slot as usize] as usize].fetch_add(1u32);
    }
}

/// Turns the counts of blocks into those of all blocks before. `totals` and `fired [d_sae]` are those of all. A unit a latent.
#[cube(launch_unchecked)]
fn add_up(in_block: &mut [u32], totals: &mut [u32], fired: &mut [f32], blocks: u32, d_sae: u32) {
    let latent = ABSOLUTE_POS as u32;
    if latent < d_sae {
        let mut total = 0u32;
        for block in 0..blocks {
            let at = block as usize * d_sae as usize + latent as usize;
            let n = in_block[at];
            in_block[at] = total;
            total += n;
        }
        totals[latent as usize] = total;
        fired[latent as usize] = f32::cast_from(total);
    }
}

/// Where each of `n` lists begins if they lie one after the other, `starts [n + 1]`. One cube.
#[cube(launch_unchecked)]
pub(super) fn line_up(lengths: &[u32], starts: &mut [u32], n: u32) {
    let mut total = 0u32;
    for round in 0..n.div_ceil(UNITS) {
        let i = round * UNITS + UNIT_POS;
        let mut length = 0u32;
        if i < n {
            length = lengths[i as usize];
        }
        let place = place(length);
        if i < n {
            starts[i as usize] = total + place.before;
        }
        total += place.total;
    }
    if UNIT_POS == 0 {
        starts[n as usize] = total;
    }
}

/// Lays the entries out: `entries` holds their places in the lists by token. A cube a block of tokens; its tokens one after
/// the other, whose latents all differ, so that no two units want the same place and the order is always the same.
#[cube(launch_unchecked)]
fn lay_out(
    latents: &[u32],
    counts: &[u32],
    starts: &[u32],
    in_block: &mut [u32],
    entries: &mut [u32],
    n: u32,
    capacity: u32,
    d_sae: u32,
) {
    let block = CUBE_POS as u32;
    for i in 0..TOKENS {
        let token = block * TOKENS + i;
        if token < n {
            let mut slot = UNIT_POS;
            while slot < counts[token as usize] {
                let from = token * capacity + slot;
                let latent = latents[from as usize] as usize;
                let at = block as usize * d_sae as usize + latent;
                let before = in_block[at];
                in_block[at] = before + 1;
                entries[(starts[latent] + before) as usize] = from;
                slot += UNITS;
            }
        }
        sync_storage();
    }
}

/// Entries of lists, latent by latent.
pub(super) struct ByLatent {
    /// Their places in the lists.
    pub(super) entries: CubeTensor,
    /// Where each latent's begin, `[d_sae + 1]`.
    pub(super) starts: CubeTensor,
    /// How many they are, `[d_sae]`.
    pub(super) fired: CubeTensor,
}

impl Batch {
    /// Of `all` entries of lists, or fewer.
    pub(super) fn by_latent(&self, lists: &Lists, all: usize) -> ByLatent {
        let (n, d_sae, capacity) = (self.n as u32, self.d_sae as u32, lists.capacity as u32);
        let blocks = self.n.div_ceil(TOKENS as usize);
        let in_block = self.zeros([blocks, self.d_sae], DType::U32);
        let totals = self.empty([self.d_sae], DType::U32);
        let starts = self.empty([self.d_sae + 1], DType::U32);
        let fired = self.empty([self.d_sae], DType::F32);
        let entries = self.empty([all.max(1)], DType::U32);
        unsafe {
            count::launch_unchecked(
                &self.client,
                cubes((self.n * lists.capacity).div_ceil(UNITS as usize)),
                units(),
                arg(&lists.latents),
                arg(&lists.counts),
                arg(&in_block),
                n,
                capacity,
                d_sae,
            );
            add_up::launch_unchecked(
                &self.client,
                cubes(self.d_sae.div_ceil(UNITS as usize)),
                units(),
                arg(&in_block),
                arg(&totals),
                arg(&fired),
                blocks as u32,
                d_sae,
            );
            let one = CubeCount::new_single();
            line_up::launch_unchecked(&self.client, one, units(), arg(&totals), arg(&starts), d_sae);
            lay_out::launch_unchecked(
                &self.client,
                cubes(blocks),
                units(),
                arg(&lists.latents),
                arg(&lists.counts),
                arg(&starts),
                arg(&in_block),
                arg(&entries),
                n,
                capacity,
                d_sae,
            );
        }
        ByLatent { entries, starts, fired }
    }
}
