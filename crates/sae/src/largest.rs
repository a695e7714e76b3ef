//! Which activations are among the largest, of a token or of a batch.

use burn::tensor::{Device, IndexingUpdateOp, Tensor, TensorData};
use monosema_kernels::Threshold;
use rayon::prelude::*;

/// 1 where an activation is among the `k` largest of its row, 0 elsewhere; of equals, those of lower latents count as
/// larger (on the CPU). A constant: no gradient goes through the choice.
///
/// # Shapes
/// `acts [n, d_sae]`, the result likewise, with autodiff where `acts` have it.
pub(crate) fn of_rows(acts: Tensor<2>, k: usize) -> Tensor<2> {
    let d_sae = acts.dims()[1];
    // A selection per row; burn's top-k on the CPU sorts it.
    choose(acts, k, |values| values.par_chunks_mut(d_sae).for_each(|row| mark_largest(row, k)), 1)
}

/// [`of_rows`] of all rows together.
pub(crate) fn of_batch(acts: Tensor<2>, k: usize) -> Tensor<2> {
    let [n, d_sae] = acts.dims();
    choose(acts.reshape([1, n * d_sae]), k, |values| mark_largest(values, k), 1).reshape([n, d_sae])
}

fn choose(acts: Tensor<2>, k: usize, mark: impl FnOnce(&mut [f32]), dim: usize) -> Tensor<2> {
    let (shape, on_tape) = (acts.dims(), acts.is_autodiff());
    let acts = acts.inner();
    let mask = if k >= shape[dim] {
        acts.ones_like()
    } else if acts.device() == Device::flex() {
        let mut values = acts.into_data().try_into_vec::<f32>().expect("activations are f32");
        mark(&mut values);
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    } else {
        let (values, latents) = acts.clone().topk_with_indices(k, dim);
        let ones = values.ones_like();
        acts.zeros_like().scatter(dim, latents, ones, IndexingUpdateOp::Add)
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

    #[test]
    fn of_a_batch_the_largest_may_be_of_one_token() {
        let acts = Tensor::<2>::from_data([[1., 3., 2., 3.], [0., 0., 0., 5.]], &Device::flex());
        let of = |k| of_batch(acts.clone(), k).into_data().try_into_vec::<f32>().unwrap();
        assert_eq!(of(2), [0., 1., 0., 0., 0., 0., 0., 1.]);
        assert_eq!(of(4), [0., 1., 1., 1., 0., 0., 0., 1.]);
        assert_eq!(of(8), [1.; 8]);
    }
}
