//! Histograms over tokens: how many latents are active, and how long activations and reconstructions are.

use serde::{Deserialize, Serialize};

use super::{Block, Family, Shape, square_norm};

/// Bins of norms to a factor of ten.
const BINS_PER_DECADE: f64 = 20.0;

/// Bins of L0 at most: each is a power of two wide.
const L0_BINS: usize = 64;

/// Tokens by L0, and by the logarithms of ‖x‖ and ‖x̂‖.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sums {
    /// Tokens of each L0.
    l0: Vec<u64>,
    x: Norms,
    x_hat: Norms,
}

/// Counts in bins of log10, by the number of a bin.
#[derive(Clone, Debug, Default)]
struct Norms {
    zero: u64,
    bins: std::collections::BTreeMap<i32, u64>,
}

/// Tokens in bins of equal width.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TokenHistogram {
    /// Edges of the bins; one more than there are bins, or none. Each bin holds its lower edge and not its upper one.
    pub edges: Vec<f64>,
    /// Tokens in each bin.
    pub tokens: Vec<u64>,
    /// Tokens that belong to no bin: of norms, those of length 0.
    pub apart: u64,
}

/// How tokens are spread.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// By the number of active latents.
    pub l0: TokenHistogram,
    /// By log10 ‖x‖.
    pub log10_norm_x: TokenHistogram,
    /// By log10 ‖x̂‖.
    pub log10_norm_x_hat: TokenHistogram,
}

impl Norms {
    fn add(&mut self, square: f64) {
        // ‖v‖ = 10^(log10(‖v‖²) / 2).
        match square > 0.0 {
            true => {
                *self.bins.entry((square.log10() / 2.0 * BINS_PER_DECADE).floor() as i32).or_default() += 1
            }
            false => self.zero += 1,
        }
    }

    fn merge(&mut self, other: &Self, times: u64) {
        self.zero += times * other.zero;
        for (&bin, &tokens) in &other.bins {
            *self.bins.entry(bin).or_default() += times * tokens;
        }
    }

    fn histogram(&self) -> TokenHistogram {
        let (Some((&first, _)), Some((&last, _))) = (self.bins.first_key_value(), self.bins.last_key_value())
        else {
            return TokenHistogram { apart: self.zero, ..TokenHistogram::default() };
        };
        TokenHistogram {
            edges: (first..=last + 1).map(|edge| f64::from(edge) / BINS_PER_DECADE).collect(),
            tokens: (first..=last).map(|bin| self.bins.get(&bin).copied().unwrap_or(0)).collect(),
            apart: self.zero,
        }
    }
}

impl Sums {
    /// The histograms.
    pub(crate) fn spread(&self) -> Spread {
        let mut width = 1;
        while self.l0.len().div_ceil(width) > L0_BINS {
            width *= 2;
        }
        let tokens: Vec<u64> = self.l0.chunks(width).map(|bin| bin.iter().sum()).collect();
        let edges = match tokens.len() {
            0 => Vec::new(),
            bins => (0..=bins).map(|edge| (edge * width) as f64).collect(),
        };
        Spread {
            l0: TokenHistogram { edges, tokens, apart: 0 },
            log10_norm_x: self.x.histogram(),
            log10_norm_x_hat: self.x_hat.histogram(),
        }
    }

    fn add_l0(&mut self, l0: usize, tokens: u64) {
        if self.l0.len() <= l0 {
            self.l0.resize(l0 + 1, 0);
        }
        self.l0[l0] += tokens;
    }
}

impl Family for Sums {
    fn new(_: Shape) -> Self {
        Self::default()
    }

    fn add(&mut self, block: &Block<'_>) {
        for latents in block.latents() {
            self.add_l0(latents.iter().filter(|&&f| f > 0.0).count(), 1);
        }
        for (x, x_hat) in block.rows() {
            self.x.add(square_norm(x));
            self.x_hat.add(square_norm(x_hat));
        }
    }

    fn merge(&mut self, other: &Self, times: u32) {
        let times = u64::from(times);
        for (l0, &tokens) in other.l0.iter().enumerate() {
            self.add_l0(l0, times * tokens);
        }
        self.x.merge(&other.x, times);
        self.x_hat.merge(&other.x_hat, times);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_worked_out_by_hand() {
        let mut sums = Sums::default();
        (0..130).for_each(|l0| sums.add_l0(l0, 1));
        sums.add_l0(129, 5);
        // 130 values of L0 go into 33 bins of 4.
        let l0 = sums.spread().l0;
        assert_eq!((l0.tokens.len(), l0.edges.len(), l0.edges[32]), (33, 34, 128.0));
        assert_eq!((l0.tokens[0], l0.tokens[32]), (4, 7));
        // 10 and just under it: bins 20 and 19; 0 stands apart.
        sums.x.add(100.0);
        sums.x.add(99.9);
        sums.x.add(0.0);
        let norms = sums.spread().log10_norm_x;
        assert_eq!((norms.edges, norms.tokens, norms.apart), (vec![0.95, 1.0, 1.05], vec![1, 1], 1));
        let mut twice = Sums::default();
        twice.merge(&sums, 2);
        assert_eq!(twice.spread().log10_norm_x.tokens, [2, 2]);
    }

    #[test]
    fn of_nothing_there_are_no_bins() {
        assert_eq!(Sums::default().spread(), Spread::default());
    }
}
