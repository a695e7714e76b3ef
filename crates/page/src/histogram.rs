//! How many there are of each size.

use maud::{Markup, Render, html};

use crate::{
    frame::{HEIGHT, LETTER, WIDTH, anchor, nothing, svg},
    number::{power, tick_labels},
    scale::{Scale, Spacing, Tick, drawable},
};

const LEFT: f64 = 34.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 34.0;
/// Between the column that stands apart and the axis of the others.
const GAP: f64 = 14.0;

/// Neighbouring intervals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bins<'a> {
    /// Where they meet, rising; one more than there are bins.
    pub edges: &'a [f64],
    /// Whether the edges are logarithms (to base 10) of shares, and are to be shown as these.
    pub log10_share: bool,
}

impl Bins<'_> {
    /// How many; 0 if the edges are none.
    pub(crate) fn len(&self) -> usize {
        let rising = self.edges.windows(2).all(|pair| pair[0] < pair[1]);
        if rising && self.edges.iter().all(|&edge| drawable(edge)) {
            self.edges.len().saturating_sub(1)
        } else {
            0
        }
    }

    /// From the first edge at `from` to the last at `to`.
    pub(crate) fn scale(&self, from: f64, to: f64) -> Option<Scale> {
        Some(Scale::of(Spacing::Linear, self.edges.iter().copied())?.between(from, to))
    }

    /// What the axis shows: of logarithms whole ones, but no more than there is room for.
    pub(crate) fn ticks(&self, scale: &Scale) -> Vec<Tick> {
        if !self.log10_share {
            return scale.ticks(5);
        }
        let whole: Vec<f64> = self.edges.iter().copied().filter(|edge| edge.fract() == 0.0).collect();
        let stride = whole.len().div_ceil(8).max(1);
        // Backwards: if any are left out, not the largest share.
        let whole = whole.into_iter().rev().step_by(stride);
        let mut ticks: Vec<Tick> = whole
            .filter_map(|edge| Some(Tick { at: scale.place(edge)?, label: power(edge as i32) }))
            .collect();
        ticks.reverse();
        ticks
    }

    /// A bin in words.
    pub(crate) fn name(&self, bin: usize) -> String {
        let (low, high) = (self.edges[bin], self.edges[bin + 1]);
        if self.log10_share {
            format!("log10(density) from {low} to {high}")
        } else {
            format!("{low} to {high}")
        }
    }
}

/// Columns over bins.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram<'a> {
    /// What it shows, for those who cannot see it.
    pub title: &'a str,
    /// What is counted, in the plural.
    pub counted: &'a str,
    /// What the bins are bins of.
    pub x_label: &'a str,
    /// The bins.
    pub bins: Bins<'a>,
    /// How many are in each.
    pub counts: &'a [u64],
    /// A name for those in no bin, and how many these are: a column of its own at the left.
    pub apart: Option<(&'a str, u64)>,
}

impl Render for Histogram<'_> {
    fn render(&self) -> Markup {
        let bins = self.bins.len();
        if bins == 0 {
            return nothing(self.title);
        }
        let counts = &self.counts[..bins.min(self.counts.len())];
        let apart = self.apart.map(|(_, n)| n);
        let tallest = counts.iter().copied().chain(apart).chain([1]).max().expect("it holds 1");
        let floor = HEIGHT - BOTTOM;
        let y = |n: u64| floor - n as f64 / tallest as f64 * (floor - TOP);
        // The column apart is as wide as a bin of equal ones.
        let column = if apart.is_some() { (WIDTH - LEFT - GAP) / (bins + 1) as f64 } else { 0.0 };
        let start = LEFT + if apart.is_some() { column + GAP } else { 0.0 };
        let Some(x) = self.bins.scale(start, WIDTH) else { return nothing(self.title) };
        let bar = |left: f64, right: f64, n: u64, class: &str, title: String| {
            // Half a pixel of air on either side, but never less than half of a narrow column.
            let air = 0.5_f64.min((right - left) / 4.0);
            html! {
                rect.(class) x=(at2(left + air)) y=(at2(y(n))) width=(at2(right - left - 2.0 * air))
                    height=(at2(floor - y(n))) rx="1" { title { (title) } }
            }
        };
        let contents = html! {
            @for (tick, label) in count_ticks(tallest) {
                line.grid x1=(LEFT) x2=(WIDTH) y1=(at2(y(tick))) y2=(at2(y(tick))) {}
                text x=(LEFT - 4.0) y=(at2(y(tick) + 3.5)) text-anchor="end" { (label) }
            }
            @if let Some((name, n)) = self.apart {
                (bar(LEFT, LEFT + column, n, "dead", format!("{n} {name}")))
                text x=(at2(LEFT + column / 2.0)) y=(floor + 14.0) text-anchor="middle" { (name) }
            }
            @for (bin, &n) in counts.iter().enumerate() {
                @let edge = |edge: usize| x.place(self.bins.edges[edge]).unwrap_or(start);
                @let title = format!("{n} {} with {}", self.counted, self.bins.name(bin));
                (bar(edge(bin), edge(bin + 1), n, "alive", title))
            }
            @for tick in self.bins.ticks(&x).iter().filter(|tick| self.is_clear(tick, LEFT + column / 2.0)) {
                text x=(at2(tick.at)) y=(floor + 14.0) text-anchor=(anchor(tick)) { (tick.label) }
            }
            text x=(at2(f64::midpoint(start, WIDTH))) y=(HEIGHT - 4.0) text-anchor="middle" { (self.x_label) }
        };
        svg(HEIGHT, self.title, &contents)
    }
}

impl Histogram<'_> {
    /// Whether a tick's label is clear of the name, centred at `centre`, of the column apart. Letters are narrower than
    /// [`LETTER`] more often than not, so that touching by as much as half of one is being clear.
    fn is_clear(&self, tick: &Tick, centre: f64) -> bool {
        let half = |text: &str| LETTER * text.chars().count() as f64 / 2.0;
        self.apart.is_none_or(|(name, _)| tick.at - half(&tick.label) > centre + half(name) - LETTER / 2.0)
    }
}

/// Finer than elsewhere: columns are narrow, and their widths are compared by eye.
fn at2(coordinate: f64) -> String {
    format!("{coordinate:.2}")
}

/// Round counts from 0 to `tallest`, three to nine of them.
fn count_ticks(tallest: u64) -> Vec<(u64, String)> {
    let step = tick_step(tallest);
    let ticks: Vec<u64> = (0..=tallest / step).map(|i| i * step).collect();
    // In full while that fits into the margin.
    let labels = if tallest < 100_000 {
        ticks.iter().map(u64::to_string).collect()
    } else {
        tick_labels(&ticks.iter().map(|&n| n as f64).collect::<Vec<_>>())
    };
    ticks.into_iter().zip(labels).collect()
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

    fn draw(edges: &[f64], counts: &[u64], apart: Option<(&str, u64)>) -> String {
        let bins = Bins { edges, log10_share: true };
        let title = "Latents by density";
        Histogram { title, counted: "latents", x_label: "density", bins, counts, apart }
            .render()
            .into_string()
    }

    #[test]
    fn ticks_are_round_and_few() {
        for tallest in [1, 2, 3, 7, 10, 19, 100, 999, 4608, 65_536, 1_000_000, u64::MAX] {
            let step = tick_step(tallest);
            assert!((1..=9).contains(&(tallest / step)), "{tallest}: {step}");
            let first = step.to_string();
            assert!(matches!(&first[..1], "1" | "2" | "5") && first[1..].chars().all(|c| c == '0'), "{step}");
        }
        let labels: Vec<_> = count_ticks(1_000_000).into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["0", "0.2M", "0.4M", "0.6M", "0.8M", "1.0M"]);
    }

    #[test]
    fn columns_by_hand() {
        // Two bins and a column apart: (360 - 34 - 14) / 3 = 104 wide each, the tallest 200 - 34 - 14 = 152 high.
        let svg = draw(&[-2.0, -1.0, 0.0], &[4, 1], Some(("dead", 2)));
        assert!(svg.contains(r#"class="dead" x="34.50" y="90.00" width="103.00" height="76.00""#), "{svg}");
        assert!(
            svg.contains(r#"class="alive" x="152.50" y="14.00" width="103.00" height="152.00""#),
            "{svg}"
        );
        assert!(svg.contains("<title>1 latents with log10(density) from -1 to 0</title>"), "{svg}");
        assert!(
            ["1 %", "10 %", "100 %"].iter().all(|label| svg.contains(&format!(">{label}</text>"))),
            "{svg}"
        );
    }

    #[test]
    fn a_histogram_of_nothing_can_be_drawn() {
        let svg = draw(&[-0.25, 0.0], &[0], Some(("dead", 0)));
        assert!(svg.starts_with("<svg") && !svg.contains("NaN"), "{svg}");
        for edges in [&[][..], &[1.0], &[1.0, 1.0], &[f64::NAN, 1.0], &[f64::NEG_INFINITY, 0.0]] {
            assert!(draw(edges, &[], None).contains("no data"), "{edges:?}");
        }
        // Fewer or more counts than bins, and counts beyond f64's whole numbers.
        for counts in [&[][..], &[u64::MAX, 1, 2, 3]] {
            assert!(!draw(&[-1.0, 0.0], counts, None).contains("NaN"));
        }
    }

    #[test]
    fn bins_of_other_things_have_round_ticks() {
        let bins = Bins { edges: &[0.0, 0.5, 1.0], log10_share: false };
        let scale = bins.scale(0.0, 100.0).unwrap();
        let ticks: Vec<_> = bins.ticks(&scale).into_iter().map(|tick| tick.label).collect();
        assert_eq!(ticks, ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(bins.name(1), "0.5 to 1");
    }
}
