//! Taking the weights of latent attention, whose rows are in another order here than in checkpoints.

use super::Loader;
use crate::{
    ModelError,
    blocks::{
        AttentionShape, LatentShape, Linear,
        latent::{Expansion, Latent, NORM_EPSILON},
        norm::RmsNorm,
    },
};

impl Loader<'_, '_> {
    /// The map from the block's input to the queries or their latent, the latent of keys and values, and the rotated
    /// part of the keys.
    pub(super) fn latents(
        &mut self,
        prefix: &str,
        attention: &AttentionShape,
        latent: &LatentShape,
    ) -> Result<Linear, ModelError> {
        let d_model = self.shape.d_model;
        let (queries, has_bias, row): (_, _, &dyn Fn(usize) -> usize) = match latent.query_rank {
            Some(rank) => (("attn_q_a", rank), latent.bias, &|row| row),
            None => (("attn_q", attention.d_queries()), false, &|row| latent.stored_query_row(row)),
        };
        let (mut weight, mut bias) = self.rows(prefix, queries, d_model, has_bias, row)?;
        let rank = latent.key_value_rank;
        let keys_values = ("attn_kv_a_mqa", rank + latent.d_rotated);
        let row = |row: usize| match row.checked_sub(rank) {
            None => row,
            Some(rotated) => rank + latent.stored_rotated_row(rotated),
        };
        let (more_weight, more_bias) = self.rows(prefix, keys_values, d_model, latent.bias, row)?;
        weight.extend(more_weight);
        bias.extend(more_bias);
        let d_out = bias.len();
        Ok(Linear::from_torch([d_out, d_model], weight, latent.bias.then_some(bias), self.device))
    }

    /// What makes queries, keys and values of the latents.
    pub(super) fn latent(
        &mut self,
        prefix: &str,
        n_heads: usize,
        shape: &LatentShape,
    ) -> Result<Latent, ModelError> {
        let d_queries = n_heads * (shape.d_rotated + shape.d_still);
        let queries = shape.query_rank.map(|rank| {
            let map = ("attn_q_b", d_queries);
            self.expansion(prefix, "attn_q_a_norm", map, rank, |row| shape.stored_query_row(row))
        });
        let queries = queries.transpose()?;
        let map = ("attn_kv_b", n_heads * (shape.d_still + shape.d_value));
        let row = |row| shape.stored_key_value_row(row, n_heads);
        let keys_values = self.expansion(prefix, "attn_kv_a_norm", map, shape.key_value_rank, row)?;
        Ok(Latent { queries, keys_values, shape: *shape })
    }

    fn expansion(
        &mut self,
        prefix: &str,
        norm: &str,
        map: (&str, usize),
        rank: usize,
        row: impl Fn(usize) -> usize,
    ) -> Result<Expansion, ModelError> {
        let norm = self.rms_norm(&format!("{prefix}{norm}"), rank)?;
        let (weight, _) = self.rows(prefix, map, rank, false, row)?;
        Ok(Expansion {
            norm: RmsNorm { epsilon: NORM_EPSILON, ..norm },
            map: Linear::from_torch([map.1, rank], weight, None, self.device),
        })
    }

    /// The weight and the bias (zeros if there is none) of the map `name` with `d_out` rows, each of them the one that
    /// `row` says.
    fn rows(
        &mut self,
        prefix: &str,
        (name, d_out): (&str, usize),
        d_in: usize,
        has_bias: bool,
        row: impl Fn(usize) -> usize,
    ) -> Result<(Vec<f32>, Vec<f32>), ModelError> {
        let weight = self.weights.take(&format!("{prefix}{name}.weight"), [d_out, d_in])?;
        let bias = self.weights.take_if(has_bias, &format!("{prefix}{name}.bias"), [d_out])?;
        let weight = (0..d_out).flat_map(|i| &weight[row(i) * d_in..][..d_in]).copied().collect();
        let bias = (0..d_out).map(|i| bias.as_ref().map_or(0.0, |bias| bias[row(i)])).collect();
        Ok((weight, bias))
    }
}
