//! What was found on labelled text, on the page and in lines for a terminal.

use std::collections::BTreeMap;

use maud::{Markup, Render, html};
use monosema_page::{Table, format_figure};

use crate::findings::{ConceptsReport, ProbeReport, ProbesReport, UnitsReport, ValueReport, mean};

/// What units are, in plain words.
const UNITS: [(&str, &str); 4] = [
    ("latents", "latents"),
    ("neurons", "raw dimensions, both signs"),
    ("principal", "principal directions, both signs"),
    ("random", "random ReLU dictionary, as sparse"),
];

fn words(name: &str) -> &str {
    UNITS.iter().find(|(known, _)| *known == name).map_or(name, |(_, words)| words)
}

fn number(value: impl Into<Option<f64>>) -> Markup {
    format_figure(value.into()).render()
}

/// The sections on labelled spans.
pub(crate) fn concepts(reports: &[ConceptsReport]) -> Markup {
    html! {
        @for report in reports {
            h2 { "Labelled spans: " (report.name) }
            (summary(report))
            (absorption(report))
            (factors(report))
            details {
                summary { "Each of " (report.values.len()) " values" }
                (values(&report.values))
                @if !report.left_out.is_empty() {
                    p.soft { "Left out, with fewer than " (report.min_tokens) " tokens of either kind in a half: " (report.left_out.join(", ")) "." }
                }
            }
        }
    }
}

fn summary(report: &ConceptsReport) -> Markup {
    let row = |units: &UnitsReport| {
        vec![
            words(&units.name).render(),
            units.n_units.render(),
            number(units.coverage_f1),
            number(units.coverage_auroc),
            number(units.reconstruction_f1),
            number(units.monosemanticity),
        ]
    };
    let nothing = vec![
        "saying yes to every token".render(),
        html! {},
        number(report.always_f1),
        number(0.5),
        number(None),
        number(report.same_value),
    ];
    let rows = report.units.iter().map(row).chain([nothing]).collect();
    let head = vec![
        "best of",
        "units",
        "coverage (F1)",
        "coverage (AUROC)",
        "reconstruction (F1)",
        "monosemanticity",
    ];
    html! {
        p {
            "For each of " (report.values.len()) " values that " (report.documents) " documents are labelled with, the best unit and its threshold were chosen on the "
            (report.fit_tokens) " counted tokens of one half of the documents; figures are of the " (report.held_out_tokens) " tokens of the other."
        }
        (Table { head, numbers_from: 1, rows })
        p.soft {
            "Coverage is the mean over values of the best unit's F1 or AUROC for the value against all other tokens (Karvonen et al. 2024, with a choice of \
             unit and threshold on other documents); reconstruction reads all values off the units that are right in 95 % of cases (ibid.). Monosemanticity is the chance that two tokens, drawn as strongly as they activate the unit, agree in the factor (Pach et al. \
             2025, with labels in place of similarities)."
        }
    }
}

fn absorption(report: &ConceptsReport) -> Markup {
    let Some(found) = &report.absorption else {
        return html! { p.soft { "Absorption is not measured: the latents do not add up to what this dictionary reads." } };
    };
    html! {
        p {
            "A probe finds " (found.values) " of the values in the activations (F1 above 0.6). Of the tokens at which it is right, "
            (format_figure(found.full_rate)) " are fully absorbed (all latents of the value silent, one other in their place); mean absorption fraction "
            (format_figure(found.mean_fraction)) "; " (format_figure(found.mean_latents)) " latents stand for a value (1: none is split)."
        }
        p.soft { "Chanin et al. 2024, with the thresholds of SAEBench." }
    }
}

/// A row for each factor: means over its values.
fn factors(report: &ConceptsReport) -> Markup {
    let mut by_factor: BTreeMap<&str, Vec<&ValueReport>> = BTreeMap::new();
    report.values.iter().for_each(|value| by_factor.entry(&value.factor).or_default().push(value));
    let baselines: Vec<&str> = report.units.iter().skip(1).map(|units| units.name.as_str()).collect();
    let rows = by_factor.iter().map(|(factor, values)| {
        let of = |figure: fn(&ValueReport) -> Option<f64>| {
            number(mean(values.iter().filter_map(|value| figure(value))))
        };
        let baseline =
            |name: &str| number(mean(values.iter().filter_map(|value| value.baseline_f1.get(name).copied())));
        let absorbed = |value: &ValueReport| value.absorption.as_ref().map(|found| found.mean_fraction);
        let latents = |value: &ValueReport| value.absorption.as_ref().map(|found| found.latents.len() as f64);
        let head = [factor.render(), values.len().render(), of(|value| Some(value.best.f1))];
        let always = [of(|value| Some(value.always_f1)), of(|value| Some(value.auroc))];
        let monosemanticity = [of(|value| value.best.monosemanticity), of(|value| value.same_value)];
        let rest = [of(absorbed), of(latents)];
        let baselines = baselines.iter().map(|name| baseline(name));
        head.into_iter().chain(baselines).chain(always).chain(monosemanticity).chain(rest).collect()
    });
    let rows: Vec<Vec<Markup>> = rows.collect();
    let mut head = vec!["factor", "values", "F1"];
    head.extend(&baselines);
    head.extend(["always", "AUROC", "monosemanticity", "by chance", "absorbed", "latents a value"]);
    html! { h3 { "By factor" } (Table { head, numbers_from: 1, rows }) }
}

fn values(values: &[ValueReport]) -> Markup {
    let row = |value: &ValueReport| {
        let best = &value.best;
        let absorbed = value.absorption.as_ref();
        vec![
            html! { (value.factor) " = " (value.value) },
            value.held_out_tokens.render(),
            best.latent.render(),
            number(best.f1),
            number(best.precision),
            number(best.recall),
            number(value.auroc),
            number(best.monosemanticity),
            number(absorbed.map(|found| found.probe_f1)),
            number(absorbed.map(|found| found.mean_fraction)),
        ]
    };
    let rows = values.iter().map(row).collect();
    let head = vec![
        "value",
        "tokens",
        "latent",
        "F1",
        "precision",
        "recall",
        "AUROC",
        "monosemanticity",
        "probe F1",
        "absorbed",
    ];
    Table { head, numbers_from: 1, rows }.render()
}

/// The sections on labelled documents.
pub(crate) fn probes(reports: &[ProbesReport]) -> Markup {
    html! {
        @for report in reports {
            h2 { "Sparse probes: " (report.name) }
            p {
                "Logistic regressions on the mean of each document, fitted on " (report.fit_documents) " documents and judged on " (report.held_out_documents)
                " others; units are those whose means differ most between the classes (Gurnee et al. 2023)."
            }
            (of_probes(report.probes.iter()))
            @if report.classes.len() > 1 {
                details {
                    summary { "Each of " (report.classes.len()) " classes against the others" }
                    @for class in &report.classes {
                        h3 { (class.class) ", " (format_figure(Some(class.share))) " of the documents" }
                        (of_probes(class.probes.iter()))
                    }
                }
            }
            @if !report.left_out.is_empty() { p.soft { "Too few documents of: " (report.left_out.join(", ")) "." } }
        }
    }
}

fn of_probes<'a>(probes: impl Iterator<Item = &'a ProbeReport>) -> Markup {
    let row = |probe: &ProbeReport| {
        vec![name(probe).render(), number(probe.accuracy), number(probe.f1), number(probe.auroc)]
    };
    let head = vec!["probe on", "accuracy", "F1", "AUROC"];
    Table { head, numbers_from: 1, rows: probes.map(row).collect() }.render()
}

fn name(probe: &ProbeReport) -> String {
    match probe.k {
        Some(k) => format!("{k} of the {}", probe.on),
        None => format!("all {}", probe.on),
    }
}

impl ConceptsReport {
    /// What matters most, in lines for a terminal.
    pub fn lines(&self) -> Vec<String> {
        let of = |units: &UnitsReport| {
            let name = words(&units.name);
            let reconstruction_f1 = Some(units.reconstruction_f1);
            let figures = [units.coverage_f1, units.coverage_auroc, reconstruction_f1, units.monosemanticity];
            let [f1, auroc, reconstruction, monosemanticity] = figures.map(format_figure);
            format!(
                "  {name}: coverage F1 {f1}, AUROC {auroc}; reconstruction {reconstruction}; monosemanticity \
                 {monosemanticity}"
            )
        };
        let title = format!(
            "{}: best units for {} values, on {} held-out tokens",
            self.name,
            self.values.len(),
            self.held_out_tokens
        );
        let absorption = self.absorption.map(|found| {
            format!(
                "  absorption of {} values that a probe finds: fraction {}, full {}; latents a value {}",
                found.values,
                format_figure(found.mean_fraction),
                format_figure(found.full_rate),
                format_figure(found.mean_latents)
            )
        });
        let always = format!(
            "  saying yes to every token: F1 {}, AUROC 0.5; monosemanticity {}",
            format_figure(self.always_f1),
            format_figure(self.same_value)
        );
        let units = self.units.iter().map(of);
        std::iter::once(title).chain(units).chain([always]).chain(absorption).collect()
    }
}

impl ProbesReport {
    /// What matters most, in lines for a terminal.
    pub fn lines(&self) -> Vec<String> {
        let of = |probe: &ProbeReport| {
            let [accuracy, f1, auroc] =
                [probe.accuracy, probe.f1, probe.auroc].map(|value| format_figure(Some(value)));
            format!("  {}: accuracy {accuracy}, F1 {f1}, AUROC {auroc}", name(probe))
        };
        let title = format!("{}: probes, on {} held-out documents", self.name, self.held_out_documents);
        std::iter::once(title).chain(self.probes.iter().map(of)).collect()
    }
}
