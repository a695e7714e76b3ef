//! What cannot work is refused, with words that help.

use std::{fs, path::PathBuf};

use monosema_core::{BlockHook, HookPoint, Manifest, Seed};
use monosema_evaluator::{DictionaryShape, EvalConfig, EvalPlan, Job, Report, Training, evaluate};
use monosema_sae::Metadata;
use monosema_text::ContextConfig;

use crate::world::{D_MODEL, World, context, device, hook, shape, weights};

const SHAPE: fn() -> DictionaryShape =
    || DictionaryShape { hook: hook(), hook_out: None, d_in: D_MODEL, d_sae: 8 };

fn resolve(
    world: &World,
    config: &EvalConfig,
    context: &ContextConfig,
    shape: DictionaryShape,
) -> Result<EvalPlan, String> {
    EvalPlan::resolve(config, context, &world.checkpoint(), &shape, &Training::default(), Seed(0))
        .map_err(|e| chain(&e))
}

/// An error with its causes, as the command line prints it.
fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or(error.to_string(), |source| format!("{error}: {}", chain(source)))
}

#[track_caller]
fn assert_says(result: Result<EvalPlan, String>, parts: &[&str]) {
    let error = result.unwrap_err();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[test]
fn plans_that_cannot_work() {
    let world = World::new();
    let config = world.config();
    let other_hook = DictionaryShape { hook: HookPoint::block(3, BlockHook::ResidPost), ..SHAPE() };
    assert_says(resolve(&world, &config, &context(), other_hook), &["blocks.3.hook_resid_post", "blocks.2"]);
    let wide = DictionaryShape { d_in: 17, ..SHAPE() };
    assert_says(resolve(&world, &config, &context(), wide), &["17 dimensions", "16", "another model"]);
    let at = |hook: &str, d_in| DictionaryShape { hook: hook.parse().unwrap(), d_in, ..SHAPE() };
    let post = resolve(&world, &config, &context(), at("blocks.1.mlp.hook_post", 16));
    assert_says(post, &["16 dimensions", "blocks.1.mlp.hook_post"]);
    let pattern = resolve(&world, &config, &context(), at("blocks.1.attn.hook_pattern", 16));
    assert_says(pattern, &["blocks.1.attn.hook_pattern", "every window"]);
    let hook_out = Some("blocks.1.mlp.hook_post".parse().unwrap());
    let wider = resolve(&world, &config, &context(), DictionaryShape { hook_out, ..SHAPE() });
    assert_says(wider, &["reads 16 dimensions", "blocks.1.mlp.hook_post", "others are not"]);
    let long = ContextConfig { length: 21, ..context() };
    assert_says(resolve(&world, &config, &long, SHAPE()), &["at most 20", "found 21"]);
    let none = EvalConfig { texts: Vec::new(), ..config.clone() };
    assert_says(resolve(&world, &none, &context(), SHAPE()), &["[[eval.texts]]"]);
    for (name, part) in [("a", "twice"), ("all", "together"), (" ", "empty")] {
        let mut twice = config.clone();
        twice.texts[1].name = name.into();
        assert_says(resolve(&world, &twice, &context(), SHAPE()), &["texts", part]);
    }
    let mut missing = config.clone();
    missing.texts[1].files = vec![world.path("nowhere.txt").display().to_string()];
    assert_says(resolve(&world, &missing, &context(), SHAPE()), &["[[eval.texts]] b", "nowhere.txt"]);
    let zero = EvalConfig { tokens: Some(0), ..config.clone() };
    assert_says(resolve(&world, &zero, &context(), SHAPE()), &["[eval] tokens", "at least 1"]);
}

#[test]
fn a_plan_tells_what_it_takes() {
    let world = World::new();
    let plan =
        resolve(&world, &EvalConfig { tokens: Some(20), ..world.config() }, &context(), SHAPE()).unwrap();
    assert_eq!(plan.texts.iter().map(|text| text.counted_tokens).collect::<Vec<_>>(), [20, 20]);
    assert_eq!((plan.passes.to_hook, plan.passes.from_hook, plan.counted_tokens()), (1, 5, 40));
    // Weights alone are more than 10 kB, and nothing here is large.
    assert!((10_000..10_000_000).contains(&plan.memory_bytes), "{}", plan.memory_bytes);
    assert!(plan.warnings.is_empty());
}

#[test]
fn training_text_is_not_held_out_text() {
    let world = World::new();
    let training = world.text("x", "b.jsonl").text();
    let checkpoint = world.checkpoint();
    let dictionary = world.identity();
    let shape = shape(&dictionary);
    let training = Training { text: Some(&training), metadata: None };
    let plan =
        EvalPlan::resolve(&world.config(), &context(), &checkpoint, &shape, &training, Seed(0)).unwrap();
    let warnings = &plan.warnings;
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].contains("text b is not held out") && warnings[0].contains("b.jsonl"),
        "{warnings:?}"
    );
    let report = world.evaluate_plan(&plan, &dictionary).unwrap();
    assert_eq!(&report.warnings, warnings);
    assert!(fs::read_to_string(world.path("out/report.html")).unwrap().contains("is not held out"));
}

#[test]
fn other_circumstances_than_those_of_training_are_told() {
    let world = World::new();
    let checkpoint = world.checkpoint();
    let warnings = |metadata: Metadata| {
        let training = Training { text: None, metadata: Some(&metadata) };
        let plan = EvalPlan::resolve(&world.config(), &context(), &checkpoint, &SHAPE(), &training, Seed(0));
        plan.unwrap().warnings
    };
    let digest = |digest: &str| [("model_sha256".to_owned(), digest.into())].into_iter().collect();
    let same = Metadata {
        model_name: Some("renamed".into()),
        context_size: Some(context().length),
        prepend_bos: Some(false),
        facts: digest(checkpoint.digest().unwrap().as_str()),
        ..Metadata::new(hook())
    };
    assert!(warnings(same.clone()).is_empty(), "{:?}", warnings(same));
    for (metadata, parts) in [
        (Metadata { facts: digest("abc"), ..same.clone() }, ["activations of renamed", "quantisation"]),
        (Metadata { facts: Default::default(), ..same.clone() }, ["renamed", "another name"]),
        (Metadata { context_size: Some(4), ..same.clone() }, ["windows of 4 tokens", "later positions"]),
        (
            Metadata { prepend_bos: Some(true), ..same.clone() },
            ["with BOS in front", "on windows without BOS"],
        ),
    ] {
        let warnings = warnings(metadata);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(parts.iter().all(|part| warnings[0].contains(part)), "{warnings:?}");
    }
}

#[test]
fn a_text_of_which_nothing_counts() {
    let world = World::new();
    fs::write(world.path("short.txt"), "w3 w4").unwrap();
    let config = EvalConfig { texts: vec![world.text("short", "short.txt")], ..world.config() };
    let dictionary = world.identity();
    let plan = world.plan(&config, &dictionary);
    let error = world.evaluate_plan(&plan, &dictionary).unwrap_err();
    let error = error.to_string();
    // Position 0 is skipped, position 1 has no next token.
    for part in ["short", "of its 2 tokens 1 count", "skip_first"] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    assert!(!world.path("out").exists(), "no report of nothing");
}

#[test]
fn a_dictionary_that_overflows_takes_nothing_from_the_others() {
    let world = World::new();
    let d_sae = 2;
    let huge = || vec![1e30; D_MODEL * d_sae];
    let broken = world.dictionary("broken", weights(huge(), vec![1.0; d_sae], huge(), vec![0.0; D_MODEL]));
    let checkpoint = world.checkpoint();
    let job = |dictionary: PathBuf| {
        let plan = world.plan(&world.config(), &dictionary);
        let manifest = Manifest::new(plan.work(&checkpoint, &dictionary).unwrap(), "cpu");
        Job { plan, manifest, out: dictionary.join("report"), dictionary }
    };
    let jobs = [broken, world.identity()].map(job);
    assert!(jobs[0].plan.shares_passes(&jobs[1].plan));
    let error = evaluate(&jobs, &checkpoint, &device()).unwrap_err().to_string();
    assert!(error.contains("broken") && error.contains("the reconstruction of text a"), "{error}");
    assert!(!jobs[0].out.exists());
    let alone = world.evaluate(&world.config(), &jobs[1].dictionary);
    assert_eq!(Report::read(&jobs[1].out).unwrap().metrics, alone.metrics);
}

#[test]
fn the_dictionary_must_be_the_one_planned_for() {
    let world = World::new();
    let plan = resolve(&world, &world.config(), &context(), SHAPE()).unwrap();
    let dictionary = world.identity();
    let error = world.evaluate_plan(&plan, &dictionary).unwrap_err();
    assert!(error.to_string().contains("expected a dictionary 16 → 8 latents"), "{error}");
}
