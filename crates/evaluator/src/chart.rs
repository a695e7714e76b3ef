//! Pictures for the HTML report: bars of cross-entropy, and the density histogram as inline SVG.

use maud::{Markup, html};

use crate::{
    metrics::{Figures, Histogram},
    report::format_figure,
};

/// The cross-entropies as bars, in the order in which a reader compares them.
const BARS: [(&str, &str, &str); 4] = [
    ("ce.clean", "clean", "bar clean"),
    ("ce.sae", "SAE", "bar sae"),
    ("ce.mean", "mean", "bar ablated"),
    ("ce.zero", "zero", "bar ablated"),
];

/// Bars from 0 for one text; `longest` is the value that fills the width.
pub(crate) fn cross_entropy(figures: &Figures, longest: f64) -> Markup {
    let value = |name: &str| figures.get(name).copied().flatten();
    html! {
        div.bars {
            @for (name, label, class) in BARS {
                span.label { (label) }
                span.track {
                    span class=(class) style=(format!("width:{:.2}%", value(name).unwrap_or(0.0) / longest * 100.0)) {}
                }
                span.value { (format_figure(value(name))) }
            }
        }
    }
}

/// The longest bar that [`cross_entropy`] will have to draw for any of `texts`.
pub(crate) fn longest<'a>(texts: impl IntoIterator<Item = &'a Figures>) -> f64 {
    let values =
        texts.into_iter().flat_map(|figures| BARS.map(|(name, ..)| figures.get(name).copied().flatten()));
    values.flatten().fold(f64::MIN_POSITIVE, f64::max)
}

// One SVG unit is one CSS pixel on a narrow phone, so that its text can be read there.
const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 34.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 34.0;
/// Between the column of dead latents and the axis of the others.
const GAP: f64 = 14.0;

/// Latents by log10(density), the dead ones in a column of their own at the left.
pub(crate) fn density(histogram: &Histogram) -> Markup {
    let bins = histogram.latents.len();
    let tallest = histogram.latents.iter().copied().chain([histogram.dead, 1]).max().expect("it holds 1");
    let step = tick_step(tallest);
    let floor = HEIGHT - BOTTOM;
    let y = |latents: u64| floor - latents as f64 / tallest as f64 * (floor - TOP);
    // The dead column is as wide as a bin.
    let column = (WIDTH - LEFT - GAP) / (bins + 1) as f64;
    let x = |bin: usize| LEFT + column + GAP + column * bin as f64;
    let bar = |left: f64, latents: u64, class: &str, title: String| {
        html! {
            rect class=(class) x=(format!("{:.2}", left + 0.5)) y=(format!("{:.2}", y(latents)))
                width=(format!("{:.2}", column - 1.0)) height=(format!("{:.2}", floor - y(latents))) rx="1" {
                title { (title) }
            }
        }
    };
    let edges = &histogram.log10_edges;
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img"
            aria-label=(format!("Histogram of latents by density; {} never fire", histogram.dead)) {
            @for tick in (0..=tallest).step_by(step as usize) {
                line.grid x1=(LEFT) x2=(WIDTH) y1=(format!("{:.2}", y(tick))) y2=(format!("{:.2}", y(tick))) {}
                text x=(LEFT - 4.0) y=(format!("{:.2}", y(tick) + 3.5)) text-anchor="end" { (tick) }
            }
            (bar(LEFT, histogram.dead, "dead", format!("{} dead", histogram.dead)))
            text x=(format!("{:.2}", LEFT + column / 2.0)) y=(floor + 14.0) text-anchor="middle" { "dead" }
            @for (bin, &latents) in histogram.latents.iter().enumerate() {
                (bar(x(bin), latents, "alive",
                    format!("{latents} latents with log10(density) from {} to {}", edges[bin], edges[bin + 1])))
            }
            @for (edge, log10) in edges.iter().enumerate().filter(|(_, log10)| log10.fract() == 0.0) {
                text x=(format!("{:.2}", x(edge))) y=(floor + 14.0) text-anchor=(if *log10 < 0.0 { "middle" } else { "end" }) {
                    (power(*log10 as i32))
                }
            }
            text x=(format!("{:.2}", f64::midpoint(x(0), WIDTH))) y=(HEIGHT - 4.0) text-anchor="middle" {
                "density: share of tokens on which a latent fires"
            }
        }
    }
}

/// A power of ten as an axis shows it.
fn power(exponent: i32) -> String {
    match exponent {
        0 => "100 %".into(),
        -1 => "10 %".into(),
        -2 => "1 %".into(),
        -3 => "0.1 %".into(),
        _ => format!("1e{exponent}"),
    }
}

/// A round step that puts three to six ticks below `tallest`.
fn tick_step(tallest: u64) -> u64 {
    let rough = (tallest / 4).max(1);
    let power = 10u64.pow(rough.ilog10());
    match rough / power {
        0 | 1 => power,
        2..=4 => 2 * power,
        _ => 5 * power,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        for tallest in [1, 2, 3, 7, 10, 19, 100, 999, 4608, 65_536, 1_000_000] {
            let step = tick_step(tallest);
            assert!((1..=9).contains(&(tallest / step)), "{tallest}: {step}");
            let first = step.to_string();
            assert!(matches!(&first[..1], "1" | "2" | "5") && first[1..].chars().all(|c| c == '0'), "{step}");
        }
    }

    #[test]
    fn a_histogram_of_nothing_can_be_drawn() {
        let empty = Histogram { tokens: 0, dead: 0, log10_edges: vec![-0.25, 0.0], latents: vec![0] };
        let svg = density(&empty).into_string();
        assert!(svg.starts_with("<svg") && !svg.contains("NaN"), "{svg}");
    }
}
