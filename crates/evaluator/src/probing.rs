//! Sparse probing of labelled documents: how much of a class do the few most telling latents tell?
//!
//! Gurnee et al. 2023 (arXiv 2305.01610), as SAEBench does it: a document is the mean over its counted tokens; the k units whose means
//! differ most between the classes of the fit half are given to a logistic regression (L2, C = 1), which is judged on the held-out half. All activations, and
//! as many raw dimensions, show what there is to tell. Not as there: classes are not made equally large (a class's share is told), and a
//! third and further class are each held against all others.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use monosema_text::{Corpus, Document, TextError};
use serde_json::Value;

use crate::{
    concepts::{Activity, Classes, Detection, KSparse, Rows, auroc, fit, mean_differences},
    error::EvalError,
    findings::{ClassReport, ProbeReport, ProbesReport, mean},
    labelled::ProbesConfig,
    reading::{Halves, Reader, Window},
};

/// How many units probes read.
const KS: [usize; 3] = [1, 2, 5];

/// Documents of a class, and of others, that each half must have.
const MIN_DOCUMENTS: usize = 5;

/// Documents, each as the mean over its counted tokens.
struct Pooled {
    classes: Vec<String>,
    held_out: Vec<bool>,
    /// `[n, d_in]`.
    x: Rows,
    latents: Activity,
    neurons: Activity,
}

/// Measures the dictionary on one labelled text.
pub(crate) fn probes(reader: &Reader<'_>, config: &ProbesConfig) -> Result<ProbesReport, EvalError> {
    let pooled = read(reader, config)?;
    let names: BTreeSet<&String> = pooled.classes.iter().collect();
    let two = names.len() == 2;
    let (mut told, left_out): (Vec<&String>, Vec<&String>) =
        names.into_iter().partition(|name| pooled.tells(name));
    if two && told.len() == 2 {
        // Each is what the other is not: the later name (`true`, `1`) is the one to find.
        told.remove(0);
    }
    if told.is_empty() {
        return Err(EvalError::NoClass {
            name: config.name.clone(),
            field: config.label.clone(),
            documents: pooled.classes.len() as u64,
            classes: left_out.len() as u64,
            least: MIN_DOCUMENTS as u64,
        });
    }
    let classes: Vec<ClassReport> = told.into_iter().map(|name| pooled.class(name)).collect();
    let of_kind = |index: usize, of: fn(&ProbeReport) -> f64| {
        mean(classes.iter().map(|class| of(&class.probes[index]))).expect("there is a class")
    };
    let means = classes[0].probes.iter().enumerate().map(|(index, probe)| ProbeReport {
        units: Vec::new(),
        accuracy: of_kind(index, |probe| probe.accuracy),
        f1: of_kind(index, |probe| probe.f1),
        auroc: of_kind(index, |probe| probe.auroc),
        ..probe.clone()
    });
    Ok(ProbesReport {
        name: config.name.clone(),
        fit_documents: pooled.samples(false).len() as u64,
        held_out_documents: pooled.samples(true).len() as u64,
        left_out: left_out.into_iter().cloned().collect(),
        probes: means.collect(),
        classes,
    })
}

impl Pooled {
    /// The documents of one half.
    fn samples(&self, held_out: bool) -> Vec<usize> {
        (0..self.classes.len()).filter(|&document| self.held_out[document] == held_out).collect()
    }

    /// Which of `samples` are of a class.
    fn positive(&self, samples: &[usize], class: &str) -> Vec<bool> {
        samples.iter().map(|&document| self.classes[document] == class).collect()
    }

    /// Whether there is enough of a class, and of others, to tell them apart.
    fn tells(&self, class: &str) -> bool {
        [false, true].into_iter().all(|held_out| {
            let positive = self.positive(&self.samples(held_out), class);
            let n = positive.iter().filter(|&&positive| positive).count();
            n >= MIN_DOCUMENTS && positive.len() - n >= MIN_DOCUMENTS
        })
    }

    fn class(&self, class: &str) -> ClassReport {
        let (fitted, judged) = (self.samples(false), self.samples(true));
        let is_fitted = self.positive(&fitted, class);
        let is_judged = self.positive(&judged, class);
        let report = |on: &str, k: Option<usize>, units: &[u32], scores: &[f64]| {
            let right = scores.iter().zip(&is_judged).filter(|&(&score, &is)| (score > 0.0) == is).count();
            let detected = scores.iter().map(|&score| score > 0.0);
            ProbeReport {
                on: on.to_owned(),
                k: k.map(|k| k as u64),
                units: units.iter().map(|&unit| u64::from(unit)).collect(),
                accuracy: right as f64 / scores.len() as f64,
                f1: Detection::of(detected.zip(is_judged.iter().copied())).f1,
                auroc: auroc(scores, &is_judged).expect("a class is told only if both kinds are there"),
            }
        };
        let mut probes = Vec::new();
        for (on, activity) in [("latents", &self.latents), ("neurons", &self.neurons)] {
            let mut ranks = mean_differences(activity, &fitted, &is_fitted);
            ranks.iter_mut().for_each(|difference| *difference = difference.abs());
            for k in KS {
                let probe = KSparse::fit(activity, &fitted, &is_fitted, &ranks, k, Classes::AsTheyAre);
                probes.push(report(on, Some(k), &probe.units, &probe.scores(activity, &judged)));
            }
        }
        let width = self.x.width;
        let row = |document: usize| &self.x.values[document * width..(document + 1) * width];
        let values = fitted.iter().flat_map(|&document| row(document).iter().copied()).collect();
        let probe = fit(&Rows { width, values }, &is_fitted, Classes::AsTheyAre);
        let scores: Vec<f64> =
            judged.iter().map(|&document| probe.score(row(document).iter().copied())).collect();
        probes.push(report("activations", None, &[], &scores));
        let share = is_judged.iter().filter(|&&is| is).count() as f64 / judged.len() as f64;
        ClassReport { class: class.to_owned(), share, probes }
    }
}

/// Sums over the counted tokens of a document.
#[derive(Default)]
struct Sums {
    tokens: u64,
    x: Vec<f64>,
    acts: BTreeMap<u32, f64>,
}

/// Reads the documents, their classes, and what the model and the dictionary make of them.
fn read(reader: &Reader<'_>, config: &ProbesConfig) -> Result<Pooled, EvalError> {
    let in_text = |source| EvalError::Labelled { section: "probes", name: config.name.clone(), source };
    let corpus = Corpus::open(&config.text()).and_then(Corpus::with_fields).map_err(in_text)?;
    let names = RefCell::new(HashMap::new());
    let documents = corpus.documents().map(|document| {
        let document = document?;
        names.borrow_mut().insert(document.id, class_of(&document, &config.label)?);
        Ok(document)
    });
    let d_in = reader.dictionary.d_in();
    let mut sums: BTreeMap<u64, Sums> = BTreeMap::new();
    let visit = |window: Window<'_>| {
        let rows = window.x.chunks_exact(d_in).zip(window.acts);
        for (position, (x, acts)) in window.context.counted().zip(rows) {
            let of = sums.entry(window.context.documents[position]).or_default();
            of.tokens += 1;
            of.x.resize(d_in, 0.0);
            of.x.iter_mut().zip(x).for_each(|(sum, &x)| *sum += f64::from(x));
            acts.iter().for_each(|&(latent, act)| *of.acts.entry(latent).or_default() += f64::from(act));
        }
    };
    reader.read(documents, None, &config.name, in_text, visit)?;
    let mut names = names.into_inner();
    let mut halves = Halves::new(reader.plan.seed, &config.name);
    let mut pooled = Pooled {
        classes: Vec::new(),
        held_out: Vec::new(),
        x: Rows { width: d_in, values: Vec::new() },
        latents: Activity::new(reader.dictionary.d_sae()),
        neurons: Activity::new(d_in),
    };
    for (document, Sums { tokens, x, acts }) in sums {
        let n = tokens as f64;
        pooled.classes.push(names.remove(&document).expect("a document is read before its tokens"));
        pooled.held_out.push(halves.is_held_out(document));
        pooled.latents.push(acts.into_iter().map(|(latent, sum)| (latent, (sum / n) as f32)));
        pooled.neurons.push((0..).zip(x.iter().map(|sum| (sum / n) as f32)));
        pooled.x.values.extend(x.iter().map(|sum| sum / n));
    }
    Ok(pooled)
}

/// The class of a document.
fn class_of(document: &Document, field: &str) -> Result<String, TextError> {
    let beside = document.beside.as_ref().expect("fields were asked for");
    let bad =
        |reason: String| TextError::BadLine { file: document.source.clone(), line: beside.line, reason };
    match beside.fields.get(field) {
        Some(Value::String(class)) => Ok(class.clone()),
        Some(Value::Bool(class)) => Ok(class.to_string()),
        Some(Value::Number(class)) if class.is_i64() || class.is_u64() => Ok(class.to_string()),
        Some(other) => Err(bad(format!(
            "field `{field}`: expected a class: a string, a boolean or a whole number; found {other}"
        ))),
        None => {
            let others: Vec<_> = beside.fields.keys().map(|key| format!("`{key}`")).collect();
            let found = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
            Err(bad(format!(
                "expected a field `{field}` beside the text, found {found}; name it with `label`"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 200 documents; class `b` has latent 3 on, and dimension 1 a little higher among noise.
    fn pooled() -> Pooled {
        let mut pooled = Pooled {
            classes: Vec::new(),
            held_out: Vec::new(),
            x: Rows { width: 4, values: Vec::new() },
            latents: Activity::new(6),
            neurons: Activity::new(4),
        };
        for document in 0..200_usize {
            let is = document * 13 % 5 == 0;
            let noise = |i: usize| ((document * (7 + 5 * i) + 3 * i) % 17) as f64 / 17.0;
            let x = [noise(0), noise(1) + if is { 0.7 } else { 0.0 }, noise(2), noise(3)];
            pooled.classes.push(if is { "b" } else { "a" }.to_owned());
            pooled.held_out.push(document / 10 % 2 == 1);
            pooled.latents.push([(document as u32 % 3, 0.5)].into_iter().chain(is.then_some((3, 0.2))));
            pooled.neurons.push((0..).zip(x.map(|x| x as f32)));
            pooled.x.values.extend(x);
        }
        pooled
    }

    #[test]
    fn a_planted_latent_tells_all_and_a_dimension_some() {
        let report = pooled().class("b");
        let kinds: Vec<_> = report.probes.iter().map(|probe| (probe.on.as_str(), probe.k)).collect();
        let expected = [Some(1), Some(2), Some(5)];
        assert_eq!(kinds[..3], expected.map(|k| ("latents", k)));
        assert_eq!(
            kinds[3..],
            [("neurons", Some(1)), ("neurons", Some(2)), ("neurons", Some(5)), ("activations", None)]
        );
        assert!((report.share - 0.2).abs() < 1e-12);
        let [one, .., neuron, _, _, all] = &report.probes[..] else { panic!() };
        assert_eq!((one.units.as_slice(), one.auroc), (&[3][..], 1.0));
        assert_eq!(neuron.units, [1]);
        assert!(neuron.auroc > 0.9 && neuron.auroc < 1.0 && all.auroc > 0.9, "{report:?}");
        // C = 1 keeps a weight on a latent of 0.2 small: a probe that is less sure than the share says no.
        assert!(one.accuracy >= 0.8);
    }

    #[test]
    fn classes_need_documents_in_both_halves() {
        let mut pooled = pooled();
        assert!(pooled.tells("a") && pooled.tells("b") && !pooled.tells("c"));
        pooled
            .held_out
            .iter_mut()
            .zip(&pooled.classes)
            .for_each(|(held_out, class)| *held_out = class == "b");
        assert!(!pooled.tells("a") && !pooled.tells("b"));
    }
}
