//! Checkpoints: a model on disk, of which only headers have been read.

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use burn::tensor::Device;
use monosema_core::{Digest, HookPoint, digest_bytes, digest_file};
use monosema_text::Tokenizer;

use crate::{
    LanguageModel, ModelError, ModelInfo,
    families::FamilyConfig,
    formats::{Gguf, Settings, TensorSource, open_weights},
    weights::{Stored, Weights},
};

/// A model on disk.
#[derive(Clone)]
pub struct Checkpoint {
    path: PathBuf,
    files: Files,
    config: FamilyConfig,
    info: ModelInfo,
    digest: OnceLock<Digest>,
}

#[derive(Clone)]
enum Files {
    Directory(Arc<dyn TensorSource>),
    Gguf(Arc<Gguf>),
}

impl Files {
    fn source(&self) -> &dyn TensorSource {
        match self {
            Self::Directory(files) => &**files,
            Self::Gguf(file) => &**file,
        }
    }

    /// The family's name of the tensor that the files call `name`.
    fn rename(&self, config: &FamilyConfig, name: &str) -> Option<(String, Stored)> {
        match self {
            Self::Directory(_) => Some((config.own_name(name), Stored::AsIs)),
            Self::Gguf(_) => config.own_gguf_name(name),
        }
    }

    /// What the files should call the family's tensor `own`.
    fn name_in_file(&self, config: &FamilyConfig, own: &str) -> String {
        let gguf = matches!(self, Self::Gguf(_)).then(|| config.gguf_name(own)).flatten();
        gguf.unwrap_or_else(|| own.to_owned())
    }
}

impl Checkpoint {
    /// Opens a Hugging Face directory (`config.json`, `model.safetensors` or `pytorch_model.bin` or an index of either
    /// and its shards, `tokenizer.json`) or a `.gguf` file. Reads configuration and headers, no weights.
    ///
    /// # Errors
    /// If there is no such model, if it is of a kind that is not implemented, or if a file is damaged.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let not_a_model =
            |reason: &str| ModelError::NotAModel { path: path.to_owned(), reason: reason.to_owned() };
        let (files, config, name) = if path.is_dir() {
            if !path.join("config.json").exists() {
                return Err(not_a_model("the directory has no config.json"));
            }
            let (config, name) = read_config(&path.join("config.json"))?;
            (Files::Directory(open_weights(path)?), config, name)
        } else if Gguf::is_likely(path) {
            let file = Gguf::open(path)?;
            let architecture = file.architecture()?;
            let config = FamilyConfig::from_gguf(architecture, &file.settings(architecture), &file)?;
            let name = file.name().map(str::to_owned);
            (Files::Gguf(Arc::new(file)), config, name)
        } else if path.exists() {
            return Err(not_a_model("it is a file of another kind (a GGUF file begins with \"GGUF\")"));
        } else {
            return Err(not_a_model(
                "no such file or directory (a relative path begins at the working directory)",
            ));
        };
        let name = name.or_else(|| name_of(path)).unwrap_or_else(|| "model".into());
        let n_parameters = count_parameters(&files, &config);
        let info = ModelInfo::new(name, &config, n_parameters);
        Ok(Self { path: path.to_owned(), files, config, info, digest: OnceLock::new() })
    }

    /// What there is to know about the model without its weights.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Where the model is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The model's tokenizer: `tokenizer.json`, or rebuilt from the metadata of the GGUF file.
    ///
    /// # Errors
    /// If there is none, if it cannot be rebuilt, or if it has tokens that the model cannot embed.
    pub fn tokenizer(&self) -> Result<Tokenizer, ModelError> {
        let (tokenizer, file) = match &self.files {
            Files::Directory(_) => (Tokenizer::from_dir(&self.path)?, self.path.join("tokenizer.json")),
            Files::Gguf(file) => (file.tokenizer()?, self.path.clone()),
        };
        let (max_id, d_vocab) = (tokenizer.max_id() as usize, self.info.d_vocab);
        if max_id >= d_vocab {
            let reason =
                format!("it has a token {max_id}, but the model embeds tokens up to {}", d_vocab - 1);
            return Err(ModelError::Tokenizer { file, reason });
        }
        Ok(tokenizer)
    }

    /// A digest of everything the model's behaviour depends on: its weights, configuration and tokenizer.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn digest(&self) -> Result<Digest, ModelError> {
        // Gigabytes are read for it, and every stage of a run asks.
        if let Some(digest) = self.digest.get() {
            return Ok(digest.clone());
        }
        let digest = self.read_digest()?;
        Ok(self.digest.get_or_init(|| digest).clone())
    }

    fn read_digest(&self) -> Result<Digest, ModelError> {
        let digest = |path: &Path| {
            digest_file(path).map_err(|source| ModelError::Io { path: path.to_owned(), source })
        };
        let Files::Directory(files) = &self.files else { return digest(&self.path) };
        let also = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"];
        let also = also.map(|name| self.path.join(name));
        let mut lines = String::new();
        let weights: BTreeSet<&PathBuf> = files.tensors().values().map(|tensor| &tensor.file).collect();
        for path in also.iter().filter(|path| path.exists()).chain(weights) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            writeln!(lines, "{}  {name}", digest(path)?).expect("a string can be written to");
        }
        Ok(digest_bytes(lines.as_bytes()))
    }

    /// Whether the model has `hook`.
    ///
    /// # Errors
    /// [`ModelError::NoSuchHook`] if not.
    pub fn check_hook(&self, hook: HookPoint) -> Result<(), ModelError> {
        self.info.check_hook(hook)
    }

    /// Reads the weights onto `device`, in f32.
    ///
    /// # Errors
    /// If a tensor is missing, one too many, there twice, misshapen, unreadable or not finite; the error names it.
    pub fn load(&self, device: &Device) -> Result<LanguageModel, ModelError> {
        let rename = |name: &str| self.files.rename(&self.config, name);
        let name_in_file = |own: &str| self.files.name_in_file(&self.config, own);
        let weights = Weights::new(&self.path, self.files.source(), rename, name_in_file)?;
        let decoder = self.config.load(weights, device)?;
        Ok(LanguageModel::new(decoder, self.info.clone(), device))
    }
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint").field("path", &self.path).field("info", &self.info).finish()
    }
}

impl ModelInfo {
    /// Whether the model has `hook`.
    ///
    /// # Errors
    /// [`ModelError::NoSuchHook`] if not.
    pub fn check_hook(&self, hook: HookPoint) -> Result<(), ModelError> {
        match hook.layer() {
            Some(layer) if layer >= self.n_layers => {
                Err(ModelError::NoSuchHook { model: self.name.clone(), hook, n_layers: self.n_layers })
            }
            _ => Ok(()),
        }
    }
}

/// Reads config.json: the configuration, and the model's name if it tells.
fn read_config(file: &Path) -> Result<(FamilyConfig, Option<String>), ModelError> {
    let bytes = fs::read(file).map_err(|source| ModelError::Io { path: file.to_owned(), source })?;
    let values = serde_json::from_slice(&bytes).map_err(|e| ModelError::Malformed {
        file: file.to_owned(),
        reason: format!("expected a JSON object: {e}"),
    })?;
    let settings = Settings::new(file, "", values);
    // Where a model was loaded from when it was saved: a name, unless it is a path of another machine.
    let name =
        settings.text("_name_or_path")?.filter(|name| !name.is_empty() && !name.starts_with(['/', '.']));
    let name = name.map(str::to_owned);
    Ok((FamilyConfig::from_config_json(&settings)?, name))
}

fn name_of(path: &Path) -> Option<String> {
    // `.` and `models/..` have no name of their own.
    let path = path.canonicalize().ok()?;
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    Some(name?.to_string_lossy().into_owned())
}

fn count_parameters(files: &Files, config: &FamilyConfig) -> u64 {
    let tensors = files.source().tensors().iter();
    let own =
        tensors.filter(|(name, _)| files.rename(config, name).is_some_and(|(own, _)| config.counts(&own)));
    own.map(|(_, tensor)| tensor.shape.iter().product::<usize>() as u64).sum()
}
