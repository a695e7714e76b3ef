//! Weights on the host, between a file, a seed and a device.

use std::collections::BTreeMap;

use burn::{
    module::Param,
    tensor::{Device, Tensor, TensorData},
};
use monosema_core::Seed;
use rand::Rng;

/// Named f32 tensors. Names are SAELens's: `W_enc`, `b_enc`, `W_dec`, `b_dec`, ….
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights(BTreeMap<&'static str, TensorData>);

impl Weights {
    /// Adds a tensor.
    ///
    /// # Panics
    /// If `values` are not as many as `shape` says.
    pub fn insert<const D: usize>(&mut self, name: &'static str, values: Vec<f32>, shape: [usize; D]) {
        self.0.insert(name, TensorData::new(values, shape));
    }

    /// Zeros of these shapes.
    pub(crate) fn zeros(shapes: &[(&'static str, Vec<usize>)]) -> Self {
        let mut weights = Self::default();
        for (name, shape) in shapes {
            let zeros = vec![0.0_f32; shape.iter().product()];
            weights.insert_data(name, TensorData::new(zeros, shape.clone()));
        }
        weights
    }

    /// Replaces the values of a tensor, and keeps its shape.
    ///
    /// # Panics
    /// If there is none of this name, or values are not as many.
    pub(crate) fn set(&mut self, name: &'static str, values: Vec<f32>) {
        let shape = self.0[name].shape().clone();
        self.insert_data(name, TensorData::new(values, shape));
    }

    /// Adds a tensor of f32.
    pub fn insert_data(&mut self, name: &'static str, data: TensorData) {
        self.0.insert(name, data);
    }

    /// Adds a copy of a parameter.
    pub(crate) fn insert_param<const D: usize>(&mut self, name: &'static str, param: &Param<Tensor<D>>) {
        self.0.insert(name, param.val().into_data_as::<f32>());
    }

    /// Takes a tensor out, onto `device`.
    ///
    /// # Panics
    /// If there is none of this name: who loads weights has checked them against the architecture's shapes.
    pub fn take<const D: usize>(&mut self, name: &'static str, device: &Device) -> Param<Tensor<D>> {
        let data = self.0.remove(name).unwrap_or_else(|| panic!("the weights were checked, but lack {name}"));
        Param::from_data(data, device)
    }

    /// Each tensor with its name, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &TensorData)> {
        self.0.iter().map(|(name, data)| (*name, data))
    }
}

impl Weights {
    /// The values of each tensor with its name, sorted by name.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut [f32])> {
        self.0.iter_mut().map(|(name, data)| (*name, data.as_mut_slice().expect("weights are f32")))
    }
}

impl IntoIterator for Weights {
    type Item = (&'static str, TensorData);
    type IntoIter = std::collections::btree_map::IntoIter<&'static str, TensorData>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// `rows` vectors of length `norm` in directions drawn uniformly from the sphere, from a stream of `seed`.
/// Row-major `[rows, width]`.
pub(crate) fn random_directions(seed: Seed, stream: &str, rows: usize, width: usize, norm: f64) -> Vec<f32> {
    let mut rng = seed.stream(stream);
    let mut values = Vec::with_capacity(rows * width);
    for _ in 0..rows {
        let row: Vec<f64> = std::iter::repeat_with(|| normal_pair(&mut rng)).flatten().take(width).collect();
        // A row of zeros has probability 0, but a division by it would poison everything.
        let length = row.iter().map(|v| v * v).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        values.extend(row.iter().map(|v| (v * norm / length) as f32));
    }
    values
}

/// Two independent standard normal values (Box–Muller).
pub(crate) fn normal_pair(rng: &mut impl Rng) -> [f64; 2] {
    // 1 − [0, 1) keeps the logarithm finite.
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    let (sin, cos) = (std::f64::consts::TAU * rng.random::<f64>()).sin_cos();
    [radius * cos, radius * sin]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directions_have_their_norm_and_no_preference() {
        let (rows, width) = (2000, 7);
        let values = random_directions(Seed(3), "init", rows, width, 0.1);
        let mut mean = vec![0.0; width];
        for row in values.chunks(width) {
            let norm = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            assert!((norm - 0.1).abs() < 1e-7, "{norm}");
            row.iter().zip(&mut mean).for_each(|(&v, m)| *m += f64::from(v) / rows as f64);
        }
        // Each coordinate has variance 0.01 / 7: five standard errors of the mean are 0.0042.
        assert!(mean.iter().all(|m| m.abs() < 0.0042), "{mean:?}");
        assert_eq!(values, random_directions(Seed(3), "init", rows, width, 0.1));
        assert_ne!(values, random_directions(Seed(4), "init", rows, width, 0.1));
    }
}
