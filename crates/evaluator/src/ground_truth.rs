//! Whether the dictionary has latents for what labelled spans say: coverage, monosemanticity, absorption.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
};

use monosema_text::{Context, Corpus, Document, TextError, Tokenizer};

use crate::{
    absorbed,
    concepts::{Activity, Found, Labels, Units, classes_of_tokens, parse_spans, same_value, search},
    error::EvalError,
    findings::{ConceptsReport, LatentReport, UnitsReport, ValueReport, mean},
    labelled::ConceptsConfig,
    reading::{Halves, Reader, Window},
    units::{Directions, Latents, Neurons},
};

/// What was read of one labelled text: at each counted token what holds there, the activation, and the active latents.
pub(crate) struct Sample {
    pub(crate) labels: Labels,
    /// `[n, d_in]`.
    pub(crate) x: Vec<f32>,
    pub(crate) activity: Activity,
    documents: u64,
}

#[cfg(test)]
impl Sample {
    /// One that is made up.
    pub(crate) fn planted(labels: Labels, x: Vec<f32>, activity: Activity) -> Self {
        Self { labels, x, activity, documents: 0 }
    }
}

/// Measures the dictionary on one labelled text.
pub(crate) fn concepts(reader: &Reader<'_>, config: &ConceptsConfig) -> Result<ConceptsReport, EvalError> {
    let sample = read(reader, config)?;
    let least = usize::try_from(config.min_tokens).unwrap_or(usize::MAX);
    let labels = &sample.labels;
    let classes = labels.eligible(least);
    if classes.is_empty() {
        return Err(EvalError::NoConcept {
            name: config.name.clone(),
            tokens: labels.n() as u64,
            values: labels.classes().len() as u64,
            min_tokens: config.min_tokens,
        });
    }
    let (device, d_in) = (reader.device, reader.dictionary.d_in());
    let latents = Latents::new(&sample.activity);
    // Of a dictionary that is never active, too, the random one is.
    let density = sample.activity.mean_entries() / latents.count() as f64;
    let active_on = ((density * labels.n() as f64).round() as usize).max(1);
    let neurons = Neurons { x: &sample.x, d_in };
    let principal = Directions::principal(&sample.x, d_in, device)?;
    let random = Directions::random(&sample.x, d_in, latents.count(), active_on, reader.plan.seed, device);
    let sets: [(&str, &dyn Units); 4] =
        [("latents", &latents), ("neurons", &neurons), ("principal", &principal), ("random", &random)];
    let mut found: Vec<Set<'_>> = Vec::new();
    for (name, units) in sets {
        let (best, reconstruction_f1) = search(units, labels, &classes)?;
        found.push(Set { name, n_units: units.count(), best, reconstruction_f1 });
    }
    let absorption = absorbed::measure(reader, &sample, &classes)?;
    Ok(report(config, &sample, &classes, &found, absorption))
}

/// Reads the text, its labels, and what the model and the dictionary make of it.
fn read(reader: &Reader<'_>, config: &ConceptsConfig) -> Result<Sample, EvalError> {
    let in_text = |source| EvalError::Labelled { section: "concepts", name: config.name.clone(), source };
    let corpus = Corpus::open(&config.text()).and_then(Corpus::with_fields).map_err(in_text)?;
    let labels = RefCell::new(Labels::default());
    // Documents are tokenised some time before their windows come.
    let waiting = RefCell::new(HashMap::new());
    let documents = corpus.documents().map(|document| {
        let document = document?;
        let classes = classes_of(&document, &config.spans, reader.tokenizer, &mut labels.borrow_mut())?;
        waiting.borrow_mut().insert(document.id, classes.into_iter());
        Ok(document)
    });
    let mut halves = Halves::new(reader.plan.seed, &config.name);
    let mut x = Vec::new();
    let mut activity = Activity::new(reader.dictionary.d_sae());
    let mut documents_read = BTreeSet::new();
    let visit = |window: Window<'_>| {
        let mut waiting = waiting.borrow_mut();
        let mut labels = labels.borrow_mut();
        let of_window = classes_of_window(window.context, reader.plan.context.bos.is_some(), &mut waiting);
        for position in window.context.counted() {
            let document = window.context.documents[position];
            documents_read.insert(document);
            labels.push(&of_window[position], halves.is_held_out(document));
        }
        let last = window.context.documents.last().copied().unwrap_or(0);
        waiting.retain(|&document, _| document >= last);
        x.extend_from_slice(window.x);
        window.acts.iter().for_each(|acts| activity.push(acts.iter().copied()));
    };
    reader.read(documents, Some(config.tokens), &config.name, in_text, visit)?;
    Ok(Sample { labels: labels.into_inner(), x, activity, documents: documents_read.len() as u64 })
}

/// The classes of each token of `document`.
fn classes_of(
    document: &Document,
    field: &str,
    tokenizer: &Tokenizer,
    labels: &mut Labels,
) -> Result<Vec<Vec<u32>>, TextError> {
    let beside = document.beside.as_ref().expect("fields were asked for");
    let bad =
        |reason: String| TextError::BadLine { file: document.source.clone(), line: beside.line, reason };
    let Some(spans) = beside.fields.get(field) else {
        let others: Vec<_> = beside.fields.keys().map(|key| format!("`{key}`")).collect();
        let found = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
        return Err(bad(format!(
            "expected a field `{field}` beside the text, found {found}; name it with `spans`"
        )));
    };
    let n_characters = document.text.chars().count();
    let spans =
        parse_spans(spans, n_characters).map_err(|reason| bad(format!("field `{field}`: {reason}")))?;
    let encoding = tokenizer.inner().encode_char_offsets(document.text.as_str(), false);
    let encoding =
        encoding.map_err(|e| TextError::Tokenize { text: "text".into(), reason: e.to_string() })?;
    let ends: Vec<usize> = encoding.get_offsets().iter().map(|&(_, end)| end).collect();
    Ok(classes_of_tokens(&spans, &ends, labels))
}

/// The classes of each token of a window. `waiting` has for every document what is left of its tokens.
///
/// BOS stands at the beginning of a window and a separator behind the last token of a document; nothing is known of either. (A token alone
/// makes no window and is left out, but it can only be the last of its document.)
fn classes_of_window(
    context: &Context,
    begins_with_bos: bool,
    waiting: &mut HashMap<u64, std::vec::IntoIter<Vec<u32>>>,
) -> Vec<Vec<u32>> {
    let of_position = |(position, document): (usize, &u64)| {
        if position == 0 && begins_with_bos {
            return Vec::new();
        }
        waiting.get_mut(document).and_then(Iterator::next).unwrap_or_default()
    };
    context.documents.iter().enumerate().map(of_position).collect()
}

/// Units, and what was found of them.
struct Set<'a> {
    name: &'a str,
    n_units: usize,
    best: Vec<Found>,
    reconstruction_f1: f64,
}

fn report(
    config: &ConceptsConfig,
    sample: &Sample,
    classes: &[usize],
    sets: &[Set<'_>],
    absorption: Option<absorbed::Found>,
) -> ConceptsReport {
    let labels = &sample.labels;
    let (fit, held_out) = (labels.half(false), labels.half(true));
    let named = |class: usize| {
        let class = &labels.classes()[class];
        (labels.factors()[class.factor].clone(), class.value.clone())
    };
    let left_out = (0..labels.classes().len()).filter(|class| !classes.contains(class)).map(|class| {
        let (factor, value) = named(class);
        format!("{factor} = {value}")
    });
    let latents = &sets[0].best;
    let value_of = |(index, &class): (usize, &usize)| {
        let (factor, value) = named(class);
        let Found {
            unit, threshold, fit_f1, held_out: detection, monosemanticity, auroc_unit, auroc, ..
        } = latents[index];
        let share = held_out.positives(class) as f64 / held_out.n as f64;
        ValueReport {
            factor,
            value,
            held_out_tokens: held_out.positives(class) as u64,
            best: LatentReport {
                latent: unit as u64,
                threshold: threshold.is_finite().then_some(f64::from(threshold)),
                fit_f1,
                f1: detection.f1,
                precision: detection.precision,
                recall: detection.recall,
                monosemanticity,
            },
            auroc_latent: auroc_unit as u64,
            auroc,
            always_f1: 2.0 * share / (1.0 + share),
            same_value: same_value(labels, labels.classes()[class].factor, true),
            baseline_f1: sets[1..]
                .iter()
                .map(|set| (set.name.to_owned(), set.best[index].held_out.f1))
                .collect(),
            absorption: absorption.as_ref().and_then(|found| found.values[index].clone()),
        }
    };
    let values: Vec<ValueReport> = classes.iter().enumerate().map(value_of).collect();
    let units = sets.iter().map(|set| UnitsReport {
        name: set.name.to_owned(),
        n_units: set.n_units as u64,
        coverage_f1: mean(set.best.iter().map(|found| found.held_out.f1)),
        coverage_auroc: mean(set.best.iter().map(|found| found.auroc)),
        reconstruction_f1: set.reconstruction_f1,
        monosemanticity: mean(set.best.iter().filter_map(|found| found.monosemanticity)),
    });
    ConceptsReport {
        name: config.name.clone(),
        documents: sample.documents,
        fit_tokens: fit.n as u64,
        held_out_tokens: held_out.n as u64,
        min_tokens: config.min_tokens,
        left_out: left_out.collect(),
        units: units.collect(),
        always_f1: mean(values.iter().map(|value| value.always_f1)),
        same_value: mean(values.iter().filter_map(|value| value.same_value)),
        absorption: absorption.map(|found| found.summary),
        values,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_go_with_their_tokens_through_windows() {
        let classes = |numbers: &[u32]| numbers.iter().map(|&n| vec![n]).collect::<Vec<_>>().into_iter();
        let mut waiting = HashMap::from([(0, classes(&[1, 2, 3])), (1, classes(&[4, 5]))]);
        let window = |documents: &[u64]| Context { documents: documents.to_vec(), ..Context::default() };
        // <s> 1 2 | <s> 3 </s> 4 | <s> 5: BOS before the text, and a separator with the number of the document that it ends.
        let first = classes_of_window(&window(&[0, 0, 0]), true, &mut waiting);
        assert_eq!(first, [vec![], vec![1], vec![2]]);
        let second = classes_of_window(&window(&[0, 0, 0, 1]), true, &mut waiting);
        assert_eq!(second, [vec![], vec![3], vec![], vec![4]]);
        let third = classes_of_window(&window(&[1, 1]), true, &mut waiting);
        assert_eq!(third, [vec![], vec![5]]);
    }
}
