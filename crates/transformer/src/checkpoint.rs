//! Checkpoints: a model on disk, of which only headers have been read.

use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use burn::tensor::Device;
use monosema_core::{Digest, HookPoint, digest_bytes, digest_file, manifest::Input};
use monosema_text::Tokenizer;

use crate::{
    LanguageModel, ModelError, ModelInfo, Precision,
    blocks::Transformer,
    families::Config,
    formats::{Gguf, Settings, TensorSource, open_weights},
    weights::Weights,
};

/// A model on disk.
#[derive(Clone)]
pub struct Checkpoint {
    path: PathBuf,
    files: Files,
    config: Config,
    info: ModelInfo,
    precision: Precision,
    resolved: Option<String>,
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
            let config = Config::from_gguf(architecture, &file.settings(architecture), &file)?;
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
        let n_parameters = count_parameters(files.source(), &config);
        let info = ModelInfo::new(name, config.family, &config.shape, n_parameters);
        let (precision, resolved) = (Precision::default(), None);
        Ok(Self { path: path.to_owned(), files, config, info, precision, resolved, digest: OnceLock::new() })
    }

    /// The same under the name by which the world knows it; `resolved` is the address that means these files for ever.
    #[must_use]
    pub fn named(mut self, name: String, resolved: String) -> Self {
        self.info.name = name;
        self.resolved = Some(resolved);
        self
    }

    /// What there is to know about the model without its weights.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Where the model is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The model's tokenizer: `tokenizer.json`, or rebuilt from the metadata of the GGUF file. It may have tokens that the
    /// model cannot embed, as long as no text has them.
    ///
    /// # Errors
    /// If there is none, or if it cannot be rebuilt.
    pub fn tokenizer(&self) -> Result<Tokenizer, ModelError> {
        match &self.files {
            Files::Directory(_) => Ok(Tokenizer::from_dir(&self.path)?),
            Files::Gguf(file) => file.tokenizer(),
        }
    }

    /// A digest of everything the model's behaviour depends on: its weights, configuration, tokenizer and precision.
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

    /// The model as an input of a stage's work.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn input(&self) -> Result<Input, ModelError> {
        let (name, resolved) = (self.info.name.clone(), self.resolved.clone());
        Ok(Input { name, sha256: self.digest()?, resolved })
    }

    fn read_digest(&self) -> Result<Digest, ModelError> {
        let files = self.read_digest_of_files()?;
        Ok(match self.precision {
            Precision::F32 => files,
            precision => digest_bytes(format!("{files}  {precision}\n").as_bytes()),
        })
    }

    fn read_digest_of_files(&self) -> Result<Digest, ModelError> {
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

    /// The same model, whose large products are computed in `precision`.
    #[must_use]
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, digest: OnceLock::new(), ..self }
    }

    /// Reads the weights onto `device`.
    ///
    /// # Errors
    /// If a tensor is missing, one too many, there twice, misshapen, unreadable or not finite; the error names it.
    pub fn load(&self, device: &Device) -> Result<LanguageModel, ModelError> {
        let Config { family, shape, .. } = &self.config;
        let role = |name: &str| self.config.role(name);
        let name_in_file = |own: &str| self.config.name_in_file(own);
        let mut weights = Weights::new(&self.path, self.files.source(), role, name_in_file)?;
        let transformer =
            Transformer::load(shape, &family.description().names, &mut weights, self.precision, device)?;
        weights.finish()?;
        Ok(LanguageModel::new(transformer, self.info.clone(), device))
    }
}

impl std::fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint").field("path", &self.path).field("info", &self.info).finish()
    }
}

/// Reads config.json: the configuration, and the model's name if it tells.
fn read_config(file: &Path) -> Result<(Config, Option<String>), ModelError> {
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
    Ok((Config::from_config_json(&settings)?, name))
}

fn name_of(path: &Path) -> Option<String> {
    // `.` and `models/..` have no name of their own.
    let path = path.canonicalize().ok()?;
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    Some(name?.to_string_lossy().into_owned())
}

fn count_parameters(source: &dyn TensorSource, config: &Config) -> u64 {
    let own = source.tensors().iter().filter(|(name, _)| config.counts(name));
    own.map(|(_, tensor)| tensor.shape.iter().product::<usize>() as u64).sum()
}
