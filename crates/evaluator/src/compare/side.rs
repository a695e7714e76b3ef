//! One dictionary of a comparison: its latents' directions, and what is known of it.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use monosema_core::{Digest, HookPoint};
use monosema_sae::Dictionary;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{directions::Directions, error::CompareError};
use crate::{dictionary, error::EvalError};

/// log10(frequency + 1e-10) of a latent that never fired is -10; none that did is below this.
const NEVER_FIRED: f32 = -9.99;

/// What is known of a dictionary that was compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ComparedDictionary {
    /// What it is called here: a letter.
    pub name: String,
    /// Where it was read from.
    pub path: String,
    /// A digest of its files.
    pub sha256: Digest,
    /// Its architecture and what can be chosen of it.
    pub architecture: Value,
    /// The language model, if it says.
    pub model: Option<String>,
    /// Where in the model what its latents write belongs.
    pub hook: HookPoint,
    /// Width of what they read.
    pub d_in: usize,
    /// Width of what they write.
    pub d_out: usize,
    /// How many there are.
    pub d_sae: usize,
    /// How many never fired in training's last window; `None` if it does not say.
    pub dead: Option<usize>,
    /// How many have a decoder row of zeros: they point nowhere, and are always left out.
    pub zero: usize,
    /// How many are compared.
    pub compared: usize,
}

/// A dictionary of a comparison.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) facts: ComparedDictionary,
    /// The numbers of the latents that are compared, rising: those of the rows of the directions.
    pub(super) latents: Vec<usize>,
    /// Of the rows of `W_dec`.
    pub(super) decoder: Directions,
    /// Of the columns of `W_enc`.
    pub(super) encoder: Directions,
}

impl Side {
    /// That in `directory`.
    pub(super) fn load(directory: &Path, name: String, without_dead: bool) -> Result<Self, CompareError> {
        let dictionary = Dictionary::load(directory, &Device::flex())?;
        let sha256 = match dictionary::digest(directory) {
            Ok(digest) => digest,
            Err(EvalError::Io { path, source }) => return Err(CompareError::Io { path, source }),
            Err(other) => {
                let (path, source) = (directory.to_owned(), std::io::Error::other(other));
                return Err(CompareError::Io { path, source });
            }
        };
        Self::new(directory, name, sha256, &dictionary, without_dead)
    }

    /// Of a dictionary in memory.
    pub(super) fn new(
        directory: &Path,
        name: String,
        sha256: Digest,
        dictionary: &Dictionary,
        without_dead: bool,
    ) -> Result<Self, CompareError> {
        let (d_in, d_out, d_sae) = (dictionary.d_in(), dictionary.d_out(), dictionary.d_sae());
        let weights = dictionary.sae().to_weights();
        let values = |wanted: &str| {
            let (_, data) =
                weights.iter().find(|(name, _)| *name == wanted).expect("every architecture has both");
            data.as_slice::<f32>().expect("weights are f32")
        };
        let (w_dec, w_enc) = (values("W_dec"), values("W_enc"));
        let is_dead = |i: usize| dictionary.log_sparsity().is_some_and(|log| log[i] <= NEVER_FIRED);
        let points = |i: usize| w_dec[i * d_out..(i + 1) * d_out].iter().any(|&w| w != 0.0);
        let pointing: Vec<usize> = (0..d_sae).filter(|&i| points(i)).collect();
        let zero = d_sae - pointing.len();
        let latents: Vec<usize> =
            pointing.iter().copied().filter(|&i| !(without_dead && is_dead(i))).collect();
        if latents.is_empty() {
            let (directory, dead) = (directory.to_owned(), pointing.len());
            return Err(CompareError::NoLatents { directory, d_sae, zero, dead });
        }
        let decoder = latents.iter().flat_map(|&i| &w_dec[i * d_out..(i + 1) * d_out]).copied().collect();
        let mut encoder = vec![0.0; latents.len() * d_in];
        for (d, row) in w_enc.chunks_exact(d_sae).enumerate() {
            for (place, &i) in latents.iter().enumerate() {
                encoder[place * d_in + d] = row[i];
            }
        }
        let metadata = dictionary.metadata();
        let facts = ComparedDictionary {
            name,
            path: directory.display().to_string(),
            sha256,
            architecture: serde_json::to_value(dictionary.sae().config())
                .expect("a configuration has string keys"),
            model: metadata.model_name.clone(),
            hook: metadata.hook_out.unwrap_or(metadata.hook),
            d_in,
            d_out,
            d_sae,
            dead: dictionary.log_sparsity().map(|_| (0..d_sae).filter(|&i| is_dead(i)).count()),
            zero,
            compared: latents.len(),
        };
        Ok(Self {
            facts,
            latents,
            decoder: Directions::of(decoder, d_out),
            encoder: Directions::of(encoder, d_in),
        })
    }

    /// Whether it can be compared with the first one.
    pub(super) fn check_beside(&self, first: &Self) -> Result<(), CompareError> {
        if self.facts.d_out == first.facts.d_out {
            return Ok(());
        }
        Err(CompareError::Width {
            directory: PathBuf::from(&self.facts.path),
            found: self.facts.d_out,
            first: PathBuf::from(&first.facts.path),
            expected: first.facts.d_out,
        })
    }
}

/// A, B, …, Z, AA, AB, …: as spreadsheets name their columns.
pub(super) fn name(place: usize) -> String {
    let letter = char::from(b'A' + (place % 26) as u8);
    if place < 26 { letter.to_string() } else { format!("{}{letter}", name(place / 26 - 1)) }
}

/// What to know of the dictionaries before believing the figures.
pub(super) fn warnings(sides: &[Side], without_dead: bool) -> Vec<String> {
    let mut warnings = Vec::new();
    for (place, side) in sides.iter().enumerate() {
        let ComparedDictionary { name, sha256, model, hook, d_sae, dead, zero, .. } = &side.facts;
        if let Some(twin) = sides[..place].iter().find(|other| other.facts.sha256 == *sha256) {
            warnings.push(format!("{} and {name} are the same files", twin.facts.name));
        }
        let first = &sides[0].facts;
        if *hook != first.hook {
            warnings.push(format!(
                "{} is of {}, and {name} of {hook}: other activations",
                first.name, first.hook
            ));
        }
        if let (Some(theirs), Some(model)) = (&first.model, model)
            && theirs != model
        {
            warnings.push(format!("{} is of the model {theirs}, and {name} of {model}", first.name));
        }
        if *zero > 0 {
            warnings.push(format!("{zero} latents of {name} have a decoder row of zeros, and are left out"));
        }
        match dead {
            Some(0) => {}
            Some(dead) if without_dead => {
                warnings.push(format!("{dead} of the {d_sae} latents of {name} are dead, and are left out"));
            }
            Some(dead) => warnings.push(format!(
                "{dead} of the {d_sae} latents of {name} are dead, and are compared as the others are; --without-dead leaves \
                 them out"
            )),
            None if without_dead => warnings.push(format!(
                "{name} does not say how often its latents fire (it has no sparsity.safetensors), so none are left out as dead"
            )),
            None => {}
        }
    }
    warnings
}
