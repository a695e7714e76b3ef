//! Dictionaries against each other: which latents of one are latents of another.
//!
//! Two latents are as alike as the cosine between the rows of `W_dec` that they write. [`compare()`] finds for each latent its
//! nearest one in the other dictionary ([`NearestLatents`]), pairs the latents of both so that the cosines add up to the
//! most ([`Matching`]), and counts into how many latents of a larger dictionary those of a smaller one come apart
//! ([`Splitting`]). Every figure has its [`Definition`](crate::Definition), with its source.
//!
//! Only weights are looked at: neither text nor a model. Two latents that write the same may fire on other tokens.

mod cosines;
mod definitions;
mod directions;
mod error;
mod html;
mod matching;
mod nearest;
pub(crate) mod neighbours;
mod report;
mod side;
mod splitting;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, time::Instant};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use self::{nearest::Nearest, side::Side};
use crate::metrics::Figures;

pub use definitions::definitions;
pub use error::CompareError;
pub use matching::Matching;
pub use nearest::{CosineHistogram, NearestLatents};
pub use report::{Comparison, HTML_FILE, JSON_FILE, Matchings, Pair, SCHEMA};
pub use side::ComparedDictionary;
pub use splitting::Splitting;

/// What can be chosen of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompareOptions {
    /// Two latents are taken for the same above this cosine.
    pub threshold: f64,
    /// Whether latents that never fired in training's last window are left out.
    pub without_dead: bool,
    /// Dictionaries of more latents are not matched: it takes 4 bytes for each pair of latents.
    pub match_up_to: usize,
}

impl Default for CompareOptions {
    /// The threshold of Paulo & Belrose 2025 and of Leask et al. 2025, and 4.3 GB.
    fn default() -> Self {
        Self { threshold: 0.7, without_dead: false, match_up_to: 32_768 }
    }
}

/// Holds every two of the dictionaries in `directories` against each other, in this order. Cosines are searched on `device`;
/// those that are found are computed again on the host, in f64.
///
/// # Errors
/// A dictionary that cannot be read, or of which no latent is left; dictionaries that write vectors of different widths; a
/// threshold that is no cosine; a device that fails.
pub fn compare(
    directories: &[PathBuf],
    options: CompareOptions,
    device: &Device,
) -> Result<Comparison, CompareError> {
    let started = Instant::now();
    if !(options.threshold > -1.0 && options.threshold < 1.0) {
        return Err(CompareError::BadThreshold(options.threshold));
    }
    if directories.len() < 2 {
        return Err(CompareError::TooFew(directories.len()));
    }
    let mut sides: Vec<Side> = Vec::new();
    for (place, directory) in directories.iter().enumerate() {
        let side = Side::load(directory, side::name(place), options.without_dead)?;
        if let Some(first) = sides.first() {
            side.check_beside(first)?;
        }
        sides.push(side);
    }
    let mut warnings = side::warnings(&sides, options.without_dead);
    let mut pairs = Vec::new();
    for (place, a) in sides.iter().enumerate() {
        for b in &sides[place + 1..] {
            pairs.push(pair(a, b, options, device, &mut warnings)?);
        }
    }
    Ok(Comparison {
        schema: SCHEMA,
        monosema: env!("CARGO_PKG_VERSION").to_owned(),
        options,
        dictionaries: sides.into_iter().map(|side| side.facts).collect(),
        pairs,
        warnings,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// Two dictionaries.
fn pair(
    a: &Side,
    b: &Side,
    options: CompareOptions,
    device: &Device,
    warnings: &mut Vec<String>,
) -> Result<Pair, CompareError> {
    let threshold = options.threshold;
    tracing::info!("compare: {} and {}: the nearest latents", a.facts.name, b.facts.name);
    let [a_to_b, b_to_a] = nearest::both_ways(&a.decoder, &b.decoder, device)?;
    // Of equal sizes, A counts as the smaller one.
    let (smaller, larger, towards) =
        if a.decoder.n() <= b.decoder.n() { (a, b, &b_to_a) } else { (b, a, &a_to_b) };
    let splitting = Splitting::new(smaller, larger, towards, threshold);
    let matchings = matchings(a, b, options, device, warnings)?;
    let mut figures = Figures::new();
    let mut insert = |name: &str, value: Option<f64>| figures.insert(name.to_owned(), value);
    for (direction, nearest) in [("a_to_b", &a_to_b), ("b_to_a", &b_to_a)] {
        insert(&format!("mmcs.{direction}"), Some(nearest::mean(nearest)));
        insert(&format!("found.{direction}"), Some(nearest::share_above(nearest, threshold)));
    }
    let [decoder, both] =
        matchings.as_ref().map_or([None; 2], |matchings| [Some(&matchings.decoder), matchings.both.as_ref()]);
    for (name, matching) in [("match.decoder", decoder), ("match.both", both)] {
        insert(&format!("{name}.cos"), matching.map(|matching| matching.mean));
        insert(&format!("{name}.shared"), matching.and_then(|matching| matching.shared));
    }
    for (name, value) in splitting.figures() {
        insert(name, Some(value));
    }
    let in_full = |from: &Side, to: &Side, nearest: &[Nearest]| NearestLatents::new(from, to, nearest);
    Ok(Pair {
        a: a.facts.name.clone(),
        b: b.facts.name.clone(),
        figures,
        a_to_b: in_full(a, b, &a_to_b),
        b_to_a: in_full(b, a, &b_to_a),
        matchings,
        splitting,
    })
}

/// One by decoders, and one by encoders and decoders together; `None` if there are too many latents.
fn matchings(
    a: &Side,
    b: &Side,
    options: CompareOptions,
    device: &Device,
    warnings: &mut Vec<String>,
) -> Result<Option<Matchings>, CompareError> {
    let (widest, names) =
        (a.decoder.n().max(b.decoder.n()), format!("{} and {}", a.facts.name, b.facts.name));
    if widest > options.match_up_to {
        let gigabytes = (widest as f64).powi(2) * 4.0 / 1e9;
        warnings.push(format!(
            "{names} are not matched: that takes {gigabytes:.1} GB of memory for {widest} latents, and the limit is {} latents; \
             to match them all the same, give --match-up-to {widest}",
            options.match_up_to
        ));
        return Ok(None);
    }
    tracing::info!("compare: {names}: matching by decoders");
    let decoder = Matching::new(a, b, &a.decoder, &b.decoder, options.threshold, device)?;
    if a.encoder.width() != b.encoder.width() {
        warnings.push(format!(
            "{names} read vectors of {} and {} dimensions, so their encoders are not compared",
            a.encoder.width(),
            b.encoder.width()
        ));
        return Ok(Some(Matchings { decoder, both: None }));
    }
    tracing::info!("compare: {names}: matching by encoders and decoders");
    let [of_a, of_b] = [a, b].map(|side| side.decoder.beside(&side.encoder));
    let both = Matching::new(a, b, &of_a, &of_b, options.threshold, device)?;
    Ok(Some(Matchings { decoder, both: Some(both) }))
}
