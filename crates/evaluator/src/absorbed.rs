//! Absorption and splitting of what labelled spans say, measured on one sample.

use std::borrow::Cow;

use monosema_sae::{Normalization, SaeConfig, architecture::top_k::TopKConfig};
use rayon::prelude::*;

use crate::{
    concepts::{
        Classes, Decoder, Detection, Firing, Labels, Logistic, MIN_PROBE_F1, Rows, absorption, fit, split,
    },
    error::EvalError,
    findings::{AbsorptionReport, ValueAbsorption, mean},
    ground_truth::Sample,
    host,
    metrics::square_norm,
    reading::Reader,
};

/// Tokens of the fit half that a probe on activations is fitted on at most; as many as SAEBench's have.
const PROBE_TOKENS: usize = 4000;

/// What was found.
pub(crate) struct Found {
    /// For each class; `None` where the probe is not good enough.
    pub(crate) values: Vec<Option<ValueAbsorption>>,
    pub(crate) summary: AbsorptionReport,
}

/// Measures absorption of `classes`. `None` of a dictionary whose latents do not add up to what it reads: a transcoder, or one that normalises.
pub(crate) fn measure(
    reader: &Reader<'_>,
    sample: &Sample,
    classes: &[usize],
) -> Result<Option<Found>, EvalError> {
    let metadata = reader.dictionary.metadata();
    if metadata.hook_out.is_some() || metadata.normalization != Normalization::None {
        return Ok(None);
    }
    let weights = reader.dictionary.sae().to_weights();
    let w_dec = weights.iter().find(|(name, _)| *name == "W_dec");
    let Some(w_dec) = w_dec.and_then(|(_, data)| data.as_slice::<f32>().ok()) else { return Ok(None) };
    let w_dec = &written(&reader.dictionary.sae().config(), w_dec, reader.dictionary.d_in())[..];
    let (d_in, d_sae) = (reader.dictionary.d_in(), reader.dictionary.d_sae());
    let zeros = |width| host::tensor(vec![0.0; width], [1, width], reader.device);
    let b_dec = host::values(reader.dictionary.decode(zeros(d_sae), zeros(d_in)), "decoding nothing")?;
    let values: Vec<Option<ValueAbsorption>> =
        classes.par_iter().map(|&class| of_class(sample, class, w_dec, &b_dec)).collect();
    let judged = || values.iter().flatten();
    let summary = AbsorptionReport {
        values: judged().count() as u64,
        mean_fraction: mean(judged().map(|value| value.mean_fraction)),
        full_rate: mean(judged().map(|value| value.full_rate)),
        mean_latents: mean(judged().map(|value| value.latents.len() as f64)),
    };
    Ok(Some(Found { values, summary }))
}

/// What an activation of 1 adds to the reconstruction `[d_sae, d_in]`: the rows of W_dec, divided by their norms where decoding does
/// that.
fn written<'a>(config: &SaeConfig, w_dec: &'a [f32], d_in: usize) -> Cow<'a, [f32]> {
    let SaeConfig::TopK(TopKConfig { rescale_acts_by_decoder_norm: true, .. }) = config else {
        return Cow::Borrowed(w_dec);
    };
    let unit = |row: &[f32]| {
        let norm = square_norm(row).sqrt();
        row.iter().map(|&w| (f64::from(w) / norm) as f32).collect::<Vec<_>>()
    };
    Cow::Owned(w_dec.chunks_exact(d_in).flat_map(unit).collect())
}

fn of_class(sample: &Sample, class: usize, w_dec: &[f32], b_dec: &[f32]) -> Option<ValueAbsorption> {
    let Sample { labels, x, activity, .. } = sample;
    let d_in = b_dec.len();
    let row = |token: usize| x[token * d_in..(token + 1) * d_in].iter().map(|&x| f64::from(x));
    let probe = probe_on_activations(labels, class, d_in, row);
    let scores = |token: usize| probe.score(row(token));
    let held_out: Vec<(bool, bool, usize)> =
        labels.tokens(true).map(|token| (scores(token) > 0.0, labels.is(token, class), token)).collect();
    let probe_f1 = Detection::of(held_out.iter().map(|&(found, is, _)| (found, is))).f1;
    if probe_f1 <= MIN_PROBE_F1 {
        return None;
    }
    let fit_tokens: Vec<usize> = labels.tokens(false).collect();
    let positive: Vec<bool> = fit_tokens.iter().map(|&token| labels.is(token, class)).collect();
    let main = split(activity, &fit_tokens, &positive).units;
    let norm = probe.weights.iter().map(|w| w * w).sum::<f64>().sqrt();
    let direction: Vec<f64> = probe.weights.iter().map(|w| w / norm.max(f64::MIN_POSITIVE)).collect();
    let decoder = Decoder::new(w_dec, &direction);
    let offset: f64 = direction.iter().zip(b_dec).map(|(p, &b)| p * f64::from(b)).sum();
    let right = held_out.iter().filter(|(found, is, _)| *found && *is);
    let absorbed: Vec<_> = right
        .map(|&(_, _, token)| {
            let to_explain = direction.iter().zip(row(token)).map(|(p, x)| p * x).sum::<f64>() - offset;
            absorption(&decoder, &main, &Firing { acts: activity.of(token), to_explain })
        })
        .collect();
    Some(ValueAbsorption {
        probe_f1,
        latents: main.iter().map(|&latent| u64::from(latent)).collect(),
        probe_true_positives: absorbed.len() as u64,
        full_rate: mean(absorbed.iter().map(|found| f64::from(u8::from(found.full))))?,
        mean_fraction: mean(absorbed.iter().map(|found| found.fraction))?,
    })
}

/// A logistic regression on the activations of tokens of the fit half: of up to half of [`PROBE_TOKENS`] of the class, and others to make that
/// number, evenly spread over the text; both kinds weigh the same.
fn probe_on_activations<R: Iterator<Item = f64>>(
    labels: &Labels,
    class: usize,
    d_in: usize,
    row: impl Fn(usize) -> R,
) -> Logistic {
    let (positives, negatives): (Vec<usize>, Vec<usize>) =
        labels.tokens(false).partition(|&token| labels.is(token, class));
    let positives = spread(&positives, PROBE_TOKENS / 2);
    let negatives = spread(&negatives, PROBE_TOKENS - positives.len());
    let positive: Vec<bool> = positives.iter().map(|_| true).chain(negatives.iter().map(|_| false)).collect();
    let values = positives.into_iter().chain(negatives).flat_map(row).collect();
    fit(&Rows { width: d_in, values }, &positive, Classes::Balanced)
}

/// At most `most` of `tokens`, evenly spread.
fn spread(tokens: &[usize], most: usize) -> Vec<usize> {
    let n = tokens.len();
    if n <= most {
        return tokens.to_vec();
    }
    (0..most).map(|i| tokens[i * n / most]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_what_decoding_makes_of_them() {
        let config = |rescale_acts_by_decoder_norm| {
            SaeConfig::TopK(TopKConfig { rescale_acts_by_decoder_norm, ..TopKConfig::default() })
        };
        let rows = [0.0, 2.0, 3.0, 4.0];
        assert_eq!(*written(&config(false), &rows, 2), rows);
        assert_eq!(*written(&config(true), &rows, 2), [0.0, 1.0, 0.6, 0.8]);
        assert_eq!(*written(&SaeConfig::default(), &rows, 2), rows);
    }
    use crate::concepts::Activity;

    #[test]
    fn tokens_are_spread_evenly() {
        let tokens: Vec<usize> = (0..10).collect();
        assert_eq!(spread(&tokens, 4), [0, 2, 5, 7]);
        assert_eq!(spread(&tokens, 10), tokens);
    }

    /// A concept along the first of four dimensions; latent 0 stands for it, latents 1 to 3 for something else each. Where `absorbs` says so, a
    /// special case of the concept is read by latent 4, whose decoder row holds the concept's direction as well, and latent 0 is silent.
    fn sample(absorbs: bool) -> (Sample, Vec<f32>) {
        let mut labels = Labels::default();
        let (mut x, mut activity) = (Vec::new(), crate::concepts::Activity::new(5));
        let class = labels.number("f", "v");
        for token in 0..400_usize {
            let has = token % 4 == 0;
            let special = token % 8 == 0;
            labels.push(has.then_some(class).as_slice(), token / 40 % 2 == 1);
            let noise = 1 + (token * 7 % 3);
            let mut at = [0.0_f32; 4];
            let mut acts: Vec<(u32, f32)> = Vec::new();
            if has && special && absorbs {
                // Latent 4 writes the concept and the special case's own dimension.
                (at[0], at[3]) = (3.0, 1.0);
                acts.push((4, 1.0));
            } else if has {
                at[0] = 3.0;
                acts.push((0, 3.0));
            }
            at[noise] += 1.0;
            acts.push((noise as u32, 1.0));
            acts.sort_by_key(|&(latent, _)| latent);
            x.extend(at);
            activity.push(acts);
        }
        let rows = [
            [1.0, 0.0, 0.0, 0.0],
            [0.0, 1.0, 0.0, 0.0],
            [0.0, 0.0, 1.0, 0.0],
            [0.0, 0.0, 0.0, 1.0],
            [3.0, 0.0, 0.0, 1.0],
        ];
        (Sample::planted(labels, x, activity), rows.concat())
    }

    #[test]
    fn a_planted_concept_is_not_absorbed() {
        let (sample, w_dec) = sample(false);
        let found = of_class(&sample, 0, &w_dec, &[0.0; 4]).unwrap();
        assert_eq!((found.probe_f1, found.latents.as_slice()), (1.0, &[0][..]));
        assert_eq!((found.probe_true_positives, found.full_rate, found.mean_fraction), (50, 0.0, 0.0));
    }

    #[test]
    fn a_planted_absorption_shows() {
        let (sample, w_dec) = sample(true);
        let mut found = of_class(&sample, 0, &w_dec, &[0.0; 4]).unwrap();
        // k-sparse probing sees that latent 4 is needed too: the concept is split over both.
        found.latents.sort_unstable();
        assert_eq!((found.probe_f1, found.latents.as_slice()), (1.0, &[0, 4][..]));
        assert_eq!(found.full_rate, 0.0);
        // Where the special case is rarer than the F1 that a split has to gain, it is absorption.
        let mut labels = Labels::default();
        let class = labels.number("f", "v");
        let (mut x, mut activity) = (Vec::new(), Activity::new(5));
        for token in 0..4000_usize {
            let has = token % 4 == 0;
            let special = has && token / 4 % 25 == 0;
            labels.push(has.then_some(class).as_slice(), token / 400 % 2 == 1);
            match (has, special) {
                (_, true) => (x.extend([3.0, 0.0, 0.0, 1.0]), activity.push([(4, 1.0)])),
                (true, _) => (x.extend([3.0, 0.0, 0.0, 0.0]), activity.push([(0, 3.0)])),
                _ => (x.extend([0.0, 1.0, 0.0, 0.0]), activity.push([(1, 1.0)])),
            };
        }
        let found = of_class(&Sample::planted(labels, x, activity), 0, &w_dec, &[0.0; 4]).unwrap();
        assert_eq!((found.latents.as_slice(), found.probe_true_positives), (&[0][..], 500));
        assert!((found.full_rate - 20.0 / 500.0).abs() < 1e-12, "{found:?}");
        assert!((found.mean_fraction - 20.0 / 500.0).abs() < 1e-12, "{found:?}");
    }
}
