//! `inspect` on a model: losses and norms.

use burn::tensor::{Int, Tensor, TensorData};
use monosema_core::{BlockHook, HookPoint};
use monosema_evaluator::inspect_model;
use monosema_transformer::Capture;

use crate::{
    reference::Reference,
    world::{N_LAYERS, World, context, device, hook},
};

#[test]
fn losses_agree_with_evaluation_and_with_the_reference() {
    let world = World::new();
    let mut config = world.config();
    config.texts.truncate(1);
    let text = config.texts[0].text();
    let inspection = inspect_model(&world.checkpoint(), &device(), &text, &context(), u64::MAX).unwrap();
    let evaluated = world.evaluate(&config, &world.identity());
    let reference = Reference::new(&world, &config.texts);
    let counted = inspection.ce.counted_mean.unwrap();
    assert!((counted - evaluated.figure("ce.clean").unwrap()).abs() < 1e-6);
    assert!((counted - reference.clean().ce()).abs() < 1e-6);
    assert_eq!(inspection.ce.counted_predictions, evaluated.counted.tally.predictions);
    // One prediction a position, but for the last of each window.
    assert_eq!(inspection.ce.predictions, inspection.tokens - inspection.contexts);
    assert_eq!(inspection.predictions.len() as u64, inspection.ce.predictions);
    let mean = inspection.predictions.iter().map(|p| p.ce).sum::<f64>() / inspection.predictions.len() as f64;
    assert!((inspection.ce.mean - mean).abs() < 1e-12);
    let second = &reference.windows[1];
    let made = inspection.predictions.iter().find(|p| p.context == 1 && p.position == 3).unwrap();
    assert_eq!(made.target_id, second.tokens[4]);
    assert_eq!(made.document, second.documents[3]);
    assert_eq!(made.target, format!("w{}", second.tokens[4]));
}

#[test]
fn norms_are_those_of_the_residual_stream() {
    let world = World::new();
    let text = world.text("a", "a.jsonl");
    let inspection =
        inspect_model(&world.checkpoint(), &device(), &text.text(), &context(), u64::MAX).unwrap();
    assert_eq!(inspection.layers.len(), N_LAYERS + 1);
    assert_eq!(inspection.layers[0].hook, HookPoint::block(0, BlockHook::ResidPre));
    assert_eq!(inspection.layers[N_LAYERS].hook, HookPoint::block(N_LAYERS - 1, BlockHook::ResidPost));

    let model = world.checkpoint().load(&device()).unwrap();
    let mut norms = Vec::new();
    for window in &Reference::new(&world, &[text]).windows {
        let ids: Vec<i32> = window.tokens.iter().map(|&t| i32::try_from(t).unwrap()).collect();
        let mut capture = Capture::new([hook()]);
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, window.len()]), &device());
        model.run(tokens, &mut capture);
        let x = capture.take(hook()).unwrap().try_into_vec_as::<f32>().unwrap();
        let norm = |x: &[f32]| x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        norms.extend(x.chunks(x.len() / window.len()).enumerate().map(|(position, x)| (norm(x), position)));
    }
    norms.sort_by(|a, b| b.0.total_cmp(&a.0));
    let layer = inspection.layers.iter().find(|layer| layer.hook == hook()).unwrap();
    let mean = norms.iter().map(|(norm, _)| norm).sum::<f64>() / norms.len() as f64;
    let median = (norms[(norms.len() - 1) / 2].0 + norms[norms.len() / 2].0) / 2.0;
    for (found, expected) in [(layer.mean, mean), (layer.max, norms[0].0), (layer.median, median)] {
        assert!((found - expected).abs() < 1e-5 * expected, "{found} and {expected}");
    }
    assert_eq!(layer.largest[0].position, norms[0].1);
    assert!(layer.largest.is_sorted_by(|a, b| a.norm >= b.norm));
    let rows = inspection.rows();
    assert_eq!((rows.len(), rows[2][0].as_str()), (N_LAYERS + 1, "blocks.1.hook_resid_post"));
    assert_eq!(rows[2][5], layer.positions());
}

#[test]
fn the_median_of_an_even_count_lies_between_the_two_in_the_middle() {
    let world = World::new();
    let text = world.text("a", "a.jsonl").text();
    let inspection = inspect_model(&world.checkpoint(), &device(), &text, &context(), 1).unwrap();
    assert_eq!(inspection.tokens, 12);
    for layer in &inspection.layers {
        // Of the twelve norms the eight largest are listed, those in the middle among them.
        let (upper, lower) = (layer.largest[5].norm, layer.largest[6].norm);
        assert!((layer.median - (upper + lower) / 2.0).abs() < 1e-12, "{layer:?}");
    }
}

#[test]
fn a_limit_takes_whole_windows() {
    let world = World::new();
    let text = world.text("a", "a.jsonl").text();
    let with = |limit| inspect_model(&world.checkpoint(), &device(), &text, &context(), limit).unwrap();
    assert_eq!((with(1).contexts, with(1).tokens), (1, 12));
    assert_eq!((with(12).contexts, with(13).contexts), (1, 2));
    let error =
        inspect_model(&world.checkpoint(), &device(), &world.text("x", "x.txt").text(), &context(), 9);
    assert!(error.unwrap_err().to_string().contains("x.txt"));
}
