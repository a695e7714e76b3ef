//! Trade-offs: points with names, and the front of those that no other beats.

use maud::{Markup, Render, html};

use crate::{
    frame::{Axis, Frame, at, nothing, svg},
    front::{Better, pareto_front},
    labels,
    line::COLOURS,
    number::format_figure,
    scale::{Scale, drawable},
};

/// Longer names are cut.
const MOST_LETTERS: usize = 24;

/// Outlines around 0: groups differ without their colours too. Circle, square, triangle, diamond, and the last two on
/// their heads.
const SHAPES: [&str; COLOURS] = [
    "m-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0-7.2 0z",
    "m-3.3-3.3h6.6v6.6h-6.6z",
    "m0-4.2l4.2 7.4h-8.4z",
    "m0-4.6l4.6 4.6l-4.6 4.6l-4.6-4.6z",
    "m0 4.2l4.2-7.4h-8.4z",
    "m-4.2-1.4h2.8v-2.8h2.8v2.8h2.8v2.8h-2.8v2.8h-2.8v-2.8h-2.8z",
];

/// One point.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Mark<'a> {
    /// Its name.
    pub label: &'a str,
    /// What kind it is of; marks of a kind look alike. May be empty.
    pub group: &'a str,
    /// Its place.
    pub x: f64,
    /// Its place.
    pub y: f64,
}

/// Points, named where there is room; those on the front are filled and joined.
#[derive(Clone, Debug, PartialEq)]
pub struct Scatter<'a> {
    /// What it shows, for those who cannot see it.
    pub title: &'a str,
    /// The first good.
    pub x: Axis<'a>,
    /// The second good.
    pub y: Axis<'a>,
    /// Which way each is better.
    pub better: [Better; 2],
    /// The points. Those that are not finite are left out.
    pub marks: Vec<Mark<'a>>,
}

impl Render for Scatter<'_> {
    fn render(&self) -> Markup {
        let shown = || self.marks.iter().filter(|mark| drawable(mark.x) && drawable(mark.y));
        let x = Scale::of(self.x.spacing, shown().map(|mark| mark.x));
        let y = Scale::of(self.y.spacing, shown().map(|mark| mark.y));
        let Some(frame) = Frame::new([self.x, self.y], x, y).map(Frame::with_padded_x) else {
            return nothing(self.title);
        };
        let marks: Vec<(&Mark<'_>, (f64, f64))> =
            shown().filter_map(|mark| Some((mark, frame.place((mark.x, mark.y))?))).collect();
        let points: Vec<(f64, f64)> = marks.iter().map(|(mark, _)| (mark.x, mark.y)).collect();
        let front = pareto_front(&points, self.better);
        let groups = groups(&self.marks);
        let corners = |i: &usize| format!("{} {}", at(marks[*i].1.0), at(marks[*i].1.1));
        let joined = front.iter().map(corners).collect::<Vec<_>>().join("L");
        let contents = html! {
            (frame.draw())
            @if front.len() > 1 { path.front d=(format!("M{joined}")) {} }
            @for (i, (mark, place)) in marks.iter().enumerate() {
                (self.draw(mark, *place, &groups, front.contains(&i)))
            }
            (names(&frame, &marks, &front))
        };
        html! {
            @if groups.len() > 1 { (legend(&groups)) }
            (svg(crate::frame::HEIGHT, &self.description(marks.len(), front.len()), &contents))
        }
    }
}

impl Scatter<'_> {
    fn description(&self, marks: usize, front: usize) -> String {
        let Self { title, x, y, .. } = self;
        format!(
            "Scatter plot: {title}; {marks} points of {} and {}, {front} of them on the front",
            x.label, y.label
        )
    }

    fn draw(&self, mark: &Mark<'_>, (x, y): (f64, f64), groups: &[&str], on_front: bool) -> Markup {
        let group = groups.iter().position(|group| *group == mark.group).unwrap_or(0) % COLOURS;
        let colour = format!("s{group}");
        let fill = if on_front { "filled" } else { "hollow" };
        let figure = |value: f64| format_figure(Some(value));
        html! {
            path.mark.(fill).(colour) d=(format!("M{} {}{}", at(x), at(y), SHAPES[group])) {
                title {
                    (mark.label) @if !mark.group.is_empty() && mark.group != mark.label { " (" (mark.group) ")" }
                    "\n" (self.x.label) ": " (figure(mark.x)) "\n" (self.y.label) ": " (figure(mark.y))
                    @if on_front { "\non the front" }
                }
            }
        }
    }
}

/// In the order in which they come.
fn groups<'a>(marks: &[Mark<'a>]) -> Vec<&'a str> {
    let mut groups = Vec::new();
    for mark in marks {
        if !groups.contains(&mark.group) {
            groups.push(mark.group);
        }
    }
    groups
}

fn legend(groups: &[&str]) -> Markup {
    html! {
        div.legend aria-hidden="true" {
            @for (index, group) in groups.iter().enumerate() {
                @let colour = format!("s{}", index % COLOURS);
                span {
                    svg.key.small viewBox="0 0 10 10" {
                        path.mark.filled.(colour) d=(format!("M5 5{}", SHAPES[index % COLOURS])) {}
                    }
                    @if group.is_empty() { "other" } @else { (group) }
                }
            }
        }
    }
}

/// Names of the marks: those on the front choose first.
fn names(frame: &Frame<'_>, marks: &[(&Mark<'_>, (f64, f64))], front: &[usize]) -> Markup {
    let others = (0..marks.len()).filter(|i| !front.contains(i));
    let order: Vec<usize> = front.iter().copied().chain(others).collect();
    let name = |i: &usize| cut(marks[*i].0.label);
    let sizes: Vec<_> =
        order.iter().map(|i| (marks[*i].1.0, marks[*i].1.1, name(i).chars().count())).collect();
    let places = labels::place(&sizes, [frame.left, frame.top - 6.0, frame.right + 6.0, frame.bottom]);
    html! {
        @for (i, place) in order.iter().zip(places) {
            @if let Some(place) = place {
                text.name x=(at(place.x)) y=(at(place.y)) text-anchor=(place.anchor) { (name(i)) }
            }
        }
    }
}

fn cut(label: &str) -> String {
    if label.chars().count() <= MOST_LETTERS {
        return label.to_owned();
    }
    label.chars().take(MOST_LETTERS - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(marks: Vec<Mark<'_>>) -> String {
        let axis = |label| Axis { label, ..Axis::default() };
        let better = [Better::Lower; 2];
        Scatter { title: "L0 and FVU", x: axis("L0"), y: axis("FVU"), better, marks }.render().into_string()
    }

    fn mark(label: &'static str, x: f64, y: f64) -> Mark<'static> {
        Mark { label, group: "", x, y }
    }

    #[test]
    fn the_front_is_filled_and_joined() {
        let svg = draw(vec![mark("a", 10.0, 0.3), mark("b", 20.0, 0.2), mark("c", 30.0, 0.25)]);
        assert_eq!(svg.matches("mark filled").count(), 2);
        assert_eq!(svg.matches("mark hollow").count(), 1);
        // One line of two points, and no legend of one group.
        assert_eq!(
            svg.split(r#"class="front""#)
                .nth(1)
                .unwrap()
                .split("</path>")
                .next()
                .unwrap()
                .matches('L')
                .count(),
            1
        );
        assert!(
            svg.contains("<title>b\nL0: 20\nFVU: 0.20000\non the front</title>") && !svg.contains("legend")
        );
        assert!(svg.contains("3 points of L0 and FVU, 2 of them on the front"), "{svg}");
    }

    #[test]
    fn groups_differ_in_shape_and_names_are_escaped() {
        let marks = ["relu", "top_k", "<gated>"].map(|group| Mark { label: group, group, x: 1.0, y: 2.0 });
        let svg = draw(marks.to_vec());
        assert!(svg.contains("legend") && svg.contains("&lt;gated&gt;") && !svg.contains("<gated>"));
        assert!(SHAPES[..3].iter().all(|shape| svg.contains(shape)), "{svg}");
    }

    #[test]
    fn what_is_not_finite_is_left_out() {
        assert!(draw(vec![]).contains("no data"));
        assert!(draw(vec![mark("a", f64::NAN, 1.0), mark("b", 1.0, f64::INFINITY)]).contains("no data"));
        let svg = draw(vec![mark("a", f64::NAN, 1.0), mark("b", 1.0, 1.0)]);
        assert!(svg.contains("1 points") && !svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn long_names_are_cut_between_letters() {
        assert_eq!(cut("λ=1"), "λ=1");
        assert_eq!(cut(&"λ".repeat(30)), "λ".repeat(23) + "…");
    }
}
