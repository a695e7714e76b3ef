//! Taking the weights of a mixture of experts.

use super::Loader;
use crate::{
    ModelError,
    blocks::{BlockShape, ExpertsShape, MlpShape, experts::Experts},
};

impl Loader<'_, '_> {
    /// The experts of the block whose tensors' names begin with `prefix`; all are like its MLP, but for the width.
    pub(super) fn experts(
        &mut self,
        prefix: &str,
        block: &BlockShape,
        shape: &ExpertsShape,
    ) -> Result<Experts, ModelError> {
        let n_experts = shape.choice.n_experts;
        let router = self.linear(prefix, &[("ffn_gate_inp", n_experts)], self.shape.d_model, false)?;
        let correction = format!("{prefix}ffn_gate_inp.e_score_correction_bias");
        let correction = self.weights.take(&correction, [n_experts])?;
        let mlp = MlpShape { d_mlp: shape.d_mlp, ..block.mlp.clone() };
        let experts = (0..n_experts).map(|expert| self.mlp(prefix, &format!("_exps.{expert}"), &mlp));
        Ok(Experts { router, experts: experts.collect::<Result<_, _>>()?, choice: shape.choice, correction })
    }
}
