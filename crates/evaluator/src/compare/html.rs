//! `compare.html`: the comparison on one page that needs nothing else.

use std::collections::BTreeMap;

use maud::{Markup, Render, html};
use monosema_page::{Bar, Bars, Bins, Histogram, Table, Tone, chart, count, format_figure, tiles};

use crate::html::glossary;

use super::{
    Comparison, Pair, definitions::definitions, matching::Matching, nearest::CosineHistogram,
    splitting::Splitting,
};

/// What a reader looks for first, and what it is in plain words.
const HEADLINES: [(&str, &str); 4] = [
    ("mmcs.a_to_b", "mean max cosine, A to B"),
    ("match.both.shared", "of the pairs shared: read and write alike"),
    ("split.split", "of the smaller one's latents split"),
    ("split.novel", "of the larger one's latents are novel"),
];

/// Latents with so many children or more share a bar.
const MOST_CHILDREN: u64 = 8;

/// The whole page.
pub(super) fn page(comparison: &Comparison) -> String {
    let [first, rest @ ..] = comparison.dictionaries.as_slice() else {
        unreachable!("there are two at least")
    };
    let title = format!("{} dictionaries of {}", rest.len() + 1, first.hook);
    let contents = html! {
        h1 { (title) ", compared" }
        p.soft {
            "Two latents are as alike as the cosine between what they write, their rows of W_dec; above "
            (comparison.options.threshold) " they count as the same. Only weights were looked at, no activations."
        }
        (monosema_page::warnings(&comparison.warnings))
        @if let [pair] = comparison.pairs.as_slice() {
            (tiles(HEADLINES.map(|(name, words)| (format_figure(pair.figures.get(name).copied().flatten()), words))))
        }
        h2 { "Dictionaries" }
        (dictionaries(comparison))
        h2 { "Figures" }
        (figures(comparison))
        @for pair in &comparison.pairs {
            h2 { (pair.a) " and " (pair.b) }
            (charts(pair))
        }
        h2 { "Definitions" }
        p.soft {
            "i runs over the latents of A, j over those of B; d are rows of W_dec and e columns of W_enc; θ = "
            (comparison.options.threshold) ". Cosines with the nearest latent, and of pairs, are computed in f64."
        }
        (glossary(definitions().iter()))
        p.soft { "Made by monosema " (comparison.monosema) " in " (format!("{:.1}", comparison.seconds)) " s." }
    };
    monosema_page::page(&title, &contents)
}

fn dictionaries(comparison: &Comparison) -> Markup {
    let number = |n: usize| count(n as u64).render();
    let rows = comparison.dictionaries.iter().map(|dictionary| {
        vec![
            dictionary.name.render(),
            html! { span.breakable { (dictionary.path) } },
            html! { (dictionary.architecture["kind"].as_str().unwrap_or("unknown")) },
            html! { (dictionary.model.as_deref().unwrap_or("unknown")) },
            html! { code { (dictionary.hook) } },
            number(dictionary.d_sae),
            dictionary.dead.map_or_else(|| "–".render(), number),
            number(dictionary.zero),
            number(dictionary.compared),
        ]
    });
    let head = vec!["", "path", "architecture", "model", "hook", "latents", "dead", "zero", "compared"];
    Table { head, numbers_from: 5, rows: rows.collect() }.render()
}

fn figures(comparison: &Comparison) -> Markup {
    let names: Vec<String> = comparison.pairs.iter().map(Pair::name).collect();
    html! {
        div.scroll {
            table #figures {
                thead {
                    tr {
                        th { "figure" }
                        @for name in &names { th.number { (name) } }
                        th { "unit" }
                    }
                }
                tbody {
                    @for row in comparison.rows() {
                        tr {
                            th scope="row" title=(row.definition.meaning) { (row.definition.name) }
                            @for (name, &value) in names.iter().zip(&row.values) {
                                // The exact value beside the rounded one, so that the page can be read back.
                                td.number data-figure=(row.definition.name) data-pair=(name) data-value=[value] {
                                    (format_figure(value))
                                }
                            }
                            td.soft { (row.definition.unit) }
                        }
                    }
                }
            }
        }
    }
}

fn charts(pair: &Pair) -> Markup {
    let (a, b) = (&pair.a, &pair.b);
    let both = pair.matchings.as_ref().and_then(|matchings| matchings.both.as_ref());
    html! {
        div.charts {
            (nearest(a, b, &pair.a_to_b.histogram))
            (nearest(b, a, &pair.b_to_a.histogram))
            @if let Some(matchings) = &pair.matchings { (matched("decoders", &matchings.decoder)) }
            @if let Some(both) = both { (matched("encoders and decoders", both)) }
            (children(&pair.splitting))
        }
    }
}

fn nearest(from: &str, to: &str, histogram: &CosineHistogram) -> Markup {
    let title = format!("Latents of {from} by their nearest of {to}");
    let x_label = "cosine with the nearest latent";
    chart(&title, "", &cosines(&title, "latents", x_label, histogram))
}

fn matched(by: &str, matching: &Matching) -> Markup {
    let title = format!("Pairs, matched by {by}");
    let note = format!("{} pairs", count(matching.pairs as u64));
    let x_label = format!("cosine of {by}");
    chart(&title, &note, &cosines(&title, "pairs", &x_label, &matching.histogram))
}

fn cosines<'a>(
    title: &'a str,
    counted: &'a str,
    x_label: &'a str,
    histogram: &'a CosineHistogram,
) -> Histogram<'a> {
    let bins = Bins { edges: &histogram.edges, log10_share: false };
    let apart = Some(("< 0", histogram.negative));
    Histogram { title, counted, x_label, bins, counts: &histogram.latents, apart }
}

fn children(splitting: &Splitting) -> Markup {
    let Splitting { smaller, larger, parents, novel } = splitting;
    let mut bars: BTreeMap<u64, u64> = (0..=MOST_CHILDREN).map(|children| (children, 0)).collect();
    for (&children, latents) in parents {
        *bars.entry(children.min(MOST_CHILDREN)).or_default() += latents;
    }
    let label = |children: u64| {
        if children == MOST_CHILDREN { format!("≥ {children}") } else { children.to_string() }
    };
    let labels: Vec<String> = bars.keys().map(|&children| label(children)).collect();
    let bars: Vec<Bar<'_>> = labels
        .iter()
        .zip(bars.values())
        .map(|(label, &latents)| Bar { label, value: Some(latents as f64), tone: Tone::Accent })
        .collect();
    let longest = bars.iter().filter_map(|bar| bar.value).fold(1.0, f64::max);
    let title = format!("Latents of {smaller} by their number of children in {larger}");
    let note = format!("{} latents of {larger} are nobody's", count(*novel));
    chart(&title, &note, &Bars { bars, longest })
}
