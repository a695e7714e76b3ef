//! Decoder rows that keep a norm of 1 (Bricken et al. 2023): what would change their length is taken out of their
//! gradients, and what a step changed all the same is divided out.

use burn::{optim::GradientsParams, tensor::Tensor};
use monosema_kernels::SMALLEST_NORM;
use monosema_sae::Sae;

/// What is left of a gradient along its row is no longer than this part of it: rounding in f32.
const ROUNDING: f64 = 1e-6;

/// Takes from the gradient of every decoder row what points along the row. If nothing but rounding is left, that goes too:
/// Adam would make a step of full length of it.
pub(super) fn project(sae: &Sae, gradients: &mut GradientsParams) {
    let w_dec = &sae.affine().w_dec;
    if let Some(gradient) = gradients.remove::<2>(w_dec.id) {
        let rows = w_dec.val().inner();
        let squares = |rows: &Tensor<2>| rows.clone().square().sum_dim(1);
        let along =
            (gradient.clone() * rows.clone()).sum_dim(1) / squares(&rows).clamp_min(f32::MIN_POSITIVE);
        let left = gradient.clone() - rows * along;
        let is_more = squares(&left).greater(squares(&gradient).mul_scalar(ROUNDING * ROUNDING));
        gradients.register(w_dec.id, left * is_more.float());
    }
}

/// Divides every decoder row by its norm.
pub(super) fn normalise(sae: Sae) -> Sae {
    sae.map_w_dec(|rows| {
        let norms = |rows: &Tensor<2>| rows.clone().square().sum_dim(1).sqrt().clamp_min(SMALLEST_NORM);
        // A parameter is a leaf of the graph: what it was divided by is not to be differentiated.
        let rows = rows.inner();
        Tensor::from_inner(rows.clone() / norms(&rows)).require_grad()
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use monosema_core::Seed;
    use monosema_sae::{Init, SaeConfig, Size};

    use super::*;

    /// What is left of a gradient of `along` times its row and `across` in the first dimension of the second row.
    fn left(along: f64, across: f32) -> Vec<f32> {
        let size = Size::new(7, 2);
        let sae =
            Sae::init(&SaeConfig::default(), size, &Init::new(Seed(1), 1.0), &Device::flex().autodiff());
        let w_dec = &sae.affine().w_dec;
        let mut apart = vec![0.0; 14];
        apart[7] = across;
        let apart = Tensor::<2>::from_data(TensorData::new(apart, [2, 7]), &Device::flex());
        let mut gradients = GradientsParams::new();
        gradients.register(w_dec.id, w_dec.val().inner().mul_scalar(along) + apart);
        project(&sae, &mut gradients);
        gradients.get::<2>(w_dec.id).unwrap().into_data().try_into_vec().unwrap()
    }

    #[test]
    fn nothing_is_left_of_a_gradient_along_its_row() {
        for along in [1e-6, 0.3, 1e4] {
            assert_eq!(left(along, 0.0), [0.0; 14]);
        }
    }

    #[test]
    fn what_points_elsewhere_is_left() {
        let (alone, both) = (left(0.0, 0.01), left(1.0, 0.01));
        assert!(alone[..7] == [0.0; 7] && alone[7..].iter().all(|value| *value != 0.0));
        assert!(alone.iter().zip(both).all(|(a, b)| (a - b).abs() < 1e-6));
    }
}
