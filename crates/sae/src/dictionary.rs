//! A trained dictionary, frozen: what evaluation and everything after it works with.

use std::path::Path;

use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use monosema_core::HookPoint;
use serde_json::{Map, Value, json};

use crate::{
    Normalization, Sae, SaeConfig, SaeError, Size,
    formats::{self, Given},
};

/// Where a dictionary comes from and how it is meant to be used. What is unknown is `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// The language model.
    pub model_name: Option<String>,
    /// Where in the model the activations were taken.
    pub hook: HookPoint,
    /// Where in the model what comes out belongs, of a transcoder; `None` of an autoencoder.
    pub hook_out: Option<HookPoint>,
    /// What is done to every activation by itself.
    pub normalization: Normalization,
    /// Tokens a context in training.
    pub context_size: Option<usize>,
    /// Whether contexts began with the beginning-of-sequence token.
    pub prepend_bos: Option<bool>,
    /// The training text.
    pub dataset_path: Option<String>,
    /// By which factor activations were multiplied in training. It is folded into the weights: information only.
    pub scale: Option<f64>,
    /// Further facts of ours (recipe, seed, tokens, …).
    pub facts: Map<String, Value>,
    /// What else the file's metadata said. Kept, so that loading and saving loses nothing.
    pub other: Map<String, Value>,
}

impl Metadata {
    /// Nothing known but the hook.
    pub fn new(hook: HookPoint) -> Self {
        Self {
            model_name: None,
            hook,
            hook_out: None,
            normalization: Normalization::None,
            context_size: None,
            prepend_bos: None,
            dataset_path: None,
            scale: None,
            facts: Map::new(),
            other: Map::new(),
        }
    }

    /// Says that the activations are those of the model as its checkpoint has it.
    ///
    /// SAELens's own evaluation (`sae_lens/evals.py`) unpacks the key with `**`, and fails without it. The value says
    /// what its loader, `from_pretrained_no_processing`, does anyway; it is for those who load the model by hand with
    /// `HookedTransformer.from_pretrained(name, **kwargs)`, which else centres the weights that write into the residual
    /// stream of models with LayerNorm: the dictionary would be given other vectors than it was trained on.
    pub fn of_unprocessed_model(mut self) -> Self {
        let kwargs = json!({ "center_writing_weights": false });
        self.other.insert(formats::saelens::MODEL_KWARGS.into(), kwargs);
        self
    }
}

/// What can be known of a dictionary without reading its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// Its architecture.
    pub architecture: SaeConfig,
    /// Its size.
    pub size: Size,
    /// Where it comes from.
    pub metadata: Metadata,
}

impl Description {
    /// Of the dictionary in `directory`, of any of the [`formats`]. The configuration is read, and of the weights
    /// the names, types and shapes, as strictly as [`Dictionary::load`] reads them. It alone looks at every
    /// number, and at the latents' frequencies (`sparsity.safetensors`).
    pub fn read(directory: &Path) -> Result<Self, SaeError> {
        formats::describe(directory, &Given::default())
    }
}

/// A frozen sparse autoencoder with its metadata. It takes activations as the model makes them.
#[derive(Clone, Debug)]
pub struct Dictionary {
    sae: Sae,
    metadata: Metadata,
    log_sparsity: Option<Vec<f32>>,
}

impl Dictionary {
    /// From a module ([`Sae::export`]), its metadata and, if known, log10(frequency + 1e-10) of every latent.
    ///
    /// # Panics
    /// If `log_sparsity` has not one value a latent.
    pub fn new(sae: Sae, metadata: Metadata, log_sparsity: Option<Vec<f32>>) -> Self {
        if let Some(log_sparsity) = &log_sparsity {
            assert_eq!(log_sparsity.len(), sae.size().d_sae, "one sparsity a latent");
        }
        Self { sae: sae.no_grad(), metadata, log_sparsity }
    }

    /// Reads a directory of any of the [`formats`], strictly.
    pub fn load(directory: &Path, device: &Device) -> Result<Self, SaeError> {
        formats::load(directory, &Given::default(), device)
    }

    /// Writes a SAELens v6 directory, which must exist. Returns the names of the files written.
    ///
    /// # Errors
    /// A number that is not finite, in which case nothing is written; a disk that fails.
    pub fn save(&self, directory: &Path) -> Result<Vec<String>, SaeError> {
        formats::Format::SaeLens.save(self, directory)
    }

    /// Width of the activations that it takes.
    pub fn d_in(&self) -> usize {
        self.size().d_in
    }

    /// Width of what comes out.
    pub fn d_out(&self) -> usize {
        self.size().d_out()
    }

    /// Number of latents.
    pub fn d_sae(&self) -> usize {
        self.size().d_sae
    }

    /// Both sizes.
    pub fn size(&self) -> Size {
        self.sae.size()
    }

    /// Where it comes from.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// log10(frequency + 1e-10) of every latent at the end of training, if it is known.
    pub fn log_sparsity(&self) -> Option<&[f32]> {
        self.log_sparsity.as_deref()
    }

    /// The module.
    pub fn sae(&self) -> &Sae {
        &self.sae
    }

    /// `x [n, d_in]`, raw activations → activations of the latents `[n, d_sae]`, none negative.
    ///
    /// # Panics
    /// If `x` has another width than [`Dictionary::d_in`]; so compare it with the model's beforehand.
    pub fn encode(&self, x: Tensor<2>) -> Tensor<2> {
        self.sae.encode(self.metadata.normalization.apply(x).0)
    }

    /// `acts [n, d_sae]` of `x [n, d_in]` → x̂ `[n, d_out]`, in the units of raw activations. x matters where something of it
    /// goes past the latents: a skip connection, or what normalisation took from it. Of a transcoder x goes past them as it is, and
    /// nothing is given back to what comes out, which is of another hook (SAELens's `transcoder.py`).
    ///
    /// # Panics
    /// If `acts` has another width than [`Dictionary::d_sae`], or `x` than [`Dictionary::d_in`].
    pub fn decode(&self, acts: Tensor<2>, x: Tensor<2>) -> Tensor<2> {
        if self.size().output.is_some() {
            return self.sae.decode(acts, x);
        }
        let (x, taken) = self.metadata.normalization.apply(x);
        let x_hat = self.sae.decode(acts, x);
        match taken {
            Some(taken) => taken.give_back(x_hat),
            None => x_hat,
        }
    }
}
