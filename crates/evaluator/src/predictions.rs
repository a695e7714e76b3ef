//! What predictions lose at chosen positions of a batch.

use burn::tensor::{Tensor, TensorReadError};
use monosema_transformer::{LanguageModel, Loss, Tiles};

use crate::{
    error::EvalError,
    metrics::{Prediction, Splice},
    positions::Token,
};

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
    let passes: Vec<_> = std::iter::once(first).chain(others).cloned().collect();
    let failed =
        |error: TensorReadError| EvalError::Device { doing: "computing logits", reason: error.to_string() };
    monosema_transformer::losses(model, &passes, positions, targets, Tiles::default()).map_err(failed)
}

/// The predictions made from `tokens`, of the losses of the untouched model and with each of some splices.
pub(crate) fn of<'a>(
    tokens: &[Token],
    untouched: &[Loss],
    spliced: impl Iterator<Item = (Splice, &'a Vec<Loss>)>,
) -> Vec<Prediction> {
    let prediction = |(&token, loss): (&Token, &Loss)| Prediction {
        token,
        clean: loss.ce,
        spliced: [None; Splice::ALL.len()],
    };
    let mut predictions: Vec<Prediction> = tokens.iter().zip(untouched).map(prediction).collect();
    for (splice, losses) in spliced {
        for (prediction, &loss) in predictions.iter_mut().zip(losses) {
            prediction.spliced[splice as usize] = Some(loss);
        }
    }
    predictions
}
