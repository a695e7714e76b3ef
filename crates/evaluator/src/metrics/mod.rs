//! What is measured: families of figures, each one file and one line in [`families!`].
//!
//! A family keeps sums in f64, is fed blocks of tokens in any split, and is asked for its figures once, at
//! the end: a ratio is a ratio of sums over the whole set, never a mean of per-batch ratios. The sums of
//! several texts merge into those of all of them, so a pooled figure is exactly what one long text gives.
//!
//! Families know neither a model nor a dictionary, only numbers on the host.

mod spliced_sums;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use density::Histogram;

/// Figures by name. `None` is a figure that is not defined on this text (a ratio with denominator 0).
pub type Figures = BTreeMap<String, Option<f64>>;

/// Declares the modules of the families, [`Metrics`] that feeds them all, and [`definitions`].
macro_rules! families {
    ($($family:ident),* $(,)?) => {
        $(mod $family;)*

        /// The sums of every family over one set of tokens.
        #[derive(Clone, Debug)]
        pub(crate) struct Metrics {
            $($family: $family::Sums,)*
        }

        impl Metrics {
            /// Of no tokens yet, for a dictionary `[d_in, d_sae]`.
            pub(crate) fn new(shape: Shape) -> Self {
                Self { $($family: Family::new(shape),)* }
            }

            /// Counts a block of counted positions.
            pub(crate) fn add(&mut self, block: &Block<'_>) {
                block.check();
                $(self.$family.add(block);)*
            }

            /// Counts predictions made from counted positions.
            pub(crate) fn add_predictions(&mut self, predictions: &Predictions) {
                $(self.$family.add_predictions(predictions);)*
            }

            /// Counts what `other` counted.
            pub(crate) fn merge(&mut self, other: &Self) {
                $(self.$family.merge(&other.$family);)*
            }

            /// Every figure.
            pub(crate) fn figures(&self) -> Figures {
                let mut figures = Figures::new();
                $(insert(&mut figures, &self.$family);)*
                figures
            }
        }

        /// The definition of every figure, in the order in which reports show them.
        pub fn definitions() -> impl Iterator<Item = &'static Definition> {
            let all: &[&'static [Definition]] = &[$($family::Sums::DEFINITIONS,)*];
            all.iter().copied().flatten().collect::<Vec<_>>().into_iter()
        }
    };
}

families! {
    cross_entropy,
    divergence,
    agreement,
    sparsity,
    variance,
    reconstruction,
    shrinkage,
    density,
}

/// One figure: what it is called and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Definition {
    /// The key in `report.json`.
    pub name: &'static str,
    /// Its unit; empty for a pure number.
    pub unit: &'static str,
    /// Which way is up.
    pub better: Better,
    /// The formula; t runs over tokens, i over latents, d over dimensions.
    pub formula: &'static str,
    /// One line on what it tells, and where the definition comes from.
    pub meaning: &'static str,
}

/// Which values of a figure are better, everything else being equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Less is better.
    Lower,
    /// More is better.
    Higher,
    /// 1 is best.
    One,
    /// It describes; it does not judge.
    Neither,
}

impl Better {
    /// As a column of a table shows it.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Lower => "↓",
            Self::Higher => "↑",
            Self::One => "→1",
            Self::Neither => "",
        }
    }
}

/// Sizes of a dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Width of the activations.
    pub(crate) d_in: usize,
    /// Number of latents.
    pub(crate) d_sae: usize,
}

/// What the dictionary makes of `n` counted positions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block<'a> {
    /// Sizes of the dictionary.
    pub(crate) shape: Shape,
    /// Activations `[n, d_in]`.
    pub(crate) x: &'a [f32],
    /// Latents `[n, d_sae]`.
    pub(crate) acts: &'a [f32],
    /// Reconstructions `[n, d_in]`.
    pub(crate) x_hat: &'a [f32],
    /// The text's mean activation `[d_in]`, from a pass made before.
    pub(crate) mean: &'a [f64],
}

impl Block<'_> {
    fn check(&self) {
        let Shape { d_in, d_sae } = self.shape;
        let n = self.x.len() / d_in;
        assert_eq!(
            (self.x.len(), self.acts.len(), self.x_hat.len(), self.mean.len()),
            (n * d_in, n * d_sae, n * d_in, d_in),
            "x, acts, x_hat and mean must agree with {n} tokens of {:?}",
            self.shape
        );
    }

    /// Number of tokens.
    pub(crate) fn n(&self) -> usize {
        self.x.len() / self.shape.d_in
    }

    /// The rows `x_t`, `x_hat_t` of every token.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&[f32], &[f32])> {
        self.x.chunks_exact(self.shape.d_in).zip(self.x_hat.chunks_exact(self.shape.d_in))
    }
}

/// Losses of the predictions made from counted positions, one entry a prediction, in nats.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Predictions {
    /// Cross-entropy of the untouched model.
    pub(crate) clean: Vec<f64>,
    /// With the dictionary's reconstruction spliced in.
    pub(crate) sae: Spliced,
    /// With zero spliced in.
    pub(crate) zero: Spliced,
    /// With the text's mean activation spliced in.
    pub(crate) mean: Spliced,
}

impl Predictions {
    /// Whether every loss is a number.
    pub(crate) fn is_finite(&self) -> bool {
        let spliced = [&self.sae, &self.zero, &self.mean].into_iter().flat_map(|s| s.ce.iter().chain(&s.kl));
        self.clean.iter().chain(spliced).all(|loss| loss.is_finite())
    }
}

/// Losses with something spliced in.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Spliced {
    /// Cross-entropy.
    pub(crate) ce: Vec<f64>,
    /// KL(clean ‖ spliced) over the vocabulary.
    pub(crate) kl: Vec<f64>,
    /// 1 where the clean model's most probable token is the most probable one here too, else 0.
    pub(crate) top1: Vec<f64>,
}

/// A family of figures: its sums, fed in blocks.
pub(crate) trait Family: Sized {
    /// Its figures, in the order in which [`Family::values`] gives them.
    const DEFINITIONS: &'static [Definition];

    /// Of no tokens yet.
    fn new(shape: Shape) -> Self;

    /// Counts a block of tokens.
    fn add(&mut self, _block: &Block<'_>) {}

    /// Counts predictions.
    fn add_predictions(&mut self, _predictions: &Predictions) {}

    /// Counts what `other` counted.
    fn merge(&mut self, other: &Self);

    /// One value for each definition; not finite where it is not defined.
    fn values(&self) -> Vec<f64>;
}

fn insert<F: Family>(figures: &mut Figures, family: &F) {
    let values = family.values();
    assert_eq!(values.len(), F::DEFINITIONS.len(), "one value for each definition");
    for (definition, value) in F::DEFINITIONS.iter().zip(values) {
        figures.insert(definition.name.to_owned(), value.is_finite().then_some(value));
    }
}

impl Metrics {
    /// How often latents fire.
    pub(crate) fn histogram(&self) -> Histogram {
        self.density.histogram()
    }
}

/// ‖v‖².
fn square_norm(v: &[f32]) -> f64 {
    v.iter().map(|&v| f64::from(v) * f64::from(v)).sum()
}

/// ‖a − b‖².
fn square_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| {
            let difference = f64::from(a) - f64::from(b);
            difference * difference
        })
        .sum()
}

/// ⟨a, b⟩.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

#[cfg(test)]
mod tests;
