//! `report.html`: the report on one page that needs nothing else, in light and dark, on a desk or a phone.

use maud::{Markup, Render, html};
use monosema_page::{Table, facts, tiles};
use serde_json::Value;

use crate::{
    chart,
    conventions::{Convention, ConventionFigure},
    dictionary::{DictionaryShape, WEIGHT_DEFINITIONS},
    findings_html,
    metrics::{Definition, Figures, Intervals, Spread, definitions},
    report::{Report, Tally, format_figure},
};

/// What a reader looks for first, and what it is in plain words.
const HEADLINES: [(&str, &str); 6] = [
    ("l0", "latents active for a token (l0)"),
    ("fvu", "of the variance unexplained (fvu)"),
    ("loss_recovered.zero", "of the loss recovered, against zero ablation"),
    ("loss_recovered.mean", "of the loss recovered, against mean ablation"),
    ("kl", "nats of divergence from the clean model (kl)"),
    ("top1", "of the predictions have the same first choice (top1)"),
];

/// With fewer, the percentiles of a bootstrap are known to be too near each other.
const FEW_DOCUMENTS: u64 = 30;

/// The whole page.
pub(crate) fn page(report: &Report) -> String {
    let title = format!("{} on {}", report.dictionary.shape.hook, report.model.info.name);
    let contents = html! {
        (header(report))
        (monosema_page::warnings(&report.warnings))
        (headlines(report))
        h2 { "Figures" }
        (figures(report))
        (intervals(report))
        h2 { "Cross-entropy, nats a token" }
        (cross_entropy(report))
        @for (&convention, theirs) in &report.conventions { (under(convention, report, theirs)) }
        h2 { "Along a window" }
        (by_position(report))
        h2 { "How often latents fire" }
        (density(report))
        h2 { "The weights" }
        (weights(report))
        h2 { "How tokens are spread" }
        (spread(report))
        (findings_html::concepts(&report.concepts))
        (findings_html::probes(&report.probes))
        h2 { "What counted" }
        (counted(report))
        h2 { "Definitions" }
        p.soft { "t runs over counted tokens, i over latents, d over dimensions; f are latents, x̂ reconstructions." }
        (glossary(definitions()))
        h2 { "Made from" }
        (provenance(report))
    };
    monosema_page::page(&title, &contents)
}

fn header(report: &Report) -> Markup {
    let DictionaryShape { hook, hook_out, d_in, d_sae } = report.dictionary.shape;
    let model = &report.model.info;
    html! {
        h1 { "A dictionary of " (d_sae) " latents for " (model.name) }
        p.soft {
            "It reads " code { (hook) }
            @if let Some(hook) = hook_out { " and gives " code { (hook) } }
            ", " (d_in) " dimensions, of a model of " (model.n_layers) " blocks and "
            (millions(model.n_parameters)) " million weights."
        }
    }
}

fn headlines(report: &Report) -> Markup {
    let tile = |(name, words): (&str, &str)| {
        let interval = report.intervals.of.get(name).map(|&interval| format!(", {}", range(interval)));
        (format_figure(report.figure(name)), format!("{words}{}", interval.unwrap_or_default()))
    };
    // Of an ablation that was not asked for there is nothing to say.
    let tiles_of: Vec<_> =
        HEADLINES.into_iter().filter(|(name, _)| report.figure(name).is_some()).map(tile).collect();
    tiles(tiles_of.iter().map(|(value, words)| (value.clone(), words.as_str())))
}

/// An interval in words.
pub(crate) fn range([low, high]: [f64; 2]) -> String {
    format!("{} to {}", format_figure(Some(low)), format_figure(Some(high)))
}

fn intervals(report: &Report) -> Markup {
    let Intervals { level, resamples, documents, ref of } = report.intervals;
    html! {
        p.soft {
            @if of.is_empty() {
                "No intervals: they need two documents of each text, and resamples (here " (resamples) ")."
            } @else {
                "In small print " (level * 100.0) " % confidence intervals: " (resamples) " resamples of " (documents)
                " documents, by percentiles."
                @if documents < FEW_DOCUMENTS { " So few documents make them rough, and rather too narrow." }
            }
        }
    }
}

fn figures(report: &Report) -> Markup {
    html! {
        div.scroll {
            table #figures {
                thead {
                    tr {
                        th { "figure" }
                        @for column in report.columns() { th.number { (column) } }
                        th { "better" }
                        th { "unit" }
                    }
                }
                tbody {
                    @for row in report.rows() {
                        tr {
                            th scope="row" title=(row.definition.meaning) { (row.definition.name) }
                            @for ((column, &value), interval) in report.columns().into_iter().zip(&row.values).zip(&row.intervals) {
                                // The exact value beside the rounded one, so that the page can be read back.
                                td.number data-figure=(row.definition.name) data-text=(column)
                                    data-value=[value] data-low=[interval.map(|ends| ends[0])]
                                    data-high=[interval.map(|ends| ends[1])] {
                                    (format_figure(value))
                                    @if let Some(interval) = interval { br; small.soft { (range(*interval)) } }
                                }
                            }
                            td { (row.definition.better.symbol()) }
                            td.soft { (row.definition.unit) }
                        }
                    }
                }
            }
        }
    }
}

fn cross_entropy(report: &Report) -> Markup {
    let longest = chart::longest(report.texts.iter().map(|text| &text.metrics));
    html! {
        div.card {
            @for text in &report.texts {
                h3 { (text.name) }
                (chart::cross_entropy(&text.metrics, longest))
            }
        }
    }
}

fn density(report: &Report) -> Markup {
    html! {
        div.card { (chart::density(&report.density)) }
        p.soft {
            "On " (report.density.tokens) " tokens of all texts together: a latent that fires more rarely than once in \
             so many may show as dead."
        }
    }
}

fn by_position(report: &Report) -> Markup {
    html! {
        div.charts {
            @for (name, chart) in chart::by_position(&report.by_position) { (monosema_page::chart(name, "", &chart)) }
        }
        p.soft { "Over all texts, at the positions that count; x̄ of the FVU is the mean of the token's text." }
    }
}

fn weights(report: &Report) -> Markup {
    let values = report.dictionary.weights.values();
    let row = |(definition, value): (&Definition, Option<f64>)| {
        let figure = html! { span title=(definition.meaning) { (definition.name) } };
        vec![figure, format_figure(value).render(), html! { code { (definition.formula) } }]
    };
    let rows = WEIGHT_DEFINITIONS.iter().zip(values).map(row).collect();
    Table { head: vec!["figure", "value", "formula"], numbers_from: 3, rows }.render()
}

fn spread(report: &Report) -> Markup {
    let Spread { l0, log10_norm_x, log10_norm_x_hat } = &report.spread;
    html! {
        div.charts {
            (monosema_page::chart("L0", "tokens by active latents", &chart::l0(l0)))
            (monosema_page::chart("‖x‖", "tokens by the norm of their activation", &chart::norms(log10_norm_x, "x")))
            (monosema_page::chart("‖x̂‖", "of its reconstruction", &chart::norms(log10_norm_x_hat, "x̂")))
        }
    }
}

fn under(convention: Convention, report: &Report, theirs: &Figures) -> Markup {
    let rows = convention.figures().map(|ConventionFigure { name, ours, formula, in_saebench }| {
        let value = theirs.get(*name).copied().flatten();
        let ours = ours.map_or(html! {}, |ours| {
            html! { (format_figure(report.figure(ours))) " " span.soft { (ours) } }
        });
        let theirs = in_saebench.filter(|_| convention == Convention::SaeBench).unwrap_or(formula);
        vec![name.render(), format_figure(value).render(), ours, html! { code { (theirs) } }]
    });
    let head = vec![convention.name(), "theirs", "ours", "their formula"];
    html! {
        h2 { "Under " (convention.name()) "'s convention" }
        p.soft {
            "What its own evaluation says of the same windows, computed here. M are all tokens but those that begin and end \
             texts: position 0 is in; ⟨·⟩ is the mean over M, ⟨·⟩_b over those of one batch."
        }
        (Table { head, numbers_from: 4, rows: rows.collect() })
    }
}

fn counted(report: &Report) -> Markup {
    let all = ("all", &report.counted.tally);
    let texts = report.texts.iter().map(|text| (text.name.as_str(), &text.tally));
    let columns: Vec<(&str, &Tally)> =
        if report.texts.len() == 1 { texts.collect() } else { std::iter::once(all).chain(texts).collect() };
    let labels = [
        "context windows",
        "positions in them",
        "counted",
        "predictions from them",
        "skipped: by position",
        "skipped: BOS",
        "skipped: other special token",
        "skipped: by token",
        "invalid UTF-8 sequences replaced",
        "NUL characters",
    ];
    let numbers = |tally: &Tally| {
        let Tally { contexts, positions, counted_tokens, predictions, .. } = *tally;
        let skipped = [tally.skipped_position, tally.skipped_bos, tally.skipped_special, tally.skipped_token];
        let all = [contexts, positions, counted_tokens, predictions].into_iter().chain(skipped);
        all.chain([tally.invalid_utf8, tally.nul]).collect::<Vec<_>>()
    };
    // What there is always; the rest only where there is any.
    let always = 4;
    let shown = |row: usize| row < always || columns.iter().any(|(_, tally)| numbers(tally)[row] > 0);
    let rows = labels.into_iter().enumerate().filter(|(row, _)| shown(*row)).map(|(row, label)| {
        let cells = columns.iter().map(|(_, tally)| numbers(tally)[row].render());
        std::iter::once(label.render()).chain(cells).collect()
    });
    let head = std::iter::once("").chain(columns.iter().map(|(name, _)| *name)).collect();
    let table = Table { head, numbers_from: 1, rows: rows.collect() };
    html! { p { (report.counted.rule) } (table) }
}

/// What figures are.
pub(crate) fn glossary<'a>(definitions: impl Iterator<Item = &'a Definition>) -> Markup {
    html! {
        dl {
            @for definition in definitions {
                div {
                    dt { (definition.name) @if !definition.unit.is_empty() { " " span.soft { (definition.unit) } } }
                    dd { code { (definition.formula) } (definition.meaning) " " span.soft { "Source: " (definition.source) "." } }
                }
            }
        }
    }
}

fn provenance(report: &Report) -> Markup {
    let manifest = &report.manifest;
    let dictionary = serde_json::to_value(&report.dictionary).expect("it has string keys only");
    let rows = [
        ("monosema", manifest.monosema.clone()),
        ("device", manifest.device.clone()),
        ("model read from", report.model.path.clone()),
        ("seed", manifest.work.seed.0.to_string()),
        (
            "time",
            format!(
                "{:.1} s, {:.0} counted tokens/s, {} dictionary(s) at once",
                report.timing.seconds, report.timing.tokens_per_second, report.timing.dictionaries
            ),
        ),
    ];
    let inputs =
        manifest.work.inputs.iter().map(|(role, input)| {
            (role.as_str(), html! { (input.name) br; "sha256 " code { (input.sha256) } })
        });
    let rows = rows.into_iter().map(|(name, value)| (name, value.render()));
    html! {
        (facts(rows.chain(inputs)))
        h3 { "Resolved configuration" }
        pre { (pretty(&manifest.work.config)) }
        h3 { "The dictionary" }
        pre { (pretty(&dictionary)) }
    }
}

fn millions(n: u64) -> String {
    format!("{:.1}", n as f64 / 1e6)
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("a JSON value serialises")
}
