//! AuxK (Gao et al. 2024, <https://arxiv.org/abs/2406.04093>, appendix A.2): dead latents are trained to explain what the
//! living ones leave, so that they come back to life.

use burn::tensor::Tensor;
use monosema_kernels::{Aux, NO_SPREAD};
use serde::{Deserialize, Serialize};

use crate::{Affine, Now, largest};

/// AuxK as a configuration has it. (Gao et al. take a power of two close to half of d; dictionary_learning and sparsify half of it.)
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuxK {
    /// α, its coefficient in the loss; 0 turns it off.
    pub coefficient: f64,
    /// How many dead latents a token has at most; half of `d_out` if it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k: Option<usize>,
}

impl Default for AuxK {
    fn default() -> Self {
        Self { coefficient: 1.0 / 32.0, k: None }
    }
}

impl AuxK {
    /// No such term.
    pub const OFF: Self = Self { coefficient: 0.0, k: None };

    /// As the fused step takes it.
    pub(crate) fn form(&self, d_out: usize) -> Option<Aux> {
        let Self { coefficient, .. } = *self;
        (coefficient > 0.0).then(|| Aux { k: self.k(d_out), coefficient })
    }

    /// How many dead latents a token has at most.
    pub fn k(&self, d_out: usize) -> usize {
        self.k.unwrap_or(d_out / 2).max(1)
    }

    /// Whether it can be a configuration's; if not, what was expected and what was found.
    pub(crate) fn check(&self) -> Result<(), (String, String)> {
        if !(self.coefficient.is_finite() && self.coefficient >= 0.0) {
            return Err(("aux.coefficient from 0 on".into(), self.coefficient.to_string()));
        }
        if self.k == Some(0) {
            return Err(("aux.k from 1 on".into(), "0".into()));
        }
        Ok(())
    }

    /// α Σ‖ê − e‖² / Σ‖e − ē‖² with e = y − x̂, to which no gradient goes, and ê = z·W_dec, z being of the
    /// dead latents' activations `positive [n, d_sae]` (after ReLU) the k largest of each token. `None` if nothing is
    /// known to be dead.
    pub(crate) fn term(
        &self,
        affine: &Affine,
        now: &Now,
        positive: Tensor<2>,
        [y, x_hat]: [Tensor<2>; 2],
    ) -> Option<Tensor<1>> {
        let dead = now.dead.clone().filter(|_| self.coefficient > 0.0)?;
        let error = (y - x_hat).detach();
        let any = dead.clone().max();
        let of_dead = positive * dead.unsqueeze::<2>();
        let chosen = largest::of_rows(of_dead.clone(), self.k(affine.size().d_out()));
        let explained = (of_dead * chosen).matmul(affine.w_dec.val());
        let spread = (error.clone() - error.clone().mean_dim(0)).square().sum_dim(1).sum();
        let size = error.clone().square().sum_dim(1).sum();
        let left = (explained - error).square().sum_dim(1).sum();
        // Without spread there is nothing to explain.
        let nothing = spread.clone().lower_equal(size.mul_scalar(NO_SPREAD));
        let spread = spread.mask_fill(nothing.clone(), 1.0);
        Some((left.mask_fill(nothing, 0.0) / spread * any).mul_scalar(self.coefficient))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use monosema_core::Seed;

    use super::*;
    use crate::{Init, Output, Sae, SaeConfig, Size, architecture::top_k::TopKConfig};

    #[test]
    fn half_of_what_comes_out_is_what_a_token_has() {
        assert_eq!(AuxK::default().k(9), 4);
        assert_eq!(AuxK { k: Some(3), ..AuxK::default() }.k(9), 3);
        let form =
            |size| SaeConfig::TopK(TopKConfig { apply_b_dec_to_input: false, ..config() }).form(size, false);
        let transcoder = Size { output: Some(Output { d_out: 12, skip: false }), ..Size::new(4, 16) };
        assert_eq!(form(transcoder).unwrap().aux.unwrap().k, 6);
    }

    fn config() -> TopKConfig {
        TopKConfig {
            k: 1.try_into().unwrap(),
            apply_b_dec_to_input: true,
            rescale_acts_by_decoder_norm: false,
            aux: AuxK::default(),
        }
    }

    #[test]
    fn errors_that_are_all_the_same_leave_nothing_to_explain() {
        let device = Device::flex();
        let sae = Sae::init(&config().into(), Size::new(2, 3), &Init::new(Seed(0), 1.0), &device);
        for dead in [[1.0, 1.0, 0.0], [0.0; 3]] {
            let now = Now { dead: Some(Tensor::from_data(dead, &device)), ..Now::new(0.0) };
            for x in [vec![[-2.0, 0.3]], vec![[-2.0, 0.3]; 7]] {
                let n = x.len();
                let x = Tensor::from_data(burn::tensor::TensorData::new(x.concat(), [n, 2]), &device);
                let rest = sae.loss(x.clone(), x, &now).rest.unwrap().into_scalar::<f32>();
                assert_eq!(rest, 0.0, "{n} tokens");
            }
        }
    }
}
