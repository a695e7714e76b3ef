//! How much memory it takes to run a model over windows.

use monosema_store::StoreSchema;
use monosema_transformer::ModelInfo;

/// More tokens at once than this make no GPU faster.
const MOST_TOKENS: usize = 1 << 17;

/// The part of a GPU's free memory that may be planned with: allocators keep pages, and kernels have needs of their own.
const SHARE: f64 = 0.6;

/// Bytes that running a model takes, roughly. The model's inner widths are not known here, so its MLP is taken as four times, and its
/// heads as 64 wide. In f64, because a batch may be as absurd as the user likes, and the sum must still say so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Running {
    weights: f64,
    /// Of one window: within a block, and what hooks see of it.
    window: f64,
}

impl Running {
    /// Of windows of `length`.
    pub(crate) fn new(info: &ModelInfo, schema: &StoreSchema, length: usize) -> Self {
        let (length, d_model) = (length as f64, info.d_model as f64);
        let residual = 4.0 * length * d_model;
        // At most, where all sequences run side by side: of each, some hundreds of queries at a time.
        let scores = 4.0 * (d_model / 64.0).ceil() * length.min(512.0) * length;
        // What hooks see, on the device, on the host, and those of its rows that are kept.
        let widths: usize = schema.hooks.iter().map(|column| column.width).sum();
        let hooks = 4.0 * 4.0 * length * widths as f64;
        Self { weights: 4.0 * info.n_parameters as f64, window: 12.0 * residual + hooks + 2.0 * scores }
    }

    /// For the weights and so many windows at once.
    pub(crate) fn bytes(self, windows: usize) -> f64 {
        self.weights + self.window * windows as f64
    }

    /// How many windows of `length` fit at once into `free` bytes together with the weights: at least one.
    pub(crate) fn windows(self, free: u64, length: usize) -> usize {
        let fit = (SHARE * free as f64 - self.weights) / self.window;
        // A number that is too large, or below 0, becomes the nearest that there is.
        (fit as usize).min(MOST_TOKENS / length).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_windows_as_fit_and_at_least_one() {
        let running = Running { weights: 2e9, window: 1e8 };
        assert_eq!(running.bytes(10), 3e9);
        // 0.6 of 10 GB leaves 4 GB beside the weights.
        assert_eq!(running.windows(10_000_000_000, 128), 40);
        assert_eq!(running.windows(3_000_000_000, 128), 1);
        assert_eq!(running.windows(u64::MAX, 128), 1024);
        assert_eq!(running.windows(u64::MAX, MOST_TOKENS * 2), 1);
    }
}
