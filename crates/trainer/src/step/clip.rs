//! Clipping by the norm of all gradients together. (burn's own clipping is per parameter: that changes the
//! direction of the step.)

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::Tensor,
};
use monosema_kernels::CLIP_EPSILON;

use crate::config::GradClip;

/// Multiplies every gradient by min(1, limit / norm of all). Returns the norm before, `[1]`.
pub(super) fn clip_norm<M: Module>(module: &M, gradients: &mut GradientsParams, clip: GradClip) -> Tensor<1> {
    let mut squares = SumOfSquares { gradients, sum: None };
    module.visit(&mut squares);
    let norm = squares.sum.expect("a module that is trained has parameters").sqrt();
    let GradClip::Norm(largest) = clip else { return norm };
    // Computed where the gradients are: reading the norm would make the host wait in every step.
    let factor = norm.clone().add_scalar(CLIP_EPSILON).recip().mul_scalar(largest).clamp_max(1.0);
    module.visit(&mut Scale { gradients, factor });
    norm
}

struct SumOfSquares<'a> {
    gradients: &'a GradientsParams,
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for SumOfSquares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            // Rows first: burn-flex sums a large tensor at once in an order that depends on its threads.
            let square = gradient.square().sum_dim(D - 1).sum();
            self.sum = Some(match self.sum.take() {
                Some(sum) => sum + square,
                None => square,
            });
        }
    }
}

struct Scale<'a> {
    gradients: &'a mut GradientsParams,
    factor: Tensor<1>,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            let factor = self.factor.clone().reshape([1; D]);
            self.gradients.register(param.id, gradient * factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[derive(Module, Debug)]
    struct Two {
        a: Param<Tensor<2>>,
        b: Param<Tensor<1>>,
    }

    /// Gradients of `a` are [[1, 2]], those of `b` [2]: a norm of 3.
    fn clipped(largest: f64) -> (f32, Vec<f32>, Vec<f32>) {
        let device = Device::flex().autodiff();
        let two = Two { a: Param::from_data([[1.0, 1.0]], &device), b: Param::from_data([1.0], &device) };
        let factors = Tensor::<2>::from_data([[1.0, 2.0]], &device);
        let loss = (two.a.val() * factors).sum() + two.b.val().sum() * 2.0;
        let mut gradients = GradientsParams::from_grads(loss.backward(), &two);
        let norm = clip_norm(&two, &mut gradients, GradClip::Norm(largest)).into_scalar();
        let a = gradients.get::<2>(two.a.id).unwrap().into_data().try_into_vec().unwrap();
        let b = gradients.get::<1>(two.b.id).unwrap().into_data().try_into_vec().unwrap();
        (norm, a, b)
    }

    #[test]
    fn a_long_gradient_is_shortened_as_a_whole() {
        let (norm, a, b) = clipped(1.5);
        assert_eq!(norm, 3.0);
        for (found, expected) in a.into_iter().chain(b).zip([0.5, 1.0, 1.0]) {
            assert!((found - expected).abs() < 1e-6, "expected {expected}, found {found}");
        }
    }

    #[test]
    fn a_short_gradient_is_left_alone() {
        assert_eq!(clipped(3.5), (3.0, vec![1.0, 2.0], vec![2.0]));
    }
}
