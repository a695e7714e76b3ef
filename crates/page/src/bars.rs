//! A few values side by side, as horizontal bars from 0.

use maud::{Markup, Render, html};

use crate::number::format_figure;

/// What a bar stands out for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// What others are compared with.
    Neutral,
    /// What it is all about.
    Accent,
    /// What gives the scale.
    Pale,
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Self::Neutral => "bar neutral",
            Self::Accent => "bar accent",
            Self::Pale => "bar pale",
        }
    }
}

/// One value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bar<'a> {
    /// Its name, a few letters.
    pub label: &'a str,
    /// What it is, if it is known.
    pub value: Option<f64>,
    /// How it looks.
    pub tone: Tone,
}

/// Bars on one scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Bars<'a> {
    /// From above.
    pub bars: Vec<Bar<'a>>,
    /// The value that fills the width: several charts may share it.
    pub longest: f64,
}

impl Render for Bars<'_> {
    fn render(&self) -> Markup {
        html! {
            div.bars {
                @for bar in &self.bars {
                    span.label { (bar.label) }
                    span.track {
                        span class=(bar.tone.class()) style=(format!("width:{:.2}%", self.percent(bar.value))) {}
                    }
                    span.value { (format_figure(bar.value)) }
                }
            }
        }
    }
}

impl Bars<'_> {
    fn percent(&self, value: Option<f64>) -> f64 {
        let percent = value.unwrap_or(0.0) / self.longest * 100.0;
        // What is not a number has no length.
        if percent.is_nan() { 0.0 } else { percent.clamp(0.0, 100.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_by_hand() {
        let bars = Bars { bars: vec![], longest: 8.0 };
        let values = [Some(2.0), Some(8.0), Some(9.0), Some(-1.0), None, Some(f64::NAN), Some(f64::INFINITY)];
        assert_eq!(values.map(|value| bars.percent(value)), [25.0, 100.0, 100.0, 0.0, 0.0, 0.0, 100.0]);
        assert_eq!(Bars { bars: vec![], longest: 0.0 }.percent(Some(0.0)), 0.0);
    }

    #[test]
    fn words_are_escaped() {
        let bar = Bar { label: "<b>", value: None, tone: Tone::Accent };
        let html = Bars { bars: vec![bar], longest: 1.0 }.render().into_string();
        assert!(html.contains("&lt;b&gt;") && html.contains("bar accent") && html.contains("–"), "{html}");
    }
}
