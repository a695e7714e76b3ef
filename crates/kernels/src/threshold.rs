//! The k largest of some values.

/// What the `k` largest of some values are. Of equals, those that are asked for first.
#[derive(Clone, Copy, Debug)]
pub struct Threshold {
    smallest: f32,
    /// How many of those equal to the smallest are still to be kept.
    equals: usize,
}

impl Threshold {
    /// Of more than `k` values, and `k` of 1 or more; reorders them. What is no number counts as larger than all.
    ///
    /// # Panics
    /// If `k` is 0 or more than there are.
    #[inline(always)]
    pub fn new(k: usize, values: &mut [f32]) -> Self {
        let (larger, smallest, _) = values.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        let mut threshold = Self { smallest: *smallest, equals: k };
        threshold.equals -= larger.iter().filter(|value| threshold.is_below(**value)).count();
        threshold
    }

    /// Whether `value`, the next in order, is one of them.
    #[inline(always)]
    pub fn keeps(&mut self, value: f32) -> bool {
        let equal = value == self.smallest && self.equals > 0;
        self.equals -= usize::from(equal);
        self.is_below(value) || equal
    }

    #[inline(always)]
    fn is_below(&self, value: f32) -> bool {
        let no_larger = value <= self.smallest;
        !no_larger
    }
}
