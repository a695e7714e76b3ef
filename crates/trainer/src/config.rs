//! The `[train]` section as written, and the recipes that fill in what it leaves out.

use monosema_core::HookPoint;
use monosema_sae::SaeConfig;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::step::{Precision, StepKind};

/// The `[train]` section. Every number that is left out is the recipe's ([`Recipe::numbers`]).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Where the numbers come from that are not given here. Default: `april2024`.
    pub recipe: Recipe,
    /// The architecture, for instance `{ kind = "relu", apply_b_dec_to_input = true }`. Default: the recipe's.
    pub architecture: Option<SaeConfig>,
    /// The hook point to train on. Default: the only one that the store holds.
    pub hook: Option<HookPoint>,
    /// `{ latents = 24576 }` or `{ expansion = 8 }`. Default: expansion 8.
    pub width: Width,
    /// Tokens to train on, over several epochs if the store holds fewer. Default: every stored token once.
    pub tokens: Option<u64>,
    /// Tokens a step.
    pub batch_tokens: Option<usize>,
    /// Tokens that are shuffled among each other: more shuffle better and need more memory.
    pub shuffle_buffer_tokens: Option<usize>,
    /// Tokens from which the activation scale and the mean activation are estimated.
    pub scale_tokens: Option<u64>,
    /// Learning rate.
    pub lr: Option<f64>,
    /// Fraction of the steps over which the learning rate grows linearly from 0.
    pub lr_warmup_fraction: Option<f64>,
    /// Fraction of the steps, at the end, over which the learning rate falls linearly to 0.
    pub lr_decay_fraction: Option<f64>,
    /// Coefficient λ of the sparsity penalty. It means what it says only for activations scaled as here.
    pub l1: Option<f64>,
    /// Fraction of the steps over which λ grows linearly from 0.
    pub l1_warmup_fraction: Option<f64>,
    /// Adam's β₁ and β₂.
    #[serde(deserialize_with = "two_numbers")]
    pub adam_betas: Option<[f64; 2]>,
    /// Adam's ε.
    pub adam_eps: Option<f64>,
    /// Largest norm of the gradient of all parameters together; a longer one is shortened to it.
    pub grad_clip: Option<f64>,
    /// Which step trains: `auto`, or `autodiff` to hold results against.
    pub step: StepKind,
    /// How that step multiplies: `auto`, `f32` throughout, or on GPUs `bf16`.
    pub precision: Precision,
    /// A latent that was silent for so many tokens counts as dead.
    pub dead_after_tokens: Option<u64>,
    /// Steps between two lines of the logs.
    pub log_every_steps: Option<u64>,
}

/// Exactly two: of a longer list serde would take the first two, and say nothing of the rest.
fn two_numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<[f64; 2]>, D::Error> {
    let Some(numbers) = Option::<Vec<f64>>::deserialize(deserializer)? else { return Ok(None) };
    let found = numbers.len();
    match <[f64; 2]>::try_from(numbers) {
        Ok(two) => Ok(Some(two)),
        Err(_) => Err(D::Error::custom(format!("expected a list of two numbers, found one of {found}"))),
    }
}

/// How many latents: `width = { expansion = 8 }` (times `d_in`) or `width = { latents = 24576 }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Width {
    /// So many.
    Latents(usize),
    /// So many times `d_in`.
    Expansion(usize),
}

impl Default for Width {
    fn default() -> Self {
        Self::Expansion(8)
    }
}

/// A named set of numbers from the literature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Recipe {
    /// ReLU and L1 as in Anthropic's update of April 2024
    /// (<https://transformer-circuits.pub/2024/april-update/index.html#training-saes>).
    #[default]
    #[serde(rename = "april2024")]
    April2024,
}

/// The numbers of a recipe. Their meanings are those of [`TrainConfig`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "TrainConfig documents each")]
pub struct Numbers {
    pub architecture: SaeConfig,
    pub batch_tokens: usize,
    pub shuffle_buffer_tokens: usize,
    pub scale_tokens: u64,
    pub lr: f64,
    pub lr_warmup_fraction: f64,
    pub lr_decay_fraction: f64,
    pub l1: f64,
    pub l1_warmup_fraction: f64,
    pub adam_betas: [f64; 2],
    pub adam_eps: f64,
    pub grad_clip: f64,
    pub dead_after_tokens: u64,
    pub log_every_steps: u64,
}

impl Recipe {
    /// What the recipe says, and our defaults where it says nothing (shuffle buffer, scale sample, logging).
    pub fn numbers(self) -> Numbers {
        match self {
            Self::April2024 => Numbers {
                architecture: SaeConfig::default(),
                batch_tokens: 4096,
                shuffle_buffer_tokens: 131_072,
                scale_tokens: 65_536,
                lr: 5e-5,
                lr_warmup_fraction: 0.0,
                lr_decay_fraction: 0.2,
                l1: 5.0,
                l1_warmup_fraction: 0.05,
                adam_betas: [0.9, 0.999],
                adam_eps: 1e-8,
                grad_clip: 1.0,
                dead_after_tokens: 10_000_000,
                log_every_steps: 20,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use monosema_core::config;

    use super::*;

    #[test]
    fn betas_are_two() {
        let parse = |toml: &str| config::parse::<TrainConfig>("x.toml".as_ref(), toml, &[]);
        assert_eq!(parse("").unwrap().adam_betas, None);
        assert_eq!(parse("adam_betas = [0, 0.99]").unwrap().adam_betas, Some([0.0, 0.99]));
        for (list, found) in [("[]", 0), ("[0.9]", 1), ("[0.9, 0.99, 0.1]", 3)] {
            let error = parse(&format!("adam_betas = {list}")).unwrap_err().to_string();
            let told = format!("expected a list of two numbers, found one of {found}");
            assert!(error.contains(&told) && error.contains("adam_betas"), "{error}");
        }
    }
}
