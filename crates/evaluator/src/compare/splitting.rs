//! Feature splitting: where the latents of a larger dictionary come from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{nearest::Nearest, side::Side};

/// Latents of a smaller dictionary, and their children in a larger one: those that have it for their nearest latent, with a
/// cosine above the threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Splitting {
    /// The name of the smaller dictionary; of two of a size the first.
    pub smaller: String,
    /// The name of the larger one.
    pub larger: String,
    /// How many latents of the smaller one have so many children.
    pub parents: BTreeMap<u64, u64>,
    /// How many latents of the larger one are nobody's children.
    pub novel: u64,
}

impl Splitting {
    /// `nearest` are those in `smaller` of the latents of `larger`.
    pub(super) fn new(smaller: &Side, larger: &Side, nearest: &[Nearest], threshold: f64) -> Self {
        let mut children = vec![0; smaller.decoder.n()];
        for nearest in nearest.iter().filter(|nearest| nearest.cosine > threshold) {
            children[nearest.place] += 1;
        }
        let novel = nearest.len() as u64 - children.iter().sum::<u64>();
        let mut parents = BTreeMap::new();
        for children in children {
            *parents.entry(children).or_default() += 1;
        }
        Self { smaller: smaller.facts.name.clone(), larger: larger.facts.name.clone(), parents, novel }
    }

    /// Its figures, by their names.
    pub(super) fn figures(&self) -> [(&'static str, f64); 4] {
        let latents = |from: u64| self.parents.range(from..).map(|(_, latents)| latents).sum::<u64>() as f64;
        let children = self.parents.iter().map(|(children, latents)| children * latents).sum::<u64>() as f64;
        let smaller = latents(0);
        [
            ("split.lost", 1.0 - latents(1) / smaller),
            ("split.split", latents(2) / smaller),
            ("split.children", children / smaller),
            ("split.novel", self.novel as f64 / (children + self.novel as f64)),
        ]
    }
}
