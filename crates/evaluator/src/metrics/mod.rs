//! What is measured: families of figures, each one file and one line in [`families!`].
//!
//! A family keeps sums in f64, is fed blocks of tokens in any split, and is asked for its figures once, at
//! the end: a ratio is a ratio of sums over the whole set, never a mean of per-batch ratios. Most are kept by document,
//! which is what intervals are drawn from; the sums of documents and of several texts merge into those of all of them, so
//! that a pooled figure is exactly what one long text gives.
//!
//! Families know neither a model nor a dictionary, only numbers on the host.

mod bootstrap;
pub(crate) mod documents;
mod spliced_sums;

use std::{collections::BTreeMap, ops::Range};

use monosema_core::Seed;
use serde::{Deserialize, Serialize};

use self::documents::Documents;
use crate::positions::Token;

pub(crate) use monosema_transformer::Loss;

pub use bootstrap::Intervals;
pub use curves::Curves;
pub use density::Histogram;
pub use spread::{Spread, TokenHistogram};

/// Figures by name. `None` is a figure that is not defined on this text (a ratio with denominator 0), or that was not asked for.
pub type Figures = BTreeMap<String, Option<f64>>;

/// Declares the modules of the families, [`Sums`] of those whose figures have intervals, [`Metrics`] that feeds them all, and
/// [`definitions`].
macro_rules! families {
    (by document { $($family:ident),* $(,)? } whole { $($whole:ident),* $(,)? }) => {
        $(mod $family;)*
        $(mod $whole;)*

        /// The sums of the families that are kept by document, over one set of tokens.
        #[derive(Clone, Debug)]
        pub(crate) struct Sums {
            $($family: $family::Sums,)*
        }

        impl Sums {
            fn new(shape: Shape) -> Self {
                Self { $($family: Family::new(shape),)* }
            }

            fn add(&mut self, block: &Block<'_>) {
                $(self.$family.add(block);)*
            }

            fn add_predictions(&mut self, predictions: &[Prediction]) {
                $(self.$family.add_predictions(predictions);)*
            }

            fn merge(&mut self, other: &Self, times: u32) {
                $(self.$family.merge(&other.$family, times);)*
            }

            fn figures(&self) -> Figures {
                let mut figures = Figures::new();
                $(insert(&mut figures, &self.$family);)*
                figures
            }
        }

        /// Everything that is measured over one set of tokens.
        #[derive(Clone, Debug)]
        pub(crate) struct Metrics {
            shape: Shape,
            /// Of each text, its documents' sums.
            texts: Vec<Documents>,
            $($whole: $whole::Sums,)*
        }

        impl Metrics {
            /// Of no tokens of one text yet, for a dictionary `[d_in, d_sae]`.
            pub(crate) fn new(shape: Shape) -> Self {
                Self { shape, texts: vec![Documents::new(shape)], $($whole: Family::new(shape),)* }
            }

            /// Counts a block of counted positions.
            pub(crate) fn add(&mut self, block: &Block<'_>) {
                block.check();
                self.text().add(block);
                $(self.$whole.add(block);)*
            }

            /// Counts predictions made from counted positions.
            pub(crate) fn add_predictions(&mut self, predictions: &[Prediction]) {
                self.text().add_predictions(predictions);
                $(self.$whole.add_predictions(predictions);)*
            }

            /// Counts what `other` counted, of other texts.
            pub(crate) fn merge(&mut self, other: &Self) {
                self.texts.extend(other.texts.iter().cloned());
                $(self.$whole.merge(&other.$whole, 1);)*
            }

            /// Every figure.
            pub(crate) fn figures(&self) -> Figures {
                let mut figures = bootstrap::all(&self.texts, self.shape).figures();
                $(insert(&mut figures, &self.$whole);)*
                figures
            }
        }

        /// The definition of every figure, in the order in which reports show them.
        pub fn definitions() -> impl Iterator<Item = &'static Definition> {
            let all: &[&'static [Definition]] =
                &[$($family::Sums::DEFINITIONS,)* $($whole::Sums::DEFINITIONS,)*];
            all.iter().copied().flatten().collect::<Vec<_>>().into_iter()
        }
    };
}

families! {
    by document {
        cross_entropy,
        divergence,
        agreement,
        sparsity,
        variance,
        reconstruction,
        shrinkage,
    }
    whole {
        density,
        curves,
        spread,
    }
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
    /// One line on what it tells.
    pub meaning: &'static str,
    /// Where the definition comes from.
    pub source: &'static str,
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
    /// Which tokens they are `[n]`.
    pub(crate) tokens: &'a [Token],
}

impl<'a> Block<'a> {
    fn check(&self) {
        let Shape { d_in, d_sae } = self.shape;
        let n = self.n();
        assert_eq!(
            (self.x.len(), self.acts.len(), self.x_hat.len(), self.mean.len()),
            (n * d_in, n * d_sae, n * d_in, d_in),
            "x, acts, x_hat and mean must agree with {n} tokens of {:?}",
            self.shape
        );
    }

    /// Number of tokens.
    pub(crate) fn n(&self) -> usize {
        self.tokens.len()
    }

    /// The rows `x_t`, `x_hat_t` of every token.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&[f32], &[f32])> {
        self.x.chunks_exact(self.shape.d_in).zip(self.x_hat.chunks_exact(self.shape.d_in))
    }

    /// The rows `f_t` of every token.
    pub(crate) fn latents(&self) -> impl Iterator<Item = &[f32]> {
        self.acts.chunks_exact(self.shape.d_sae)
    }

    /// The tokens `range` of it.
    fn part(&self, range: Range<usize>) -> Block<'a> {
        let Shape { d_in, d_sae } = self.shape;
        let rows = |values: &'a [f32], width: usize| &values[range.start * width..range.end * width];
        Block {
            shape: self.shape,
            x: rows(self.x, d_in),
            acts: rows(self.acts, d_sae),
            x_hat: rows(self.x_hat, d_in),
            mean: self.mean,
            tokens: &self.tokens[range.clone()],
        }
    }
}

/// What is spliced in, in place of the activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Splice {
    /// The dictionary's reconstruction.
    Sae,
    /// Zero.
    Zero,
    /// The text's mean activation.
    Mean,
    /// The activation of another token of the text.
    Resample,
}

/// What is put in the place of activations to see what they were worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ablation {
    /// Zero.
    Zero,
    /// The text's mean activation.
    Mean,
    /// The activation of another token of the text.
    Resample,
}

impl Ablation {
    /// All, in their order.
    pub const ALL: [Self; 3] = [Self::Zero, Self::Mean, Self::Resample];
}

impl From<Ablation> for Splice {
    fn from(ablation: Ablation) -> Self {
        match ablation {
            Ablation::Zero => Self::Zero,
            Ablation::Mean => Self::Mean,
            Ablation::Resample => Self::Resample,
        }
    }
}

impl Splice {
    /// All, in the order in which arrays hold what belongs to each.
    pub(crate) const ALL: [Self; 4] = [Self::Sae, Self::Zero, Self::Mean, Self::Resample];
}

/// The losses of a prediction that was made from a counted position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Prediction {
    /// Which token it was made from.
    pub(crate) token: Token,
    /// Cross-entropy of the untouched model, in nats.
    pub(crate) clean: f64,
    /// With each [`Splice`]; none of one that was not asked for.
    pub(crate) spliced: [Option<Loss>; Splice::ALL.len()],
}

/// A family of figures: its sums, fed in blocks.
pub(crate) trait Family: Sized {
    /// Its figures, in the order in which [`Family::values`] gives them; none of one whose sums become a picture.
    const DEFINITIONS: &'static [Definition] = &[];

    /// Of no tokens yet.
    fn new(shape: Shape) -> Self;

    /// Counts a block of tokens.
    fn add(&mut self, _block: &Block<'_>) {}

    /// Counts predictions.
    fn add_predictions(&mut self, _predictions: &[Prediction]) {}

    /// Counts what `other` counted, so many times.
    fn merge(&mut self, other: &Self, times: u32);

    /// One value for each definition; not finite where it is not defined.
    fn values(&self) -> Vec<f64> {
        Vec::new()
    }
}

fn insert<F: Family>(figures: &mut Figures, family: &F) {
    let values = family.values();
    assert_eq!(values.len(), F::DEFINITIONS.len(), "one value for each definition");
    for (definition, value) in F::DEFINITIONS.iter().zip(values) {
        figures.insert(definition.name.to_owned(), value.is_finite().then_some(value));
    }
}

impl Metrics {
    /// The text that is being read.
    fn text(&mut self) -> &mut Documents {
        self.texts.last_mut().expect("there is one from the start")
    }

    /// The 95 % intervals of the figures that are kept by document.
    pub(crate) fn intervals(&self, resamples: u32, seed: Seed) -> Intervals {
        Intervals::new(&self.texts, self.shape, resamples, seed)
    }

    /// How often latents fire.
    pub(crate) fn histogram(&self) -> Histogram {
        self.density.histogram()
    }

    /// Figures by position.
    pub(crate) fn curves(&self) -> Curves {
        self.curves.curves()
    }

    /// Histograms over tokens.
    pub(crate) fn spread(&self) -> Spread {
        self.spread.spread()
    }
}

/// ‖v‖².
pub(crate) fn square_norm(v: &[f32]) -> f64 {
    v.iter().map(|&v| f64::from(v) * f64::from(v)).sum()
}

/// ‖a − b‖².
pub(crate) fn square_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| {
            let difference = f64::from(a) - f64::from(b);
            difference * difference
        })
        .sum()
}

/// ⟨a, b⟩.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

#[cfg(test)]
mod tests;
