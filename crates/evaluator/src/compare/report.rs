//! What a comparison found, as JSON, as a table and as a page.

use std::{collections::BTreeMap, fs, path::Path};

use monosema_core::AtomicFile;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    CompareOptions, definitions::definitions, error::CompareError, html, matching::Matching,
    nearest::NearestLatents, side::ComparedDictionary, splitting::Splitting,
};
use crate::{Definition, Row, metrics::Figures};

/// The name of the machine-readable comparison.
pub const JSON_FILE: &str = "compare.json";

/// The name of the comparison for people.
pub const HTML_FILE: &str = "compare.html";

/// The version of the layout of `compare.json`.
pub const SCHEMA: u32 = 1;

/// Some dictionaries, every two held against each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// [`SCHEMA`] of the program that wrote it.
    pub schema: u32,
    /// The version of that program.
    pub monosema: String,
    /// What was chosen.
    pub options: CompareOptions,
    /// The dictionaries.
    pub dictionaries: Vec<ComparedDictionary>,
    /// Every two of them.
    pub pairs: Vec<Pair>,
    /// What to know before believing the figures.
    pub warnings: Vec<String>,
    /// Wall-clock seconds that it took.
    pub seconds: f64,
}

/// Two dictionaries, A and B in what follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The name of A.
    pub a: String,
    /// The name of B.
    pub b: String,
    /// Every figure, under the names of [`definitions`].
    pub figures: Figures,
    /// The latents of A, each with the nearest of B.
    pub a_to_b: NearestLatents,
    /// The latents of B, each with the nearest of A.
    pub b_to_a: NearestLatents,
    /// The latents of both in pairs; `None` if there are too many.
    pub matchings: Option<Matchings>,
    /// What became of the latents of the smaller one.
    pub splitting: Splitting,
}

/// Latents in pairs, in two ways.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Matchings {
    /// By the cosine of decoders.
    pub decoder: Matching,
    /// By the mean cosine of encoders and decoders; `None` where encoders cannot be compared.
    pub both: Option<Matching>,
}

impl Pair {
    /// What it is called: `A, B`.
    pub fn name(&self) -> String {
        format!("{}, {}", self.a, self.b)
    }
}

impl Comparison {
    /// The figures as rows of a table, with a column for each pair.
    pub fn rows(&self) -> Vec<Row> {
        let values =
            |name: &str| self.pairs.iter().map(|pair| pair.figures.get(name).copied().flatten()).collect();
        let row = |definition: &'static Definition| {
            let values: Vec<_> = values(definition.name);
            Row { definition, intervals: vec![None; values.len()], values }
        };
        definitions().iter().map(row).collect()
    }

    /// The contents of `compare.json`: the comparison, and the definition of every figure in it.
    pub fn to_json(&self) -> Value {
        let mut value = serde_json::to_value(self).expect("a comparison has string keys only");
        let definitions: BTreeMap<_, _> = definitions().iter().map(|d| (d.name, d)).collect();
        value["definitions"] = serde_json::to_value(definitions).expect("definitions are strings");
        value
    }

    /// Writes `compare.html` and then `compare.json` into `directory`, each whole or not at all.
    ///
    /// # Errors
    /// A disk that fails.
    pub fn write(&self, directory: &Path) -> Result<(), CompareError> {
        let write = |name: &str, contents: &[u8]| {
            let path = directory.join(name);
            AtomicFile::write(&path, contents).map_err(|source| CompareError::Io { path, source })
        };
        fs::create_dir_all(directory)
            .map_err(|source| CompareError::Io { path: directory.to_owned(), source })?;
        write(HTML_FILE, html::page(self).as_bytes())?;
        // Not prettily: it has a line for each of thousands of latents otherwise.
        write(JSON_FILE, self.to_json().to_string().as_bytes())
    }
}
