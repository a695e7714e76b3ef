//! Pictures for the HTML report: bars of cross-entropy, curves by position, and histograms.

use maud::{Markup, Render};
use monosema_page::{Axis, Bar, Bars, Bins, LineChart, Series, Tone};

use crate::metrics::{Curves, Figures, Histogram, TokenHistogram};

/// The cross-entropies as bars, in the order in which a reader compares them.
const BARS: [(&str, &str, Tone); 5] = [
    ("ce.clean", "clean", Tone::Neutral),
    ("ce.sae", "SAE", Tone::Accent),
    ("ce.mean", "mean", Tone::Pale),
    ("ce.resample", "resample", Tone::Pale),
    ("ce.zero", "zero", Tone::Pale),
];

/// Bars from 0 for one text; `longest` is the value that fills the width.
pub(crate) fn cross_entropy(figures: &Figures, longest: f64) -> Markup {
    let value = |name: &str| figures.get(name).copied().flatten();
    let bars = BARS.iter().map(|&(name, label, tone)| Bar { label, value: value(name), tone });
    // Ablations that were not asked for are not missed.
    let bars = bars.filter(|bar| bar.tone != Tone::Pale || bar.value.is_some()).collect();
    Bars { bars, longest }.render()
}

/// The longest bar that [`cross_entropy`] will have to draw for any of `texts`.
pub(crate) fn longest<'a>(texts: impl IntoIterator<Item = &'a Figures>) -> f64 {
    let values =
        texts.into_iter().flat_map(|figures| BARS.map(|(name, ..)| figures.get(name).copied().flatten()));
    values.flatten().fold(f64::MIN_POSITIVE, f64::max)
}

/// Latents by log10(density), the dead ones in a column of their own at the left.
pub(crate) fn density(histogram: &Histogram) -> Markup {
    monosema_page::Histogram {
        title: &format!("Histogram of latents by density; {} never fire", histogram.dead),
        counted: "latents",
        x_label: "density: share of tokens on which a latent fires",
        bins: Bins { edges: &histogram.log10_edges, log10_share: true },
        counts: &histogram.latents,
        apart: Some(("dead", histogram.dead)),
    }
    .render()
}

/// A curve's name and its values.
type Curve<'a> = (&'a str, &'a [Option<f64>]);

/// What changes along a window: what splicing costs, and what the dictionary does. Of what is not there is no picture.
pub(crate) fn by_position(curves: &Curves) -> Vec<(&'static str, Markup)> {
    let chart = |title: &'static str, label: &'static str, from_zero: bool, lines: &[Curve<'_>]| {
        let points = |values: &[Option<f64>]| {
            let points = curves.position.iter().zip(values);
            points.filter_map(|(&position, &value)| Some((position as f64, value?))).collect()
        };
        let series = lines.iter().map(|&(name, values)| Series { name, points: points(values) });
        let series: Vec<Series<'_>> = series.filter(|series| !series.points.is_empty()).collect();
        let x = Axis { label: "position in the window", ..Axis::default() };
        let y = Axis { label, from_zero, ..Axis::default() };
        (!series.is_empty()).then(|| (title, LineChart { title, x, y, series }.render()))
    };
    let Curves { l0, fvu, ce_clean, ce_sae, ce_mean, ce_resample, ce_zero, .. } = curves;
    let charts = [
        chart("Cross-entropy", "nats/token", false, &[("clean", ce_clean), ("SAE", ce_sae)]),
        chart(
            "Cross-entropy under ablation",
            "nats/token",
            false,
            &[("mean", ce_mean), ("resample", ce_resample), ("zero", ce_zero)],
        ),
        chart("Variance unexplained", "fvu", true, &[("fvu", fvu)]),
        chart("Active latents", "l0", true, &[("l0", l0)]),
    ];
    charts.into_iter().flatten().collect()
}

/// Tokens by how many latents are active.
pub(crate) fn l0(histogram: &TokenHistogram) -> Markup {
    tokens(histogram, "Histogram of tokens by L0", "l0: active latents", false)
}

/// Tokens by a norm, of which the histogram has the logarithms.
pub(crate) fn norms(histogram: &TokenHistogram, of: &str) -> Markup {
    tokens(histogram, &format!("Histogram of tokens by the norm of {of}"), &format!("‖{of}‖"), true)
}

fn tokens(histogram: &TokenHistogram, title: &str, x_label: &str, log10_share: bool) -> Markup {
    let bins = Bins { edges: &histogram.edges, log10_share };
    let apart = Some(("0", histogram.apart)).filter(|(_, n)| *n > 0);
    monosema_page::Histogram { title, counted: "tokens", x_label, bins, counts: &histogram.tokens, apart }
        .render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_of_nothing_can_be_drawn() {
        let empty = Histogram { tokens: 0, dead: 0, log10_edges: vec![-0.25, 0.0], latents: vec![0] };
        let svg = density(&empty).into_string();
        assert!(svg.starts_with("<svg") && !svg.contains("NaN"), "{svg}");
        assert!(by_position(&Curves::default()).is_empty());
        let at_one = Curves { position: vec![3], tokens: vec![1], fvu: vec![Some(0.5)], ..Curves::default() };
        let pictures = by_position(&at_one).into_iter().map(|(_, picture)| picture);
        assert_eq!(pictures.len(), 1);
        let empty = TokenHistogram::default();
        for picture in pictures.chain([l0(&empty), norms(&empty, "x")]) {
            assert!(!picture.into_string().contains("NaN"));
        }
    }
}
