//! The page around its contents: one file that needs nothing else, in light and dark, on a desk or a phone.

use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub fn page(title: &str, contents: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · monosema" }
                style { (PreEscaped(STYLE)) }
            }
            body { (contents) }
        }
    };
    page.into_string()
}

/// What to know before believing the rest.
pub fn warnings(warnings: &[String]) -> Markup {
    html! { @for warning in warnings { p.warning { (warning) } } }
}

/// A chart on a card, under its name. Several of them in a `div.charts` stand side by side where there is room.
pub fn chart(name: &str, note: &str, chart: &impl maud::Render) -> Markup {
    html! {
        figure.card {
            figcaption { b { (name) } @if !note.is_empty() { " " span.soft { (note) } } }
            (chart)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_needs_nothing_else() {
        let page = page("<Title>", &html! { p { "x" } });
        assert!(
            page.starts_with("<!DOCTYPE html>") && page.contains("<title>&lt;Title&gt; · monosema</title>")
        );
        for outside in ["http", "url(", "@import", "<script", "<link", "src="] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    /// The value of a custom property in each scheme: light, dark.
    fn colours(name: &str) -> Vec<[f64; 3]> {
        let parse = |hex: &str| {
            let channel = |i: usize| f64::from(u8::from_str_radix(&hex[i..i + 2], 16).unwrap()) / 255.0;
            [channel(0), channel(2), channel(4)]
        };
        let marker = format!("--{name}: #");
        STYLE.split(&marker).skip(1).map(|rest| parse(&rest[..6])).collect()
    }

    /// Of WCAG 2.2.
    fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
        let linear = |c: f64| if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) };
        let luminance = |c: [f64; 3]| 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
        let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
        a.max(b) / a.min(b)
    }

    #[test]
    fn what_is_drawn_and_written_can_be_seen_in_both_schemes() {
        let cards = colours("card");
        assert_eq!(cards.len(), 2);
        // 3 : 1 for graphics and 4.5 : 1 for text, as WCAG asks for.
        let graphics =
            ["c0", "c1", "c2", "c3", "c4", "c5", "neutral", "dead", "heat"].map(|name| (name, 3.0));
        for (name, least) in graphics.into_iter().chain([("ink", 4.5), ("soft", 4.5)]) {
            let found = colours(name);
            assert_eq!(found.len(), 2, "{name}");
            for (colour, card) in found.into_iter().zip(&cards) {
                let contrast = contrast(colour, *card);
                assert!(contrast >= least, "--{name}: {contrast:.2}");
            }
        }
    }
}
