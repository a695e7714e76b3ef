//! The architectures: what each must supply, the one place where they are registered, and what is the same for all.

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use monosema_kernels::{Form, Parameters};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{Affine, AuxK, Init, Loss, Now, Scales, Size, Weights};

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

/// The mathematics of one kind of sparse autoencoder, of which the implementing type is what a user can choose: everything but
/// the loop that trains it. The parameters are an [`Affine`], whatever the kind; a [`Sae`] is both.
///
/// The type's serialised keys, but for [`Architecture::ONLY_IN_TRAINING`], are also those of a SAELens `cfg.json`.
pub trait Architecture: Clone + Into<SaeConfig> + Serialize + DeserializeOwned {
    /// `architecture` in a SAELens `cfg.json`, of an autoencoder; `None` if it is another one once it is trained.
    const SAELENS_NAME: Option<&'static str>;

    /// Keys of the configuration that a trained dictionary does not depend on.
    const ONLY_IN_TRAINING: &'static [&'static str] = &[];

    /// What SAELens calls the vector that is added to input·W_enc. The names of the others are the same for all.
    const NAME_OF_B_ENC: &'static str = "b_enc";

    /// Whether the loss has a sparsity penalty.
    const PENALISED: bool = true;

    /// Whether what is active on a token depends on the batch that it is trained in.
    const CHOOSES_IN_BATCH: bool = false;

    /// Configurations that together reach every branch of the code; the conformance tests try each.
    fn variants() -> Vec<Self>;

    /// Whether b_dec is subtracted from the input before encoding.
    fn applies_b_dec_to_input(&self) -> bool;

    /// The parameters `[d_sae]` that it has besides b_enc, by SAELens's names, each with what it is for every latent at the
    /// start. The fused step takes two at most.
    fn vectors(&self) -> Vec<(&'static str, f32)> {
        Vec::new()
    }

    /// Whether a dictionary of this size can have this configuration; if not, what was expected and what was found.
    /// [`SaeConfig::check`] looks at k and AuxK.
    fn check(&self, _: Size) -> Result<(), (String, String)> {
        Ok(())
    }

    /// How many latents are chosen of a token, where they are.
    fn k(&self) -> Option<usize> {
        None
    }

    /// How many latents are to be active on a token, as far as the configuration says.
    fn target_l0(&self) -> Option<f64> {
        self.k().map(|k| k as f64)
    }

    /// How the penalty's exponent falls, where it does.
    fn annealing(&self) -> Option<Annealing> {
        None
    }

    /// The term for dead latents, where it is AuxK.
    fn aux(&self) -> AuxK {
        AuxK::OFF
    }

    /// Whether its loss has a term for dead latents.
    fn heeds_dead(&self) -> bool {
        self.aux().coefficient > 0.0
    }

    /// What the fused step must know to train it with rows of W_dec that keep a norm of 1 or do not; `None` if it cannot.
    /// [`SaeConfig::form`] adds what is the same for all: the input, the rows, the skip connection and AuxK.
    fn form(&self, _: Size, _unit_decoder: bool) -> Option<Form> {
        None
    }

    /// `x [n, d_in]` → activations `[n, d_sae]`, none negative.
    fn encode(&self, affine: &Affine, x: Tensor<2>) -> Tensor<2>;

    /// `acts [n, d_sae]` of `x [n, d_in]` → x̂ `[n, d_out]`.
    fn decode(&self, affine: &Affine, acts: Tensor<2>, x: Tensor<2>) -> Tensor<2> {
        affine.decode(acts, x)
    }

    /// The loss on `x [n, d_in]` with the target `y [n, d_out]`, which of an autoencoder is x again.
    fn loss(&self, affine: &Affine, x: Tensor<2>, y: Tensor<2>, now: &Now) -> Loss;

    /// What a step may have made of parameters that they must not be, mended; after every step.
    fn constrained(&self, affine: Affine) -> Affine {
        affine
    }

    /// Trained, becomes what a dictionary is made of: without what was for training alone. `threshold` is the mean of the
    /// smallest activations of late batches, where those were chosen in batches.
    fn frozen(&self, affine: Affine, _threshold: Option<f32>) -> Sae {
        Sae::new(self.clone(), affine)
    }

    /// The same function with activations that are `factors [d_sae, 1]` times as large.
    fn scale_acts(&self, affine: Affine, factors: &Tensor<2>) -> Affine {
        affine.scale_acts(factors)
    }

    /// The factors, `[d_sae, 1]`, that activations of a dictionary are to be larger by than those of training: such that
    /// rows of W_dec have norm 1, if the function stays the same.
    fn final_factors(&self, affine: &Affine) -> Tensor<2> {
        affine.decoder_norms().clamp_min(monosema_kernels::SMALLEST_NORM)
    }
}

/// Declares the module of each architecture, its variant of [`SaeConfig`], and the dispatch.
macro_rules! architectures {
    ($($name:ident => $module:ident::$config:ident),+ $(,)?) => {
        $(pub mod $module;)+

        /// The choice of an architecture, as written in a configuration: `kind` and the keys of its own.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub enum SaeConfig {
            $(
                #[doc = concat!("That of [`", stringify!($module), "`].")]
                $name($module::$config),
            )+
        }

        $(
            impl From<$module::$config> for SaeConfig {
                fn from(config: $module::$config) -> Self {
                    Self::$name(config)
                }
            }
        )+

        /// Calls a function of the architecture that a [`SaeConfig`] chooses.
        macro_rules! of_config {
            ($self:expr, $own:ident, $a:ident, $call:expr) => {
                match $self { $(SaeConfig::$name($own) => { type $a = $module::$config; $call })+ }
            };
        }

        impl SaeConfig {
            /// Every configuration that the conformance tests try, of every registered architecture.
            pub fn variants() -> Vec<Self> {
                let mut all = Vec::new();
                $(all.extend($module::$config::variants().into_iter().map(Self::$name));)+
                all
            }

            /// The SAELens names of all architectures, of autoencoders.
            pub fn saelens_names() -> Vec<&'static str> {
                [$($module::$config::SAELENS_NAME),+].into_iter().flatten().collect()
            }

            /// The configuration that SAELens calls `name` of an autoencoder, from its own keys; `None` if the name is
            /// unknown.
            pub(crate) fn from_saelens(name: &str, keys: Value) -> Option<serde_json::Result<Self>> {
                $(if $module::$config::SAELENS_NAME == Some(name) {
                    return Some(serde_json::from_value(keys).map(Self::$name));
                })+
                None
            }
        }
    };
}

architectures! {
    Relu => relu::ReluConfig,
    PAnneal => p_anneal::PAnnealConfig,
    TopK => top_k::TopKConfig,
    BatchTopK => batch_top_k::BatchTopKConfig,
    Matryoshka => matryoshka::MatryoshkaConfig,
    JumpRelu => jump_relu::JumpReluConfig,
    Gated => gated::GatedConfig,
}

impl Default for SaeConfig {
    fn default() -> Self {
        Self::Relu(relu::ReluConfig::default())
    }
}

impl SaeConfig {
    /// Names and shapes of the weights of a dictionary of this size.
    pub fn shapes(&self, size: Size) -> Vec<(&'static str, Vec<usize>)> {
        Affine::shapes(self, size)
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
        of_config!(self, config, A, A::check(config, size))?;
        if let Some(k) = self.k().filter(|k| *k > size.d_sae) {
            return Err((format!("k of at most {}, the number of latents", size.d_sae), format!("k = {k}")));
        }
        self.aux().check()
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

    fn aux(&self) -> AuxK {
        of_config!(self, config, A, A::aux(config))
    }

    /// Whether its loss has a term for dead latents.
    pub fn heeds_dead(&self) -> bool {
        of_config!(self, config, A, A::heeds_dead(config))
    }

    /// What the fused step must know to train it with rows of W_dec that keep a norm of 1 or do not; `None` if it cannot.
    pub fn form(&self, size: Size, unit_decoder: bool) -> Option<Form> {
        let form = of_config!(self, config, A, A::form(config, size, unit_decoder))?;
        let (apply_b_dec_to_input, aux) = (self.applies_b_dec_to_input(), self.aux().form(size.d_out()));
        Some(Form { apply_b_dec_to_input, unit_decoder, skip: size.skips(), aux, ..form })
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

    pub(crate) fn name_of_b_enc(&self) -> &'static str {
        of_config!(self, _config, A, A::NAME_OF_B_ENC)
    }

    /// The parameters `[d_sae]` that it has besides b_enc, each with its value at the start.
    pub(crate) fn vectors(&self) -> Vec<(&'static str, f32)> {
        of_config!(self, config, A, A::vectors(config))
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

/// A sparse autoencoder of any architecture: the module that is trained, and what a [`Dictionary`](crate::Dictionary)
/// computes with.
#[derive(Module, Debug)]
pub struct Sae {
    affine: Affine,
    #[module(skip)]
    config: SaeConfig,
}

impl Sae {
    /// A new one: the same bits on every device. On an autodiff device it can be trained.
    pub fn init(config: &SaeConfig, size: Size, init: &Init, device: &Device) -> Self {
        Self::from_weights(config, size, Affine::initial_weights(config, size, init), device)
    }

    /// One with these weights, which must be those of [`SaeConfig::shapes`].
    ///
    /// # Panics
    /// If a weight is missing.
    pub fn from_weights(config: &SaeConfig, size: Size, weights: Weights, device: &Device) -> Self {
        Self::new(config.clone(), Affine::from_weights(config, size, weights, device))
    }

    /// One with the parameters of a fused step.
    pub fn from_parameters(config: &SaeConfig, size: Size, parameters: Parameters) -> Self {
        Self::new(config.clone(), Affine::from_parameters(config, size, parameters))
    }

    /// One with these parameters, which must be of its architecture.
    fn new(config: impl Into<SaeConfig>, affine: Affine) -> Self {
        Self { affine, config: config.into() }
    }

    /// The parameters as the fused step takes them.
    pub fn to_parameters(&self) -> Parameters {
        self.affine.to_parameters()
    }

    /// The weights, copied to the host.
    pub fn to_weights(&self) -> Weights {
        self.affine.to_weights(&self.config)
    }

    /// The configuration it was made with.
    pub fn config(&self) -> SaeConfig {
        self.config.clone()
    }

    /// Its parameters.
    pub fn affine(&self) -> &Affine {
        &self.affine
    }

    /// Changes the rows of W_dec.
    pub fn map_w_dec(self, change: impl FnOnce(Tensor<2>) -> Tensor<2>) -> Self {
        let Self { affine, config } = self;
        Self { affine: Affine { w_dec: affine.w_dec.map(change), ..affine }, config }
    }

    /// What was trained on `input · x` to give `output · y`, as a function of `x` that gives `y`, with the same activations.
    pub(crate) fn fold_scales(self, scales: Scales) -> Self {
        let Self { affine, config } = self;
        Self { affine: affine.fold_scales(scales), config }
    }

    /// Its size.
    pub fn size(&self) -> Size {
        self.affine.size()
    }

    /// `x [n, d_in]` → activations `[n, d_sae]`, none negative.
    pub fn encode(&self, x: Tensor<2>) -> Tensor<2> {
        of_config!(&self.config, config, A, A::encode(config, &self.affine, x))
    }

    /// `acts [n, d_sae]` of `x [n, d_in]` → x̂ `[n, d_out]`.
    pub fn decode(&self, acts: Tensor<2>, x: Tensor<2>) -> Tensor<2> {
        of_config!(&self.config, config, A, A::decode(config, &self.affine, acts, x))
    }

    /// The loss on `x [n, d_in]` with the target `y [n, d_out]`, which of an autoencoder is x again.
    pub fn loss(&self, x: Tensor<2>, y: Tensor<2>, now: &Now) -> Loss {
        of_config!(&self.config, config, A, A::loss(config, &self.affine, x, y, now))
    }

    /// What a step may have made of parameters that they must not be, mended; after every step.
    pub fn constrained(self) -> Self {
        let Self { affine, config } = self;
        let affine = of_config!(&config, own, A, A::constrained(own, affine));
        Self { affine, config }
    }

    /// Ends training: gradients off, what is for training alone left behind, the scales of the activations folded in, and
    /// decoder rows of norm 1 where that is the same function. What was trained on scaled activations then takes and
    /// gives them as they are. `threshold` is for what chooses in batches: the mean of the smallest activations of late
    /// ones.
    pub fn export(&self, scales: impl Into<Scales>, threshold: Option<f32>) -> Self {
        let scales = scales.into();
        let affine = self.affine.valid();
        let Self { affine, config } = of_config!(&self.config, own, A, A::frozen(own, affine, threshold));
        let affine = affine.fold_scales(scales);
        let factors = of_config!(&config, own, A, A::final_factors(own, &affine));
        let affine = of_config!(&config, own, A, A::scale_acts(own, affine, &factors));
        Self { affine, config }
    }
}
