//! The latents of a dictionary as units to choose from, and the units that they are held against.

use burn::tensor::{Device, Tensor};
use monosema_core::Seed;
use rand::Rng;
use rayon::prelude::*;

use crate::{
    concepts::{Activity, Column, Units, principal_directions},
    error::EvalError,
    host,
};

/// Latents.
pub(crate) struct Latents {
    starts: Vec<usize>,
    entries: Vec<(f32, u32)>,
}

impl Latents {
    /// With these values on tokens.
    pub(crate) fn new(activity: &Activity) -> Self {
        let (starts, entries) = activity.by_unit();
        Self { starts, entries }
    }
}

impl Units for Latents {
    fn count(&self) -> usize {
        self.starts.len() - 1
    }

    fn columns(&self, units: &[usize]) -> Result<Vec<Column>, EvalError> {
        let of_unit = |unit: usize| self.entries[self.starts[unit]..self.starts[unit + 1]].iter().copied();
        Ok(units.par_iter().map(|&unit| Column::sparse(of_unit(unit))).collect())
    }
}

/// The dimensions of the activations themselves, each with both signs.
pub(crate) struct Neurons<'a> {
    /// `[n, d_in]`.
    pub(crate) x: &'a [f32],
    pub(crate) d_in: usize,
}

impl Units for Neurons<'_> {
    fn count(&self) -> usize {
        2 * self.d_in
    }

    fn columns(&self, units: &[usize]) -> Result<Vec<Column>, EvalError> {
        let values = |unit: usize| self.x[unit / 2..].iter().step_by(self.d_in).map(move |x| sign(unit) * x);
        Ok(units.par_iter().map(|&unit| Column::dense(values(unit))).collect())
    }
}

/// Of units in pairs the first is positive, the second negative.
fn sign(unit: usize) -> f32 {
    if unit.is_multiple_of(2) { 1.0 } else { -1.0 }
}

/// Projections onto directions.
pub(crate) struct Directions {
    /// `[n, d_in]`.
    x: Tensor<2>,
    /// `[m, d_in]`.
    directions: Vec<f32>,
    /// On how many tokens a unit is above rest. `None`: on all, and each direction is there with both signs.
    active_on: Option<usize>,
}

impl Directions {
    /// The directions in which `x [n, d_in]` varies most.
    pub(crate) fn principal(x: &[f32], d_in: usize, device: &Device) -> Result<Self, EvalError> {
        let n = x.len() / d_in;
        let x = host::tensor(x.to_vec(), [n, d_in], device);
        let centred = x.clone() - x.clone().mean_dim(0);
        let products = centred.clone().transpose().matmul(centred).div_scalar(n as f64);
        let covariance = host::values(products, "computing the covariance of activations")?;
        let covariance: Vec<f64> = covariance.into_iter().map(f64::from).collect();
        Ok(Self { x, directions: principal_directions(&covariance, d_in), active_on: None })
    }

    /// `count` random directions, uniform on the sphere, each above rest on so many tokens of `x [n, d_in]`: a ReLU whose bias makes it so.
    pub(crate) fn random(
        x: &[f32],
        d_in: usize,
        count: usize,
        active_on: usize,
        seed: Seed,
        device: &Device,
    ) -> Self {
        let mut stream = seed.stream("random dictionary");
        // Normal draws by Box and Muller's method: their direction is uniform.
        let mut normal = || {
            let (u, v): (f64, f64) = (stream.random(), stream.random());
            (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
        };
        let mut directions = Vec::with_capacity(count * d_in);
        for _ in 0..count {
            let direction: Vec<f64> = (0..d_in).map(|_| normal()).collect();
            let length = direction.iter().map(|v| v * v).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
            directions.extend(direction.iter().map(|v| (v / length) as f32));
        }
        let x = host::tensor(x.to_vec(), [x.len() / d_in, d_in], device);
        Self { x, directions, active_on: Some(active_on) }
    }

    fn d_in(&self) -> usize {
        self.x.dims()[1]
    }
}

impl Units for Directions {
    fn count(&self) -> usize {
        let n = self.directions.len() / self.d_in();
        if self.active_on.is_some() { n } else { 2 * n }
    }

    fn columns(&self, units: &[usize]) -> Result<Vec<Column>, EvalError> {
        let d_in = self.d_in();
        let direction = |unit: usize| if self.active_on.is_some() { unit } else { unit / 2 };
        let rows = units
            .iter()
            .map(|&unit| direction(unit))
            .flat_map(|i| &self.directions[i * d_in..(i + 1) * d_in]);
        let rows = host::tensor(rows.copied().collect(), [units.len(), d_in], &self.x.device());
        let projections = host::values(rows.matmul(self.x.clone().transpose()), "projecting activations")?;
        let column = |(&unit, projections): (&usize, &[f32])| match self.active_on {
            Some(active_on) => Column::largest(projections.to_vec(), active_on),
            None => Column::dense(projections.iter().map(|value| sign(unit) * value)),
        };
        let n = self.x.dims()[0];
        Ok(units.par_iter().zip(projections.par_chunks_exact(n)).map(column).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four tokens of two dimensions.
    const X: [f32; 8] = [3.0, 0.0, -1.0, 2.0, 0.0, 0.5, 1.0, -2.0];

    #[test]
    fn neurons_have_both_signs() {
        let neurons = Neurons { x: &X, d_in: 2 };
        let columns = neurons.columns(&[0, 1, 2, 3]).unwrap();
        assert_eq!((neurons.count(), &columns[0].entries[0]), (4, &(3.0, 0)));
        assert_eq!(columns[1].entries[0], (1.0, 1));
        assert_eq!(columns[2].entries, [(2.0, 1), (0.5, 2), (0.0, 0), (-2.0, 3)]);
        assert_eq!(neurons.columns(&[3]).unwrap()[0], columns[3]);
    }

    #[test]
    fn directions_are_principal_or_random() {
        let device = Device::flex();
        let principal = Directions::principal(&X, 2, &device).unwrap();
        assert_eq!(principal.count(), 4);
        // The first varies more than the second, and −v is v turned round.
        let columns = principal.columns(&[0, 1, 2, 3]).unwrap();
        let spread = |column: &Column| column.entries[0].0 - column.entries[3].0;
        assert!(spread(&columns[0]) > spread(&columns[2]));
        assert!((spread(&columns[0]) - spread(&columns[1])).abs() < 1e-6);
        assert_eq!(principal.columns(&[1, 2]).unwrap(), columns[1..3]);
        let random = Directions::random(&X, 2, 5, 2, Seed(1), &device);
        let columns = random.columns(&[0, 1, 2, 3, 4]).unwrap();
        assert!(columns.iter().all(|column| column.entries.len() == 2 && column.entries[1].0 > 0.0));
        assert_eq!(random.columns(&[3]).unwrap(), columns[3..4]);
        let norms = random.directions.chunks(2).map(|row| row[0].hypot(row[1]));
        assert!(norms.into_iter().all(|norm| (norm - 1.0).abs() < 1e-6));
    }
}
