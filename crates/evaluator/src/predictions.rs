//! What predictions lose at chosen positions of a batch.

use burn::tensor::{Int, Tensor, TensorData};
use monosema_transformer::{LanguageModel, Loss};

use crate::error::EvalError;

/// The losses of the predictions made from `positions` (indices into `batch * seq`) of the tokens `targets` under each of some
/// passes, of which the final hidden states `[batch, seq, d_model]` are given; divergence and agreement are from the first. A list
/// for each pass, with an entry for each prediction.
pub(crate) fn losses(
    model: &LanguageModel,
    first: &Tensor<3>,
    others: &[Tensor<3>],
    positions: &[i32],
    targets: &[u32],
) -> Result<Vec<Vec<Loss>>, EvalError> {
    if positions.is_empty() {
        return Ok(vec![Vec::new(); 1 + others.len()]);
    }
    let indices = TensorData::new(positions.to_vec(), [positions.len()]);
    let indices = Tensor::<1, Int>::from_data(indices, model.device());
    let rows = |hidden: &Tensor<3>| {
        let [batch, seq, d_model] = hidden.dims();
        hidden.clone().reshape([batch * seq, d_model]).select(0, indices.clone())
    };
    let passes: Vec<_> = std::iter::once(first).chain(others).map(rows).collect();
    let failed = |error: burn::tensor::TensorReadError| EvalError::Device {
        doing: "computing logits",
        reason: error.to_string(),
    };
    monosema_transformer::losses(model, &passes, targets).map_err(failed)
}
