//! Labelled text: what is planted is found, at the tokens where it is, and what is wrong is named.

use std::{
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::{Int, Tensor, TensorData};
use monosema_core::HookPoint;
use monosema_evaluator::{ConceptsConfig, EvalConfig, EvalError, HTML_FILE, ProbesConfig, Report};
use monosema_sae::{Dictionary, Metadata, Sae, SaeConfig, Size};
use monosema_transformer::Capture;
use serde_json::{Value, json};

use crate::world::{D_MODEL, D_VOCAB, World, device, weights};

/// Tokens that labelled documents are made of: `<unk>`, `</s>` and the words 2 to 9.
const USED: usize = 10;

/// A dictionary with a latent for each of the used tokens, where tokens are embedded: 1 on that token and silent on every other used one.
fn of_words(world: &World) -> PathBuf {
    let hook: HookPoint = "hook_embed".parse().unwrap();
    let model = world.checkpoint().load(&device()).unwrap();
    let mut capture = Capture::new([hook]);
    let ids = TensorData::new((0..USED as i32).collect::<Vec<_>>(), [1, USED]);
    model.run(Tensor::<2, Int>::from_data(ids, &device()), &mut capture);
    let embedded: Vec<f32> = capture.take(hook).unwrap().into_data().try_into_vec().unwrap();
    let embedded: Vec<Vec<f64>> =
        embedded.chunks_exact(D_MODEL).map(|row| row.iter().map(|&v| f64::from(v)).collect()).collect();
    // What of a token's embedding no other one shares, so that it is 0 on those.
    let own: Vec<Vec<f64>> = (0..USED).map(|token| own_part(&embedded, token)).collect();
    let d_sae = D_VOCAB;
    let (mut enc, mut dec) = (vec![0.0; D_MODEL * d_sae], vec![0.0; d_sae * D_MODEL]);
    for (latent, own) in own.iter().enumerate() {
        let square = dot(own, own);
        for (d, &v) in own.iter().enumerate() {
            enc[d * d_sae + latent] = (2.0 * v / square) as f32;
            dec[latent * D_MODEL + d] = v as f32;
        }
    }
    let weights = weights(enc, vec![-1.0; d_sae], dec, vec![0.0; D_MODEL]);
    let sae = Sae::from_weights(&SaeConfig::default(), Size::new(D_MODEL, d_sae), weights, &device());
    let directory = world.path("words");
    fs::create_dir_all(&directory).unwrap();
    Dictionary::new(sae, Metadata::new(hook), None).save(&directory).unwrap();
    directory
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The part of one vector that is orthogonal to all others (Gram and Schmidt).
fn own_part(vectors: &[Vec<f64>], wanted: usize) -> Vec<f64> {
    let others = (0..vectors.len()).filter(|&other| other != wanted).chain([wanted]);
    let mut basis: Vec<Vec<f64>> = Vec::new();
    for index in others {
        let mut left = vectors[index].clone();
        for _ in 0..2 {
            for unit in &basis {
                let along = dot(unit, &left);
                left.iter_mut().zip(unit).for_each(|(left, unit)| *left -= along * unit);
            }
        }
        if index == wanted {
            return left;
        }
        let norm = dot(&left, &left).sqrt();
        basis.push(left.into_iter().map(|v| v / norm).collect());
    }
    unreachable!("the wanted one comes last")
}

/// Documents of words in an order that has no pattern, each word labelled with itself; `fruit` says whether `w2` is among them.
fn write_labelled(path: &Path, n_documents: u32) {
    let mut state = 7_u32;
    let mut random = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % below
    };
    let mut lines = String::new();
    for document in 0..n_documents {
        let fruit = random(2) == 0;
        // Words 2 to 9, the first of them only in half of the documents, and a character of two bytes here and there.
        let mut words: Vec<String> = (0..5 + random(9)).map(|_| format!("w{}", 3 + random(7))).collect();
        // Twice, because one of them may stand where tokens are not counted.
        for index in [0, 2] {
            words[index] = if fruit { "w2".into() } else { "w3".into() };
        }
        if document % 3 == 0 {
            words.insert(1, "né".into());
        }
        let (mut start, mut spans) = (0, Vec::new());
        for word in &words {
            let end = start + word.chars().count();
            if word != "né" {
                spans.push(json!([start, end, "word", word]));
            }
            start = end + 1;
        }
        let line = json!({ "story": words.join(" "), "spans": spans, "fruit": fruit, "half": 0.5 });
        lines += &format!("{line}\n");
    }
    fs::write(path, lines).unwrap();
}

fn config(world: &World) -> EvalConfig {
    let path = world.path("labelled.jsonl");
    if !path.exists() {
        write_labelled(&path, 160);
    }
    let (files, field) = (vec![path.display().to_string()], Some("story".to_owned()));
    let concepts = ConceptsConfig {
        name: "words".into(),
        files: files.clone(),
        field: field.clone(),
        spans: "spans".into(),
        tokens: 20_000,
        min_tokens: 20,
    };
    let probes =
        ProbesConfig { name: "fruit".into(), files, field, label: "fruit".into(), max_documents: 150 };
    EvalConfig { concepts: vec![concepts], probes: vec![probes], ..world.config() }
}

fn run(world: &World, config: &EvalConfig) -> Report {
    world.evaluate(config, &of_words(world))
}

#[test]
fn what_is_planted_is_found() {
    let world = World::new();
    let report = run(&world, &config(&world));
    let concepts = &report.concepts[0];
    assert_eq!((concepts.name.as_str(), concepts.documents), ("words", 160));
    assert!(concepts.fit_tokens > 500 && concepts.held_out_tokens > 500, "{concepts:?}");
    let [latents, neurons, principal, random] = &concepts.units[..] else { panic!("{:?}", concepts.units) };
    assert_eq!((latents.n_units, neurons.n_units, principal.n_units, random.n_units), (24, 32, 32, 24));
    let all = (latents.coverage_f1, latents.coverage_auroc, latents.monosemanticity);
    assert_eq!((all, latents.reconstruction_f1), ((Some(1.0), Some(1.0), Some(1.0)), 1.0));
    for others in [neurons, principal, random] {
        assert!((0.0..=1.0).contains(&others.coverage_f1.unwrap()), "{others:?}");
    }
    assert!(concepts.values.len() >= 7, "{concepts:?}");
    for value in &concepts.values {
        let word: u64 = value.value[1..].parse().unwrap();
        assert_eq!((value.best.latent, value.auroc_latent), (word, word));
        assert_eq!(value.absorption.as_ref().unwrap().latents, [word]);
    }
    let absorption = concepts.absorption.unwrap();
    assert_eq!(absorption.values, concepts.values.len() as u64);
    assert_eq!((absorption.full_rate, absorption.mean_latents), (Some(0.0), Some(1.0)));
}

#[test]
fn a_document_is_told_by_its_one_latent() {
    let world = World::new();
    let report = run(&world, &config(&world));
    let probes = &report.probes[0];
    assert_eq!((probes.fit_documents, probes.held_out_documents), (75, 75));
    let [class] = &probes.classes[..] else { panic!("{probes:?}") };
    assert_eq!(class.class, "true");
    let one = &class.probes[0];
    assert_eq!(
        (one.on.as_str(), one.k, one.units.as_slice(), one.auroc),
        ("latents", Some(1), &[2][..], 1.0)
    );
    assert_eq!(class.probes.len(), 7);
}

#[test]
fn batches_change_nothing_and_the_report_can_be_read_back() {
    let world = World::new();
    let config = config(&world);
    let report = run(&world, &config);
    assert_eq!(Report::read(&world.path("out")).unwrap(), report);
    let html = fs::read_to_string(world.path("out").join(HTML_FILE)).unwrap();
    for part in ["Labelled spans: words", "Sparse probes: fruit", "Karvonen", "word = w7"] {
        assert!(html.contains(part), "{part}");
    }
    assert!(report.manifest.work.inputs.contains_key("concepts words"));
    assert!(report.manifest.work.inputs.contains_key("probes fruit"));
    let one_by_one = run(&world, &EvalConfig { batch_contexts: Some(1), ..config.clone() });
    let close = |a: Option<f64>, b: Option<f64>| (a.unwrap() - b.unwrap()).abs() < 1e-9;
    for (a, b) in report.concepts[0].units.iter().zip(&one_by_one.concepts[0].units) {
        assert!(
            close(a.coverage_f1, b.coverage_f1) && close(a.coverage_auroc, b.coverage_auroc),
            "{a:?} {b:?}"
        );
    }
    assert_eq!(report.concepts[0].held_out_tokens, one_by_one.concepts[0].held_out_tokens);
    let lines = [report.concepts[0].lines(), report.probes[0].lines()].concat().join("\n");
    assert!(
        lines.contains("latents: coverage F1 1, AUROC 1; reconstruction 1; monosemanticity 1"),
        "{lines}"
    );
}

/// What `change` makes of the first line, and of the configuration, is refused with these words.
#[track_caller]
fn assert_refused(change: impl Fn(&mut Value), adjust: impl Fn(&mut EvalConfig), parts: &[&str]) {
    let world = World::new();
    let mut config = config(&world);
    adjust(&mut config);
    let path = world.path("labelled.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    let mut first: Value = serde_json::from_str(first).unwrap();
    change(&mut first);
    let first = if first.is_null() { "{".to_owned() } else { first.to_string() };
    fs::write(&path, format!("{first}\n{rest}")).unwrap();
    let dictionary = of_words(&world);
    let error = world.evaluate_plan(&world.plan(&config, &dictionary), &dictionary).unwrap_err();
    let error = chain(&error);
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or(error.to_string(), |source| format!("{error}: {}", chain(source)))
}

#[test]
fn what_is_wrong_is_named() {
    let nothing = |_: &mut EvalConfig| {};
    let place = ["[[eval.concepts]] words", "labelled.jsonl:1"];
    let with = |part| [place[0], place[1], part];
    assert_refused(|line| line["spans"] = json!("x"), nothing, &with("found a string"));
    assert_refused(|line| line["spans"] = json!([[0, 999, "f", "v"]]), nothing, &with("start < end <="));
    assert_refused(|line| *line = Value::Null, nothing, &with("not JSON"));
    let other_field = |config: &mut EvalConfig| config.concepts[0].spans = "marks".into();
    assert_refused(|_| {}, other_field, &with("expected a field `marks` beside the text, found"));
    let too_few = |config: &mut EvalConfig| config.concepts[0].min_tokens = 5_000;
    assert_refused(|_| {}, too_few, &["[[eval.concepts]] words", "none has 5000 tokens", "min_tokens"]);
    let label = |name: &str| {
        let name = name.to_owned();
        move |config: &mut EvalConfig| {
            config.concepts.clear();
            config.probes[0].label = name.clone();
        }
    };
    let probes = ["[[eval.probes]] fruit", "labelled.jsonl:1"];
    assert_refused(|_| {}, label("half"), &[probes[0], probes[1], "a whole number; found 0.5"]);
    assert_refused(|_| {}, label("taste"), &[probes[0], probes[1], "expected a field `taste`"]);
    let two = |config: &mut EvalConfig| {
        config.concepts.clear();
        config.probes[0].max_documents = 6;
    };
    assert_refused(|_| {}, two, &["[[eval.probes]] fruit: 6 document(s)", "at least two classes"]);
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_done() {
    let world = World::new();
    let dictionary = of_words(&world);
    let refused = |change: &dyn Fn(&mut EvalConfig)| {
        let mut config = config(&world);
        change(&mut config);
        let error: EvalError = world.resolve(&config, &dictionary).unwrap_err();
        chain(&error)
    };
    assert!(
        refused(&|config| config.concepts[0].tokens = 0).contains("concepts.tokens: expected at least 1")
    );
    let twice = refused(&|config| config.probes.push(config.probes[0].clone()));
    assert!(twice.contains("probes: the name `fruit` is there twice"), "{twice}");
    let text = world.path("plain.txt");
    fs::write(&text, "w2 w3").unwrap();
    let plain = refused(&|config| config.concepts[0].files = vec![text.display().to_string()]);
    assert!(plain.contains("[[eval.concepts]] words") && plain.contains("ending in .jsonl"), "{plain}");
    let missing = refused(&|config| config.probes[0].files = vec!["nowhere.jsonl".into()]);
    assert!(missing.contains("[[eval.probes]] fruit"), "{missing}");
}
