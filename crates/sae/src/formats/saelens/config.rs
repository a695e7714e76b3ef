//! `cfg.json` of a SAELens directory.

use std::path::Path;

use monosema_core::HookPoint;
use serde_json::{Map, Value};

use super::{SCALER, name, parse_name};
use crate::{
    Dictionary, Metadata, Normalization, Output, SaeConfig, SaeError, Scales, Size,
    formats::{
        about::{self, About},
        keys::Keys,
    },
};

/// Architectures of SAELens that are not read, and why.
const REFUSED: [(&str, &str); 5] = [
    ("abstopk", "its latents may be negative, and those of a dictionary here never are"),
    ("temporal", "what it makes of a token depends on the tokens before it"),
    (
        "matching_pursuit",
        "it chooses latents one after another by what is left over, which is no architecture here",
    ),
    (
        "batchtopk",
        "what is active on a token depends on its batch: have SAELens save it for inference, as jumprelu",
    ),
    (
        "matryoshka_batchtopk",
        "what is active on a token depends on its batch: have SAELens save it for inference, as jumprelu",
    ),
];

/// What a `cfg.json` says.
pub(super) struct Cfg {
    pub(super) architecture: SaeConfig,
    pub(super) size: Size,
    pub(super) about: About,
    pub(super) hook: Result<HookPoint, SaeError>,
    pub(super) hook_out: Result<HookPoint, SaeError>,
    pub(super) scales: Option<Scales>,
}

/// `architecture` of a dictionary.
pub(super) fn full_name(architecture: &SaeConfig, size: Size) -> String {
    let kind = architecture.saelens_name();
    name(kind.expect("an architecture for training alone is exported as another"), size.output)
}

/// As SAELens writes it.
pub(super) fn to_json(dictionary: &Dictionary) -> Value {
    let (architecture, size) = (dictionary.sae().config(), dictionary.size());
    let metadata: &Metadata = dictionary.metadata();
    let mut cfg = Map::new();
    let mut put = |key: &str, value: Value| cfg.insert(key.to_owned(), value);
    put("architecture", full_name(&architecture, size).into());
    put("d_in", size.d_in.into());
    put("d_sae", size.d_sae.into());
    if let Some(Output { d_out, .. }) = size.output {
        put("d_out", d_out.into());
    }
    put("dtype", "float32".into());
    put("device", "cpu".into());
    put("normalize_activations", metadata.normalization.name().into());
    put("reshape_activations", "none".into());
    for (key, value) in architecture.to_saelens() {
        put(&key, value);
    }
    put("metadata", Value::Object(about::to_json(metadata)));
    Value::Object(cfg)
}

impl Cfg {
    /// Reads `cfg.json`; `scaler` is what a checkpoint has beside it.
    pub(super) fn read(file: &Path, scaler: &Path) -> Result<Self, SaeError> {
        let mut keys = Keys::read(file)?;
        let mut metadata = keys.take_section("metadata")?;
        // First, because in a file of an older version every other key may mean something else.
        about::take_version(&mut metadata, &mut keys)?;
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
        let (normalization, scales) = take_normalization(&mut keys, scaler)?;
        keys.take_none(
            "reshape_activations",
            "activations of shape [tokens, d_in] are read, as the store here has those of attn.hook_z too; change the \
             key if that is meant",
        )?;
        let architecture = take_architecture(kind, &name, keys)?;
        let (mut about, hook, hook_out) = about::from_json(metadata, transcoder.is_some())?;
        about.normalization = normalization;
        Ok(Self { architecture, size, about, hook, hook_out, scales })
    }
}

/// What is done to an activation, and the scale to be folded in if it is one for all: SAELens folds it when a training ends,
/// so that only checkpoints have one, beside them.
fn take_normalization(keys: &mut Keys, scaler: &Path) -> Result<(Normalization, Option<Scales>), SaeError> {
    let key = "normalize_activations";
    let name = keys.take_string(key)?;
    if name == "expected_average_only_in" {
        if !scaler.is_file() {
            let expected = format!(
                "a scale that is folded into the weights, or {SCALER} beside them: the file itself does not say which \
                 scale (load it with SAELens, call fold_activation_norm_scaling_factor, and save it)"
            );
            return Err(keys.error(key, &expected, format!("\"{name}\"")));
        }
        let mut scaler = Keys::read(scaler)?;
        let factor =
            scaler.take("scaling_factor", "a number above 0", |v| v.as_f64().filter(|f| *f > 0.0))?;
        let factor = factor.ok_or_else(|| scaler.error("scaling_factor", "a number above 0", "none"))?;
        return Ok((Normalization::None, Some(factor.into())));
    }
    let expected = "\"none\", \"layer_norm\", \"constant_norm_rescale\" or, with its scale, \
                    \"expected_average_only_in\" (have SAELens fold another normalisation into the weights first)";
    match Normalization::named(&name) {
        Some(normalization) => Ok((normalization, None)),
        None => Err(keys.error(key, expected, format!("\"{name}\""))),
    }
}

/// What is left of the top level belongs to the architecture, which knows its own keys.
fn take_architecture(kind: &str, name: &str, keys: Keys) -> Result<SaeConfig, SaeError> {
    let known: Vec<_> = SaeConfig::saelens_names().iter().map(|n| format!("\"{n}\"")).collect();
    let Some(parsed) = SaeConfig::from_saelens(kind, Value::Object(keys.keys.clone())) else {
        let why = REFUSED.iter().find(|(refused, _)| *refused == name);
        let found = why.map_or(format!("\"{name}\""), |(_, why)| format!("\"{name}\": {why}"));
        return Err(keys.error("architecture", &known.join(" or "), found));
    };
    parsed.map_err(|e| {
        keys.error("architecture", &format!("\"{name}\" with its own keys"), format!("a fault: {e}"))
    })
}
