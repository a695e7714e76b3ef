//! Element-wise work on the CPU. burn's flex backend runs every element-wise operation on one thread, as a pass
//! over memory of its own, with a call into libm for each exponential. What a forward pass needs between its
//! matrix products is done here instead: in one pass, on all cores, in the widest vectors that the CPU has.
//!
//! Only inference takes this path: gradients flow through tensor operations alone.

use burn::tensor::{Device, Tensor, TensorData};
use pulp::Arch;
use rayon::prelude::*;

/// About how many elements one task handles.
const TASK: usize = 1 << 15;

/// How many partial sums a sum is made of, so that it can use vectors.
pub(crate) const LANES: usize = 16;

/// Whether `x` lives in host memory and records no gradient.
pub(crate) fn applies<const D: usize>(x: &Tensor<D>) -> bool {
    applies_to(&x.device())
}

/// Whether tensors on `device` live in host memory and record no gradient.
pub(crate) fn applies_to(device: &Device) -> bool {
    *device == Device::flex() && !device.is_autodiff()
}

/// `f` of each of some parts of the work, on all cores. A single one stays on the caller's thread: an accelerator queues the work of
/// each thread apart.
pub(crate) fn each<T: Send, U: Send>(parts: Vec<T>, f: impl Fn(T) -> U + Sync + Send) -> Vec<U> {
    if parts.len() == 1 {
        return parts.into_iter().map(f).collect();
    }
    parts.into_par_iter().map(f).collect()
}

/// Changes every row (last dimension) of `x` in place; `f` is told which it is.
pub(crate) fn map_rows<const D: usize>(x: Tensor<D>, f: impl Fn(usize, &mut [f32]) + Sync) -> Tensor<D> {
    let (device, width) = (x.device(), x.dims()[D - 1]);
    let mut data = x.into_data();
    let values = data.as_mut_slice::<f32>().expect("weights and activations are f32");
    let rows_per_task = (TASK / width.max(1)).max(1);
    values.par_chunks_mut(rows_per_task * width).enumerate().for_each(|(task, rows)| {
        Arch::new().dispatch(|| {
            for (i, row) in rows.chunks_exact_mut(width).enumerate() {
                f(task * rows_per_task + i, row);
            }
        });
    });
    Tensor::from_data(data, &device)
}

/// Applies `f` to every element in place.
pub(crate) fn map<const D: usize>(x: Tensor<D>, f: impl Fn(f32) -> f32 + Sync) -> Tensor<D> {
    map_rows(x, |_, row| row.iter_mut().for_each(|x| *x = f(*x)))
}

/// `f(a) * b` for the halves `a` and `b` of every row: `[n, 2 d]` to `[n, d]`.
pub(crate) fn gate(x: Tensor<2>, f: impl Fn(f32) -> f32 + Sync) -> Tensor<2> {
    let (device, [n, width]) = (x.device(), x.dims());
    let d = width / 2;
    let data = x.into_data();
    let values = data.as_slice::<f32>().expect("weights and activations are f32");
    let mut gated = vec![0.0; n * d];
    let rows_per_task = (TASK / width.max(1)).max(1);
    let tasks = gated.par_chunks_mut(rows_per_task * d).zip(values.par_chunks(rows_per_task * width));
    tasks.for_each(|(gated, rows)| {
        Arch::new().dispatch(|| {
            for (gated, row) in gated.chunks_exact_mut(d).zip(rows.chunks_exact(width)) {
                let (a, b) = row.split_at(d);
                for ((gated, a), b) in gated.iter_mut().zip(a).zip(b) {
                    *gated = f(*a) * b;
                }
            }
        });
    });
    Tensor::from_data(TensorData::new(gated, [n, d]), &device)
}

/// The exponential to about one unit in the last place, without a branch or a call (Cephes's `expf`). Below -87
/// and above 88 it stays at the value there, which is as good as 0 and infinity to a sum of probabilities.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding it rounds to a whole number, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let two_to_n = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    (p * r * r + r + 1.0) * two_to_n
}

/// The hyperbolic tangent to a few units in the last place, small values included: a rational function (Eigen's `ptanh`).
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    const P: [f32; 7] = [
        -2.760_768_5e-16,
        2.000_188e-13,
        -8.604_672e-11,
        5.122_297_1e-8,
        1.485_722_4e-5,
        6.372_619_3e-4,
        4.893_524_6e-3,
    ];
    const Q: [f32; 4] = [1.198_258_4e-6, 1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3];
    let square = x * x;
    let y = x * polynomial(&P, square) / polynomial(&Q, square);
    // Beyond, the result rounds to 1.
    if x.abs() < 7.998_811_7 { y } else { x.signum() }
}

/// `cap tanh(x / cap)`.
#[inline(always)]
pub(crate) fn soft_cap(x: f32, cap: f32) -> f32 {
    cap * tanh(x / cap)
}

/// The error function to about 5e-7 (Eigen's rational function).
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    const P: [f32; 7] = [
        -2.726_142e-10,
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_3e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ];
    const Q: [f32; 5] = [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329_3e-3, -1.426_473_9e-2];
    let square = x * x;
    let y = x * polynomial(&P, square) / polynomial(&Q, square);
    // Beyond, it is 1 itself, not a unit in the last place less: a large gate would multiply that.
    if x.abs() < 4.0 { y } else { x.signum() }
}

/// The polynomial of these coefficients, that of the highest power first.
#[inline(always)]
fn polynomial(coefficients: &[f32], x: f32) -> f32 {
    coefficients.iter().fold(0.0, |sum, c| sum * x + c)
}

/// The largest value.
#[inline(always)]
pub(crate) fn max(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane = if x > *lane { x } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// The sum of `f(x)`: vectors of partial sums within short blocks, double precision between them.
#[inline(always)]
pub(crate) fn sum(row: &[f32], f: impl Fn(f32) -> f32) -> f64 {
    let mut total = 0.0;
    for block in row.chunks(64 * LANES) {
        let mut lanes = [0.0; LANES];
        let (chunks, rest) = block.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, &x) in lanes.iter_mut().zip(chunk) {
                *lane += f(x);
            }
        }
        total += f64::from(lanes.iter().sum::<f32>() + rest.iter().map(|&x| f(x)).sum::<f32>());
    }
    total
}

/// The sum of `f(x)`, in double precision.
#[inline(always)]
pub(crate) fn sum_f64(row: &[f32], f: impl Fn(f32) -> f32) -> f64 {
    let mut lanes = [0.0; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(f(x));
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|&x| f64::from(f(x))).sum::<f64>()
}

/// Turns a row into `softmax(scale * row)`.
#[inline(always)]
pub(crate) fn softmax(row: &mut [f32], scale: f32) {
    let max = max(row);
    row.iter_mut().for_each(|x| *x = exp((*x - max) * scale));
    let factor = (1.0 / sum(row, |x| x)) as f32;
    row.iter_mut().for_each(|x| *x *= factor);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_exact_to_rounding() {
        let mut worst = 0f64;
        for i in -870_000..=880_000 {
            let x = i as f32 * 1e-4;
            let expected = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - expected).abs() / expected);
        }
        assert!(worst < 1.5 * f64::from(f32::EPSILON), "{worst:.1e}");
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NEG_INFINITY) < 2e-38 && exp(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_and_erf_are_exact_to_rounding() {
        let mut worst = [0f64; 2];
        for i in -100_000..=100_000 {
            let x = i as f32 * 1e-4;
            let expected = f64::from(x).tanh();
            let relative = (f64::from(tanh(x)) - expected).abs() / expected.abs().max(1e-30);
            worst[0] = worst[0].max(relative);
        }
        // Abramowitz and Stegun, table 7.1.
        for (x, expected) in [
            (0.0, 0.0),
            (0.1, 0.112_462_916),
            (0.5, 0.520_499_878),
            (1.0, 0.842_700_793),
            (2.0, 0.995_322_265),
        ] {
            worst[1] = worst[1].max((f64::from(erf(x)) - expected).abs());
            assert_eq!(erf(-x), -erf(x));
        }
        assert!(worst[0] < 6.0 * f64::from(f32::EPSILON), "{worst:?}");
        assert!(worst[1] < 2e-7, "{worst:?}");
        assert_eq!((erf(9.0), tanh(20.0), tanh(-20.0)), (1.0, 1.0, -1.0));
        assert!(erf(f32::NAN).is_nan() && tanh(f32::NAN).is_nan());
    }

    #[test]
    fn sums_and_maxima_take_every_element() {
        for n in [1, 15, 16, 17, 1024, 2500] {
            let row: Vec<f32> = (0..n).map(|i| (i * 7 % n) as f32).collect();
            assert_eq!(sum(&row, |x| x), (n * (n - 1) / 2) as f64);
            assert_eq!(sum_f64(&row, |x| x), (n * (n - 1) / 2) as f64);
            assert_eq!(max(&row), (n - 1) as f32);
        }
    }

    #[test]
    fn softmax_by_hand() {
        let mut row = [0.0, 2f32.ln(), 5f32.ln()];
        softmax(&mut row, 1.0);
        for (x, expected) in row.into_iter().zip([0.125, 0.25, 0.625]) {
            assert!((x - expected).abs() < 1e-6);
        }
    }
}
