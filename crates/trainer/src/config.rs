//! The `[train]` section as written.

use monosema_core::HookPoint;
use monosema_sae::SaeConfig;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    recipe::Recipe,
    step::{Precision, StepKind},
};

/// Declares what is a recipe's matter: [`Numbers`] with every one of them, and [`TrainConfig`], which may leave them out.
macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)+) => {
        /// The `[train]` section. What is left out and stands in [`Numbers`] is the recipe's.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct TrainConfig {
            /// Where the numbers come from that are not given here. Default: that of the architecture, or `april2024`.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub recipe: Option<Recipe>,
            /// The hook point to train on. Default: the only one that the store holds.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub hook: Option<HookPoint>,
            /// Another hook point, whose activations are to come out: that makes a transcoder.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub hook_out: Option<HookPoint>,
            /// Whether a transcoder has a linear map past its latents.
            pub skip: bool,
            /// `{ latents = 24576 }` or `{ expansion = 8 }`. Default: expansion 8.
            pub width: Width,
            /// Tokens to train on, over several epochs if the store holds fewer. Default: every stored token once.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub tokens: Option<u64>,
            /// What initial weights and resampling are drawn from. Default: the experiment's seed, which also decides the
            /// order of the tokens.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub seed: Option<u64>,
            /// Which step trains: `auto`, or `autodiff` to hold results against.
            pub step: StepKind,
            /// How that step multiplies: `auto`, `f32` throughout, or on GPUs `bf16`.
            pub precision: Precision,
            /// Active latents a token that are expected: a run that is ten times off says so early. Default: what the
            /// architecture says.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub expected_l0: Option<f64>,
            /// Tables of other values of the keys above and below, each a list of alternatives or a single one: every
            /// combination in a table is trained, all on one pass over the activations.
            #[serde(skip_serializing_if = "Vec::is_empty")]
            pub sweep: Vec<toml::Table>,
            $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $name: Option<$type>,)+
        }

        /// The numbers of a recipe.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Numbers {
            $($(#[$doc])* pub $name: $type,)+
        }

        impl Numbers {
            /// The names of all.
            pub(crate) const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];
        }
    };
}

numbers! {
    /// The architecture, for instance `{ kind = "relu", apply_b_dec_to_input = true }`.
    architecture: SaeConfig,
    /// Tokens a step.
    batch_tokens: usize,
    /// Tokens whose gradients are computed at once, and added up to those of a step, where all latents of all tokens are held in
    /// memory (`autodiff`). What chooses in batches then chooses in these.
    micro_batch_tokens: usize,
    /// Tokens that are shuffled among each other: more shuffle better and need more memory. A store that is shuffled on disk has no
    /// need of it.
    shuffle_buffer_tokens: usize,
    /// Tokens from which the activations' scale, mean and geometric median are estimated.
    scale_tokens: u64,
    /// What activations are multiplied by, or what is done to each, before they are trained on.
    normalize: Normalize,
    /// Learning rate.
    lr: f64,
    /// Whether the learning rate is divided by √(latents / so many).
    lr_scaling: LrScaling,
    /// Steps over which the learning rate grows linearly from 0.
    lr_warmup: Span,
    /// Steps, at the end, over which it falls.
    lr_decay: Span,
    /// How it falls.
    lr_decay_shape: DecayShape,
    /// What it falls to, as a fraction of `lr`.
    lr_end: f64,
    /// Coefficient λ of the sparsity penalty. It means what it says only for activations normalised as here.
    sparsity: f64,
    /// Steps over which λ grows linearly from 0.
    sparsity_warmup: Span,
    /// Steps over which k falls linearly to what the architecture says.
    k_warmup: Span,
    /// How many times as large it is at first.
    k_warmup_factor: f64,
    /// What makes steps of gradients.
    optimizer: Optimizer,
    /// Adam's β₁ and β₂; signum has β₁ alone.
    adam_betas: Betas,
    /// Adam's ε.
    adam_eps: f64,
    /// What every step takes off every parameter, as a fraction of it times the learning rate (AdamW).
    weight_decay: f64,
    /// Largest norm of the gradient of all parameters together; a longer one is shortened to it.
    grad_clip: GradClip,
    /// Decay a step of a moving average of the parameters, which is what is saved; 0 saves them as they are.
    ema_decay: f64,
    /// Whether rows of W_dec keep a norm of 1.
    decoder: DecoderNorm,
    /// Norm of every decoder row and of what encodes each latent, at the start; of the latter alone where rows keep a norm of 1.
    init_norm: f64,
    /// Whether the encoder begins in the directions of the decoder's rows.
    init_tied: bool,
    /// What b_dec begins as.
    b_dec_init: BDecInit,
    /// Decay a step of the mean of the smallest activations of batches, of which a dictionary's threshold is made that was
    /// trained to choose in batches.
    threshold_decay: f64,
    /// Steps after which dead latents begin anew, from activations that are explained badly; 0 for never.
    resample_every: Span,
    /// Steps after which none does any more.
    resample_until: Span,
    /// A latent that was silent for so many tokens counts as dead.
    dead_after_tokens: u64,
    /// Steps between two lines of the logs.
    log_every_steps: u64,
    /// Seconds between two checkpoints, more if they would take more than 2 % of the time; 0 for one at every line of the logs.
    checkpoint_seconds: u64,
}

/// A choice between tables of one key, each with a value. What serde derives for such an enum says of any other value that
/// it "wanted string or table"; this says which tables.
macro_rules! one_of {
    ($name:ident, $expecting:literal, $($variant:ident { $key:ident: $value:ty }),+) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(Deserialize)]
                #[serde(untagged, deny_unknown_fields, expecting = $expecting)]
                enum Written {
                    $($variant { $key: $value }),+
                }
                Ok(match Written::deserialize(deserializer)? {
                    $(Written::$variant { $key } => Self::$variant($key)),+
                })
            }
        }
    };
}

one_of!(
    Width,
    "expected a table with one key, { latents = 24576 } or { expansion = 8 }",
    Latents { latents: usize },
    Expansion { expansion: usize }
);

one_of!(
    Span,
    "expected a table with one key, { steps = 1000 } or { fraction = 0.05 }",
    Steps { steps: u64 },
    Fraction { fraction: f64 }
);

/// How many latents: `width = { expansion = 8 }` (times `d_in`) or `width = { latents = 24576 }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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

/// A part of a run: `{ steps = 1000 }` or `{ fraction = 0.05 }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Span {
    /// So many steps.
    Steps(u64),
    /// Such a part of all steps, from 0 to 1.
    Fraction(f64),
}

/// What activations are multiplied by, or what is done to each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Normalize {
    /// Nothing.
    None,
    /// One factor, so that their mean norm is √d (SAELens: `expected_average_only_in`).
    MeanNorm,
    /// One factor, so that the mean square of their norms is 1 (dictionary_learning, Gemma Scope).
    MeanSquare,
    /// The mean over its dimensions is taken from each, and it is divided by its standard deviation.
    LayerNorm,
}

/// Whether the learning rate depends on the number of latents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrScaling {
    /// It does not.
    None,
    /// It is for so many, and for others divided by √(latents / so many).
    Latents(usize),
}

/// How a learning rate falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecayShape {
    /// In a straight line.
    Linear,
    /// As half a wave.
    Cosine,
}

/// What makes steps of gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Optimizer {
    /// Adam, or with a `weight_decay` AdamW.
    Adam,
    /// The sign of the gradients' moving mean (Bernstein et al. 2018, <https://arxiv.org/abs/1802.04434>). What sparsify calls so has
    /// no such mean, but schedule-free averaging.
    Signum,
}

/// Whether rows of W_dec keep a norm of 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecoderNorm {
    /// They do: what points along them is taken from their gradients, and after each step they are divided by their norms.
    Unit,
    /// They do not.
    Free,
}

/// What b_dec begins as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BDecInit {
    /// Zeros.
    Zero,
    /// The mean of a sample of the activations.
    Mean,
    /// Their geometric median.
    GeometricMedian,
}

/// Two numbers. Of a longer list serde would take the first two, and say nothing of the rest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Betas(pub [f64; 2]);

impl<'de> Deserialize<'de> for Betas {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let numbers = Vec::<f64>::deserialize(deserializer)?;
        let found = numbers.len();
        let wrong = |_| D::Error::custom(format!("expected a list of two numbers, found one of {found}"));
        <[f64; 2]>::try_from(numbers).map(Self).map_err(wrong)
    }
}

/// The largest norm of a gradient: a number or `"none"`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GradClip {
    /// Whatever it is.
    None,
    /// This.
    Norm(f64),
}

impl GradClip {
    /// The norm; infinite if there is no limit.
    pub fn limit(self) -> f64 {
        match self {
            Self::None => f64::INFINITY,
            Self::Norm(norm) => norm,
        }
    }
}

impl Serialize for GradClip {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str("none"),
            Self::Norm(norm) => serializer.serialize_f64(*norm),
        }
    }
}

impl<'de> Deserialize<'de> for GradClip {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a number or \"none\"")]
        enum Written {
            Norm(f64),
            Word(Word),
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Word {
            None,
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::Norm(norm) => Self::Norm(norm),
            Written::Word(Word::None) => Self::None,
        })
    }
}

#[cfg(test)]
mod tests {
    use monosema_core::config;

    use super::*;

    fn parse(toml: &str) -> Result<TrainConfig, String> {
        config::parse("x.toml".as_ref(), toml, &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn betas_are_two() {
        assert_eq!(parse("").unwrap().adam_betas, None);
        assert_eq!(parse("adam_betas = [0, 0.99]").unwrap().adam_betas, Some(Betas([0.0, 0.99])));
        for (list, found) in [("[]", 0), ("[0.9]", 1), ("[0.9, 0.99, 0.1]", 3)] {
            let error = parse(&format!("adam_betas = {list}")).unwrap_err();
            let told = format!("expected a list of two numbers, found one of {found}");
            assert!(error.contains(&told) && error.contains("adam_betas"), "{error}");
        }
    }

    #[test]
    fn a_choice_between_tables_says_which() {
        assert_eq!(parse("width = { expansion = 4 }").unwrap().width, Width::Expansion(4));
        assert_eq!(parse("lr_warmup = { fraction = 0.5 }").unwrap().lr_warmup, Some(Span::Fraction(0.5)));
        for wrong in
            ["lr_warmup = 0.1", "lr_warmup = { steps = -1 }", "lr_warmup = { steps = 1, fraction = 0.5 }"]
        {
            let error = parse(wrong).unwrap_err();
            assert!(
                error.contains("{ steps = 1000 } or { fraction") && error.contains("lr_warmup"),
                "{error}"
            );
        }
        assert!(parse("width = 512").unwrap_err().contains("{ latents = 24576 }"));
    }

    #[test]
    fn a_clip_is_a_number_or_none() {
        assert_eq!(parse("grad_clip = \"none\"").unwrap().grad_clip, Some(GradClip::None));
        assert_eq!(parse("grad_clip = 2").unwrap().grad_clip, Some(GradClip::Norm(2.0)));
        let error = parse("grad_clip = \"non\"").unwrap_err();
        assert!(error.contains("expected a number or \"none\"") && error.contains("grad_clip"), "{error}");
    }
}
