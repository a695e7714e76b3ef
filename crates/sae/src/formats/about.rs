//! What the files of a dictionary say of it beside its mathematics, before it is settled which hook it belongs to.

use monosema_core::HookPoint;
use serde_json::{Map, Value, json};

use super::keys::{Keys, as_usize};
use crate::{Metadata, Normalization, SaeError};

/// The version of SAELens's metadata that is written here, as SAELens counts. From 6 on it is read as it is; files
/// without a version, or with an older one, hold other keys.
const SAELENS_VERSION: &str = "6.54.12";

/// Where our own facts are, within SAELens's `metadata` and in other tools' configurations.
pub(super) const OURS: &str = "monosema";

/// [`Metadata`] but for the hooks.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    pub(super) model_name: Option<String>,
    pub(super) normalization: Normalization,
    pub(super) context_size: Option<usize>,
    pub(super) prepend_bos: Option<bool>,
    pub(super) dataset_path: Option<String>,
    pub(super) scale: Option<f64>,
    pub(super) facts: Map<String, Value>,
    pub(super) other: Map<String, Value>,
}

impl About {
    pub(super) fn at(self, hook: HookPoint, hook_out: Option<HookPoint>) -> Metadata {
        let Self { model_name, normalization, context_size, prepend_bos, dataset_path, scale, facts, other } =
            self;
        Metadata {
            model_name,
            hook,
            hook_out,
            normalization,
            context_size,
            prepend_bos,
            dataset_path,
            scale,
            facts,
            other,
        }
    }
}

/// As SAELens has it in `cfg.json`.
pub(super) fn to_json(metadata: &Metadata) -> Map<String, Value> {
    let mut ours = Map::new();
    ours.insert("version".into(), env!("CARGO_PKG_VERSION").into());
    ours.insert("scale".into(), json!(metadata.scale));
    ours.extend(metadata.facts.clone());

    let mut json = Map::new();
    let mut put = |key: &str, value: Value| json.insert(key.to_owned(), value);
    put("sae_lens_version", SAELENS_VERSION.into());
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

/// What SAELens's metadata says, and where the dictionary reads and writes: errors of these matter only if nobody else says.
pub(super) type Parsed = (About, Result<HookPoint, SaeError>, Result<HookPoint, SaeError>);

/// The reverse of [`to_json`].
pub(super) fn from_json(mut keys: Keys, transcoder: bool) -> Result<Parsed, SaeError> {
    let hook = keys.take_hook("hook_name");
    let hook_out = match transcoder {
        true => keys.take_hook("hook_name_out"),
        false => Err(keys.error("hook_name_out", "none of an autoencoder", "one")),
    };
    if let Some(index) = keys.keys.remove("hook_head_index").filter(|v| !v.is_null()) {
        return Err(keys.error("hook_head_index", "null (single heads are not supported)", index));
    }
    let mut ours = keys.take_section_if_any(OURS)?;
    // Told anew on saving.
    ours.keys.remove("version");
    if keys.keys.get("sae_lens_training_version").is_some_and(Value::is_null) {
        keys.keys.remove("sae_lens_training_version");
    }
    let about = About {
        model_name: keys.take("model_name", "a string or null", |v| v.as_str().map(str::to_owned))?,
        normalization: Normalization::None,
        context_size: keys.take("context_size", "a number or null", as_usize)?,
        prepend_bos: keys.take("prepend_bos", "true, false or null", Value::as_bool)?,
        dataset_path: keys.take("dataset_path", "a string or null", |v| v.as_str().map(str::to_owned))?,
        scale: ours.take("scale", "a number or null", Value::as_f64)?,
        facts: ours.keys,
        other: keys.keys,
    };
    Ok((about, hook, hook_out))
}

/// Whether SAELens's metadata is of a version that is read, the version being taken out of wherever it is.
pub(super) fn take_version(metadata: &mut Keys, keys: &mut Keys) -> Result<(), SaeError> {
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
