//! Lines over a common axis: what changes while something else goes on.

use maud::{Markup, Render, html};

use crate::{
    frame::{Axis, Frame, at, nothing, svg},
    number::{format_figure, short},
    scale::{Scale, drawable},
    thin::thin,
};

/// Places at which a tooltip tells the values.
const TOOLTIPS: usize = 48;

/// So that lines differ without their colours too. The first of them is solid.
const DASHES: [&str; 5] = ["none", "6 3", "2 2.5", "9 3 2 3", "4 2"];

/// Colours that the style sheet has for series.
pub(crate) const COLOURS: usize = 6;

/// One line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series<'a> {
    /// What the legend calls it.
    pub name: &'a str,
    /// Its points. A value that is not finite is a gap.
    pub points: Vec<(f64, f64)>,
}

/// Up to some six lines.
#[derive(Clone, Debug, PartialEq)]
pub struct LineChart<'a> {
    /// What it shows, for those who cannot see it.
    pub title: &'a str,
    /// What goes on.
    pub x: Axis<'a>,
    /// What changes.
    pub y: Axis<'a>,
    /// The lines. With more than one there is a legend.
    pub series: Vec<Series<'a>>,
}

impl Render for LineChart<'_> {
    fn render(&self) -> Markup {
        let values = |part: fn(&(f64, f64)) -> f64| {
            self.series.iter().flat_map(|series| &series.points).filter(|point| shown(point)).map(part)
        };
        let scales = [Scale::of(self.x.spacing, values(|p| p.0)), Scale::of(self.y.spacing, values(|p| p.1))];
        let Some(frame) = Frame::new([self.x, self.y], scales[0], scales[1]) else {
            return nothing(self.title);
        };
        let sorted: Vec<Series<'_>> = self.series.iter().map(in_order).collect();
        let contents = html! {
            (frame.draw())
            @for (index, series) in sorted.iter().enumerate() { (curve(&frame, index, series)) }
            (tooltips(&frame, &sorted))
        };
        html! {
            @if self.series.len() > 1 { (legend(&self.series)) }
            (svg(crate::frame::HEIGHT, &self.description(), &contents))
        }
    }
}

impl LineChart<'_> {
    fn description(&self) -> String {
        let mut text = format!("Line chart: {} over {}", self.title, self.x.label);
        for series in &self.series {
            let mut points = series.points.iter().filter(|point| shown(point));
            if let Some(first) = points.next() {
                let last = points.next_back().unwrap_or(first);
                text += &format!("; {} from {} to {}", series.name, short(first.1), short(last.1));
            }
        }
        text
    }
}

fn shown((x, y): &(f64, f64)) -> bool {
    drawable(*x) && drawable(*y)
}

/// With points that rise in x, and without those that have none.
fn in_order<'a>(series: &Series<'a>) -> Series<'a> {
    let mut points: Vec<_> = series.points.iter().copied().filter(|&(x, _)| drawable(x)).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    Series { name: series.name, points }
}

/// The class of the colour of a series, and its dashes.
fn look(index: usize) -> (String, &'static str) {
    // Counted differently, so that thirty lines differ.
    (format!("s{}", index % COLOURS), DASHES[index % DASHES.len()])
}

fn curve(frame: &Frame<'_>, index: usize, series: &Series<'_>) -> Markup {
    let (class, dashes) = look(index);
    // Twice as fine as the picture's units: it may be shown larger than on a phone.
    let pieces = thin(series.points.iter().map(|&point| frame.place(point)), 0.5);
    let mut path = String::new();
    for piece in pieces {
        for (i, (x, y)) in piece.iter().enumerate() {
            path += if i == 0 { "M" } else { "L" };
            path += &format!("{} {}", at(*x), at(*y));
        }
        if piece.len() == 1 {
            // Round ends make a dot of it.
            path += "h0";
        }
    }
    html! { path.curve.(class) d=(path) stroke-dasharray=(dashes) {} }
}

fn legend(series: &[Series<'_>]) -> Markup {
    html! {
        div.legend aria-hidden="true" {
            @for (index, series) in series.iter().enumerate() {
                @let (class, dashes) = look(index);
                span {
                    svg.key viewBox="0 0 26 8" { path.curve.(class) d="M1 4L25 4" stroke-dasharray=(dashes) {} }
                    (series.name)
                }
            }
        }
    }
}

/// Strips that show, when pointed at, the values of all lines there.
fn tooltips(frame: &Frame<'_>, series: &[Series<'_>]) -> Markup {
    let Some(longest) = series.iter().max_by_key(|series| series.points.len()) else { return html! {} };
    let stride = longest.points.len().div_ceil(TOOLTIPS).max(1);
    // Backwards, so that the last one is among them.
    let mut places: Vec<f64> = longest.points.iter().rev().step_by(stride).map(|point| point.0).collect();
    places.reverse();
    places.dedup();
    let centres: Vec<f64> = places.iter().filter_map(|&x| frame.x.place(x)).collect();
    let strips = places.iter().filter(|&&x| frame.x.place(x).is_some()).enumerate();
    html! {
        @for (i, &x) in strips {
            @let start = if i == 0 { frame.left } else { f64::midpoint(centres[i - 1], centres[i]) };
            @let end = centres.get(i + 1).map_or(frame.right, |next| f64::midpoint(centres[i], *next));
            rect.hit x=(at(start)) y=(at(frame.top)) width=(at(end - start)) height=(at(frame.bottom - frame.top)) {
                title {
                    (short(x)) " " (frame.x_label())
                    @for series in series {
                        @let value = value_at(series, x);
                        @if value.is_some() { "\n" (series.name) " " (format_figure(value)) }
                    }
                }
            }
        }
    }
}

/// The value of a series at exactly `x`, if it has one there.
fn value_at(series: &Series<'_>, x: f64) -> Option<f64> {
    let place = series.points.binary_search_by(|point| point.0.total_cmp(&x)).ok()?;
    Some(series.points[place].1).filter(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale::Spacing;

    fn chart(series: Vec<Series<'static>>) -> String {
        let x = Axis { label: "tokens", ..Axis::default() };
        let y = Axis { label: "nats", spacing: Spacing::Log, from_zero: true };
        LineChart { title: "Loss", x, y, series }.render().into_string()
    }

    #[test]
    fn a_line_by_hand() {
        let x = Axis { label: "tokens", ..Axis::default() };
        let points = vec![(1.0, 100.0), (0.0, 0.0), (2.0, f64::NAN), (3.0, 50.0)];
        let series = vec![Series { name: "a", points }];
        let y = Axis { from_zero: true, ..Axis::default() };
        let svg = LineChart { title: "A", x, y, series }.render().into_string();
        // Three digits at most make the left margin 10 + 3 · 5.9; the plot is 20 to 166 high, up to 104 with padding.
        assert!(svg.contains(r#"d="M27.7 166L135.8 25.6M352 95.8h0""#), "{svg}");
        assert!(svg.contains("Line chart: A over tokens; a from 100 to 50"), "{svg}");
        assert!(svg.contains("<title>3 tokens\na 50</title>") && !svg.contains("legend"), "{svg}");
    }

    #[test]
    fn several_lines_have_a_legend_and_differ_in_more_than_colour() {
        let series = |name| Series { name, points: vec![(0.0, 1.0), (1.0, 2.0)] };
        let svg = chart(vec![series("mse"), series("<l1>")]);
        assert!(svg.contains("legend") && svg.contains("&lt;l1&gt;") && !svg.contains("<l1>"), "{svg}");
        assert!(svg.contains(r#"stroke-dasharray="6 3""#));
        let looks: std::collections::BTreeSet<_> = (0..30).map(look).collect();
        assert_eq!(looks.len(), 30);
    }

    #[test]
    fn nothing_to_show_is_said() {
        let not_finite = vec![(f64::NAN, 1.0), (1.0, f64::INFINITY), (f64::NEG_INFINITY, f64::NAN)];
        for series in [vec![], vec![Series::default()], vec![Series { name: "a", points: not_finite }]] {
            assert!(chart(series).contains("no data"));
        }
        // Of values without a logarithm a linear axis is made.
        let svg = chart(vec![Series { name: "a", points: vec![(1.0, 0.0), (2.0, -1.0)] }]);
        assert!(svg.contains("curve") && !svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn a_hundred_thousand_points_make_a_small_picture() {
        let points = (0..100_000).map(|i| (f64::from(i), f64::from(i % 977) + 1.0)).collect();
        let svg = chart(vec![Series { name: "a", points }]);
        assert!(svg.len() < 60_000, "{} bytes", svg.len());
        assert!(svg.matches("<title>").count() <= TOOLTIPS && svg.contains("<title>100k tokens"));
    }
}
