//! Pairs by AMX: tiles of 16 × 16 sums, of which one instruction adds 16 pairs each.
//!
//! Here is the order in which operands are read, whatever carries out the instructions: [`Found`] is the processor,
//! [`Portable`] acts it out. The right operand lies as AMX wants it already: 16 places of a line are 16 rows of 64 bytes,
//! a whole panel apart. So do finished tiles, which are two groups of rows each.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod hardware;
mod portable;

use std::ops::Range;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(in crate::cpu) use self::hardware::Found;
pub(in crate::cpu) use self::portable::Portable;
use super::{AlongPairs, LinePairs, Multiply};
use crate::cpu::{
    line::{LANES, Line},
    tile::{LINES, ROWS, Tile, ZEROS},
    tiles,
};

/// Rows of a register, each of which is a line.
const HEIGHT: usize = 16;

/// Groups of rows in a register.
const GROUPS: usize = HEIGHT / ROWS;

const _: () = assert!(HEIGHT == LANES && HEIGHT == GROUPS * ROWS && tiles::STEP.is_multiple_of(LANES));

/// Something that carries out AMX's instructions.
pub(in crate::cpu) trait Unit: Copy + Sync {
    type Registers: Registers;

    /// Registers for this thread, eight of [`HEIGHT`] lines.
    fn registers(self) -> Self::Registers;
}

/// Registers, by number. What is read or written are [`HEIGHT`] lines, the first of a slice and every `stride`th after it.
///
/// # Panics
/// If a slice ends too early.
pub(in crate::cpu) trait Registers {
    fn load_pairs<const T: usize>(&mut self, lines: &[LinePairs], stride: usize);

    fn load<const T: usize>(&mut self, lines: &[Line], stride: usize);

    fn store<const T: usize>(&self, lines: &mut [Line], stride: usize);

    /// `C += A·B`, with sums in `C`; in `A` row i holds pairs of row i of the product, in `B` of place i.
    fn multiply<const C: usize, const A: usize, const B: usize>(&mut self);
}

/// AMX, and what carries it out.
#[derive(Clone, Copy, Debug)]
pub(in crate::cpu) struct Amx<U>(pub(in crate::cpu) U);

impl<U: Unit> Multiply for Amx<U> {
    type Rows = Rows<U::Registers>;

    /// Two registers of rows: with three of columns that is six of sums, and what is left of the eight are one for either
    /// operand. So 7 loads serve 6 products, and what comes from the second-level cache is used twice.
    const ABREAST: usize = 2 * GROUPS;

    const STEP: usize = LANES;

    fn rows(self, n: usize, places: usize) -> Self::Rows {
        let steps = places / LANES;
        let blocks = n.div_ceil(HEIGHT).next_multiple_of(2) * steps;
        Rows { registers: self.0.registers(), steps, blocks: vec![[LinePairs::ZERO; HEIGHT]; blocks] }
    }
}

/// What fills a register.
type Block = [LinePairs; HEIGHT];

/// `[n / HEIGHT, steps]`, and the registers of the thread that multiplies it.
pub(in crate::cpu) struct Rows<R> {
    registers: R,
    steps: usize,
    blocks: Vec<Block>,
}

impl<R: Registers> super::Rows for Rows<R> {
    fn put(&mut self, row: usize, pairs: &[u32]) {
        let blocks = &mut self.blocks[row / HEIGHT * self.steps..][..self.steps];
        for (block, pairs) in blocks.iter_mut().zip(pairs.chunks(LANES)) {
            block[row % HEIGHT].0[..pairs.len()].copy_from_slice(pairs);
        }
    }

    fn multiply(&mut self, group: usize, places: Range<usize>, along: &[AlongPairs], tiles: &mut [Tile]) {
        let steps = places.start / LANES..places.end / LANES;
        let upper = group / GROUPS * self.steps;
        let across = [upper, upper + self.steps].map(|begin| &self.blocks[begin..][steps.clone()]);
        multiply(&mut self.registers, across, along, tiles);
    }
}

/// Adds the product of two blocks of rows with a panel of columns to four tiles.
fn multiply<R: Registers>(
    registers: &mut R,
    [upper, lower]: [&[Block]; 2],
    along: &[AlongPairs],
    tiles: &mut [Tile],
) {
    /// Registers of operands; the six before them hold sums.
    const A: usize = 6;
    const B: usize = 7;
    let (upper_tiles, lower_tiles) = tiles.split_at_mut(GROUPS);
    let upper_sums = upper_tiles.as_flattened_mut().as_flattened_mut();
    let lower_sums = lower_tiles.as_flattened_mut().as_flattened_mut();
    registers.load::<0>(upper_sums, LINES);
    registers.load::<1>(&upper_sums[1..], LINES);
    registers.load::<2>(&upper_sums[2..], LINES);
    registers.load::<3>(lower_sums, LINES);
    registers.load::<4>(&lower_sums[1..], LINES);
    registers.load::<5>(&lower_sums[2..], LINES);
    for ((upper, lower), along) in upper.iter().zip(lower).zip(along.as_chunks::<LANES>().0) {
        let along = along.as_flattened();
        registers.load_pairs::<A>(upper, 1);
        registers.load_pairs::<B>(along, LINES);
        registers.multiply::<0, A, B>();
        registers.load_pairs::<B>(&along[1..], LINES);
        registers.multiply::<1, A, B>();
        registers.load_pairs::<B>(&along[2..], LINES);
        registers.multiply::<2, A, B>();
        // And back, so that the last one is still there.
        registers.load_pairs::<A>(lower, 1);
        registers.multiply::<5, A, B>();
        registers.load_pairs::<B>(&along[1..], LINES);
        registers.multiply::<4, A, B>();
        registers.load_pairs::<B>(along, LINES);
        registers.multiply::<3, A, B>();
    }
    registers.store::<0>(upper_sums, LINES);
    registers.store::<1>(&mut upper_sums[1..], LINES);
    registers.store::<2>(&mut upper_sums[2..], LINES);
    registers.store::<3>(lower_sums, LINES);
    registers.store::<4>(&mut lower_sums[1..], LINES);
    registers.store::<5>(&mut lower_sums[2..], LINES);
}

/// Whether `unit` multiplies as [`Portable`] does: whole numbers to the bit, others to rounding.
fn agrees<U: Unit>(unit: U) -> bool {
    let whole = |i: usize| (i * i + 3 * i) % 11;
    let number = |i: usize| whole(i) as f32 - 5.0;
    if sample(unit, number) != sample(Portable, number) {
        return false;
    }
    // Eight bits each, over several orders of magnitude, and nothing to cancel.
    let number = |i: usize| (129 + i * 37 % 127) as f32 * 0.5_f32.powi(whole(i) as i32);
    let rounding = SAMPLE as f32 * f32::EPSILON;
    let mut sums = sample(unit, number).into_iter().zip(sample(Portable, number));
    sums.all(|(found, expected)| (found - expected).abs() <= rounding * expected)
}

/// Terms of a sum of [`sample`].
const SAMPLE: usize = 2 * 3 * LANES;

/// The product of two matrices of `number`s, one part of the sums after the other.
fn sample<U: Unit>(unit: U, number: impl Fn(usize) -> f32) -> Vec<f32> {
    use super::Rows;
    let places = SAMPLE / 2;
    let pair = |i: usize| super::bf16(number(2 * i)) | super::bf16(number(2 * i + 1)) << 16;
    let mut rows = Amx(unit).rows(2 * HEIGHT, places);
    for row in 0..2 * HEIGHT {
        let pairs: Vec<u32> = (0..places).map(|place| pair(row * places + place)).collect();
        rows.put(row, &pairs);
    }
    let line = |i: usize| LinePairs(std::array::from_fn(|lane| pair(7 * i * LANES + 5 * lane)));
    let along: Vec<AlongPairs> =
        (0..places).map(|place| std::array::from_fn(|j| line(place * LINES + j))).collect();
    let mut tiles = vec![ZEROS; 2 * GROUPS];
    for places in [0..LANES, LANES..places] {
        rows.multiply(0, places.clone(), &along[places], &mut tiles);
    }
    tiles.as_flattened().as_flattened().iter().flat_map(|line| line.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::tile::COLUMNS;

    /// What can be wrong with instructions, or with how they are called.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Defect {
        Stride,
        Halves,
        Sides,
        Sums,
        Rounding,
    }

    #[derive(Clone, Copy)]
    struct Defective(Option<Defect>);

    struct DefectiveRegisters {
        defect: Option<Defect>,
        sound: <Portable as Unit>::Registers,
    }

    impl Unit for Defective {
        type Registers = DefectiveRegisters;

        fn registers(self) -> DefectiveRegisters {
            DefectiveRegisters { defect: self.0, sound: Portable.registers() }
        }
    }

    impl Registers for DefectiveRegisters {
        fn load_pairs<const T: usize>(&mut self, lines: &[LinePairs], stride: usize) {
            let stride = if self.defect == Some(Defect::Stride) { 1 } else { stride };
            let mut block: Block = std::array::from_fn(|row| lines[row * stride]);
            for pair in block.iter_mut().flat_map(|line| &mut line.0) {
                match self.defect {
                    Some(Defect::Halves) if T == 6 => *pair = pair.rotate_left(16),
                    Some(Defect::Rounding) => *pair &= 0xffe0_ffe0,
                    _ => {}
                }
            }
            self.sound.load_pairs::<T>(&block, 1);
        }

        fn load<const T: usize>(&mut self, lines: &[Line], stride: usize) {
            match self.defect {
                Some(Defect::Sums) => self.sound.load::<T>(&[Line::ZERO; HEIGHT], 1),
                _ => self.sound.load::<T>(lines, stride),
            }
        }

        fn store<const T: usize>(&self, lines: &mut [Line], stride: usize) {
            self.sound.store::<T>(lines, stride);
        }

        fn multiply<const C: usize, const A: usize, const B: usize>(&mut self) {
            match self.defect {
                Some(Defect::Sides) => self.sound.multiply::<C, B, A>(),
                _ => self.sound.multiply::<C, A, B>(),
            }
        }
    }

    #[test]
    fn what_is_wrong_is_not_used() {
        assert!(agrees(Defective(None)));
        for defect in [Defect::Stride, Defect::Halves, Defect::Sides, Defect::Sums, Defect::Rounding] {
            assert!(!agrees(Defective(Some(defect))), "{defect:?}");
        }
    }

    #[test]
    fn sums_have_all_their_terms() {
        let number = |i: usize| ((i * i + 3 * i) % 11) as f32 - 5.0;
        let found = sample(Portable, number);
        assert_eq!(found.len(), 2 * HEIGHT * COLUMNS);
        for (i, found) in found.iter().enumerate() {
            let (row, column) = (i / COLUMNS, i % COLUMNS);
            let (line, lane) = (column / LANES, column % LANES);
            let term = |term: usize| {
                let (place, half) = (term / 2, term % 2);
                let pair = 7 * (place * LINES + line) * LANES + 5 * lane;
                number(row * SAMPLE + term) * number(2 * pair + half)
            };
            assert_eq!(*found, (0..SAMPLE).map(term).sum::<f32>());
        }
    }
}
