//! `logs/report.html`: a training on one page. Curves over tokens, how often latents fired, and what it was made from.
//!
//! Numbers in, a page out. Which numbers the logs hold is theirs to say: a field that this file does not know gets a chart
//! of its own.

use maud::{Markup, Render, html};
use monosema_core::Manifest;
use monosema_page::{
    Axis, Bins, HeatColumn, HeatStrip, Histogram, LineChart, Series, Spacing, Table, chart, count, facts,
    format_figure, key_paths, short, tiles,
};
use serde::Serialize;
use serde_json::Value;

/// What is counted along the logs, not measured.
const COUNTERS: [&str; 2] = ["step", "tokens"];

/// λ times the penalty, which the loss holds but the logs do not.
const PENALTY_TERM: &str = "sparsity · penalty";

/// What a reader looks for first, and what it is in plain words.
const HEADLINES: [(&str, &str); 6] = [
    ("fvu", "of the variance unexplained (fvu)"),
    ("l0", "latents active for a token (l0)"),
    ("dead_share", "of the latents silent for the dead window (dead_share)"),
    ("loss", "loss"),
    ("tokens", "tokens trained on"),
    ("tokens_per_s", "tokens a second"),
];

/// A chart of fields that are to be compared.
struct Panel {
    name: &'static str,
    unit: &'static str,
    note: &'static str,
    spacing: Spacing,
    fields: &'static [&'static str],
}

const PANELS: [Panel; 9] = [
    Panel {
        name: "Loss and its terms",
        unit: "per token, activations scaled",
        note: "",
        spacing: Spacing::Log,
        fields: &["loss", "mse", PENALTY_TERM, "rest", "aux"],
    },
    Panel {
        name: "Variance unexplained",
        unit: "share of the variance",
        note: "fvu: lower is better",
        spacing: Spacing::Log,
        fields: &["fvu"],
    },
    Panel {
        name: "Active latents",
        unit: "latents a token",
        note: "l0, and k while it is warmed up",
        spacing: Spacing::Log,
        fields: &["l0", "k"],
    },
    Panel {
        name: "Dead latents",
        unit: "share of the latents",
        note: "silent for the dead window; known once the run is as long",
        spacing: Spacing::Linear,
        fields: &["dead_share"],
    },
    Panel {
        name: "Penalty",
        unit: "per token",
        note: "before its coefficient",
        spacing: Spacing::Log,
        fields: &["penalty"],
    },
    Panel {
        name: "Sparsity coefficient λ",
        unit: "λ",
        note: "",
        spacing: Spacing::Linear,
        fields: &["sparsity"],
    },
    Panel {
        name: "Gradient norm",
        unit: "norm",
        note: "before clipping",
        spacing: Spacing::Log,
        fields: &["grad_norm"],
    },
    Panel { name: "Learning rate", unit: "lr", note: "", spacing: Spacing::Linear, fields: &["lr"] },
    Panel {
        name: "Speed",
        unit: "tokens a second",
        note: "",
        spacing: Spacing::Linear,
        fields: &["tokens_per_s"],
    },
];

/// A number of the logs over the tokens trained on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Curve {
    /// The field's name.
    pub(crate) name: String,
    /// Tokens, and the value there; NaN where the logs have none.
    pub(crate) points: Vec<(u64, f64)>,
}

impl Curve {
    fn values(&self) -> impl DoubleEndedIterator<Item = f64> {
        self.points.iter().map(|point| point.1).filter(|value| value.is_finite())
    }

    /// Whether it is 0 throughout.
    fn is_idle(&self) -> bool {
        self.values().all(|value| value == 0.0)
    }
}

/// A curve for every number in the records but what they count; each record is a JSON object with the field `tokens`.
pub(crate) fn curves<R: Serialize>(records: &[R]) -> Vec<Curve> {
    let records: Vec<Value> = records.iter().filter_map(|record| serde_json::to_value(record).ok()).collect();
    // In the order of the fields; one that is there at times only may come first in a later record.
    let mut names: Vec<&str> = Vec::new();
    for (name, value) in records.iter().filter_map(Value::as_object).flatten() {
        let plain = value.is_number() || value.is_null();
        if plain && !COUNTERS.contains(&name.as_str()) && !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let point = |record: &Value, name: &str| {
        Some((record["tokens"].as_u64()?, record[name].as_f64().unwrap_or(f64::NAN)))
    };
    let curve = |name: &&str| Curve {
        name: (*name).to_owned(),
        points: records.iter().filter_map(|record| point(record, name)).collect(),
    };
    let mut curves: Vec<Curve> = names.iter().map(curve).collect();
    let find = |name: &str| curves.iter().find(|curve| curve.name == name);
    if let (Some(sparsity), Some(penalty)) = (find("sparsity"), find("penalty")) {
        let terms = sparsity.points.iter().zip(&penalty.points);
        let points = terms.map(|(&(tokens, a), &(_, b))| (tokens, a * b)).collect();
        curves.push(Curve { name: PENALTY_TERM.into(), points });
    }
    curves
}

/// How often latents fired, time after time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Densities {
    log10_edges: Vec<f64>,
    columns: Vec<HeatColumn>,
}

impl Densities {
    /// Of histograms whose first bin holds the latents that never fired; the others rise to a density of 1, so many for a
    /// factor of ten.
    pub(crate) fn new<const BINS: usize>(history: &[(u64, [u64; BINS])], bins_a_decade: u32) -> Self {
        let bins = BINS.saturating_sub(1) as u32;
        let log10_edges = (0..=bins).rev().map(|n| -f64::from(n) / f64::from(bins_a_decade)).collect();
        let column = |(tokens, latents): &(u64, [u64; BINS])| HeatColumn {
            at: *tokens as f64,
            apart: latents.first().copied().unwrap_or(0),
            counts: latents.iter().skip(1).copied().collect(),
        };
        Self { log10_edges, columns: history.iter().map(column).collect() }
    }

    fn bins(&self) -> Bins<'_> {
        Bins { edges: &self.log10_edges, log10_share: true }
    }
}

/// All that the page shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Training<'a> {
    /// Where the activations come from; of a transcoder, `from → to`.
    pub(crate) hook: &'a str,
    /// Their width.
    pub(crate) d_in: usize,
    /// Latents.
    pub(crate) d_sae: usize,
    /// The architecture's name.
    pub(crate) architecture: &'a str,
    /// The recipe's name.
    pub(crate) recipe: &'a str,
    /// The logs; see [`curves`].
    pub(crate) curves: &'a [Curve],
    /// How often latents fired.
    pub(crate) densities: &'a Densities,
    /// Warnings that the run gave.
    pub(crate) warnings: &'a [String],
    /// What it is made from. Its files need not be known yet.
    pub(crate) manifest: &'a Manifest,
}

/// The whole page.
pub(crate) fn page(training: &Training<'_>) -> String {
    let Training { hook, d_in, d_sae, architecture, recipe, curves, .. } = *training;
    let title = format!("Training of {d_sae} latents on {hook}");
    let contents = html! {
        h1 { (title) }
        p.soft {
            "A " code { (architecture) } " dictionary of " (d_in) " dimensions, by the recipe " code { (recipe) } "."
        }
        (monosema_page::warnings(training.warnings))
        (headlines(curves))
        h2 { "Curves" }
        div.charts { @for panel in panels(curves) { (panel) } }
        h2 { "How often latents fire" }
        (density(training.densities))
        h2 { "In numbers" }
        (numbers(curves))
        h2 { "Resolved configuration" }
        (key_paths(&training.manifest.work.config))
        h2 { "Made from" }
        (provenance(training.manifest))
    };
    monosema_page::page(&title, &contents)
}

fn headlines(curves: &[Curve]) -> Markup {
    let last = |name: &str| match name {
        "tokens" => {
            let last = curves.iter().filter_map(|curve| curve.points.last()).map(|point| point.0).max();
            // More digits than these do not fit into a tile.
            last.map_or("–".into(), |n| if n < 100_000_000 { count(n) } else { short(n as f64) })
        }
        // Of what is measured by the clock five digits would be noise.
        "tokens_per_s" => mean(curves, name).map_or("–".into(), short),
        _ => {
            let curve = curves.iter().find(|curve| curve.name == name);
            format_figure(curve.and_then(|curve| curve.values().next_back()))
        }
    };
    tiles(HEADLINES.map(|(name, words)| (last(name), words)))
}

fn mean(curves: &[Curve], name: &str) -> Option<f64> {
    let values: Vec<f64> = curves.iter().find(|curve| curve.name == name)?.values().collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The panels that there is something for, then whatever no panel asks for.
fn panels(curves: &[Curve]) -> Vec<Markup> {
    let known = |name: &str| PANELS.iter().any(|panel| panel.fields.contains(&name));
    let find =
        |name: &&str| curves.iter().find(|curve| curve.name == *name && curve.values().next().is_some());
    let planned = PANELS.iter().filter_map(|panel| {
        let mut shown: Vec<&Curve> = panel.fields.iter().filter_map(find).collect();
        // Terms that the loss does not have are 0 throughout. That none is dead is news.
        if panel.fields != ["dead_share"] {
            shown.retain(|curve| !curve.is_idle());
        }
        (!shown.is_empty()).then(|| draw(panel.name, panel.unit, panel.note, panel.spacing, &shown))
    });
    let others = curves.iter().filter(|curve| !known(&curve.name) && curve.values().next().is_some());
    planned.chain(others.map(|curve| draw(&curve.name, "", "", Spacing::Linear, &[curve]))).collect()
}

fn draw(name: &str, unit: &str, note: &str, spacing: Spacing, curves: &[&Curve]) -> Markup {
    let series = |curve: &&'_ Curve| {
        let points = curve.points.iter().map(|&(tokens, value)| (tokens as f64, value)).collect();
        (curve.name.clone(), points)
    };
    let series: Vec<(String, Vec<(f64, f64)>)> = curves.iter().map(series).collect();
    let series = series.iter().map(|(name, points)| Series { name, points: points.clone() }).collect();
    let x = Axis { label: "tokens", from_zero: true, ..Axis::default() };
    let y = Axis { label: unit, spacing, from_zero: true };
    chart(name, note, &LineChart { title: name, x, y, series })
}

fn density(densities: &Densities) -> Markup {
    let Some(last) = densities.columns.last() else {
        return html! { p.soft { "The logs do not say." } };
    };
    let strip = HeatStrip {
        title: "Latents by density",
        counted: "latents",
        x_label: "tokens",
        y_label: "density: share of tokens on which a latent fires",
        bins: densities.bins(),
        apart: Some("never"),
        columns: densities.columns.clone(),
    };
    let histogram = Histogram {
        title: &format!("Histogram of latents by density at the end; {} never fired", last.apart),
        counted: "latents",
        x_label: "density: share of tokens on which a latent fires",
        bins: densities.bins(),
        counts: &last.counts,
        apart: Some(("never", last.apart)),
    };
    html! {
        div.charts {
            (chart("Over the run", "", &strip))
            (chart("At the end", &format!("at {} tokens", count(last.at as u64)), &histogram))
        }
        p.soft {
            "Each is of the tokens since the line of the logs before it: a latent that fires more rarely shows as \
             one that never does, and is not dead for that."
        }
    }
}

fn numbers(curves: &[Curve]) -> Markup {
    let row = |curve: &Curve| {
        let figure = |value: Option<f64>| format_figure(value).render();
        let (lowest, highest) = (curve.values().reduce(f64::min), curve.values().reduce(f64::max));
        let ends = [curve.values().next(), lowest, highest, curve.values().next_back()];
        std::iter::once(curve.name.render()).chain(ends.map(figure)).collect()
    };
    let head = vec!["field", "first", "lowest", "highest", "last"];
    Table { head, numbers_from: 1, rows: curves.iter().map(row).collect() }.render()
}

fn provenance(manifest: &Manifest) -> Markup {
    let rows = [
        ("monosema", manifest.monosema.render()),
        ("device", manifest.device.render()),
        ("seed", manifest.work.seed.0.render()),
    ];
    let inputs =
        manifest.work.inputs.iter().map(|(role, input)| {
            (role.as_str(), html! { (input.name) br; "sha256 " code { (input.sha256) } })
        });
    facts(rows.into_iter().chain(inputs))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use monosema_core::{Seed, Stage, manifest::Work};
    use serde_json::json;

    use super::*;

    fn manifest() -> Manifest {
        let config = json!({ "schedule": { "lr": 0.001 }, "recipe": "<b>" });
        let work = Work { stage: Stage::Train, config, seed: Seed(7), inputs: BTreeMap::new() };
        let (counts, files) = (BTreeMap::new(), BTreeMap::new());
        Manifest { schema: 2, monosema: "0.1.0".into(), device: "cpu".into(), work, counts, files }
    }

    fn whole(curves: &[Curve], densities: &Densities, warnings: &[String]) -> String {
        page(&Training {
            hook: "blocks.0.hook_resid_post",
            d_in: 4,
            d_sae: 8,
            architecture: "top_k",
            recipe: "<b>",
            curves,
            densities,
            warnings,
            manifest: &manifest(),
        })
    }

    #[test]
    fn every_number_of_the_records_is_a_curve() {
        let records = [
            json!({ "step": 1, "tokens": 10, "loss": 4.0, "penalty": 3.0, "sparsity": 0.5, "dead_share": null }),
            json!({ "step": 2, "tokens": 20, "loss": 2.0, "penalty": 1.0, "sparsity": 2.0, "k": 5, "words": "x" }),
        ];
        let curves = curves(&records);
        let names: Vec<_> = curves.iter().map(|curve| curve.name.as_str()).collect();
        assert_eq!(names, ["loss", "penalty", "sparsity", "dead_share", "k", PENALTY_TERM]);
        assert_eq!(curves[0].points, [(10, 4.0), (20, 2.0)]);
        assert_eq!(curves[5].points, [(10, 1.5), (20, 2.0)]);
        assert!(curves[3].points.iter().all(|point| point.1.is_nan()) && curves[4].points[0].1.is_nan());
    }

    #[test]
    fn the_first_bin_holds_the_silent_ones() {
        let densities = Densities::new(&[(10, [3, 1, 0, 2, 5])], 2);
        assert_eq!(densities.log10_edges, [-2.0, -1.5, -1.0, -0.5, 0.0]);
        assert_eq!(densities.columns, [HeatColumn { at: 10.0, counts: vec![1, 0, 2, 5], apart: 3 }]);
    }

    #[test]
    fn the_page_shows_what_it_is_given() {
        let record = |tokens: u64| {
            json!({ "step": tokens, "tokens": tokens, "loss": 3.5, "mse": 3.5, "rest": 0.0, "l0": 2.0, "news": 1.0,
                "penalty": 0.0, "sparsity": 0.0, "fvu": 0.25, "dead_share": null })
        };
        let curves = curves(&[record(1000), record(2000)]);
        let densities = Densities::new(&[(1000, [1, 2, 5]), (2000, [0, 0, 8])], 1);
        let page = whole(&curves, &densities, &["<i>mind</i>".into()]);
        for there in [
            "<b>0.25000</b>",
            "<b>2,000</b>",
            "schedule.lr",
            "&lt;i&gt;mind",
            "&lt;b&gt;",
            "<b>news</b>",
            "<b>Loss and its terms</b>",
            "seed",
        ] {
            assert!(page.contains(there), "{there}");
        }
        // Terms that are 0 throughout, and a share that is never known, have no lines.
        for not_there in ["<i>", "<b>Penalty</b>", "coefficient λ</b>", "<b>Dead latents</b>", "NaN"] {
            assert!(!page.contains(not_there), "{not_there}");
        }
    }

    #[test]
    fn a_training_of_nothing_has_a_page() {
        let page = whole(&curves::<Value>(&[]), &Densities::default(), &[]);
        assert!(page.contains("The logs do not say.") && page.ends_with("</html>"), "{page}");
        let strange = [json!(null), json!({ "loss": 1.0 }), json!({ "tokens": 1, "loss": 1e300 })];
        assert!(!whole(&curves(&strange), &Densities::new(&[(0, [0_u64; 0])], 4), &[]).contains("NaN"));
    }
}
