//! The report: every figure, what was counted, and what it was made from.
//!
//! `report.json` is the report; `report.html` shows it. The JSON is written last and vouches for the HTML, so a
//! report that is there is whole, and its `manifest` says whether it is up to date.

use std::{collections::BTreeMap, fs, path::Path};

use monosema_core::{
    AtomicFile, Digest, Manifest, digest_bytes,
    manifest::{FileEntry, Work},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    conventions::Convention,
    dictionary::{self, DictionaryFacts, WEIGHT_DEFINITIONS},
    error::EvalError,
    findings::{ConceptsReport, ProbesReport},
    html,
    metrics::{Better, Curves, Definition, Figures, Histogram, Intervals, Spread, definitions},
    model::ModelFacts,
};

/// The name of the machine-readable report.
pub const JSON_FILE: &str = "report.json";

/// The name of the report for people.
pub const HTML_FILE: &str = "report.html";

/// The version of the layout of `report.json`.
pub const SCHEMA: u32 = 3;

/// What evaluation found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`] of the program that wrote it.
    pub schema: u32,
    /// Every figure over all texts together, under the names of [`definitions`].
    pub metrics: Figures,
    /// Their confidence intervals.
    pub intervals: Intervals,
    /// What other programs would say, by their names ([`Convention::figures`]), if that was asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub conventions: BTreeMap<Convention, Figures>,
    /// Every figure of each text.
    pub texts: Vec<TextReport>,
    /// Which tokens counted, over all texts.
    pub counted: Counted,
    /// How often latents fire, over all texts.
    pub density: Histogram,
    /// How tokens are spread by L0 and by norm, over all texts.
    pub spread: Spread,
    /// Figures by position in the window, over all texts.
    pub by_position: Curves,
    /// What was found on each text with labelled spans.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub concepts: Vec<ConceptsReport>,
    /// What was found on each text of labelled documents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<ProbesReport>,
    /// The dictionary.
    pub dictionary: DictionaryFacts,
    /// The language model.
    pub model: ModelFacts,
    /// How long it took.
    pub timing: Timing,
    /// What to know before believing the figures; see [`EvalPlan::warnings`](crate::EvalPlan::warnings).
    #[serde(default)]
    pub warnings: Vec<String>,
    /// What it was made from.
    pub manifest: Manifest,
}

/// The figures of one held-out text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextReport {
    /// Its name in the configuration.
    pub name: String,
    /// How many of its tokens counted.
    #[serde(flatten)]
    pub tally: Tally,
    /// SHA-256 of the ids of its windows, in order, as 32-bit little-endian numbers: another program that claims to
    /// have read the same windows can show it.
    pub windows_sha256: Digest,
    /// Its figures.
    pub metrics: Figures,
    /// Their confidence intervals.
    pub intervals: Intervals,
    /// What other programs would say, by their names ([`Convention::figures`]), if that was asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub conventions: BTreeMap<Convention, Figures>,
}

/// Which tokens counted, in words and numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// The rule, in words.
    pub rule: String,
    /// The numbers.
    #[serde(flatten)]
    pub tally: Tally,
}

/// How many tokens were seen, and why some did not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Context windows.
    pub contexts: u64,
    /// Positions in them: counted and skipped ones.
    pub positions: u64,
    /// Positions that count: activations measured there, and replaced there when splicing.
    pub counted_tokens: u64,
    /// Predictions measured: counted positions with a next token in their window.
    pub predictions: u64,
    /// Positions skipped for their place: among the first of their window, or none of `positions`.
    pub skipped_position: u64,
    /// Positions skipped because their token is BOS.
    #[serde(default)]
    pub skipped_bos: u64,
    /// Positions skipped because their token is another special one.
    pub skipped_special: u64,
    /// Positions skipped because their token is not among those asked for.
    #[serde(default)]
    pub skipped_token: u64,
    /// Invalid sequences of UTF-8 that U+FFFD was read for, in the whole of the documents that begin in a window.
    #[serde(default)]
    pub invalid_utf8: u64,
    /// NUL characters in those.
    #[serde(default)]
    pub nul: u64,
}

impl Tally {
    /// Counts what `other` counted.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.contexts += other.contexts;
        self.positions += other.positions;
        self.counted_tokens += other.counted_tokens;
        self.predictions += other.predictions;
        self.skipped_position += other.skipped_position;
        self.skipped_bos += other.skipped_bos;
        self.skipped_special += other.skipped_special;
        self.skipped_token += other.skipped_token;
        self.invalid_utf8 += other.invalid_utf8;
        self.nul += other.nul;
    }

    /// What the report's manifest counts.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        let counts =
            [("contexts", self.contexts), ("tokens", self.counted_tokens), ("predictions", self.predictions)];
        counts.into_iter().map(|(name, n)| (name.to_owned(), n)).collect()
    }
}

/// How long an evaluation took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Wall-clock seconds, without loading the model: of the passes, which dictionaries that were evaluated together share; of resampling
    /// documents and reading labelled text, up to this report.
    pub seconds: f64,
    /// Counted tokens a second of them.
    pub tokens_per_second: f64,
    /// How many dictionaries shared the passes.
    pub dictionaries: u64,
}

/// One figure in a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its definition: name, unit, which way is better.
    pub definition: &'static Definition,
    /// Its value over all texts, then in each text, in the order of [`Report::columns`].
    pub values: Vec<Option<f64>>,
    /// The confidence interval of each, where there is one.
    pub intervals: Vec<Option<[f64; 2]>>,
}

impl Report {
    /// Heads of the columns of values: `all`, then each text; of one text alone, only that.
    pub fn columns(&self) -> Vec<&str> {
        let texts = self.texts.iter().map(|text| text.name.as_str());
        if self.texts.len() == 1 { texts.collect() } else { std::iter::once("all").chain(texts).collect() }
    }

    /// The figures as rows of a table.
    pub fn rows(&self) -> Vec<Row> {
        let texts = self.texts.iter().map(|text| (&text.metrics, &text.intervals));
        let columns: Vec<_> = if self.texts.len() == 1 {
            texts.collect()
        } else {
            std::iter::once((&self.metrics, &self.intervals)).chain(texts).collect()
        };
        definitions()
            .map(|definition| Row {
                definition,
                values: columns
                    .iter()
                    .map(|(figures, _)| figures.get(definition.name).copied().flatten())
                    .collect(),
                intervals: columns
                    .iter()
                    .map(|(_, intervals)| intervals.of.get(definition.name).copied())
                    .collect(),
            })
            .collect()
    }

    /// A figure over all texts; `None` if it is not defined on them, or was not asked for.
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.metrics.get(name).copied().flatten()
    }

    /// The contents of `report.json`: the report, and the definition of every figure in it.
    pub fn to_json(&self) -> Value {
        let mut value = serde_json::to_value(self).expect("a report has string keys only");
        let definitions: BTreeMap<_, _> = definitions()
            .chain(&WEIGHT_DEFINITIONS)
            .map(|definition| (definition.name, definition))
            .collect();
        value["definitions"] = serde_json::to_value(definitions).expect("definitions are strings");
        value
    }

    /// Writes `report.html` and then `report.json` into `directory`, each whole or not at all.
    pub(crate) fn write(&mut self, directory: &Path) -> Result<(), EvalError> {
        let write = |name: &str, contents: &[u8]| {
            let path = directory.join(name);
            AtomicFile::write(&path, contents).map_err(|source| EvalError::Io { path, source })
        };
        let in_directory = |source| EvalError::Io { path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(in_directory)?;
        AtomicFile::sweep(directory).map_err(in_directory)?;
        let html = html::page(self);
        write(HTML_FILE, html.as_bytes())?;
        let entry = FileEntry { bytes: html.len() as u64, sha256: digest_bytes(html.as_bytes()) };
        self.manifest.files.insert(HTML_FILE.to_owned(), entry);
        let json = serde_json::to_string_pretty(&self.to_json()).expect("a JSON value serialises");
        write(JSON_FILE, json.as_bytes())
    }

    /// Reads `report.json` in `directory`.
    ///
    /// # Errors
    /// If it is not there, or is not a report of this version's layout.
    pub fn read(directory: &Path) -> Result<Self, EvalError> {
        let path = directory.join(JSON_FILE);
        let bytes = fs::read(&path).map_err(|source| EvalError::Io { path: path.clone(), source })?;
        let invalid = |reason: String| EvalError::BadReport { path: path.clone(), reason };
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| invalid(format!("not JSON: {e}")))?;
        match value.get("schema").and_then(Value::as_u64) {
            Some(n) if n == u64::from(SCHEMA) => {}
            found => {
                let found = found.map_or("none".into(), |n| n.to_string());
                return Err(invalid(format!("expected report schema {SCHEMA}, found {found}")));
            }
        }
        serde_json::from_value(value).map_err(|e| invalid(format!("not a report: {e}")))
    }

    /// Whether the report is of the dictionary in `dictionary_dir`, as its files are now.
    ///
    /// # Errors
    /// A file of the dictionary that cannot be read.
    pub fn is_of(&self, dictionary_dir: &Path) -> Result<bool, EvalError> {
        let there = dictionary::digest(dictionary_dir)?;
        Ok(self.manifest.work.inputs.get("dictionary").is_some_and(|input| input.sha256 == there))
    }

    /// The report in `directory`, if it is whole and was made by equal work; else the stage has to run.
    pub fn up_to_date(directory: &Path, work: &Work) -> Option<Self> {
        let report = Self::read(directory).ok()?;
        let html = fs::read(directory.join(HTML_FILE)).ok()?;
        let vouched = report.manifest.files.get(HTML_FILE)?;
        (report.manifest.work == *work && vouched.sha256 == digest_bytes(&html)).then_some(report)
    }
}

pub use monosema_page::format_figure;

impl Row {
    /// Name, unit, direction, and the formatted values, for a table on a terminal.
    pub fn cells(&self) -> Vec<String> {
        let Definition { name, unit, better, .. } = *self.definition;
        let better: Better = better;
        let head = [name.to_owned(), unit.to_owned(), better.symbol().to_owned()];
        let cell = |(&value, &interval): (&Option<f64>, &Option<[f64; 2]>)| match interval {
            // Half as wide as the interval: which of its ends is nearer, the report says.
            Some([low, high]) => format!("{} ±{}", format_figure(value), two_digits((high - low) / 2.0)),
            None => format_figure(value),
        };
        head.into_iter().chain(self.values.iter().zip(&self.intervals).map(cell)).collect()
    }
}

/// With two digits that say something: nobody knows an interval better than that.
fn two_digits(width: f64) -> String {
    if width == 0.0 || !width.is_finite() {
        return format_figure(Some(width));
    }
    let digits = 1 - width.abs().log10().floor() as i32;
    match digits {
        0..=5 => format!("{width:.*}", digits as usize),
        _ => format!("{width:.1e}"),
    }
}
