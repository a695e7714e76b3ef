//! From values to places along an axis, and the round values that an axis shows.

use crate::number::{short, tick_labels};

/// How values are spread along an axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spacing {
    /// Equal differences take equal room.
    #[default]
    Linear,
    /// Equal ratios take equal room; values of 0 and below are left out. Linear if no value is above 0.
    Log,
}

/// Beyond these, differences and squares of values would leave f64.
const LARGEST: f64 = 1e150;
const SMALLEST: f64 = 1e-150;

/// Share of the axis that stays free at either end, so that a line does not lie on the border.
const PADDING: f64 = 0.04;

/// Whether a chart can show it at all.
pub(crate) fn drawable(value: f64) -> bool {
    value.abs() <= LARGEST
}

/// A range of values, and where on the picture it lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scale {
    spacing: Spacing,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

/// A round value on an axis.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tick {
    pub(crate) at: f64,
    pub(crate) label: String,
}

impl Scale {
    /// One that holds all of `values` exactly, over 0..1; `None` if there is nothing to hold.
    pub(crate) fn of(spacing: Spacing, values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut all = [f64::INFINITY, f64::NEG_INFINITY];
        let mut above_0 = all;
        for value in values.into_iter().filter(|&value| drawable(value)) {
            all = [all[0].min(value), all[1].max(value)];
            if value >= SMALLEST {
                above_0 = [above_0[0].min(value), above_0[1].max(value)];
            }
        }
        let log = spacing == Spacing::Log && above_0[0] <= above_0[1];
        let ([low, high], spacing) = if log { (above_0, Spacing::Log) } else { (all, Spacing::Linear) };
        (low <= high).then(|| Self { spacing, low, high, from: 0.0, to: 1.0 }.widened())
    }

    /// Reaching down (or up) to 0 if it is linear.
    pub(crate) fn with_zero(self) -> Self {
        match self.spacing {
            Spacing::Linear => Self { low: self.low.min(0.0), high: self.high.max(0.0), ..self },
            Spacing::Log => self,
        }
    }

    /// With some room at both ends, but none below 0 for values that are never below it.
    pub(crate) fn padded(self) -> Self {
        let Self { low, high, .. } = self;
        let room = PADDING * (self.grow(high) - self.grow(low));
        let low_end = self.shrink(self.grow(low) - room);
        let high_end = self.shrink(self.grow(high) + room);
        Self {
            low: if low >= 0.0 { low_end.max(0.0).min(low) } else { low_end },
            high: if high <= 0.0 { high_end.min(0.0) } else { high_end },
            ..self
        }
    }

    /// The lowest value at `from`, the highest at `to`, which may be the smaller one.
    pub(crate) fn between(self, from: f64, to: f64) -> Self {
        Self { from, to, ..self }
    }

    /// Where `value` lies; `None` if it cannot be shown.
    pub(crate) fn place(&self, value: f64) -> Option<f64> {
        if !drawable(value) || (self.spacing == Spacing::Log && value < SMALLEST) {
            return None;
        }
        let [low, high] = [self.grow(self.low), self.grow(self.high)];
        Some(self.from + (self.grow(value) - low) / (high - low) * (self.to - self.from))
    }

    /// Some `wanted` round values within the range, rising.
    pub(crate) fn ticks(&self, wanted: usize) -> Vec<Tick> {
        let log = match self.spacing {
            Spacing::Log => log_ticks(self.low, self.high, wanted),
            Spacing::Linear => None,
        };
        let (values, labels) = match log {
            Some(values) => {
                let labels = values.iter().map(|&value| short(value)).collect();
                (values, labels)
            }
            None => {
                let values = linear_ticks(self.low, self.high, wanted);
                let labels = tick_labels(&values);
                (values, labels)
            }
        };
        let ticks = values.into_iter().zip(labels);
        ticks.filter_map(|(value, label)| Some(Tick { at: self.place(value)?, label })).collect()
    }

    /// A single value gets room on both sides, or nothing would have a place.
    fn widened(self) -> Self {
        let Self { low, high, .. } = self;
        let size = low.abs().max(high.abs());
        if high - low > 1e-12 * size {
            return self;
        }
        match self.spacing {
            Spacing::Log => Self { low: low / 2.0, high: high * 2.0, ..self },
            Spacing::Linear if size < SMALLEST => Self { low: 0.0, high: 1.0, ..self },
            Spacing::Linear => Self { low: low - size / 10.0, high: high + size / 10.0, ..self },
        }
    }

    fn grow(&self, value: f64) -> f64 {
        if self.spacing == Spacing::Log { value.log10() } else { value }
    }

    fn shrink(&self, value: f64) -> f64 {
        if self.spacing == Spacing::Log { 10_f64.powf(value) } else { value }
    }
}

/// Multiples of 1, 2, 2.5 or 5 times a power of ten from `low` to `high`; the ends themselves if there is none.
fn linear_ticks(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let rough = (high - low) / wanted.max(1) as f64;
    let power = 10_f64.powi(rough.log10().floor() as i32);
    let step = [1.0, 2.0, 2.5, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|&step| step >= 0.999 * rough)
        .unwrap_or(10.0 * power);
    if !step.is_normal() {
        return vec![low, high];
    }
    // A hair of tolerance, so that an end that is round is not lost to rounding.
    let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
    let count = (last - first).clamp(0.0, 2.0 * wanted as f64 + 2.0) as usize;
    let mut ticks: Vec<f64> = (0..=count).map(|i| (first + i as f64) * step).collect();
    // Between numbers that differ in their last bits, neighbours may be the same number.
    ticks.dedup();
    ticks
}

/// Over a few decades multiples of powers of ten, else these alone; `None` if a linear axis has rounder values.
fn log_ticks(low: f64, high: f64, wanted: usize) -> Option<Vec<f64>> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let within = |value: &f64| (low * (1.0 - 1e-9)..=high * (1.0 + 1e-9)).contains(value);
    // What is parsed is nearer to a power of ten than what multiplication makes of it.
    let value = |digit: u8, exponent: i32| format!("{digit}e{exponent}").parse::<f64>().unwrap_or(f64::NAN);
    let multiples = |digits: &[u8]| -> Vec<f64> {
        (first..=last).flat_map(|e| digits.iter().map(move |&digit| value(digit, e))).filter(within).collect()
    };
    let sets = [&[1, 2, 3, 5, 7][..], &[1, 2, 5], &[1]].map(multiples);
    let [_, fine, powers] = &sets;
    if fine.len() < 2 {
        return None;
    }
    if let Some(set) = sets.iter().find(|set| set.len() <= wanted + 2) {
        return Some(set.clone());
    }
    let stride = powers.len().div_ceil(wanted + 1).max(1);
    // Backwards: if any are left out, not the largest.
    let mut powers: Vec<f64> = powers.iter().rev().step_by(stride).copied().collect();
    powers.reverse();
    Some(powers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(spacing: Spacing, low: f64, high: f64) -> Vec<String> {
        let scale = Scale::of(spacing, [low, high]).unwrap();
        scale.ticks(4).into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn linear_places_by_hand() {
        let scale = Scale::of(Spacing::Linear, [2.0, 6.0, f64::NAN, 3.0]).unwrap().between(100.0, 0.0);
        assert_eq!([2.0, 3.0, 6.0, 10.0].map(|v| scale.place(v)), [100.0, 75.0, 0.0, -100.0].map(Some));
        assert_eq!([f64::NAN, f64::INFINITY, 1e200].map(|v| scale.place(v)), [None; 3]);
        let from_0 = scale.with_zero();
        assert_eq!(from_0.place(3.0), Some(50.0));
    }

    #[test]
    fn logarithmic_places_by_hand() {
        let scale = Scale::of(Spacing::Log, [0.01, 1.0, 0.0, -5.0]).unwrap().between(0.0, 10.0);
        assert_eq!([0.01, 0.1, 1.0].map(|v| scale.place(v).unwrap().round()), [0.0, 5.0, 10.0]);
        assert_eq!([0.0, -1.0].map(|v| scale.place(v)), [None; 2]);
        // Nothing above 0 has a logarithm: the axis is linear then.
        let scale = Scale::of(Spacing::Log, [-1.0, 0.0]).unwrap();
        assert_eq!(scale.place(-0.5), Some(0.5));
    }

    #[test]
    fn ticks_by_hand() {
        use Spacing::{Linear, Log};
        assert_eq!(labels(Linear, 0.0, 1.0), ["0", "0.25", "0.50", "0.75", "1.00"]);
        assert_eq!(labels(Linear, -3.0, 9.0), ["0", "5"]);
        assert_eq!(labels(Linear, 0.0, 4e6), ["0", "1M", "2M", "3M", "4M"]);
        assert_eq!(labels(Log, 0.9, 1100.0), ["1", "10", "100", "1000"]);
        assert_eq!(labels(Log, 3.0, 60.0), ["5", "10", "20", "50"]);
        assert_eq!(labels(Log, 0.14, 0.92), ["0.2", "0.3", "0.5", "0.7"]);
        assert_eq!(labels(Log, 1e-9, 1.0), ["1e-8", "1e-6", "1e-4", "0.01", "1"]);
        // No round value of a logarithmic axis lies between: those of a linear one do.
        assert_eq!(labels(Log, 0.21, 0.29), ["0.22", "0.24", "0.26", "0.28"]);
    }

    #[test]
    fn one_value_lies_in_the_middle() {
        for (spacing, value) in [(Spacing::Linear, 7.0), (Spacing::Log, 7.0), (Spacing::Linear, -7.0)] {
            let scale = Scale::of(spacing, [value; 3]).unwrap();
            assert!((scale.place(value).unwrap() - 0.5).abs() < 1e-9, "{spacing:?} {value}");
        }
        assert_eq!(Scale::of(Spacing::Linear, [0.0]).unwrap().place(0.0), Some(0.0));
    }

    #[test]
    fn padding_keeps_off_the_border_but_not_beyond_0() {
        let scale = Scale::of(Spacing::Linear, [0.0, 100.0]).unwrap().padded();
        assert_eq!(scale.place(0.0), Some(0.0));
        assert!((scale.place(104.0).unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn no_range_is_too_strange_for_ticks() {
        let strange = [-1e150, -1.0, -1e-300, 0.0, 5e-324, 1e-150, 1.0, 1.0 + f64::EPSILON, 1e16, 1e150];
        for spacing in [Spacing::Linear, Spacing::Log] {
            assert_eq!(Scale::of(spacing, [f64::NAN, f64::INFINITY, f64::NEG_INFINITY]), None);
            for low in strange {
                for high in strange {
                    let Some(scale) = Scale::of(spacing, [low, high]) else { panic!("{low} {high}") };
                    for scale in [scale, scale.padded(), scale.with_zero().padded()] {
                        let ticks = scale.ticks(4);
                        assert!(ticks.len() <= 12, "{low} {high}: {ticks:?}");
                        let inside = |tick: &Tick| (-1e-6..=1.0 + 1e-6).contains(&tick.at);
                        assert!(ticks.iter().all(inside), "{spacing:?} {low} {high}: {ticks:?}");
                        let places = [low, high].map(|value| scale.place(value));
                        assert!(places.iter().flatten().all(|at| at.is_finite()), "{low} {high}: {places:?}");
                    }
                }
            }
        }
    }
}
