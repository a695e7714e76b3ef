//! Confidence intervals: what the figures would be on other documents like these.
//!
//! The bootstrap over documents, by percentiles (Efron and Tibshirani 1993, ch. 13; of clusters: Field and Welsh 2007). Tokens of a
//! document are alike, so resampling tokens would give intervals far too narrow. Every text is resampled by itself, as
//! many documents as it has, and each figure is computed from the resampled sums as it is from all of them: a ratio stays a ratio of
//! sums. The same seed draws the same documents whatever the dictionary is, so that two dictionaries can be compared.

use std::collections::BTreeMap;

use monosema_core::Seed;
use rand::Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Documents, Figures, Shape, Sums};

/// What share of resamples lies within an interval.
const LEVEL: f64 = 0.95;

/// Confidence intervals of figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intervals {
    /// Their level: 0.95.
    pub level: f64,
    /// How many resamples they are from.
    pub resamples: u32,
    /// How many documents were resampled; of texts of over 2,048, groups of neighbours.
    pub documents: u64,
    /// Both ends, by the figure's name. A figure that is not defined on every resample has none; neither have any of fewer than two
    /// documents.
    pub of: BTreeMap<String, [f64; 2]>,
}

impl Intervals {
    pub(super) fn new(texts: &[Documents], shape: Shape, resamples: u32, seed: Seed) -> Self {
        let texts: Vec<Vec<&Sums>> = texts.iter().map(|text| text.sums().collect()).collect();
        let documents = texts.iter().map(Vec::len).sum::<usize>();
        let resample = |number: u32| {
            let mut random = seed.stream(&format!("bootstrap {number}"));
            let mut sums = Sums::new(shape);
            for text in texts.iter().filter(|text| !text.is_empty()) {
                let mut times = vec![0; text.len()];
                (0..text.len()).for_each(|_| times[random.random_range(0..text.len())] += 1);
                text.iter().zip(times).for_each(|(document, times)| sums.merge(document, times));
            }
            sums.figures()
        };
        let enough = texts.iter().all(|text| text.len() != 1) && documents > 1;
        let drawn: Vec<Figures> =
            if enough { (0..resamples).into_par_iter().map(resample).collect() } else { Vec::new() };
        let names = drawn.first().into_iter().flat_map(Figures::keys);
        let of = names.filter_map(|name| Some((name.clone(), ends(&drawn, name)?))).collect();
        Self { level: LEVEL, resamples, documents: documents as u64, of }
    }
}

/// The sums of all documents of all texts.
pub(super) fn all(texts: &[Documents], shape: Shape) -> Sums {
    let mut sums = Sums::new(shape);
    texts.iter().flat_map(Documents::sums).for_each(|document| sums.merge(document, 1));
    sums
}

fn ends(drawn: &[Figures], name: &str) -> Option<[f64; 2]> {
    let mut values: Vec<f64> = drawn.iter().map(|figures| figures[name]).collect::<Option<_>>()?;
    values.sort_by(f64::total_cmp);
    Some([(1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0].map(|share| quantile(&values, share)))
}

/// Of sorted values, of which there is one at least; between two of them by linear interpolation.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}
