//! How often latents fire: dead ones, rare ones, and those that fire on everything.

use serde::{Deserialize, Serialize};

use super::{Better, Block, Definition, Family, Shape};

/// Bins of the histogram to a factor of ten in density.
const BINS_PER_DECADE: i32 = 4;

/// Tokens, and on how many of them each latent fired.
#[derive(Clone, Debug)]
pub(crate) struct Sums {
    tokens: u64,
    fired: Vec<u64>,
}

/// Latents by the logarithm of their density, the share of counted tokens on which they fire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Tokens that the densities are shares of: nothing rarer than one in so many can be seen.
    pub tokens: u64,
    /// Latents that never fired; they are in no bin.
    pub dead: u64,
    /// Edges of the bins in log10(density), rising to 0; one more than there are bins.
    pub log10_edges: Vec<f64>,
    /// Latents in each bin, which holds its lower edge and not its upper one; the last holds both.
    pub latents: Vec<u64>,
}

impl Family for Sums {
    const DEFINITIONS: &'static [Definition] = &[
        Definition {
            name: "dead",
            unit: "",
            better: Better::Lower,
            formula: "#{i : f_ti = 0 for every t} / d_sae",
            meaning: "Share of latents that never fire on the counted tokens.",
            source: "Bricken et al. 2023, Towards Monosemanticity",
        },
        Definition {
            name: "density.below_1e-5",
            unit: "latents",
            better: Better::Lower,
            formula: "#{i : density_i < 1e-5}, density_i = #{t : f_ti > 0} / #t",
            meaning: "Latents that fire on less than one token in 100,000, dead ones included.",
            source: "Bricken et al. 2023, Towards Monosemanticity, ultralow density",
        },
        Definition {
            name: "density.above_0.01",
            unit: "latents",
            better: Better::Neither,
            formula: "#{i : density_i > 0.01}",
            meaning: "Latents that fire on more than 1 % of tokens.",
            source: "SAEBench core: Karvonen et al. 2025, arXiv 2503.09532",
        },
        Definition {
            name: "density.above_0.1",
            unit: "latents",
            better: Better::Lower,
            formula: "#{i : density_i > 0.1}",
            meaning: "Latents that fire on more than 10 % of tokens: too dense to stand for one thing.",
            source: "SAEBench core: Karvonen et al. 2025, arXiv 2503.09532",
        },
    ];

    fn new(shape: Shape) -> Self {
        Self { tokens: 0, fired: vec![0; shape.d_sae] }
    }

    fn add(&mut self, block: &Block<'_>) {
        self.tokens += block.n() as u64;
        for token in block.latents() {
            for (fired, &f) in self.fired.iter_mut().zip(token) {
                *fired += u64::from(f > 0.0);
            }
        }
    }

    fn merge(&mut self, other: &Self, times: u32) {
        self.tokens += u64::from(times) * other.tokens;
        for (fired, &theirs) in self.fired.iter_mut().zip(&other.fired) {
            *fired += u64::from(times) * theirs;
        }
    }

    fn values(&self) -> Vec<f64> {
        let tokens = self.tokens as f64;
        let latents = |test: &dyn Fn(f64) -> bool| {
            self.fired.iter().filter(|&&fired| test(fired as f64 / tokens)).count() as f64
        };
        vec![
            latents(&|density| density == 0.0) / self.fired.len() as f64,
            latents(&|density| density < 1e-5),
            latents(&|density| density > 0.01),
            latents(&|density| density > 0.1),
        ]
    }
}

impl Sums {
    /// Bins from the rarest density that so many tokens can show, to 1.
    pub(crate) fn histogram(&self) -> Histogram {
        let first = bin(1.0 / self.tokens.max(1) as f64);
        let bins = usize::try_from(-first).expect("no bin is above that of -1");
        let log10_edges = (first..=0).map(|edge| f64::from(edge) / f64::from(BINS_PER_DECADE)).collect();
        let mut latents = vec![0; bins];
        let mut dead = 0;
        for &fired in &self.fired {
            if fired == 0 {
                dead += 1;
                continue;
            }
            let density = fired as f64 / self.tokens as f64;
            let place = usize::try_from(bin(density) - first).expect("no density is below that of one token");
            latents[place] += 1;
        }
        Histogram { tokens: self.tokens, dead, log10_edges, latents }
    }
}

/// The number of a density's bin: its lower edge in units of 1 / [`BINS_PER_DECADE`]. A logarithm that
/// rounding has put a hair below its edge belongs above it.
fn bin(density: f64) -> i32 {
    let steps = (density.log10() + 1e-9) * f64::from(BINS_PER_DECADE);
    (steps.floor() as i32).min(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latents_land_in_the_bin_of_their_density() {
        // 1000 tokens; densities 0, 1/1000 (log10 -3), 1/100 (-2), 0.5 (-0.301) and 1 (0).
        let sums = Sums { tokens: 1000, fired: vec![0, 1, 10, 500, 1000] };
        let histogram = sums.histogram();
        assert_eq!((histogram.tokens, histogram.dead), (1000, 1));
        assert_eq!(histogram.log10_edges.len(), histogram.latents.len() + 1);
        let bin = |log10: f64| {
            let place = histogram.log10_edges.iter().rposition(|&edge| edge <= log10).unwrap();
            histogram.latents[place.min(histogram.latents.len() - 1)]
        };
        assert_eq!((bin(-3.0), bin(-2.0), bin(-0.301)), (1, 1, 1));
        // Density 1 is in the last bin, which [-0.25, 0] is; 0.5 is in the one before it.
        assert_eq!(histogram.latents.iter().sum::<u64>(), 4);
        assert_eq!(*histogram.latents.last().unwrap(), 1);
        assert_eq!(sums.values(), [0.2, 1.0, 2.0, 2.0]);
    }

    #[test]
    fn nothing_counted_is_an_empty_histogram_not_a_panic() {
        let histogram = Sums { tokens: 0, fired: vec![0; 3] }.histogram();
        assert_eq!((histogram.dead, histogram.latents.iter().sum::<u64>()), (3, 0));
    }
}
