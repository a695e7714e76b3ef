//! `cfg.json` of a SAELens directory.

use std::{
    fs,
    path::{Path, PathBuf},
};

use monosema_core::HookPoint;
use serde_json::{Map, Value, json};

use super::{name, parse_name};
use crate::{Metadata, Normalization, Output, SaeConfig, SaeError, Size};

/// The version of the format that is written here, as SAELens counts. From 6 on it is read as it is; files
/// without a version, or with an older one, hold other keys.
const FORMAT_VERSION: &str = "6.54.12";

/// Where our own facts are, within `metadata`.
const OURS: &str = "monosema";

/// What a `cfg.json` says.
#[derive(Debug)]
pub(super) struct Cfg {
    pub(super) architecture: SaeConfig,
    pub(super) size: Size,
    pub(super) metadata: Metadata,
}

impl Cfg {
    /// `architecture`.
    pub(super) fn name(&self) -> String {
        let kind = self.architecture.saelens_name();
        name(kind.expect("an architecture for training alone is exported as another"), self.size.output)
    }

    /// As SAELens writes it.
    pub(super) fn to_json(&self) -> Value {
        let mut cfg = Map::new();
        let mut put = |key: &str, value: Value| cfg.insert(key.to_owned(), value);
        put("architecture", self.name().into());
        put("d_in", self.size.d_in.into());
        put("d_sae", self.size.d_sae.into());
        if let Some(Output { d_out, .. }) = self.size.output {
            put("d_out", d_out.into());
        }
        put("dtype", "float32".into());
        put("device", "cpu".into());
        put("normalize_activations", self.metadata.normalization.name().into());
        put("reshape_activations", "none".into());
        for (key, value) in self.architecture.to_saelens() {
            put(&key, value);
        }
        put("metadata", Value::Object(metadata_to_json(&self.metadata)));
        Value::Object(cfg)
    }

    pub(super) fn read(file: &Path) -> Result<Self, SaeError> {
        let not_json = |reason: String| SaeError::NotJson { file: file.to_owned(), reason };
        let text = fs::read(file).map_err(|source| SaeError::Io { path: file.to_owned(), source })?;
        let value: Value = serde_json::from_slice(&text).map_err(|e| not_json(e.to_string()))?;
        let Value::Object(keys) = value else { return Err(not_json("it is another JSON value".into())) };
        let mut keys = Keys { file: file.to_owned(), prefix: "", keys };

        let mut metadata = keys.take_section("metadata")?;
        // First, because in a file of an older version every other key may mean something else.
        check_version(&mut metadata, &mut keys)?;
        let name = keys.take_string("architecture")?;
        let (kind, transcoder) = parse_name(&name);
        let (d_in, d_sae) = (keys.take_size("d_in")?, keys.take_size("d_sae")?);
        let output = match transcoder {
            Some(skip) => Some(Output { d_out: keys.take_size("d_out")?, skip }),
            None => None,
        };
        let size = Size { d_in, d_sae, output };
        keys.take_string("dtype")?;
        keys.keys.remove("device");
        let normalization = keys.take_normalization()?;
        keys.take_none("reshape_activations", "only activations of shape [tokens, d_in] are supported")?;
        let architecture = take_architecture(kind, &name, keys)?;
        let mut metadata = metadata_from_json(metadata, transcoder.is_some())?;
        metadata.normalization = normalization;
        Ok(Self { architecture, size, metadata })
    }
}

/// What is left of the top level belongs to the architecture, which knows its own keys.
fn take_architecture(kind: &str, name: &str, keys: Keys) -> Result<SaeConfig, SaeError> {
    let known: Vec<_> = SaeConfig::saelens_names().iter().map(|n| format!("\"{n}\"")).collect();
    let Some(parsed) = SaeConfig::from_saelens(kind, Value::Object(keys.keys.clone())) else {
        return Err(keys.error("architecture", &known.join(" or "), format!("\"{name}\"")));
    };
    parsed.map_err(|e| {
        keys.error("architecture", &format!("\"{name}\" with its own keys"), format!("a fault: {e}"))
    })
}

fn check_version(metadata: &mut Keys, keys: &mut Keys) -> Result<(), SaeError> {
    // SAELens itself accepts the version at the top level too.
    let found = keys.keys.remove("sae_lens_version").or_else(|| metadata.keys.remove("sae_lens_version"));
    let major = found.as_ref().and_then(Value::as_str).and_then(|v| v.split('.').next()?.parse::<u32>().ok());
    if major.is_some_and(|major| major >= 6) {
        return Ok(());
    }
    let found = found.map_or("none".into(), |v| v.to_string());
    let expected = "a version from 6 on (load and save it once with a current SAELens)";
    Err(metadata.error("sae_lens_version", expected, found))
}

fn metadata_to_json(metadata: &Metadata) -> Map<String, Value> {
    let mut ours = Map::new();
    ours.insert("version".into(), env!("CARGO_PKG_VERSION").into());
    ours.insert("scale".into(), json!(metadata.scale));
    ours.extend(metadata.facts.clone());

    let mut json = Map::new();
    let mut put = |key: &str, value: Value| json.insert(key.to_owned(), value);
    put("sae_lens_version", FORMAT_VERSION.into());
    // Without this key SAELens would claim to have trained it.
    put("sae_lens_training_version", Value::Null);
    put("model_name", json!(metadata.model_name));
    put("hook_name", metadata.hook.to_string().into());
    if let Some(hook) = metadata.hook_out {
        put("hook_name_out", hook.to_string().into());
    }
    put("hook_head_index", Value::Null);
    put("context_size", json!(metadata.context_size));
    put("prepend_bos", json!(metadata.prepend_bos));
    put("dataset_path", json!(metadata.dataset_path));
    put(OURS, Value::Object(ours));
    json.extend(metadata.other.clone());
    json
}

fn metadata_from_json(mut keys: Keys, transcoder: bool) -> Result<Metadata, SaeError> {
    let hook = keys.take_hook("hook_name")?;
    let hook_out = if transcoder { Some(keys.take_hook("hook_name_out")?) } else { None };
    if let Some(index) = keys.keys.remove("hook_head_index").filter(|v| !v.is_null()) {
        return Err(keys.error(
            "hook_head_index",
            "null (single heads are not supported)",
            index.to_string(),
        ));
    }
    let mut ours = keys.take_section_if_any(OURS)?;
    // Told anew on saving.
    ours.keys.remove("version");
    if keys.keys.get("sae_lens_training_version").is_some_and(Value::is_null) {
        keys.keys.remove("sae_lens_training_version");
    }
    Ok(Metadata {
        model_name: keys.take("model_name", "a string or null", |v| v.as_str().map(str::to_owned))?,
        hook,
        hook_out,
        normalization: Normalization::None,
        context_size: keys.take("context_size", "a number or null", as_usize)?,
        prepend_bos: keys.take("prepend_bos", "true, false or null", Value::as_bool)?,
        dataset_path: keys.take("dataset_path", "a string or null", |v| v.as_str().map(str::to_owned))?,
        scale: ours.take("scale", "a number or null", Value::as_f64)?,
        facts: ours.keys,
        other: keys.keys,
    })
}

fn as_usize(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok())
}

/// The keys of one JSON object that nobody has taken yet.
#[derive(Debug)]
struct Keys {
    file: PathBuf,
    prefix: &'static str,
    keys: Map<String, Value>,
}

impl Keys {
    fn error(&self, key: &str, expected: &str, found: String) -> SaeError {
        SaeError::Config {
            file: self.file.clone(),
            key: format!("{}{key}", self.prefix),
            expected: expected.to_owned(),
            found,
        }
    }

    /// `None` if the key is absent or null.
    fn take<T>(
        &mut self,
        key: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, SaeError> {
        match self.keys.remove(key).filter(|v| !v.is_null()) {
            None => Ok(None),
            Some(value) => read(&value).map(Some).ok_or_else(|| self.error(key, expected, value.to_string())),
        }
    }

    fn take_string(&mut self, key: &str) -> Result<String, SaeError> {
        let value = self.take(key, "a string", |v| v.as_str().map(str::to_owned))?;
        value.ok_or_else(|| self.error(key, "a string", "none".into()))
    }

    fn take_size(&mut self, key: &str) -> Result<usize, SaeError> {
        let expected = "a number from 1 on";
        let value = self.take(key, expected, |v| as_usize(v).filter(|&n| n > 0))?;
        value.ok_or_else(|| self.error(key, expected, "none".into()))
    }

    fn take_hook(&mut self, key: &str) -> Result<HookPoint, SaeError> {
        self.take_string(key)?.parse().map_err(|e: monosema_core::UnknownHook| {
            self.error(key, "the name of a hook point", e.to_string())
        })
    }

    fn take_normalization(&mut self) -> Result<Normalization, SaeError> {
        let key = "normalize_activations";
        let name = self.take_string(key)?;
        let expected = "\"none\" or \"layer_norm\" (fold another normalisation into the weights first)";
        Normalization::named(&name).ok_or_else(|| self.error(key, expected, format!("\"{name}\"")))
    }

    fn take_none(&mut self, key: &str, otherwise: &str) -> Result<(), SaeError> {
        match self.take_string(key)? {
            value if value == "none" => Ok(()),
            value => Err(self.error(key, &format!("\"none\" ({otherwise})"), format!("\"{value}\""))),
        }
    }

    fn take_section(&mut self, key: &'static str) -> Result<Keys, SaeError> {
        if self.keys.get(key).is_none() {
            return Err(self.error(key, "an object", "none".into()));
        }
        self.take_section_if_any(key)
    }

    fn take_section_if_any(&mut self, key: &'static str) -> Result<Keys, SaeError> {
        let keys = self.take(key, "an object", |v| v.as_object().cloned())?.unwrap_or_default();
        let prefix = if key == OURS { "metadata.monosema." } else { "metadata." };
        Ok(Keys { file: self.file.clone(), prefix, keys })
    }
}
