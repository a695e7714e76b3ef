//! The order of rows on disk: that of the text, or a random one, in which every row has a key of its own.

use monosema_core::Seed;
use rand::RngCore;
use serde::{Deserialize, Serialize};

/// In which order the rows of a store are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// A random one: each shard is sorted by the rows' keys, and their merge is a uniform shuffle of all rows.
    #[default]
    Shuffled,
    /// That of the text.
    Text,
}

impl Order {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Shuffled => "shuffled",
            Self::Text => "text",
        }
    }
}

/// What the keys of rows are made with: two words of the seed's stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    documents: u64,
    places: u64,
}

impl Keys {
    pub(crate) fn new(seed: Seed) -> Self {
        let mut rng = seed.stream("store: order of rows");
        Self { documents: rng.next_u64(), places: rng.next_u64() }
    }

    /// The key of the token at `place` of `document`. It depends on nothing else: neither on what is harvested with it nor on
    /// how rows are cut into shards and parts. Keys of different tokens are as good as independent.
    pub(crate) fn of(self, document: u64, place: u64) -> u64 {
        mix(mix(self.documents ^ document).wrapping_add(mix(self.places ^ place)))
    }
}

/// What SplitMix64 does to its counter: a bijection of which every bit depends on every bit (Steele, Lea and Flood 2014,
/// with the constants of Stafford's variant 13).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixing_is_that_of_splitmix64() {
        // The first three numbers of the generator seeded with 1234567, as its authors publish them.
        let golden = 0x9e37_79b9_7f4a_7c15_u64;
        let number = |i: u64| mix(1_234_567_u64.wrapping_add(golden.wrapping_mul(i)));
        assert_eq!(
            [1, 2, 3].map(number),
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn every_row_is_anywhere_with_the_same_probability() {
        // Of 20 rows the places over 6000 seeds: each is at each of them 300 times, by χ² of 19 × 19 degrees of freedom:
        // 361 ± 6 standard deviations of 27.
        let mut counts = [[0_u32; 20]; 20];
        for seed in 0..6000 {
            let keys = Keys::new(Seed(seed));
            let mut rows: Vec<_> = (0..20).map(|row| (keys.of(row / 7, row % 7), row)).collect();
            rows.sort_unstable();
            for (place, (_, row)) in rows.into_iter().enumerate() {
                counts[row as usize][place] += 1;
            }
        }
        let chi: f64 = counts.iter().flatten().map(|&n| (f64::from(n) - 300.0).powi(2) / 300.0).sum();
        assert!((361.0 - 161.0..361.0 + 161.0).contains(&chi), "{chi}");
    }

    #[test]
    fn keys_are_spread_evenly_whatever_the_document_and_the_place() {
        // 100 documents of 100 tokens into 64 bins by the highest bits, and by the lowest: χ² of 63 degrees of freedom, which
        // is beyond 117 once in 25,000 times.
        let keys = Keys::new(Seed(1));
        for shift in [58, 0] {
            let mut bins = [0_u32; 64];
            for (document, place) in (0..100).flat_map(|d| (0..100).map(move |p| (d, p))) {
                bins[(keys.of(document, place) >> shift) as usize % 64] += 1;
            }
            let expected = 10_000.0 / 64.0;
            let chi: f64 = bins.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
            assert!((25.0..117.0).contains(&chi), "{chi}");
        }
        assert_ne!(keys.of(1, 2), keys.of(2, 1));
        assert_ne!(keys.of(1, 2), Keys::new(Seed(2)).of(1, 2));
    }
}
