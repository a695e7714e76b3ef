//! What all charts with two axes share: where the plot lies, its grid, ticks and the names of the axes.

use maud::{Markup, html};

use crate::scale::{Scale, Spacing, Tick};

// One SVG unit is one CSS pixel on a narrow phone, so that its text can be read there.
pub(crate) const WIDTH: f64 = 360.0;
pub(crate) const HEIGHT: f64 = 200.0;
const TOP: f64 = 20.0;
const RIGHT: f64 = 8.0;
const BOTTOM: f64 = 34.0;
/// A letter of the style sheet's 10 pixels, at most times.
pub(crate) const LETTER: f64 = 5.9;

/// What an axis shows, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Axis<'a> {
    /// What its values are, with their unit.
    pub label: &'a str,
    /// How they are spread.
    pub spacing: Spacing,
    /// Whether a linear axis begins at 0, whatever the values are.
    pub from_zero: bool,
}

/// The plot, and the scales within it.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) x: Scale,
    pub(crate) y: Scale,
    pub(crate) left: f64,
    pub(crate) right: f64,
    pub(crate) top: f64,
    pub(crate) bottom: f64,
    labels: [&'a str; 2],
    ticks: [Vec<Tick>; 2],
}

impl<'a> Frame<'a> {
    /// Around the scales of the values to show; `None` where there are none.
    pub(crate) fn new(axes: [Axis<'a>; 2], x: Option<Scale>, y: Option<Scale>) -> Option<Self> {
        let [x_axis, y_axis] = axes;
        let reaching = |scale: Scale, axis: Axis<'_>| if axis.from_zero { scale.with_zero() } else { scale };
        let [top, bottom] = [TOP, HEIGHT - BOTTOM];
        let y = reaching(y?, y_axis).padded().between(bottom, top);
        let y_ticks = y.ticks(4);
        let longest = y_ticks.iter().map(|tick| tick.label.chars().count()).max().unwrap_or(0);
        let (left, right) = (10.0 + LETTER * longest as f64, WIDTH - RIGHT);
        let x = reaching(x?, x_axis).between(left, right);
        let ticks = [x.ticks(5), y_ticks];
        Some(Self { x, y, left, right, top, bottom, labels: [x_axis.label, y_axis.label], ticks })
    }

    /// The same with room at the left and right end of the plot.
    pub(crate) fn with_padded_x(self) -> Self {
        let x = self.x.padded();
        let ticks = [x.ticks(5), self.ticks[1].clone()];
        Self { x, ticks, ..self }
    }

    /// The name of the x axis.
    pub(crate) fn x_label(&self) -> &str {
        self.labels[0]
    }

    /// Where a point lies, if it can be shown.
    pub(crate) fn place(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        Some((self.x.place(x)?, self.y.place(y)?))
    }

    /// Grid, ticks and names; the chart goes on top of it.
    pub(crate) fn draw(&self) -> Markup {
        let [x_ticks, y_ticks] = &self.ticks;
        html! {
            @for tick in y_ticks {
                line.grid x1=(at(self.left)) x2=(at(self.right)) y1=(at(tick.at)) y2=(at(tick.at)) {}
                text x=(at(self.left - 4.0)) y=(at(tick.at + 3.5)) text-anchor="end" { (tick.label) }
            }
            line.axis x1=(at(self.left)) x2=(at(self.right)) y1=(at(self.bottom)) y2=(at(self.bottom)) {}
            @for tick in x_ticks {
                line.axis x1=(at(tick.at)) x2=(at(tick.at)) y1=(at(self.bottom)) y2=(at(self.bottom + 3.0)) {}
                text x=(at(tick.at)) y=(at(self.bottom + 14.0)) text-anchor=(anchor(tick)) { (tick.label) }
            }
            text x=(at(f64::midpoint(self.left, self.right))) y=(at(HEIGHT - 4.0)) text-anchor="middle" {
                (self.labels[0])
            }
            text x="2" y="10" { (self.labels[1]) }
        }
    }
}

/// A label that would leave the picture in the middle of its tick ends there.
pub(crate) fn anchor(tick: &Tick) -> &'static str {
    let half = LETTER * tick.label.chars().count() as f64 / 2.0;
    if tick.at + half > WIDTH { "end" } else { "middle" }
}

/// A picture with the plot in it, described for those who cannot see it.
pub(crate) fn svg(height: f64, description: &str, contents: &Markup) -> Markup {
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {}", at(height))) role="img" aria-label=(description) { (contents) }
    }
}

/// In place of a chart of nothing.
pub(crate) fn nothing(description: &str) -> Markup {
    let text = html! { text x=(WIDTH / 2.0) y="30" text-anchor="middle" { "no data" } };
    svg(50.0, &format!("{description}: no data"), &text)
}

/// A coordinate in as few letters as a twentieth of a pixel needs.
pub(crate) fn at(coordinate: f64) -> String {
    let text = format!("{coordinate:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coordinates_are_short() {
        assert_eq!([0.0, 1.0, 1.26, 359.96].map(at), ["0", "1", "1.3", "360"]);
    }

    #[test]
    fn labels_are_within_the_picture() {
        let scale = Scale::of(Spacing::Linear, [0.0, 5e6]);
        let frame = Frame::new([Axis::default(); 2], scale, scale).unwrap();
        // "0M" to "5M" need 10 + 2 letters.
        assert!((frame.left - (10.0 + 2.0 * LETTER)).abs() < 1e-9);
        let middle = Tick { at: 100.0, label: "1M".into() };
        assert_eq!((anchor(&middle), anchor(&Tick { at: 352.0, ..middle.clone() })), ("middle", "middle"));
        assert_eq!(anchor(&Tick { at: 357.0, ..middle }), "end");
    }

    #[test]
    fn nothing_has_no_frame() {
        let scale = Scale::of(Spacing::Linear, [1.0]);
        assert!(Frame::new([Axis::default(); 2], scale, None).is_none());
        assert!(Frame::new([Axis::default(); 2], None, scale).is_none());
    }
}
