//! Several dictionaries side by side: their headline figures, the front of those that no other beats, and all of them at once.

use std::path::Path;

use burn::tensor::Device;
use maud::{Markup, Render, html};
use monosema_core::AtomicFile;
use monosema_page::{Axis, Better as Side, Mark, Scatter, Spacing, Table, chart};
use monosema_transformer::Checkpoint;
use serde::Serialize;

use crate::{
    dictionary::DictionaryShape,
    error::EvalError,
    evaluate::Job,
    html::{glossary, range},
    metrics::{Definition, definitions},
    report::{Report, format_figure},
    together::{self, Together},
};

/// What is compared: of every dictionary's many figures those by which one chooses.
const COMPARED: [&str; 10] = [
    "l0",
    "fvu",
    "ce.sae",
    "loss_recovered.zero",
    "loss_recovered.mean",
    "loss_recovered.resample",
    "kl",
    "top1",
    "rel_bias",
    "dead",
];

/// Reports of dictionaries that were evaluated on the same texts.
#[derive(Clone, Debug, Serialize)]
pub struct EvalSummary {
    /// Each with its name.
    pub reports: Vec<(String, Report)>,
    /// What it costs to splice in all of them at once, if that was asked for.
    pub together: Option<Together>,
}

impl EvalSummary {
    /// The name of the machine-readable summary.
    pub const JSON_FILE: &'static str = "summary.json";

    /// The name of the summary for people.
    pub const HTML_FILE: &'static str = "summary.html";

    /// Whether dictionaries of these shapes can be spliced in at once ([`EvalSummary::splice_together`]).
    ///
    /// # Errors
    /// Two dictionaries for one hook; a transcoder that gives what comes before what it reads.
    pub fn check_together(shapes: &[DictionaryShape]) -> Result<(), EvalError> {
        together::check(shapes)
    }

    /// Adds what it costs to splice in the dictionaries of all `jobs` at once, which were checked to go together.
    ///
    /// # Errors
    /// As [`evaluate`](crate::evaluate).
    pub fn splice_together(
        &mut self,
        jobs: &[Job],
        checkpoint: &Checkpoint,
        device: &Device,
    ) -> Result<(), EvalError> {
        self.together = Some(together::measure(jobs, checkpoint, device)?);
        Ok(())
    }

    /// Writes `summary.html` and `summary.json` into `directory`, which exists.
    ///
    /// # Errors
    /// A disk that fails.
    pub fn write(&self, directory: &Path) -> Result<(), EvalError> {
        let write = |name: &str, contents: &[u8]| {
            let path = directory.join(name);
            AtomicFile::write(&path, contents).map_err(|source| EvalError::Io { path, source })
        };
        write(Self::HTML_FILE, self.page().as_bytes())?;
        let json = serde_json::to_string_pretty(&self.to_json()).expect("a JSON value serialises");
        write(Self::JSON_FILE, json.as_bytes())
    }

    /// What `summary.json` holds: for each dictionary its figures and their intervals; the rest is in its report.
    pub fn to_json(&self) -> serde_json::Value {
        let dictionaries: Vec<_> = self
            .reports
            .iter()
            .map(|(name, report)| {
                serde_json::json!({
                    "name": name,
                    "dictionary": report.dictionary,
                    "metrics": report.metrics,
                    "intervals": report.intervals,
                })
            })
            .collect();
        serde_json::json!({ "dictionaries": dictionaries, "together": self.together })
    }

    /// The heads and the rows of a table for a terminal.
    pub fn cells(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let head = iter_first("dictionary", COMPARED.iter().map(|name| (*name).to_owned()));
        let row = |(name, report): &(String, Report)| {
            iter_first(name, COMPARED.iter().map(|figure| format_figure(report.figure(figure))))
        };
        let mut rows: Vec<_> = self.reports.iter().map(row).collect();
        if let Some(Together { metrics, .. }) = &self.together {
            let value = |figure: &&str| metrics.get(*figure).copied().flatten();
            let cell = |figure| value(figure).map_or("–".into(), |value| format_figure(Some(value)));
            rows.push(iter_first("all at once", COMPARED.iter().map(cell)));
        }
        (head, rows)
    }

    fn page(&self) -> String {
        let names: Vec<_> = self.reports.iter().map(|(name, _)| name.as_str()).collect();
        let title = format!("{} dictionaries", names.len());
        let contents = html! {
            h1 { (title) }
            p.soft { (names.join(", ")) }
            h2 { "What is gained by how many latents" }
            p.soft { "Filled marks are on the front: no other has a lower l0 and a better figure." }
            div.charts {
                (self.trade_off("loss_recovered.zero"))
                (self.trade_off("fvu"))
                (self.trade_off("kl"))
            }
            h2 { "Figures" }
            (self.table())
            p.soft { "In small print 95 % confidence intervals over documents, of the same resamples for all." }
            @if let Some(together) = &self.together { (all_at_once(together)) }
            h2 { "Definitions" }
            (glossary(definitions()))
        };
        monosema_page::page(&title, &contents)
    }

    fn trade_off(&self, figure: &'static str) -> Markup {
        let better = match definition(figure).better {
            crate::Better::Lower => Side::Lower,
            _ => Side::Higher,
        };
        let mark = |(name, report): &'_ (String, Report)| {
            let group = report.dictionary.architecture["kind"].as_str().unwrap_or_default().to_owned();
            Some((name.clone(), group, report.figure("l0")?, report.figure(figure)?))
        };
        let marks: Vec<_> = self.reports.iter().filter_map(mark).collect();
        let marks = marks.iter().map(|(label, group, x, y)| Mark { label, group, x: *x, y: *y }).collect();
        let scatter = Scatter {
            title: &format!("l0 and {figure}"),
            x: Axis { label: "l0, active latents a token", spacing: Spacing::Log, ..Axis::default() },
            y: Axis { label: figure, ..Axis::default() },
            better: [Side::Lower, better],
            marks,
        };
        chart(&format!("l0 and {figure}"), "", &scatter)
    }

    fn table(&self) -> Markup {
        let head = std::iter::once("dictionary").chain(COMPARED).collect();
        let row = |(name, report): &(String, Report)| {
            let cells = COMPARED.map(|figure| {
                let interval = report.intervals.of.get(figure);
                html! {
                    span data-figure=(figure) data-dictionary=(name) data-value=[report.figure(figure)] {
                        (format_figure(report.figure(figure)))
                    }
                    @if let Some(&interval) = interval { br; small.soft { (range(interval)) } }
                }
            });
            std::iter::once(name.render()).chain(cells).collect()
        };
        Table { head, numbers_from: 1, rows: self.reports.iter().map(row).collect() }.render()
    }
}

fn iter_first(first: &str, rest: impl Iterator<Item = String>) -> Vec<String> {
    std::iter::once(first.to_owned()).chain(rest).collect()
}

fn definition(name: &str) -> &'static Definition {
    definitions().find(|definition| definition.name == name).expect("what is compared is defined")
}

fn all_at_once(Together { hooks, metrics, intervals }: &Together) -> Markup {
    let names: Vec<_> = hooks.iter().map(ToString::to_string).collect();
    let rows = metrics.iter().map(|(name, &value)| {
        let interval = intervals.of.get(name).map_or(String::new(), |&interval| range(interval));
        vec![name.render(), format_figure(value).render(), interval.render()]
    });
    let table = Table { head: vec!["figure", "", "95 %"], numbers_from: 1, rows: rows.collect() };
    html! {
        h2 { "All at once" }
        p.soft {
            "Spliced in at " (names.join(", ")) " in one pass, each reading what those before it left; ablations at the same hooks."
        }
        (table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compared_is_defined() {
        COMPARED.iter().for_each(|name| assert_eq!(definition(name).name, *name));
    }
}
