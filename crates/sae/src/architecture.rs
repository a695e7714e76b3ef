//! The architectures: what each must supply, and the one place where they are registered.

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use monosema_core::Seed;
use monosema_kernels::{Form, Parameters};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Affine, Weights};

/// How large a dictionary is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Width of the activations.
    pub d_in: usize,
    /// Number of latents.
    pub d_sae: usize,
}

/// The loss of one batch and its parts. Scalars have shape `[1]`.
#[derive(Clone, Debug)]
pub struct Loss {
    /// What training minimises.
    pub total: Tensor<1>,
    /// Mean over tokens of ‖x − x̂‖², summed over `d_in`.
    pub squared_error: Tensor<1>,
    /// Mean over tokens of the sparsity penalty, before its coefficient.
    pub penalty: Tensor<1>,
    /// The activations, `[n, d_sae]`.
    pub acts: Tensor<2>,
}

/// The mathematics of one kind of sparse autoencoder: everything but the loop that trains it.
///
/// Names and orientation of the weights are SAELens's: `W_enc [d_in, d_sae]`, `b_enc [d_sae]`,
/// `W_dec [d_sae, d_in]`, `b_dec [d_in]`.
pub trait Architecture: Module {
    /// What a user can choose. Its serialised keys are also those of a SAELens `cfg.json`.
    type Config: Clone + std::fmt::Debug + Default + PartialEq + Serialize + DeserializeOwned;

    /// `architecture` in a SAELens `cfg.json`.
    const SAELENS_NAME: &'static str;

    /// Whether the loss has a sparsity penalty.
    const PENALISED: bool = true;

    /// Whether decoder rows keep a norm of 1 in training.
    const KEEPS_UNIT_DECODER: bool = false;

    /// Configurations that together reach every branch of the code; the conformance tests try each.
    fn variants() -> Vec<Self::Config>;

    /// Names and shapes of all weights.
    fn shapes(size: Size) -> Vec<(&'static str, Vec<usize>)> {
        Affine::shapes(size)
    }

    /// Initial weights, generated on the host: a seed means the same weights on every device.
    fn initial_weights(config: &Self::Config, size: Size, seed: Seed) -> Weights;

    /// A module with these weights, which must be those of [`Architecture::shapes`].
    fn from_weights(config: &Self::Config, weights: Weights, device: &Device) -> Self;

    /// The weights, copied to the host.
    fn to_weights(&self) -> Weights {
        self.affine().to_weights()
    }

    /// Whether a dictionary of this size can have this configuration; if not, what was expected and what was found.
    fn check(_: &Self::Config, _: Size) -> Result<(), (String, String)> {
        Ok(())
    }

    /// What the fused step must know to train it; `None` if it cannot.
    fn form(_: &Self::Config) -> Option<Form> {
        None
    }

    /// A module with the parameters of a fused step.
    fn from_parameters(config: &Self::Config, parameters: Parameters) -> Self;

    /// Encoder and decoder.
    fn affine(&self) -> &Affine;

    /// Changes encoder and decoder.
    fn map_affine(self, change: impl FnOnce(Affine) -> Affine) -> Self;

    /// The configuration it was made with.
    fn config(&self) -> Self::Config;

    /// `x [n, d_in]` → activations `[n, d_sae]`, none negative.
    fn encode(&self, x: Tensor<2>) -> Tensor<2>;

    /// `acts [n, d_sae]` → x̂ `[n, d_in]`.
    fn decode(&self, acts: Tensor<2>) -> Tensor<2> {
        self.affine().decode(acts)
    }

    /// The loss on `x [n, d_in]` with `sparsity` as the penalty's coefficient (λ).
    fn loss(&self, x: Tensor<2>, sparsity: f64) -> Loss {
        let acts = self.encode(x.clone());
        let x_hat = self.decode(acts.clone());
        self.affine().loss(x, x_hat, acts, sparsity)
    }

    /// Trained on `scale · x`, becomes a function of `x`: encode(x) = encode'(scale · x) and
    /// decode(acts) = decode'(acts) / scale.
    fn fold_scale(self, scale: f64) -> Self {
        self.map_affine(|affine| affine.fold_scale(scale))
    }

    /// The same function x → x̂ with decoder rows of norm 1 (rows of zeros excepted); activations grow by the
    /// norms that the rows had.
    fn unit_decoder(self) -> Self {
        self.map_affine(Affine::unit_decoder)
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

        impl SaeConfig {
            /// Every configuration that the conformance tests try, of every registered architecture.
            pub fn variants() -> Vec<Self> {
                let mut all = Vec::new();
                $(all.extend($module::$name::variants().into_iter().map(Self::$name));)+
                all
            }

            /// Names and shapes of the weights of a dictionary of this size.
            pub fn shapes(&self, size: Size) -> Vec<(&'static str, Vec<usize>)> {
                match self { $(Self::$name(_) => $module::$name::shapes(size),)+ }
            }

            /// Whether a dictionary of this size can have this configuration.
            ///
            /// # Errors
            /// What was expected, and what was found.
            pub fn check(&self, size: Size) -> Result<(), (String, String)> {
                match self { $(Self::$name(config) => $module::$name::check(config, size),)+ }
            }

            /// What the fused step must know to train it; `None` if it cannot.
            pub fn form(&self) -> Option<Form> {
                match self { $(Self::$name(config) => $module::$name::form(config),)+ }
            }

            /// Whether the loss has a sparsity penalty.
            pub fn penalised(&self) -> bool {
                match self { $(Self::$name(_) => $module::$name::PENALISED,)+ }
            }

            /// Whether decoder rows keep a norm of 1 in training.
            pub fn keeps_unit_decoder(&self) -> bool {
                match self { $(Self::$name(_) => $module::$name::KEEPS_UNIT_DECODER,)+ }
            }

            /// `architecture` in a SAELens `cfg.json`.
            pub fn saelens_name(&self) -> &'static str {
                match self { $(Self::$name(_) => $module::$name::SAELENS_NAME,)+ }
            }

            /// The SAELens names of all architectures.
            pub fn saelens_names() -> &'static [&'static str] {
                &[$($module::$name::SAELENS_NAME),+]
            }

            /// The configuration that SAELens calls `name`, from its own keys; `None` if the name is unknown.
            pub(crate) fn from_saelens(name: &str, keys: serde_json::Value) -> Option<serde_json::Result<Self>> {
                match name {
                    $($module::$name::SAELENS_NAME => Some(serde_json::from_value(keys).map(Self::$name)),)+
                    _ => None,
                }
            }

            /// The keys of its own in a SAELens `cfg.json`.
            pub(crate) fn to_saelens(&self) -> serde_json::Result<serde_json::Value> {
                match self { $(Self::$name(config) => serde_json::to_value(config),)+ }
            }
        }

        impl Sae {
            /// A new one with weights drawn from `seed`'s stream `init`: the same bits on every device. On an
            /// autodiff device it can be trained.
            pub fn init(config: &SaeConfig, size: Size, seed: Seed, device: &Device) -> Self {
                match config {
                    $(SaeConfig::$name(c) => {
                        let weights = $module::$name::initial_weights(c, size, seed);
                        Self::$name($module::$name::from_weights(c, weights, device))
                    })+
                }
            }

            /// One with these weights, which must be those of [`SaeConfig::shapes`].
            ///
            /// # Panics
            /// If a weight is missing.
            pub fn from_weights(config: &SaeConfig, weights: Weights, device: &Device) -> Self {
                match config {
                    $(SaeConfig::$name(c) => Self::$name($module::$name::from_weights(c, weights, device)),)+
                }
            }

            /// The weights, copied to the host.
            pub fn to_weights(&self) -> Weights {
                match self { $(Self::$name(sae) => sae.to_weights(),)+ }
            }

            /// The configuration it was made with.
            pub fn config(&self) -> SaeConfig {
                match self { $(Self::$name(sae) => SaeConfig::$name(sae.config()),)+ }
            }

            /// One with the parameters of a fused step.
            pub fn from_parameters(config: &SaeConfig, parameters: Parameters) -> Self {
                match config {
                    $(SaeConfig::$name(c) => Self::$name($module::$name::from_parameters(c, parameters)),)+
                }
            }

            /// Encoder and decoder.
            pub fn affine(&self) -> &Affine {
                match self { $(Self::$name(sae) => sae.affine(),)+ }
            }

            /// Changes encoder and decoder.
            pub fn map_affine(self, change: impl FnOnce(Affine) -> Affine) -> Self {
                match self { $(Self::$name(sae) => Self::$name(sae.map_affine(change)),)+ }
            }

            /// Its size.
            pub fn size(&self) -> Size {
                self.affine().size()
            }

            /// `x [n, d_in]` → activations `[n, d_sae]`, none negative.
            pub fn encode(&self, x: Tensor<2>) -> Tensor<2> {
                match self { $(Self::$name(sae) => sae.encode(x),)+ }
            }

            /// `acts [n, d_sae]` → x̂ `[n, d_in]`.
            pub fn decode(&self, acts: Tensor<2>) -> Tensor<2> {
                match self { $(Self::$name(sae) => sae.decode(acts),)+ }
            }

            /// The loss on `x [n, d_in]` with `sparsity` as the penalty's coefficient (λ).
            pub fn loss(&self, x: Tensor<2>, sparsity: f64) -> Loss {
                match self { $(Self::$name(sae) => sae.loss(x, sparsity),)+ }
            }

            /// Ends training: gradients off, the activation scale folded in, decoder rows of norm 1. What was
            /// trained on `scale · x` then takes `x` and gives x̂ in its units.
            pub fn export(&self, scale: f64) -> Self {
                match self.valid() { $(Self::$name(sae) => Self::$name(sae.fold_scale(scale).unit_decoder()),)+ }
            }
        }
    };
}

architectures! {
    Relu => relu,
    TopK => top_k,
}

impl Default for SaeConfig {
    fn default() -> Self {
        Self::Relu(relu::ReluConfig::default())
    }
}
