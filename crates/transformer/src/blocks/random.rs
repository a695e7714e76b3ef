//! Random initial weights.

use std::f64::consts::TAU;

use rand::Rng;

/// `n` draws from a normal distribution of mean 0 and standard deviation `std` (Box and Muller, 1958).
pub(crate) fn normal(n: usize, std: f64, rng: &mut impl Rng) -> Vec<f32> {
    let mut draw = || {
        // `random` is in [0, 1); its complement has a logarithm.
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
        (std * radius * (TAU * rng.random::<f64>()).cos()) as f32
    };
    (0..n).map(|_| draw()).collect()
}

#[cfg(test)]
mod tests {
    use monosema_core::Seed;

    #[test]
    fn draws_have_the_moments_asked_for() {
        let x = super::normal(100_000, 0.02, &mut Seed(1).stream("test"));
        let n = x.len() as f64;
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let variance = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n;
        assert!(mean.abs() < 3e-4, "{mean}");
        assert!((variance.sqrt() - 0.02).abs() < 2e-4, "{variance}");
    }
}
