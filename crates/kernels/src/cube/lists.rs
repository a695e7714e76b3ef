//! The active latents of every token, in lists.

use burn::{
    backend::ops::FloatTensorOps,
    tensor::{DType, TensorData},
};
use burn_cubecl::tensor::CubeTensor;

use super::{
    batch::{B, Batch},
    launch::{arg, cubes, units, vector_size},
    select,
};
use crate::Path;

/// Room that a token has for active latents at least, where their number is not known beforehand.
const ROOM: usize = 64;

/// The active latents of every token, in lists of one length.
pub(super) struct Lists {
    /// `[n, capacity]`.
    pub(super) latents: CubeTensor,
    /// `[n, capacity]`.
    pub(super) acts: CubeTensor,
    /// How many of a list are in use, `[n]`.
    pub(super) counts: CubeTensor,
    pub(super) capacity: usize,
}

/// How many latents are active, as far as the host knows.
#[derive(Clone, Copy)]
pub(super) struct Counted {
    pub(super) all: usize,
    /// On the token that has most.
    pub(super) most: usize,
}

impl Batch {
    /// The entries above a floor, with room for all; `None` if `path` of their number is the dense one.
    pub(super) fn above_known(
        &self,
        floor: f32,
        most: usize,
        path: impl Fn(Counted) -> Path,
    ) -> (Option<Lists>, Counted) {
        let floor = B::float_from_data(TensorData::new(vec![floor], [1]), &self.device);
        // What tokens had last time, and half as much again.
        let mut capacity = (most + most / 2).next_multiple_of(ROOM).clamp(ROOM, self.d_sae.max(ROOM));
        loop {
            let lists = self.above(&floor, capacity);
            let counted = self.counted(&lists);
            if path(counted) == Path::Dense {
                return (None, counted);
            }
            if counted.most <= capacity {
                return (Some(lists), counted);
            }
            capacity = counted.most.next_multiple_of(ROOM);
        }
    }

    fn above(&self, floor: &CubeTensor, capacity: usize) -> Lists {
        let lists = self.lists(capacity);
        let (bias, vector) = (&self.parameters.b_enc, vector_size(self.d_sae));
        self.for_pre_activations(|tokens, pre| unsafe {
            select::above::launch_unchecked(
                &self.client,
                cubes(tokens.len()),
                units(),
                vector,
                arg(&pre),
                arg(bias),
                arg(floor),
                arg(&lists.latents),
                arg(&lists.acts),
                arg(&lists.counts),
                tokens.len() as u32,
                tokens.start as u32,
                (self.d_sae / vector) as u32,
                capacity as u32,
            );
        });
        lists
    }

    /// The `k` largest of each token.
    pub(super) fn top_k(&self, k: usize) -> Lists {
        let lists = self.lists(k);
        let (bias, vector) = (&self.parameters.b_enc, vector_size(self.d_sae));
        self.for_pre_activations(|tokens, pre| unsafe {
            select::top_k::launch_unchecked(
                &self.client,
                cubes(tokens.len()),
                units(),
                vector,
                arg(&pre),
                arg(bias),
                arg(&lists.latents),
                arg(&lists.acts),
                arg(&lists.counts),
                tokens.len() as u32,
                tokens.start as u32,
                (self.d_sae / vector) as u32,
                k as u32,
            );
        });
        lists
    }

    fn lists(&self, capacity: usize) -> Lists {
        assert!(
            self.n * capacity <= u32::MAX as usize,
            "an entry has a number of 32 bits: take smaller batches"
        );
        Lists {
            latents: self.empty([self.n, capacity], DType::U32),
            acts: self.empty([self.n, capacity], DType::F32),
            counts: self.empty([self.n], DType::U32),
            capacity,
        }
    }

    /// Waits for the device.
    pub(super) fn counted(&self, lists: &Lists) -> Counted {
        let counts = self.read::<u32>(&lists.counts);
        let counts = counts.iter().map(|count| *count as usize);
        Counted { all: counts.clone().sum(), most: counts.max().unwrap_or(0) }
    }
}
