//! Decoder rows that keep a norm of 1 (Bricken et al. 2023): what would change their length is taken out of their
//! gradients, and what a step changed all the same is divided out.

use burn::{optim::GradientsParams, tensor::Tensor};
use monosema_kernels::SMALLEST_NORM;
use monosema_sae::Sae;

/// Takes from the gradient of every decoder row what points along the row.
pub(super) fn project(sae: &Sae, gradients: &mut GradientsParams) {
    let w_dec = &sae.affine().w_dec;
    if let Some(gradient) = gradients.remove::<2>(w_dec.id) {
        let rows = w_dec.val().inner();
        let along = (gradient.clone() * rows.clone()).sum_dim(1)
            / rows.clone().square().sum_dim(1).clamp_min(f32::MIN_POSITIVE);
        gradients.register(w_dec.id, gradient - rows * along);
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
