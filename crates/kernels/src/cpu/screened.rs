//! Pre-activations from numbers rounded to bf16, which processors multiply several times as fast, and a bound on what
//! that loses. Latents that the bound leaves in doubt are computed again in f32, so nothing is missed.
//!
//! With x = x̃ + δx and w = w̃ + δw, where x̃ and w̃ are the rounded vectors,
//!
//! ⟨x, w⟩ − ⟨x̃, w̃⟩ = ⟨δx, w⟩ + ⟨x̃, δw⟩ ≤ ‖δx‖‖w‖ + ‖x̃‖‖δw‖
//!
//! by Cauchy and Schwarz. Norms are measured while rounding, and ‖x‖ + ‖δx‖ stands for both ‖x‖ and ‖x̃‖, which may be the
//! larger one. To that comes what sums in f32 lose, here and in the exact product: at most d_in · 2⁻²⁴ ‖x‖‖w‖ each (Jeannerod
//! and Rump 2013), and what adding the bias does. Products that the processor flushes to zero are paid for by a constant.
//! Between vectors longer than [`LONGEST`], sums may overflow: they are in doubt.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    encode::{Product, Side},
    line::{LANES, Line, lines, padded},
    pairs::{self, AcrossPairs, AlongPairs, LinePairs, Multiplier},
    tile::{COLUMNS, LINES, ROWS, Tile},
    vectors::dot,
};

/// Norms are themselves rounded sums.
const SLACK: f32 = 1.0 + 1e-4;

/// No sum of products of vectors up to so long comes near the end of f32.
const LONGEST: f32 = 1e18;

/// `W_enc` and `b_enc` in the order in which tiles read them, rounded, and what rounding lost.
pub(super) struct Screened {
    multiplier: Multiplier,
    d_in: usize,
    /// `[d_sae / COLUMNS, d_in / 2]`.
    weights: Vec<AlongPairs>,
    bias: Vec<Line>,
    /// What adding the bias rounds off.
    rounding: Vec<Line>,
    /// ‖w‖ + ‖δw‖ of every latent.
    whole: Vec<Line>,
    /// ‖δw‖ of every latent, and the rounding of sums.
    lost: Vec<Line>,
}

/// Tokens of a task, rounded, and what rounding lost.
pub(super) struct Tokens {
    pairs: Vec<AcrossPairs>,
    norms: Vec<Norms>,
}

/// Of a vector and of what rounding took from it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Norms {
    /// Of both together: neither the vector nor the rounded one is longer.
    whole: f32,
    lost: f32,
}

impl Screened {
    /// Below this share of active latents, it is faster than the exact product.
    pub(super) const WORTHWHILE: f64 = 0.06;

    /// Rounds and packs `enc [d_sae, d_in]` and `b_enc [d_sae]`.
    pub(super) fn new(multiplier: Multiplier, enc: &[f32], b_enc: &[f32], d_in: usize) -> Self {
        let half = d_in.div_ceil(2);
        let panels = b_enc.len().div_ceil(COLUMNS);
        let mut weights = vec![[LinePairs::ZERO; LINES]; panels * half];
        let mut norms = vec![Norms::default(); panels * COLUMNS];
        let tasks = weights.par_chunks_exact_mut(half).zip(enc.par_chunks(d_in * COLUMNS));
        tasks.zip(norms.par_chunks_exact_mut(COLUMNS)).for_each(|((panel, rows), norms)| {
            let mut pairs = vec![0; half];
            for (i, (row, norms)) in rows.chunks_exact(d_in).zip(norms).enumerate() {
                *norms = Arch::new().dispatch(Round { row, pairs: &mut pairs });
                let (line, lane) = (i / LANES, i % LANES);
                panel.iter_mut().zip(&pairs).for_each(|(along, pair)| along[line].0[lane] = *pair);
            }
        });
        let sums = (d_in + LANES) as f32 * f32::EPSILON;
        let whole: Vec<f32> = norms.iter().map(|norms| norms.whole).collect();
        let lost: Vec<f32> = norms.iter().map(|norms| norms.lost + sums * norms.whole).collect();
        // What adding the bias may round off, here and there; and products too small for f32.
        let of_bias = |b: &f32| 4.0 * f32::EPSILON * b.abs() + f32::MIN_POSITIVE / f32::EPSILON;
        let rounding: Vec<f32> = b_enc.iter().map(of_bias).collect();
        Self {
            multiplier,
            d_in,
            weights,
            bias: padded(b_enc),
            rounding: padded(&rounding),
            whole: lines(&whole, 0.0),
            lost: lines(&lost, 0.0),
        }
    }
}

impl Product for Screened {
    type Tokens = Tokens;

    const EXACT: bool = false;

    fn terms(&self) -> usize {
        self.d_in.div_ceil(2)
    }

    #[inline(always)]
    fn tokens<S: Simd>(&self, simd: S, x: &[f32]) -> Tokens {
        let half = self.terms();
        let groups = x.len().div_ceil(self.d_in * ROWS);
        let mut across = vec![[0; ROWS]; groups * half];
        let mut norms = Vec::with_capacity(groups * ROWS);
        let mut pairs = vec![0; half];
        for (group, rows) in across.chunks_exact_mut(half).zip(x.chunks(self.d_in * ROWS)) {
            for (i, row) in rows.chunks_exact(self.d_in).enumerate() {
                norms.push(round(simd, row, &mut pairs));
                group.iter_mut().zip(&pairs).for_each(|(across, pair)| across[i] = *pair);
            }
        }
        Tokens { pairs: across, norms }
    }

    #[inline(always)]
    fn multiply<S: Simd>(
        &self,
        _: S,
        tokens: &Tokens,
        [group, panel]: [usize; 2],
        terms: Range<usize>,
        tile: &mut Tile,
    ) {
        let half = self.terms();
        let across = &tokens.pairs[group * half..][terms.clone()];
        self.multiplier.multiply(across, &self.weights[panel * half..][terms], tile);
    }

    #[inline(always)]
    fn bound<S: Simd>(
        &self,
        simd: S,
        side: Side,
        tokens: &Tokens,
        token: usize,
        line: usize,
        product: &Line,
    ) -> Line {
        let Norms { whole, lost } = tokens.norms[token];
        let (x_whole, x_lost) = (simd.splat_f32s(whole), simd.splat_f32s(lost));
        let of = |lines: &[Line], i: usize| lines[line].vectors::<S>()[i];
        let mut bound = Line::ZERO;
        for (i, (bound, product)) in
            bound.vectors_mut::<S>().iter_mut().zip(product.vectors::<S>()).enumerate()
        {
            let sum = simd.add_f32s(*product, of(&self.bias, i));
            let margin = simd.mul_add_e_f32s(x_whole, of(&self.lost, i), of(&self.rounding, i));
            let margin = simd.mul_add_e_f32s(x_lost, of(&self.whole, i), margin);
            *bound = match side {
                Side::Lower => simd.sub_f32s(sum, margin),
                Side::Upper => simd.add_f32s(sum, margin),
            };
        }
        bound
    }
}

struct Round<'a> {
    row: &'a [f32],
    pairs: &'a mut [u32],
}

impl WithSimd for Round<'_> {
    type Output = Norms;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Norms {
        round(simd, self.row, self.pairs)
    }
}

/// Rounds `row` to `pairs`; an odd one out is paired with 0.
#[inline(always)]
fn round<S: Simd>(simd: S, row: &[f32], pairs: &mut [u32]) -> Norms {
    let mut sums = [Line::ZERO; 2];
    let (chunks, rest) = row.as_chunks::<{ 2 * LANES }>();
    // The rest may fill a line, with an odd one at its end.
    let (pair_chunks, pair_rest) = pairs.split_at_mut(chunks.len() * LANES);
    for (row, pairs) in chunks.iter().zip(pair_chunks.as_chunks_mut().0) {
        round_pairs(row, pairs, &mut sums);
    }
    let mut padded = [0.0; 2 * LANES];
    padded[..rest.len()].copy_from_slice(rest);
    let mut last = [0; LANES];
    round_pairs(&padded, &mut last, &mut sums);
    pair_rest.copy_from_slice(&last[..pair_rest.len()]);
    // Squares that are too small for f32 add up to less than its smallest number.
    let norm = |line: &Line| (dot(simd, &line.0, &[1.0; LANES]) + f32::MIN_POSITIVE).sqrt() * SLACK;
    let (whole, lost) = (norm(&sums[0]), norm(&sums[1]));
    let whole = whole + lost;
    Norms { whole, lost: if whole > LONGEST { f32::INFINITY } else { lost } }
}

/// Rounds `row` to `pairs`, and adds squares to `sums`: of the numbers, and of what rounding took from them.
#[inline(always)]
fn round_pairs(row: &[f32; 2 * LANES], pairs: &mut [u32; LANES], sums: &mut [Line; 2]) {
    for i in 0..LANES {
        let (a, b) = (row[2 * i], row[2 * i + 1]);
        let (low, high) = (pairs::bf16(a), pairs::bf16(b));
        pairs[i] = low | (high << 16);
        let (lost_a, lost_b) = (a - pairs::value(low), b - pairs::value(high));
        sums[0].0[i] += a * a + b * b;
        sums[1].0[i] += lost_a * lost_a + lost_b * lost_b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bounds<'a> {
        product: &'a Screened,
        x: &'a [f32],
        tile: &'a Tile,
    }

    impl WithSimd for Bounds<'_> {
        type Output = [Line; 2];

        fn with_simd<S: Simd>(self, simd: S) -> [Line; 2] {
            let tokens = self.product.tokens(simd, self.x);
            [Side::Lower, Side::Upper]
                .map(|side| self.product.bound(simd, side, &tokens, 0, 0, &self.tile[0][0]))
        }
    }

    /// What a multiplier computes, in double precision.
    fn product(x: &[f32], w: &[f32]) -> f32 {
        let round = |v: &f32| f64::from(pairs::value(pairs::bf16(*v)));
        x.iter().zip(w).map(|(x, w)| round(x) * round(w)).sum::<f64>() as f32
    }

    #[test]
    fn rounding_is_to_the_nearest() {
        for (value, expected) in [
            (1.0, 1.0),
            // Half way between 1 and the next, and then between odd and even.
            (1.0 + 0.5_f32.powi(8), 1.0),
            (1.003_906_4, 1.007_812_5),
            (1.0 + 3.0 * 0.5_f32.powi(8), 1.015_625),
            (-3.0, -3.0),
            (1e-39, 0.0),
            (-1e-39, 0.0),
        ] {
            assert_eq!(pairs::value(pairs::bf16(value)), expected, "{value}");
        }
    }

    /// Numbers that round to one side all of them, numbers of mixed sizes, and zeros.
    #[test]
    fn the_product_is_within_its_bounds() {
        let Some(multiplier) = Multiplier::detect() else { return };
        let cases: [fn(usize) -> f32; 7] = [
            |_| 1.003_9,
            |_| 1.003_92,
            |i| 1.003_9 * if i % 2 == 0 { 1.0 } else { -1.0 },
            |i| ((i * 37 % 101) as f32 - 50.0) * 0.317,
            |i| 10_f32.powi((i % 9) as i32 - 4) * 1.237,
            |i| 1e-21 * ((i % 3) as f32 - 1.1),
            |_| 0.0,
        ];
        for d_in in [1, 2, 31, 32, 33, 577] {
            for x_case in cases {
                for w_case in cases {
                    for bias in [0.0, -250.0] {
                        let x: Vec<f32> = (0..d_in).map(x_case).collect();
                        let w: Vec<f32> = (0..d_in).map(|i| w_case(i + 1)).collect();
                        let screened = Screened::new(multiplier, &w, &[bias], d_in);
                        let mut tile = crate::cpu::tile::ZEROS;
                        tile[0][0].0[0] = product(&x, &w);
                        let [lower, upper] =
                            Arch::new().dispatch(Bounds { product: &screened, x: &x, tile: &tile });
                        let exact: f64 = x.iter().zip(&w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                        let (exact, lower, upper) =
                            (exact + f64::from(bias), f64::from(lower.0[0]), f64::from(upper.0[0]));
                        assert!(lower <= exact && exact <= upper, "{lower} {exact} {upper} at {d_in}");
                        // What is not bounded closely would be computed twice.
                        let norm = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
                        assert!(upper - lower <= 0.017 * norm(&x) * norm(&w) + 1e-3, "{d_in}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_processor_multiplies_as_it_should() {
        let Some(multiplier) = Multiplier::detect() else { return };
        for d_in in [31, 67] {
            let x: Vec<f32> = (0..d_in).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.317).collect();
            let w: Vec<f32> = (0..2 * d_in).map(|i| ((i * 53 % 97) as f32 - 48.0) * 0.0191).collect();
            let screened = Screened::new(multiplier, &w, &[0.0; 2], d_in);
            let mut tile = crate::cpu::tile::ZEROS;
            let tokens = screened.tokens(pulp::Scalar::new(), &x);
            screened.multiply(pulp::Scalar::new(), &tokens, [0, 0], 0..screened.terms(), &mut tile);
            for (latent, w) in w.chunks(d_in).enumerate() {
                let (found, expected) = (tile[0][0].0[latent], product(&x, w));
                assert!((found - expected).abs() < 1e-3 * expected.abs().max(1.0), "{found} {expected}");
            }
            assert_eq!(tile[1][0].0[0], 0.0);
        }
    }
}
