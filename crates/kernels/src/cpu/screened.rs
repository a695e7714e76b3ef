//! Pre-activations from numbers rounded to bf16, which processors multiply several times as fast, and a bound on what
//! that loses. Latents that the bound leaves in doubt are computed again in f32, so nothing is missed.
//!
//! With x = x̃ + δx and w = w̃ + δw, where x̃ and w̃ are the rounded vectors,
//!
//! ⟨x, w⟩ − ⟨x̃, w̃⟩ = ⟨δx, w⟩ + ⟨x̃, δw⟩ ≤ ‖δx‖‖w‖ + ‖x̃‖‖δw‖
//!
//! by Cauchy and Schwarz. Norms are measured while rounding, and ‖x‖ + ‖δx‖ stands for both ‖x‖ and ‖x̃‖, which may be the
//! larger one. To that come
//!
//! - *sums* in f32, here and where a latent is computed again: each loses at most d_in · 2⁻²⁴ Σᵢ|xᵢwᵢ|, whatever the order
//!   of its additions and whatever d_in (Jeannerod and Rump 2013). So it does not matter that AVX512-BF16 adds one product after
//!   the other, AMX two sums of sixteen and then those, and vectors of f32 a sum in every lane; nor that sums are filled up with
//!   zeros, which add nothing. Products of two numbers of bf16 are exact;
//! - *the bias and the margin*, added here and there: three roundings of no more than 2⁻²⁴ of (‖x‖‖w‖ + |b|) each;
//! - *denormals.* An operand that the processor would take for 0 is one already, and counted in δ. A result that it makes 0 was
//!   smaller than 2⁻¹²⁶, and no sum has more than 3 d_in + 3 results: a constant of 2⁻¹⁰³ pays for two million terms;
//! - *norms* and the margin itself, which are rounded too. That is what [`SLACK`] is for;
//! - *overflow.* Between vectors longer than [`LONGEST`], anything is possible: they are in doubt.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::{
    encode::{Product, Side},
    line::{LANES, Line, lines, padded},
    pairs::{self, AlongPairs, LinePairs, Multiply, Rows},
    tile::{COLUMNS, LINES, Tile},
    vectors::dot,
};

/// Below this share of active latents, screening is faster than the exact product.
pub(super) const WORTHWHILE: f64 = 0.06;

/// Sums of squares take 32 numbers at a time, so they round d_in / 32 times and a few more: up to a d_in of 2¹⁶, their roots
/// are known to 2100 · 2⁻²⁵ = 6e-5 of themselves.
const SLACK: f32 = 1.0 + 1e-4;

/// No sum of products of vectors up to so long comes near the end of f32.
const LONGEST: f32 = 1e18;

/// `W_enc` and `b_enc` in the order in which tiles read them, rounded, and what rounding lost.
pub(super) struct Screened<M> {
    multiplier: M,
    d_in: usize,
    /// Pairs of a sum, filled up with zeros to what is multiplied at once.
    places: usize,
    /// `[d_sae / COLUMNS, places]`.
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
pub(super) struct Tokens<R> {
    rows: R,
    norms: Vec<Norms>,
}

/// Of a vector and of what rounding took from it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Norms {
    /// Of both together: neither the vector nor the rounded one is longer.
    whole: f32,
    lost: f32,
}

impl<M: Multiply> Screened<M> {
    /// Rounds and packs `enc [d_sae, d_in]` and `b_enc [d_sae]`.
    pub(super) fn new(multiplier: M, enc: &[f32], b_enc: &[f32], d_in: usize) -> Self {
        let half = d_in.div_ceil(2);
        let places = half.next_multiple_of(M::STEP);
        let panels = b_enc.len().div_ceil(COLUMNS);
        let mut weights = vec![[LinePairs::ZERO; LINES]; panels * places];
        let mut norms = vec![Norms::default(); panels * COLUMNS];
        let tasks = weights.par_chunks_exact_mut(places).zip(enc.par_chunks(d_in * COLUMNS));
        tasks.zip(norms.par_chunks_exact_mut(COLUMNS)).for_each(|((panel, rows), norms)| {
            let mut pairs = vec![0; half];
            for (i, (row, norms)) in rows.chunks_exact(d_in).zip(norms).enumerate() {
                *norms = Arch::new().dispatch(Round { row, pairs: &mut pairs });
                let (line, lane) = (i / LANES, i % LANES);
                panel.iter_mut().zip(&pairs).for_each(|(along, pair)| along[line].0[lane] = *pair);
            }
        });
        // Two sums of d_in terms, and what adding the bias rounds off of them.
        let sums = (d_in + LANES) as f32 * f32::EPSILON;
        let whole: Vec<f32> = norms.iter().map(|norms| norms.whole).collect();
        let lost: Vec<f32> = norms.iter().map(|norms| norms.lost + sums * norms.whole).collect();
        // What adding the bias may round off of it, here and there; and sums and products too small for f32.
        let of_bias = |b: &f32| 4.0 * f32::EPSILON * b.abs() + f32::MIN_POSITIVE / f32::EPSILON;
        let rounding: Vec<f32> = b_enc.iter().map(of_bias).collect();
        Self {
            multiplier,
            d_in,
            places,
            weights,
            bias: padded(b_enc),
            rounding: padded(&rounding),
            whole: lines(&whole, 0.0),
            lost: lines(&lost, 0.0),
        }
    }
}

impl<M: Multiply> Product for Screened<M> {
    type Tokens = Tokens<M::Rows>;

    const EXACT: bool = false;

    const ABREAST: usize = M::ABREAST;

    fn terms(&self) -> usize {
        self.places
    }

    #[inline(always)]
    fn tokens<S: Simd>(&self, simd: S, x: &[f32]) -> Tokens<M::Rows> {
        let n = x.len() / self.d_in;
        let mut rows = self.multiplier.rows(n, self.places);
        let mut norms = Vec::with_capacity(n);
        let mut pairs = vec![0; self.d_in.div_ceil(2)];
        for (row, x) in x.chunks_exact(self.d_in).enumerate() {
            norms.push(round(simd, x, &mut pairs));
            rows.put(row, &pairs);
        }
        Tokens { rows, norms }
    }

    #[inline(always)]
    fn multiply<S: Simd>(
        &self,
        _: S,
        tokens: &mut Tokens<M::Rows>,
        [group, panel]: [usize; 2],
        terms: Range<usize>,
        tiles: &mut [Tile],
    ) {
        let along = &self.weights[panel * self.places..][terms.clone()];
        tokens.rows.multiply(group, terms, along, tiles);
    }

    #[inline(always)]
    fn bound<S: Simd>(
        &self,
        simd: S,
        side: Side,
        tokens: &Tokens<M::Rows>,
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
    use crate::cpu::{
        pairs::{Multiplier, WithMultiplier},
        tile::ROWS,
        tiles::{self, Extent, Tiles},
    };

    /// Bounds `[2, tokens, latents]` as encoding finds them, whatever the instructions, and what is refined.
    struct Bounded<'a> {
        x: &'a [f32],
        enc: &'a [f32],
        b_enc: &'a [f32],
        d_in: usize,
    }

    impl WithMultiplier for Bounded<'_> {
        type Output = Vec<[f32; 3]>;

        fn with_multiplier<M: Multiply>(self, multiplier: M) -> Vec<[f32; 3]> {
            let screened = Screened::new(multiplier, self.enc, self.b_enc, self.d_in);
            Arch::new().dispatch(BoundedBy { screened: &screened, of: self })
        }
    }

    struct BoundedBy<'a, 'b, M> {
        screened: &'a Screened<M>,
        of: Bounded<'b>,
    }

    impl<M: Multiply> WithSimd for BoundedBy<'_, '_, M> {
        type Output = Vec<[f32; 3]>;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Vec<[f32; 3]> {
            let Bounded { x, enc, b_enc, d_in } = self.of;
            let (n, latents) = (x.len() / d_in, b_enc.len());
            let tokens = self.screened.tokens(simd, x);
            let mut bounds = vec![[0.0; 3]; n * latents];
            for (token, x) in x.chunks_exact(d_in).enumerate() {
                for (latent, w) in enc.chunks_exact(d_in).enumerate() {
                    bounds[token * latents + latent][2] = dot(simd, x, w) + b_enc[latent];
                }
            }
            let extent = Extent {
                groups: n.div_ceil(ROWS),
                panels: latents.div_ceil(COLUMNS),
                terms: self.screened.terms(),
            };
            let mut collect = Collect { screened: self.screened, tokens, n, latents, bounds };
            tiles::for_each(simd, extent, &mut collect);
            collect.bounds
        }
    }

    struct Collect<'a, M: Multiply> {
        screened: &'a Screened<M>,
        tokens: Tokens<M::Rows>,
        n: usize,
        latents: usize,
        bounds: Vec<[f32; 3]>,
    }

    impl<M: Multiply> Tiles for Collect<'_, M> {
        const ABREAST: usize = M::ABREAST;

        #[inline(always)]
        fn multiply<S: Simd>(&mut self, simd: S, at: [usize; 2], terms: Range<usize>, tiles: &mut [Tile]) {
            self.screened.multiply(simd, &mut self.tokens, at, terms, tiles);
        }

        #[inline(always)]
        fn done<S: Simd>(&mut self, simd: S, [group, panel]: [usize; 2], tile: &Tile) {
            for (token, lines) in (group * ROWS..self.n).zip(tile) {
                for (j, product) in lines.iter().enumerate() {
                    let first = panel * COLUMNS + j * LANES;
                    for (i, side) in [Side::Lower, Side::Upper].into_iter().enumerate() {
                        let bound =
                            self.screened.bound(simd, side, &self.tokens, token, first / LANES, product);
                        for (latent, bound) in (first..self.latents).zip(bound.0) {
                            self.bounds[token * self.latents + latent][i] = bound;
                        }
                    }
                }
            }
        }
    }

    /// 1 and more than half the way to the next number of bf16: rounded up.
    const UP: f32 = 1.003_92;

    /// Just less: rounded down.
    const DOWN: f32 = 1.003_89;

    fn mixed(i: usize) -> f32 {
        ((i * 37 % 101) as f32 - 50.0) * 0.317
    }

    fn sign(i: usize) -> f32 {
        if i.is_multiple_of(2) { 1.0 } else { -1.0 }
    }

    /// Rounded to one side all of them; of one sign and of two; of mixed sizes; one that outweighs the rest; long, so that
    /// squares or products leave f32; short, so that squares, products or the numbers themselves are denormal; zeros.
    const CASES: [fn(usize) -> f32; 24] = [
        |_| UP,
        |_| -UP,
        |_| DOWN,
        |i| UP * sign(i),
        |i| DOWN * sign(i),
        |i| if i % 3 == 0 { UP } else { -DOWN },
        mixed,
        |i| mixed(i).abs() * 0.01,
        |i| -mixed(3 * i).abs(),
        |i| 10_f32.powi((i % 9) as i32 - 4) * 1.237,
        |i| if i == 0 { 3.3e6 } else { 1e-3 * mixed(i) },
        |i| if i % 64 == 30 { -7.7e4 } else { UP },
        |i| if i % 32 == 31 { 1e9 * UP * sign(i / 32) } else { mixed(i) },
        |i| 1e15 * mixed(i),
        |_| 3e16 * UP,
        |i| 3e18 * mixed(i),
        |i| 3e37 * sign(i),
        |i| 1e-21 * ((i % 3) as f32 - 1.1),
        |_| 1e-19 * UP,
        |i| 4e-20 * mixed(i),
        |i| 1.3e-38 * mixed(i) * 0.1,
        |_| -1e-39,
        |i| 1e-44 * sign(i),
        |_| 0.0,
    ];

    fn rows(offset: usize, d_in: usize) -> Vec<f32> {
        CASES.iter().flat_map(|case| (0..d_in).map(move |i| case(i + offset))).collect()
    }

    /// What is refined, and what would come out without rounding, are within the bounds, and these are close.
    #[test]
    fn pre_activations_are_within_their_bounds() {
        for d_in in [1, 2, 31, 32, 33, 67, 577, 1301, 4096, 16384] {
            // Each latent three times, with a bias each.
            let (x, w) = (rows(0, d_in), rows(1, d_in));
            let enc = [&w[..], &w[..], &w[..]].concat();
            let b_enc: Vec<f32> = [0.0, -250.0, 3e-39].into_iter().flat_map(|b| [b; CASES.len()]).collect();
            let exact = |token: usize, latent: usize| -> f64 {
                let (x, w) = (&x[token * d_in..][..d_in], &enc[latent * d_in..][..d_in]);
                x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>()
                    + f64::from(b_enc[latent])
            };
            let norm = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            let norms = |rows: &[f32]| -> Vec<f64> { rows.chunks_exact(d_in).map(norm).collect() };
            let (of_x, of_enc) = (norms(&x), norms(&enc));
            for multiplier in Multiplier::all() {
                let found = multiplier.dispatch(Bounded { x: &x, enc: &enc, b_enc: &b_enc, d_in });
                for (i, [lower, upper, refined]) in found.into_iter().enumerate() {
                    let (token, latent) = (i / b_enc.len(), i % b_enc.len());
                    let what =
                        || format!("{lower} {refined} {upper}, {multiplier:?} {d_in} {token} {latent}");
                    if of_x[token].max(of_enc[latent]) > f64::from(LONGEST) {
                        let in_doubt = lower > f32::NEG_INFINITY || upper < f32::INFINITY;
                        assert!(!in_doubt, "{}", what());
                        continue;
                    }
                    let (exact, margin) = (exact(token, latent), f64::from(upper) - f64::from(lower));
                    assert!(lower <= refined && refined <= upper, "{}", what());
                    assert!(f64::from(lower) <= exact && exact <= f64::from(upper), "{exact}, {}", what());
                    // What is not bounded closely would be computed twice.
                    let close = (0.016 + 3e-7 * d_in as f64) * of_x[token] * of_enc[latent];
                    assert!(margin <= close + 1e-3 + 1e-16 * (of_x[token] + of_enc[latent]), "{}", what());
                }
            }
        }
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
}
