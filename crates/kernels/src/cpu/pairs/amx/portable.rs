//! AMX as its specification has it (Intel 2024, "TDPBF16PS"): what the processor's is held against.

use super::{HEIGHT, LinePairs, Registers, Unit};
use crate::cpu::{
    line::{LANES, Line},
    pairs,
};

/// Arithmetic that every processor has.
#[derive(Clone, Copy, Debug)]
pub(in crate::cpu) struct Portable;

impl Unit for Portable {
    type Registers = Bits;

    fn registers(self) -> Bits {
        Bits([[[0; LANES]; HEIGHT]; 8])
    }
}

/// What is in registers.
pub(in crate::cpu) struct Bits([[[u32; LANES]; HEIGHT]; 8]);

impl Registers for Bits {
    fn load_pairs<const T: usize>(&mut self, lines: &[LinePairs], stride: usize) {
        self.0[T] = std::array::from_fn(|row| lines[row * stride].0);
    }

    fn load<const T: usize>(&mut self, lines: &[Line], stride: usize) {
        self.0[T] = std::array::from_fn(|row| lines[row * stride].0.map(f32::to_bits));
    }

    fn store<const T: usize>(&self, lines: &mut [Line], stride: usize) {
        for (row, bits) in self.0[T].iter().enumerate() {
            lines[row * stride] = Line(bits.map(f32::from_bits));
        }
    }

    /// A sum of the products of first halves and one of second halves, and both together to the sum in `C`.
    fn multiply<const C: usize, const A: usize, const B: usize>(&mut self) {
        let [c, a, b] = [C, A, B].map(|register| self.0[register]);
        for (row, pairs) in a.iter().enumerate() {
            let (mut first, mut second) = ([0.0; LANES], [0.0; LANES]);
            for (pair, along) in pairs.iter().zip(&b) {
                for lane in 0..LANES {
                    first[lane] = multiply_add(low(*pair), low(along[lane]), first[lane]);
                    second[lane] = multiply_add(high(*pair), high(along[lane]), second[lane]);
                }
            }
            for lane in 0..LANES {
                let sum = flushed(first[lane] + second[lane]);
                let before = flushed(f32::from_bits(c[row][lane]));
                self.0[C][row][lane] = flushed(before + sum).to_bits();
            }
        }
    }
}

fn low(pair: u32) -> f32 {
    flushed(pairs::value(pair & 0xffff))
}

fn high(pair: u32) -> f32 {
    flushed(pairs::value(pair >> 16))
}

/// `a · b + sum`, rounded once.
fn multiply_add(a: f32, b: f32, sum: f32) -> f32 {
    flushed(a.mul_add(b, sum))
}

/// 0 in place of what is too small to be held in full.
fn flushed(value: f32) -> f32 {
    if value.is_subnormal() { 0.0_f32.copysign(value) } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One sum, from its pairs, as a register adds it to `before`.
    fn sum(a: &[[f32; 2]], b: &[[f32; 2]], before: f32) -> f32 {
        let pair = |pair: &[f32; 2]| pair[0].to_bits() >> 16 | pair[1].to_bits() >> 16 << 16;
        let mut registers = Portable.registers();
        let (mut rows, mut places) = ([LinePairs::ZERO; HEIGHT], [LinePairs::ZERO; HEIGHT]);
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            rows[2].0[i] = pair(a);
            places[i].0[3] = pair(b);
        }
        let mut sums = [Line::ZERO; HEIGHT];
        sums[2].0[3] = before;
        registers.load_pairs::<6>(&rows, 1);
        registers.load_pairs::<7>(&places, 1);
        registers.load::<0>(&sums, 1);
        registers.multiply::<0, 6, 7>();
        registers.store::<0>(&mut sums, 1);
        sums[2].0[3]
    }

    #[test]
    fn a_pair_is_two_products() {
        assert_eq!(sum(&[[2.0, 3.0], [5.0, -1.0]], &[[7.0, 11.0], [0.5, 4.0]], 100.0), 145.5);
    }

    #[test]
    fn halves_are_summed_apart_and_then_rounded() {
        let (large, half) = (2.0_f32.powi(24), [1.0, 0.0]);
        // One by one, the ones would be lost beside 2²⁴; together they are not.
        assert_eq!(sum(&[half, half], &[half, half], large), large + 2.0);
        // Of halfway cases the even one.
        assert_eq!(sum(&[half], &[half], large), large);
        assert_eq!(sum(&[half], &[half], large + 2.0), large + 4.0);
        // 2²⁴ + 1 − 2²⁴ among first halves loses the 1; with the 1 among second halves nothing is lost but at the end.
        let root = 2.0_f32.powi(12);
        assert_eq!(sum(&[[root, 0.0], half, [-root, 0.0]], &[[root, 0.0], half, [root, 0.0]], 0.0), 0.0);
        assert_eq!(sum(&[[root, 1.0], [-root, 0.0]], &[[root, 1.0], [root, 0.0]], 0.0), 1.0);
    }

    #[test]
    fn what_is_too_small_is_zero() {
        let (tiny, small) = (f32::MIN_POSITIVE, 0.5 * f32::MIN_POSITIVE);
        // An operand, a product, a sum, and what is there before.
        assert_eq!(sum(&[[small, 0.0]], &[[4.0, 0.0]], 0.0), 0.0);
        assert_eq!(sum(&[[tiny, 0.0]], &[[0.5, 0.0]], 0.0), 0.0);
        assert_eq!(sum(&[[1.5 * tiny, -tiny]], &[[1.0, 1.0]], 0.0), 0.0);
        assert_eq!(sum(&[[0.0, 0.0]], &[[0.0, 0.0]], small), 0.0);
        assert_eq!(sum(&[[tiny, 0.0]], &[[1.0, 0.0]], 0.0), tiny);
        // Nothing is rounded before it is added.
        assert_eq!(sum(&[[1.0, 0.0], [0.5, 0.0]], &[[tiny, 0.0], [tiny, 0.0]], 0.0), 1.5 * tiny);
    }
}
