//! The sparse path: over active latents alone.

use burn::backend::ops::FloatTensorOps;

use super::{
    batch::{B, Batch, Found},
    lists::{Counted, Lists},
    through::Through,
};
use crate::Path;

impl Batch {
    /// Over the active latents.
    pub(super) fn sparse(&self, lists: &Lists, counted: Counted) -> Found {
        let norms = self.norms();
        let Through { error, pulls, squared_error, penalty } = self.through(lists, &norms);
        let by_latent = self.by_latent(lists, counted.all);
        let sums = self.gather(lists, &pulls, &error, &by_latent);
        let b_dec = self.of_b_dec(B::float_sum_dim(error, 0), &sums.b_enc);
        let (gradients, squares) = self.complete(sums, &norms, b_dec);
        Found {
            gradients,
            squared_error,
            penalty,
            squares,
            fired: by_latent.fired,
            share: 0.0,
            floor: 0.0,
            most: counted.most,
            path: Path::Sparse,
        }
    }
}
