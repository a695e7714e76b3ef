//! Pages that people read: one HTML file each, that needs nothing else.
//!
//! [`page`] is the skeleton with the style sheet; [`tiles`], [`facts`], [`Table`] and [`key_paths`] are parts of it; and
//! the charts are values that `maud` draws ([`maud::Render`]): [`LineChart`], [`Histogram`], [`HeatStrip`], [`Scatter`],
//! [`Bars`]. What comes out is for light and dark, for a desk and a phone, and loads nothing from anywhere.
//!
//! A number that is not finite is left out of a chart, and a chart of nothing says so: no input panics.
//!
//! Architecture invariant: this crate knows numbers and words, neither what they mean nor where they come from; no
//! script, and no tensor.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bars;
mod frame;
mod front;
mod heat;
mod histogram;
mod labels;
mod line;
mod number;
mod scale;
mod scatter;
mod skeleton;
mod table;
mod thin;

pub use bars::{Bar, Bars, Tone};
pub use frame::Axis;
pub use front::{Better, pareto_front};
pub use heat::{HeatColumn, HeatStrip};
pub use histogram::{Bins, Histogram};
pub use line::{LineChart, Series};
pub use number::{count, format_figure, short};
pub use scale::Spacing;
pub use scatter::{Mark, Scatter};
pub use skeleton::{chart, page, warnings};
pub use table::{Table, facts, key_paths, tiles};
