//! Which activations of a token are among its largest.

use burn::tensor::{Device, Tensor, TensorData};
use monosema_kernels::Threshold;
use rayon::prelude::*;

/// 1 where an activation is among the `k` largest of its row, 0 elsewhere; of equals, those of lower latents count as
/// larger (on the CPU). A constant: no gradient goes through the choice.
///
/// # Shapes
/// `acts [n, d_sae]`, the result likewise, with autodiff where `acts` have it.
pub(crate) fn of_rows(acts: Tensor<2>, k: usize) -> Tensor<2> {
    let ([n, d_sae], on_tape) = (acts.dims(), acts.is_autodiff());
    let acts = acts.inner();
    let mask = if k >= d_sae {
        acts.ones_like()
    } else if acts.device() == Device::flex() {
        // A selection per row; burn's top-k on the CPU sorts it.
        let mut values = acts.into_data().try_into_vec::<f32>().expect("activations are f32");
        values.par_chunks_mut(d_sae).for_each(|row| mark_largest(row, k));
        Tensor::from_data(TensorData::new(values, [n, d_sae]), &Device::flex())
    } else {
        let (values, latents) = acts.clone().topk_with_indices(k, 1);
        let ones = values.ones_like();
        acts.zeros_like().scatter(1, latents, ones, burn::tensor::IndexingUpdateOp::Add)
    };
    if on_tape { Tensor::from_inner(mask) } else { mask }
}

/// Turns the `k` largest of `row` into ones and the others into zeros.
fn mark_largest(row: &mut [f32], k: usize) {
    let mut threshold = Threshold::new(k, &mut row.to_vec());
    row.iter_mut().for_each(|value| *value = f32::from(threshold.keeps(*value)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_are_chosen_from_the_left() {
        let acts = Tensor::<2>::from_data([[1., 3., 2., 3.], [0., 0., 0., 5.]], &Device::flex());
        let of = |k| of_rows(acts.clone(), k).into_data().try_into_vec::<f32>().unwrap();
        assert_eq!(of(1), [0., 1., 0., 0., 0., 0., 0., 1.]);
        assert_eq!(of(3), [0., 1., 1., 1., 1., 1., 0., 1.]);
        assert_eq!(of(4), [1.; 8]);
    }
}
