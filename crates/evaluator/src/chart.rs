//! Pictures for the HTML report: bars of cross-entropy, and the density histogram.

use maud::{Markup, Render};
use monosema_page::{Bar, Bars, Bins, Tone};

use crate::metrics::{Figures, Histogram};

/// The cross-entropies as bars, in the order in which a reader compares them.
const BARS: [(&str, &str, Tone); 4] = [
    ("ce.clean", "clean", Tone::Neutral),
    ("ce.sae", "SAE", Tone::Accent),
    ("ce.mean", "mean", Tone::Pale),
    ("ce.zero", "zero", Tone::Pale),
];

/// Bars from 0 for one text; `longest` is the value that fills the width.
pub(crate) fn cross_entropy(figures: &Figures, longest: f64) -> Markup {
    let value = |name: &str| figures.get(name).copied().flatten();
    let bars = BARS.map(|(name, label, tone)| Bar { label, value: value(name), tone });
    Bars { bars: bars.to_vec(), longest }.render()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_of_nothing_can_be_drawn() {
        let empty = Histogram { tokens: 0, dead: 0, log10_edges: vec![-0.25, 0.0], latents: vec![0] };
        let svg = density(&empty).into_string();
        assert!(svg.starts_with("<svg") && !svg.contains("NaN"), "{svg}");
    }
}
