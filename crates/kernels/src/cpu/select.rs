//! Which pre-activations are active.

use pulp::Simd;

use super::line::{LANES, Line, bits, padded};
use crate::Threshold;

/// What a token's entries must be.
#[derive(Clone, Copy)]
pub(super) enum Select<'a> {
    /// Above a floor, which is 0 or more.
    Above(f32),
    /// Above a floor of each latent.
    Each(&'a Floors),
    /// Positive, and among so many largest of the token.
    Largest(usize),
}

/// A floor for every latent.
pub(super) struct Floors(Vec<Line>);

impl Floors {
    pub(super) fn new(floors: &[f32]) -> Self {
        Self(padded(floors))
    }

    #[inline(always)]
    pub(super) fn line(&self, line: usize) -> &Line {
        &self.0[line]
    }
}

impl Select<'_> {
    /// What every entry is above that has no floor of its own.
    pub(super) fn floor(self) -> f32 {
        match self {
            Self::Above(floor) => floor,
            Self::Each(_) => f32::NEG_INFINITY,
            Self::Largest(_) => 0.0,
        }
    }

    /// What an entry of `latent` is above.
    #[inline(always)]
    pub(super) fn floor_of(self, latent: u32) -> f32 {
        match self {
            Self::Each(floors) => {
                let latent = latent as usize;
                floors.line(latent / LANES).0[latent % LANES]
            }
            _ => self.floor(),
        }
    }

    /// Whether floors rise while a token is encoded, so that lower bounds matter.
    pub(super) fn prunes(self) -> bool {
        matches!(self, Self::Largest(_))
    }
}

/// Active latents of a token, in ascending order, and their pre-activations.
pub(super) type Entries = Vec<(u32, f32)>;

/// Latents that may turn out to be active on a token, while it is encoded.
pub(super) struct Candidates {
    /// Pre-activations up to here are not among those to keep.
    pub(super) floor: f32,
    /// Ascending.
    candidates: Vec<Candidate>,
}

/// A latent, and between what its pre-activation is.
#[derive(Clone, Copy)]
struct Candidate {
    latent: u32,
    lower: f32,
    upper: f32,
}

/// Entries that a token has room for before it must grow.
const ROOM: usize = 128;

/// Halvings of an interval in [`Candidates::prune`].
const HALVINGS: usize = 8;

impl Candidates {
    /// None yet.
    #[inline(always)]
    pub(super) fn above(floor: f32) -> Self {
        Self { floor, candidates: Vec::with_capacity(ROOM) }
    }

    /// Adds one.
    #[inline(always)]
    pub(super) fn push(&mut self, latent: u32, lower: f32, upper: f32) {
        self.candidates.push(Candidate { latent, lower, upper });
    }

    /// Latents and upper bounds.
    #[inline(always)]
    pub(super) fn entries(&self) -> Entries {
        let mut entries = Vec::with_capacity(self.candidates.len());
        for candidate in &self.candidates {
            entries.push((candidate.latent, candidate.upper));
        }
        entries
    }

    /// Whether there are so many more than `k` that it is time to drop some.
    #[inline(always)]
    pub(super) fn crowded(&self, k: usize) -> bool {
        self.candidates.len() >= k.saturating_mul(2).saturating_add(32)
    }

    /// Raises the floor to below the `k` largest so far, and drops those that cannot be among them.
    #[inline(always)]
    pub(super) fn prune<S: Simd>(&mut self, simd: S, k: usize) {
        if self.candidates.len() <= k {
            return;
        }
        let mut lower = Vec::with_capacity(self.candidates.len());
        for candidate in &self.candidates {
            lower.push(candidate.lower);
        }
        let (vectors, rest) = S::as_simd_f32s(&lower);
        let rest = simd.partial_load_f32s(rest);
        let mut most = rest;
        for vector in vectors {
            most = simd.max_f32s(most, *vector);
        }
        let (mut low, mut high) = (self.floor, simd.reduce_max_f32s(most));
        for _ in 0..HALVINGS {
            let middle = 0.5 * (low + high);
            let splat = simd.splat_f32s(middle);
            let mut n = bits::<S>(simd.greater_than_f32s(rest, splat)).count_ones();
            for vector in vectors {
                n += bits::<S>(simd.greater_than_f32s(*vector, splat)).count_ones();
            }
            if n as usize >= k {
                low = middle;
            } else {
                high = middle;
            }
        }
        self.floor = low;
        let mut kept = 0;
        for i in 0..self.candidates.len() {
            self.candidates[kept] = self.candidates[i];
            // What is no number is not dropped: it spoils the loss for all to see.
            let below = self.candidates[i].upper <= low;
            kept += usize::from(!below);
        }
        self.candidates.truncate(kept);
    }
}

/// Keeps the `k` largest of a token, 1 or more; of equals, those of lower latents.
#[inline(always)]
pub(super) fn largest(k: usize, entries: &mut Entries) {
    if entries.len() <= k {
        return;
    }
    let mut values: Vec<f32> = entries.iter().map(|(_, value)| *value).collect();
    let mut threshold = Threshold::new(k, &mut values);
    entries.retain(|(_, value)| threshold.keeps(*value));
}

/// Keeps the `k` largest of all tokens of all tasks, 1 or more; of equals, those of earlier tokens.
pub(super) fn largest_of_batch(k: usize, tasks: &mut [Vec<Entries>]) {
    let mut values: Vec<f32> = tasks.iter().flatten().flatten().map(|(_, value)| *value).collect();
    if values.len() <= k {
        return;
    }
    let mut threshold = Threshold::new(k, &mut values);
    tasks.iter_mut().flatten().for_each(|entries| entries.retain(|(_, value)| threshold.keeps(*value)));
}

#[cfg(test)]
mod tests {
    use pulp::{Arch, WithSimd};

    use super::*;

    fn values(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 2_654_435_761) % 1009) as f32 / 100.0).collect()
    }

    struct Prune<'a>(&'a mut Candidates, usize);

    impl WithSimd for Prune<'_> {
        type Output = ();

        fn with_simd<S: Simd>(self, simd: S) {
            self.0.prune(simd, self.1);
        }
    }

    #[test]
    fn pruning_loses_none_of_the_largest() {
        for (n, k) in [(40, 3), (70, 19), (300, 1), (300, 130), (1000, 32)] {
            for margin in [0.0, 0.3] {
                let values = values(n);
                let mut row = Candidates::above(0.0);
                for (i, value) in values.iter().enumerate() {
                    // The bounds are not centred on the value.
                    let off = margin * (i % 5) as f32 / 4.0;
                    row.push(i as u32, value - off, value - off + margin);
                }
                Arch::new().dispatch(Prune(&mut row, k));
                let kept: Vec<usize> = row.entries().iter().map(|(latent, _)| *latent as usize).collect();
                let mut order: Vec<usize> = (0..n).collect();
                order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
                let smallest = values[order[k - 1]];
                assert!(order.iter().filter(|i| values[**i] > smallest).all(|i| kept.contains(i)));
                assert!(kept.iter().filter(|i| values[**i] >= smallest).count() >= k, "{n} {k}");
                assert!(row.floor <= smallest);
                assert!(margin > 0.0 || kept.len() < n, "nothing was pruned");
            }
        }
    }

    #[test]
    fn of_equals_the_first_are_kept() {
        let of = |values: &[f32]| -> Entries { (0..).zip(values.iter().copied()).collect() };
        let mut entries = of(&[1.0, 3.0, 2.0, 3.0, 3.0]);
        largest(2, &mut entries);
        assert_eq!(entries, [(1, 3.0), (3, 3.0)]);
        largest(9, &mut entries);
        assert_eq!(entries.len(), 2);

        let mut tasks = vec![vec![of(&[1.0, 5.0]), of(&[2.0])], vec![of(&[2.0, 2.0, 7.0])]];
        largest_of_batch(4, &mut tasks);
        assert_eq!(tasks, [vec![vec![(1, 5.0)], vec![(0, 2.0)]], vec![vec![(0, 2.0), (2, 7.0)]]]);
    }
}
