//! Vectors of length 1, of which the product is the cosine.

/// Rows `[n, width]`, each of length 1 or, if it had none, of zeros: then its cosine with anything is 0.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Directions {
    values: Vec<f32>,
    width: usize,
}

impl Directions {
    /// The directions of `rows [n, width]`, which are finite.
    pub(super) fn of(mut rows: Vec<f32>, width: usize) -> Self {
        for row in rows.chunks_exact_mut(width) {
            // In f64 no square of an f32 is 0 or infinite.
            let norm = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            if norm > 0.0 {
                row.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
            }
        }
        Self { values: rows, width }
    }

    /// Each row with that of `other` behind it, so that the cosine is the mean of both cosines.
    pub(super) fn beside(&self, other: &Self) -> Self {
        let width = self.width + other.width;
        let mut values = Vec::with_capacity(self.n() * width);
        for i in 0..self.n() {
            let both = self.row(i).iter().chain(other.row(i));
            values.extend(both.map(|v| v * std::f32::consts::FRAC_1_SQRT_2));
        }
        Self { values, width }
    }

    /// How many.
    pub(super) fn n(&self) -> usize {
        self.values.len() / self.width
    }

    /// How many dimensions.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Row `i`.
    pub(super) fn row(&self, i: usize) -> &[f32] {
        self.rows(i, 1)
    }

    /// `n` rows from `first` on.
    pub(super) fn rows(&self, first: usize, n: usize) -> &[f32] {
        &self.values[first * self.width..(first + n) * self.width]
    }

    /// The cosine between row `i` and row `j` of `other`.
    pub(super) fn cosine(&self, i: usize, other: &Self, j: usize) -> f64 {
        let products = self.row(i).iter().zip(other.row(j)).map(|(&a, &b)| f64::from(a) * f64::from(b));
        // Rounding may leave a hair beyond.
        products.sum::<f64>().clamp(-1.0, 1.0)
    }
}
