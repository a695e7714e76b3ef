//! A histogram that changes: a strip of columns, the fuller a bin the darker (or, on dark ground, the brighter).

use maud::{Markup, Render, html};

use crate::{
    frame::{HEIGHT, LETTER, WIDTH, anchor, at, nothing, svg},
    histogram::Bins,
    number::short,
    scale::{Scale, Spacing, drawable},
};

/// More columns than these are averaged: each is some three pixels wide.
const MOST_COLUMNS: usize = 110;

/// Shades that are told apart.
const SHADES: u32 = 14;

const TOP: f64 = 20.0;
const BOTTOM: f64 = 34.0;
const RIGHT: f64 = 8.0;
/// Height of the row that stands apart, and its distance from the bins.
const APART: f64 = 9.0;
const GAP: f64 = 6.0;

/// A histogram at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeatColumn {
    /// When. The column reaches back to the one before.
    pub at: f64,
    /// How many are in each bin.
    pub counts: Vec<u64>,
    /// How many are in none.
    pub apart: u64,
}

/// Histograms over time.
#[derive(Clone, Debug, PartialEq)]
pub struct HeatStrip<'a> {
    /// What it shows, for those who cannot see it.
    pub title: &'a str,
    /// What is counted, in the plural.
    pub counted: &'a str,
    /// What time is measured in.
    pub x_label: &'a str,
    /// What the bins are bins of.
    pub y_label: &'a str,
    /// The bins, drawn from below.
    pub bins: Bins<'a>,
    /// A name for those in no bin: they have a row of their own, below.
    pub apart: Option<&'a str>,
    /// The histograms.
    pub columns: Vec<HeatColumn>,
}

/// Some histograms' mean, from one time to another.
#[derive(Debug, PartialEq)]
struct Span {
    from: f64,
    to: f64,
    counts: Vec<f64>,
    apart: f64,
}

impl Render for HeatStrip<'_> {
    fn render(&self) -> Markup {
        let bins = self.bins.len();
        let spans = spans(&self.columns, bins, MOST_COLUMNS);
        let floor = HEIGHT - BOTTOM - if self.apart.is_some() { APART + GAP } else { 0.0 };
        let ends = spans.iter().flat_map(|span| [span.from, span.to]);
        let (Some(x), Some(y), true) =
            (Scale::of(Spacing::Linear, ends), self.bins.scale(floor, TOP), bins > 0)
        else {
            return nothing(self.title);
        };
        let ticks = self.bins.ticks(&y);
        let names = ticks.iter().map(|tick| tick.label.as_str()).chain(self.apart);
        let left = 10.0 + LETTER * names.map(|name| name.chars().count()).max().unwrap_or(0) as f64;
        let x = x.between(left, WIDTH - RIGHT);
        let fullest = |part: &dyn Fn(&Span) -> f64| spans.iter().map(part).fold(0.0, f64::max);
        let fullest_bin = fullest(&|span| span.counts.iter().copied().fold(0.0, f64::max));
        let row = HEIGHT - BOTTOM - APART;
        let rows = (0..bins).filter_map(|bin| {
            let [low, high] = [self.bins.edges[bin], self.bins.edges[bin + 1]].map(|edge| y.place(edge));
            Some((high?, low?, bin))
        });
        let cells: Vec<_> = rows
            .flat_map(|(top, bottom, bin)| {
                runs(&spans, &x, |span| shade(span.counts[bin], fullest_bin))
                    .map(move |run| (top, bottom, run))
            })
            .collect();
        let apart: Vec<_> =
            runs(&spans, &x, |span| shade(span.apart, span.apart + span.counts.iter().sum::<f64>()))
                .map(|run| (row, row + APART, run))
                .collect();
        let contents = html! {
            rect.ground x=(at(left)) y=(TOP) width=(at(WIDTH - RIGHT - left)) height=(at(floor - TOP)) {}
            (shaded(&cells, "heat"))
            @for tick in &ticks {
                text x=(at(left - 4.0)) y=(at(tick.at + 3.5)) text-anchor="end" { (tick.label) }
            }
            @if let Some(name) = self.apart {
                rect.ground x=(at(left)) y=(at(row)) width=(at(WIDTH - RIGHT - left)) height=(APART) {}
                (shaded(&apart, "dead"))
                text x=(at(left - 4.0)) y=(at(row + APART - 1.0)) text-anchor="end" { (name) }
            }
            @for tick in x.ticks(5) {
                text x=(at(tick.at)) y=(at(HEIGHT - BOTTOM + 14.0)) text-anchor=(anchor(&tick)) { (tick.label) }
            }
            text x=(at(f64::midpoint(left, WIDTH))) y=(HEIGHT - 4.0) text-anchor="middle" { (self.x_label) }
            text x="2" y="10" { (self.y_label) }
            (self.tooltips(&spans, &x))
        };
        let description = format!("Heat map: {} over {}", self.title, self.x_label);
        html! {
            div.legend aria-hidden="true" {
                span { "0 " span.ramp {} " " (short(fullest_bin)) " " (self.counted) " in a bin, by the square root" }
            }
            (svg(HEIGHT, &description, &contents))
        }
    }
}

impl HeatStrip<'_> {
    fn tooltips(&self, spans: &[Span], x: &Scale) -> Markup {
        html! {
            @for span in spans {
                @if let (Some(from), Some(to)) = (x.place(span.from), x.place(span.to)) {
                    rect.hit x=(at(from)) y=(TOP) width=(at(to - from)) height=(at(HEIGHT - BOTTOM - TOP)) {
                        title {
                            (short(span.to)) " " (self.x_label)
                            @if let Some(bin) = median(&span.counts) { "\nmedian: " (self.bins.name(bin)) }
                            @if let Some(name) = self.apart { "\n" (name) ": " (short(span.apart)) }
                        }
                    }
                }
            }
        }
    }
}

/// What the columns cover, neighbours averaged until there are no more than `most`.
fn spans(columns: &[HeatColumn], bins: usize, most: usize) -> Vec<Span> {
    let mut columns: Vec<&HeatColumn> = columns.iter().filter(|column| drawable(column.at)).collect();
    columns.sort_by(|a, b| a.at.total_cmp(&b.at));
    let Some(first) = columns.first().map(|column| column.at) else { return Vec::new() };
    // What came before the first is as long as what came before the second, or begins at 0.
    let step = columns.get(1).map_or(first.abs(), |second| second.at - first);
    let mut from = if first >= 0.0 { (first - step).max(0.0) } else { first - step };
    let group = columns.len().div_ceil(most.max(1)).max(1);
    let mean = |columns: &[&HeatColumn], value: &dyn Fn(&HeatColumn) -> u64| {
        columns.iter().map(|column| value(column) as f64).sum::<f64>() / columns.len() as f64
    };
    let spans = columns.chunks(group).map(|columns| {
        let to = columns[columns.len() - 1].at;
        let count = |bin: usize| move |column: &HeatColumn| column.counts.get(bin).copied().unwrap_or(0);
        let counts = (0..bins).map(|bin| mean(columns, &count(bin))).collect();
        let span = Span { from, to, counts, apart: mean(columns, &|column| column.apart) };
        from = to;
        span
    });
    spans.collect()
}

/// From 0 for none to [`SHADES`] for all. The square root, so that a few are seen beside many.
fn shade(n: f64, all: f64) -> u32 {
    let share = (n / all).clamp(0.0, 1.0);
    // Nothing of nothing is no number, and no shade.
    let shade = (share.sqrt() * f64::from(SHADES)).ceil();
    if shade.is_finite() { shade as u32 } else { 0 }
}

/// Neighbours of one shade: where they begin and end, and it.
fn runs(spans: &[Span], x: &Scale, shade: impl Fn(&Span) -> u32) -> std::vec::IntoIter<(f64, f64, u32)> {
    let mut runs: Vec<(f64, f64, u32)> = Vec::new();
    for span in spans {
        let (Some(from), Some(to)) = (x.place(span.from), x.place(span.to)) else { continue };
        let shade = shade(span);
        match runs.last_mut() {
            Some(last) if last.2 == shade => last.1 = to,
            _ => runs.push((from, to, shade)),
        }
    }
    runs.into_iter()
}

/// One path a shade.
fn shaded(cells: &[(f64, f64, (f64, f64, u32))], class: &str) -> Markup {
    let path = |wanted: u32| {
        let cells = cells.iter().filter(|(.., (.., shade))| *shade == wanted);
        let draw = |&(top, bottom, (from, to, _)): &(f64, f64, (f64, f64, u32))| {
            format!("M{} {}H{}V{}H{}z", at(from), at(top), at(to), at(bottom), at(from))
        };
        cells.map(draw).collect::<String>()
    };
    html! {
        @for shade in 1..=SHADES {
            @let path = path(shade);
            @if !path.is_empty() {
                path.cell.(class) fill-opacity=(format!("{:.2}", f64::from(shade) / f64::from(SHADES))) d=(path) {}
            }
        }
    }
}

/// The bin that half of all are below or in.
fn median(counts: &[f64]) -> Option<usize> {
    let half = counts.iter().sum::<f64>() / 2.0;
    let mut below = 0.0;
    counts.iter().position(|n| {
        below += n;
        below >= half && half > 0.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(at: f64, counts: &[u64], apart: u64) -> HeatColumn {
        HeatColumn { at, counts: counts.to_vec(), apart }
    }

    fn draw(edges: &[f64], columns: Vec<HeatColumn>) -> String {
        HeatStrip {
            title: "Density",
            counted: "latents",
            x_label: "tokens",
            y_label: "share",
            bins: Bins { edges, log10_share: true },
            apart: Some("dead"),
            columns,
        }
        .render()
        .into_string()
    }

    #[test]
    fn columns_reach_back_and_are_averaged() {
        let columns = [column(20.0, &[4, 0], 1), column(10.0, &[2], 3), column(30.0, &[1, 9, 7], 0)];
        let span = |from, to, counts: [f64; 2], apart| Span { from, to, counts: counts.to_vec(), apart };
        assert_eq!(
            spans(&columns, 2, 3),
            [
                span(0.0, 10.0, [2.0, 0.0], 3.0),
                span(10.0, 20.0, [4.0, 0.0], 1.0),
                span(20.0, 30.0, [1.0, 9.0], 0.0)
            ]
        );
        assert_eq!(
            spans(&columns, 2, 2),
            [span(0.0, 20.0, [3.0, 0.0], 2.0), span(20.0, 30.0, [1.0, 9.0], 0.0)]
        );
        assert!(spans(&[], 2, 2).is_empty());
    }

    #[test]
    fn shades_and_medians_by_hand() {
        // √(1/49) · 14 = 2; the least that is not nothing is seen.
        assert_eq!([0.0, 1.0, 49.0, 1e-9].map(|n| shade(n, 49.0)), [0, 2, 14, 1]);
        assert_eq!((shade(0.0, 0.0), shade(f64::NAN, 1.0)), (0, 0));
        assert_eq!(median(&[1.0, 1.0, 3.0]), Some(2));
        assert_eq!(median(&[2.0, 1.0, 1.0]), Some(0));
        assert_eq!((median(&[0.0, 0.0]), median(&[])), (None, None));
    }

    #[test]
    fn equal_neighbours_are_one_cell() {
        // Labels of 4 letters ("10 %", "dead") but one of 5 ("100 %"): the plot begins at 10 + 5 · 5.9 = 39.5.
        let svg = draw(&[-1.0, 0.0], vec![column(1.0, &[5], 0), column(2.0, &[5], 0), column(3.0, &[0], 5)]);
        assert!(svg.contains(r#"d="M39.5 20H247.8V151H39.5z""#), "{svg}");
        assert!(
            svg.contains(r#"class="cell dead" fill-opacity="1.00" d="M247.8 157H352V166H247.8z""#),
            "{svg}"
        );
        assert!(
            svg.contains("<title>1 tokens\nmedian: log10(density) from -1 to 0\ndead: 0</title>"),
            "{svg}"
        );
    }

    #[test]
    fn nothing_can_be_drawn() {
        assert!(draw(&[-1.0, 0.0], vec![]).contains("no data"));
        assert!(draw(&[], vec![column(1.0, &[], 0)]).contains("no data"));
        assert!(draw(&[-1.0, 0.0], vec![column(f64::NAN, &[1], 0)]).contains("no data"));
        let svg = draw(&[-1.0, 0.0], vec![column(0.0, &[0], 0), column(0.0, &[], 0)]);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn a_long_run_makes_a_small_picture() {
        let edges: Vec<f64> = (-32..=0).map(|i| f64::from(i) / 4.0).collect();
        let column =
            |i: u64| HeatColumn { at: i as f64, counts: (0..32).map(|b| (i * b) % 97).collect(), apart: i };
        let svg = draw(&edges, (0..20_000).map(column).collect());
        assert!(svg.len() < 250_000, "{} bytes", svg.len());
    }
}
