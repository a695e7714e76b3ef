//! Does the dictionary have a latent for what is known to hold? Numbers alone: labels of tokens, values of units on them,
//! and what can be said of the two.
//!
//! A *class* is a value of a factor (`place` is `beach`), held against all other tokens, those included at which the factor
//! has no value. Whatever is chosen (a unit, its threshold, a probe, a set of latents) is chosen on the *fit* half of the documents and
//! judged on the *held-out* half: the best of 16,000 units on the tokens it was chosen on would be flattered by chance alone.
//!
//! Architecture invariant: no model, no dictionary, no text and no tensor comes in here.

mod absorption;
mod column;
mod k_sparse;
mod labels;
mod logistic;
mod principal;
mod reconstruction;
mod scores;
mod search;
mod spans;

pub(crate) use absorption::{Decoder, Firing, MIN_PROBE_F1, absorption};
pub(crate) use column::Column;
pub(crate) use k_sparse::{Activity, KSparse, mean_differences, split};
pub(crate) use labels::Labels;
pub(crate) use logistic::{Classes, Logistic, Rows, fit};
pub(crate) use principal::principal_directions;
pub(crate) use scores::{Detection, auroc, monosemanticity, same_value};
pub(crate) use search::{Found, Units, search};
pub(crate) use spans::{classes_of_tokens, parse_spans};
