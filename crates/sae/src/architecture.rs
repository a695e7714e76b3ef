//! The architectures: what each must supply, and the one place where they are registered.

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use monosema_kernels::{Form, Parameters};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{Affine, Init, Loss, Now, Scales, Size, Weights};

/// How the exponent of a penalty falls over a training: p of Karvonen et al. 2024 (<https://arxiv.org/abs/2408.00113>).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Annealing {
    /// p at the beginning.
    pub p_start: f64,
    /// p at the end.
    pub p_end: f64,
    /// Fraction of the steps before p begins to fall.
    pub start: f64,
    /// Fraction of the steps after which it has fallen. With 1 the last change is after the last step, and p_end is never used.
    pub end: f64,
    /// In how many changes, evenly spaced, it falls; λ changes with it, so that the penalty stays what it is.
    pub changes: u32,
}

impl Default for Annealing {
    fn default() -> Self {
        Self { p_start: 1.0, p_end: 0.2, start: 0.2, end: 1.0, changes: 9 }
    }
}

/// The mathematics of one kind of sparse autoencoder: everything but the loop that trains it.
///
/// Names and orientation of the weights are SAELens's: `W_enc [d_in, d_sae]`, `b_enc [d_sae]`,
/// `W_dec [d_sae, d_out]`, `b_dec [d_out]`, `W_skip [d_out, d_in]`.
pub trait Architecture: Module + Into<Sae> {
    /// What a user can choose. Its serialised keys, but for [`Architecture::ONLY_IN_TRAINING`], are also those of a SAELens
    /// `cfg.json`.
    type Config: Clone + std::fmt::Debug + PartialEq + Serialize + DeserializeOwned;

    /// `architecture` in a SAELens `cfg.json`, of an autoencoder; `None` if it is another one once it is trained.
    const SAELENS_NAME: Option<&'static str>;

    /// Keys of the configuration that a trained dictionary does not depend on.
    const ONLY_IN_TRAINING: &'static [&'static str] = &[];

    /// Whether the loss has a sparsity penalty.
    const PENALISED: bool = true;

    /// Whether what is active on a token depends on the batch that it is trained in.
    const CHOOSES_IN_BATCH: bool = false;

    /// Configurations that together reach every branch of the code; the conformance tests try each.
    fn variants() -> Vec<Self::Config>;

    /// Names and shapes of all weights.
    fn shapes(_: &Self::Config, size: Size) -> Vec<(&'static str, Vec<usize>)> {
        Affine::shapes(size)
    }

    /// Initial weights, generated on the host: a seed means the same weights on every device.
    fn initial_weights(_: &Self::Config, size: Size, init: &Init) -> Weights {
        Affine::initial_weights(size, init)
    }

    /// A module with these weights, which must be those of [`Architecture::shapes`].
    fn from_weights(config: &Self::Config, size: Size, weights: Weights, device: &Device) -> Self;

    /// The weights, copied to the host.
    fn to_weights(&self) -> Weights {
        self.affine().to_weights()
    }

    /// Whether b_dec is subtracted from the input before encoding.
    fn applies_b_dec_to_input(config: &Self::Config) -> bool;

    /// Whether a dictionary of this size can have this configuration; if not, what was expected and what was found.
    fn check(_: &Self::Config, _: Size) -> Result<(), (String, String)> {
        Ok(())
    }

    /// How many latents are to be active on a token, as far as the configuration says.
    fn target_l0(_: &Self::Config) -> Option<f64> {
        None
    }

    /// How many latents are chosen of a token, where they are.
    fn k(_: &Self::Config) -> Option<usize> {
        None
    }

    /// How the penalty's exponent falls, where it does.
    fn annealing(_: &Self::Config) -> Option<Annealing> {
        None
    }

    /// Whether its loss has a term for dead latents.
    fn heeds_dead(_: &Self::Config) -> bool {
        false
    }

    /// What the fused step must know to train it with rows of W_dec that keep a norm of 1 or do not; `None` if it cannot.
    fn form(_: &Self::Config, _: Size, _unit_decoder: bool) -> Option<Form> {
        None
    }

    /// The parameters as the fused step takes them.
    fn to_parameters(&self) -> Parameters {
        self.affine().to_parameters()
    }

    /// A module with the parameters of a fused step.
    fn from_parameters(config: &Self::Config, size: Size, parameters: Parameters) -> Self;

    /// Encoder and decoder.
    fn affine(&self) -> &Affine;

    /// Changes encoder and decoder.
    fn map_affine(self, change: impl FnOnce(Affine) -> Affine) -> Self;

    /// The configuration it was made with.
    fn config(&self) -> Self::Config;

    /// `x [n, d_in]` → activations `[n, d_sae]`, none negative.
    fn encode(&self, x: Tensor<2>) -> Tensor<2>;

    /// `acts [n, d_sae]` of `x [n, d_in]` → x̂ `[n, d_out]`.
    fn decode(&self, acts: Tensor<2>, x: Tensor<2>) -> Tensor<2> {
        self.affine().decode(acts, x)
    }

    /// The loss on `x [n, d_in]` with the target `y [n, d_out]`, which of an autoencoder is x again.
    fn loss(&self, x: Tensor<2>, y: Tensor<2>, now: &Now) -> Loss;

    /// What a step may have made of parameters that they must not be, mended; after every step.
    fn constrained(self) -> Self {
        self
    }

    /// Trained, becomes what a dictionary is made of: without what was for training alone. `threshold` is the mean of the
    /// smallest activations of late batches, where those were chosen in batches.
    fn frozen(self, _threshold: Option<f32>) -> Sae {
        self.into()
    }

    /// The same function with activations that are `factors [d_sae, 1]` times as large.
    fn scale_acts(self, factors: &Tensor<2>) -> Self {
        self.map_affine(|affine| affine.scale_acts(factors))
    }

    /// The factors, `[d_sae, 1]`, that activations of a dictionary are to be larger by than those of training: such that
    /// rows of W_dec have norm 1, if the function stays the same.
    fn final_factors(&self) -> Tensor<2> {
        self.affine().decoder_norms().clamp_min(monosema_kernels::SMALLEST_NORM)
    }
}

/// Declares the module of each architecture, its variant of [`SaeConfig`] and [`Sae`], and the dispatch.
macro_rules! architectures {
    ($($name:ident => $module:ident),+ $(,)?) => {
        $(pub mod $module;)+

        /// The choice of an architecture, as written in a configuration: `kind` and the keys of its own.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub enum SaeConfig {
            $(
                #[doc = concat!("[`", stringify!($module), "::", stringify!($name), "`].")]
                $name(<$module::$name as Architecture>::Config),
            )+
        }

        /// A sparse autoencoder of any architecture: the module that is trained, and what a
        /// [`Dictionary`](crate::Dictionary) computes with.
        #[derive(Module, Debug)]
        pub enum Sae {
            $(
                #[doc = concat!("[`", stringify!($module), "::", stringify!($name), "`].")]
                $name($module::$name),
            )+
        }

        $(
            impl From<$module::$name> for Sae {
                fn from(sae: $module::$name) -> Self {
                    Self::$name(sae)
                }
            }
        )+

        /// Calls a function of the architecture that a [`SaeConfig`] chooses.
        macro_rules! of_config {
            ($self:expr, $config:ident, $a:ident, $call:expr) => {
                match $self { $(SaeConfig::$name($config) => { type $a = $module::$name; $call })+ }
            };
        }

        /// Computes with the module that a [`Sae`] holds.
        macro_rules! of_sae {
            ($self:expr, $sae:ident, $call:expr) => {
                match $self { $(Sae::$name($sae) => $call,)+ }
            };
        }

        impl SaeConfig {
            /// Every configuration that the conformance tests try, of every registered architecture.
            pub fn variants() -> Vec<Self> {
                let mut all = Vec::new();
                $(all.extend($module::$name::variants().into_iter().map(Self::$name));)+
                all
            }

            /// The SAELens names of all architectures, of autoencoders.
            pub fn saelens_names() -> Vec<&'static str> {
                [$($module::$name::SAELENS_NAME),+].into_iter().flatten().collect()
            }

            /// The configuration that SAELens calls `name` of an autoencoder, from its own keys; `None` if the name is
            /// unknown.
            pub(crate) fn from_saelens(name: &str, keys: Value) -> Option<serde_json::Result<Self>> {
                $(if $module::$name::SAELENS_NAME == Some(name) {
                    return Some(serde_json::from_value(keys).map(Self::$name));
                })+
                None
            }
        }

        impl Sae {
            /// The configuration it was made with.
            pub fn config(&self) -> SaeConfig {
                match self { $(Self::$name(sae) => SaeConfig::$name(sae.config()),)+ }
            }

            fn map_affine(self, change: impl FnOnce(Affine) -> Affine) -> Self {
                match self { $(Self::$name(sae) => Self::$name(sae.map_affine(change)),)+ }
            }

            fn scale_acts(self, factors: &Tensor<2>) -> Self {
                match self { $(Self::$name(sae) => Self::$name(sae.scale_acts(factors)),)+ }
            }

            /// What a step may have made of parameters that they must not be, mended; after every step.
            pub fn constrained(self) -> Self {
                match self { $(Self::$name(sae) => Self::$name(sae.constrained()),)+ }
            }
        }
    };
}

architectures! {
    Relu => relu,
    PAnneal => p_anneal,
    TopK => top_k,
    BatchTopK => batch_top_k,
    Matryoshka => matryoshka,
    JumpRelu => jump_relu,
    Gated => gated,
}

impl Default for SaeConfig {
    fn default() -> Self {
        Self::Relu(relu::ReluConfig::default())
    }
}

impl SaeConfig {
    /// Names and shapes of the weights of a dictionary of this size.
    pub fn shapes(&self, size: Size) -> Vec<(&'static str, Vec<usize>)> {
        of_config!(self, config, A, A::shapes(config, size))
    }

    /// Whether a dictionary of this size can have this configuration.
    ///
    /// # Errors
    /// What was expected, and what was found.
    pub fn check(&self, size: Size) -> Result<(), (String, String)> {
        if size.output.is_some() && self.applies_b_dec_to_input() {
            let expected = "apply_b_dec_to_input = false of a transcoder, whose b_dec is of another hook";
            return Err((expected.into(), "true".into()));
        }
        of_config!(self, config, A, A::check(config, size))
    }

    /// Whether b_dec is subtracted from the input before encoding.
    pub fn applies_b_dec_to_input(&self) -> bool {
        of_config!(self, config, A, A::applies_b_dec_to_input(config))
    }

    /// How many latents are to be active on a token, as far as the configuration says.
    pub fn target_l0(&self) -> Option<f64> {
        of_config!(self, config, A, A::target_l0(config))
    }

    /// How many latents are chosen of a token, where they are.
    pub fn k(&self) -> Option<usize> {
        of_config!(self, config, A, A::k(config))
    }

    /// How the penalty's exponent falls, where it does.
    pub fn annealing(&self) -> Option<Annealing> {
        of_config!(self, config, A, A::annealing(config))
    }

    /// Whether its loss has a term for dead latents.
    pub fn heeds_dead(&self) -> bool {
        of_config!(self, config, A, A::heeds_dead(config))
    }

    /// What the fused step must know to train it with rows of W_dec that keep a norm of 1 or do not; `None` if it cannot.
    pub fn form(&self, size: Size, unit_decoder: bool) -> Option<Form> {
        of_config!(self, config, A, A::form(config, size, unit_decoder))
    }

    /// Whether the loss has a sparsity penalty.
    pub fn penalised(&self) -> bool {
        of_config!(self, _config, A, A::PENALISED)
    }

    /// Whether what is active on a token depends on the batch that it is trained in.
    pub fn chooses_in_batch(&self) -> bool {
        of_config!(self, _config, A, A::CHOOSES_IN_BATCH)
    }

    /// `architecture` in a SAELens `cfg.json`, of an autoencoder; `None` if it is another one once it is trained.
    pub fn saelens_name(&self) -> Option<&'static str> {
        of_config!(self, _config, A, A::SAELENS_NAME)
    }

    /// The keys of its own in a SAELens `cfg.json`.
    pub(crate) fn to_saelens(&self) -> Map<String, Value> {
        let (own, training) =
            of_config!(self, config, A, (serde_json::to_value(config), A::ONLY_IN_TRAINING));
        let Ok(Value::Object(mut own)) = own else {
            unreachable!("a configuration is a table with string keys")
        };
        own.retain(|key, _| !training.contains(&key.as_str()));
        own
    }
}

impl Sae {
    /// A new one: the same bits on every device. On an autodiff device it can be trained.
    pub fn init(config: &SaeConfig, size: Size, init: &Init, device: &Device) -> Self {
        let weights = of_config!(config, config, A, A::initial_weights(config, size, init));
        Self::from_weights(config, size, weights, device)
    }

    /// One with these weights, which must be those of [`SaeConfig::shapes`].
    ///
    /// # Panics
    /// If a weight is missing.
    pub fn from_weights(config: &SaeConfig, size: Size, weights: Weights, device: &Device) -> Self {
        of_config!(config, config, A, A::from_weights(config, size, weights, device).into())
    }

    /// One with the parameters of a fused step.
    pub fn from_parameters(config: &SaeConfig, size: Size, parameters: Parameters) -> Self {
        of_config!(config, config, A, A::from_parameters(config, size, parameters).into())
    }

    /// The parameters as the fused step takes them.
    pub fn to_parameters(&self) -> Parameters {
        of_sae!(self, sae, sae.to_parameters())
    }

    /// The weights, copied to the host.
    pub fn to_weights(&self) -> Weights {
        of_sae!(self, sae, sae.to_weights())
    }

    /// Encoder and decoder.
    pub fn affine(&self) -> &Affine {
        of_sae!(self, sae, sae.affine())
    }

    /// Changes the rows of W_dec.
    pub fn map_w_dec(self, change: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Self {
        self.map_affine(|affine| Affine { w_dec: affine.w_dec.map(change), ..affine })
    }

    /// Its size.
    pub fn size(&self) -> Size {
        self.affine().size()
    }

    /// `x [n, d_in]` → activations `[n, d_sae]`, none negative.
    pub fn encode(&self, x: Tensor<2>) -> Tensor<2> {
        of_sae!(self, sae, sae.encode(x))
    }

    /// `acts [n, d_sae]` of `x [n, d_in]` → x̂ `[n, d_out]`.
    pub fn decode(&self, acts: Tensor<2>, x: Tensor<2>) -> Tensor<2> {
        of_sae!(self, sae, sae.decode(acts, x))
    }

    /// The loss on `x [n, d_in]` with the target `y [n, d_out]`, which of an autoencoder is x again.
    pub fn loss(&self, x: Tensor<2>, y: Tensor<2>, now: &Now) -> Loss {
        of_sae!(self, sae, sae.loss(x, y, now))
    }

    /// Ends training: gradients off, what is for training alone left behind, the scales of the activations folded in, and
    /// decoder rows of norm 1 where that is the same function. What was trained on scaled activations then takes and
    /// gives them as they are. `threshold` is for what chooses in batches: the mean of the smallest activations of late
    /// ones.
    pub fn export(&self, scales: impl Into<Scales>, threshold: Option<f32>) -> Self {
        let scales = scales.into();
        let frozen = of_sae!(self.valid(), sae, sae.frozen(threshold));
        let folded = frozen.map_affine(|affine| affine.fold_scales(scales));
        let factors = of_sae!(&folded, sae, sae.final_factors());
        folded.scale_acts(&factors)
    }
}
