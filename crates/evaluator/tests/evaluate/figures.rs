//! The figures: against a naive reference, and at points where they are known.

use std::fs;

use monosema_evaluator::{Ablation, EvalConfig, Figures};
use monosema_sae::Dictionary;

use crate::{
    reference::{Reference, reconstruct},
    world::{D_MODEL, EOS, World, device},
};

/// f32 forward passes in batches against single windows.
const F32: f64 = 2e-5;

#[track_caller]
fn assert_figures(figures: &Figures, expected: &[(&str, f64)], tolerance: f64) {
    for &(name, expected) in expected {
        let found = figures[name].unwrap_or(f64::NAN);
        assert!(
            (found - expected).abs() <= tolerance * expected.abs().max(1.0),
            "{name}: {expected}, not {found}"
        );
    }
}

#[test]
fn every_figure_is_what_its_definition_says() {
    let world = World::new();
    let mut config = world.config();
    config.texts.truncate(1);
    let dir = world.random();
    let report = world.evaluate(&config, &dir);
    let dictionary = Dictionary::load(&dir, &device()).unwrap();
    let reference = Reference::new(&world, &config.texts);
    let (x, mean) = (reference.counted(), reference.mean());
    let n = x.len() as f64;
    let both: Vec<_> = x.iter().map(|x| reconstruct(&dictionary, x)).collect();
    let distance =
        |a: &[f32], b: &[f64]| a.iter().zip(b).map(|(&a, b)| (f64::from(a) - b).powi(2)).sum::<f64>();
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    let errors: Vec<f64> = x.iter().zip(&both).map(|(x, (_, x_hat))| distance(x, &wide(x_hat))).collect();
    let spreads: Vec<f64> = x.iter().map(|x| distance(x, &mean)).collect();
    let clean = reference.clean();
    let sae = reference.splice(|x| reconstruct(&dictionary, x).1);
    let zero = reference.splice(|_| vec![0.0; D_MODEL]);
    let mean = reference.splice(|_| mean.iter().map(|&m| m as f32).collect());
    // Whatever was drawn: the cross-entropy of another token's activation is about that of them all.
    let resample = report.metrics["ce.resample"].unwrap();
    let resamples: Vec<f64> = x.iter().map(|x| reference.splice(|_| x.clone()).ce()).collect();
    let [least, most] = [f64::min, f64::max].map(|of| resamples.iter().copied().reduce(of).unwrap());
    assert!(least < resample && resample < most, "{resample} is not within {least} to {most}");
    let expected = [
        ("l0", both.iter().flat_map(|(acts, _)| acts).filter(|&&f| f > 0.0).count() as f64 / n),
        ("l1", both.iter().flat_map(|(acts, _)| acts).map(|&f| f64::from(f)).sum::<f64>() / n),
        ("mse", errors.iter().sum::<f64>() / n),
        ("fvu", errors.iter().sum::<f64>() / spreads.iter().sum::<f64>()),
        ("ev.legacy", 1.0 - errors.iter().zip(&spreads).map(|(e, s)| e / s).sum::<f64>() / n),
        ("ce.clean", clean.ce()),
        ("ce.sae", sae.ce()),
        ("ce.zero", zero.ce()),
        ("ce.mean", mean.ce()),
        ("kl", clean.kl(&sae)),
        ("kl.zero", clean.kl(&zero)),
        ("kl.mean", clean.kl(&mean)),
        ("top1", clean.top1(&sae)),
        ("top1.zero", clean.top1(&zero)),
        ("top1.mean", clean.top1(&mean)),
    ];
    assert_figures(&report.metrics, &expected, F32);
    // A model that ignores its input would make all of this easy.
    assert!(zero.ce() - clean.ce() > 0.05 || clean.kl(&zero) > 0.05, "{} {}", clean.ce(), zero.ce());
    assert!((clean.ce() - sae.ce()).abs() > 1e-3 && (zero.ce() - mean.ce()).abs() > 1e-3);
    assert_eq!(report.counted.tally.predictions, clean.predictions() as u64);
}

#[test]
fn the_identity_loses_nothing() {
    let world = World::new();
    let report = world.evaluate(&world.config(), &world.identity());
    for figures in report.texts.iter().map(|text| &text.metrics).chain([&report.metrics]) {
        let exact = [("fvu", 0.0), ("mse", 0.0), ("ev.r2", 1.0), ("ev.legacy", 1.0), ("ev.centred", 1.0)];
        assert_figures(figures, &exact, 0.0);
        assert_figures(figures, &[("cos", 1.0), ("l2_ratio", 1.0), ("rel_bias", 1.0)], 1e-12);
        assert_eq!(figures["ce.sae"], figures["ce.clean"]);
        assert_figures(figures, &[("loss_recovered.zero", 1.0), ("loss_recovered.mean", 1.0)], 0.0);
        assert_figures(figures, &[("kl", 0.0), ("kl_recovered", 1.0), ("top1", 1.0)], 1e-9);
        // Every dimension of every activation has one sign.
        assert_figures(figures, &[("l0", D_MODEL as f64)], 0.0);
    }
}

#[test]
fn a_dictionary_of_zeros_is_zero_ablation() {
    let world = World::new();
    let report = world.evaluate(&world.config(), &world.constant("zeros", vec![0.0; D_MODEL]));
    let figures = &report.metrics;
    assert_eq!(figures["ce.sae"], figures["ce.zero"]);
    assert_eq!((figures["kl"], figures["top1"]), (figures["kl.zero"], figures["top1.zero"]));
    let exact =
        [("loss_recovered.zero", 0.0), ("kl_recovered", 0.0), ("l0", 0.0), ("l2_ratio", 0.0), ("dead", 1.0)];
    assert_figures(figures, &exact, 0.0);
    // Worse than the mean, and the ratio of nothing to nothing is not a number that a report may show.
    assert!(figures["fvu"].unwrap() > 1.0);
    assert_eq!(figures["rel_bias"], None);
    assert_eq!(report.density.dead, 5);
}

#[test]
fn the_mean_as_reconstruction_is_mean_ablation() {
    let world = World::new();
    let mut config = world.config();
    config.texts.truncate(1);
    let mean = Reference::new(&world, &config.texts).mean();
    let dir = world.constant("mean", mean.iter().map(|&m| m as f32).collect());
    let figures = world.evaluate(&config, &dir).metrics;
    assert_figures(&figures, &[("fvu", 1.0), ("ev.legacy", 0.0), ("ev.centred", 0.0)], F32);
    let ce_mean = figures["ce.mean"].unwrap();
    assert_figures(&figures, &[("ce.sae", ce_mean)], F32);
    assert!(figures["loss_recovered.mean"].unwrap().abs() < 1e-3);
}

#[test]
fn batches_do_not_show_in_the_figures() {
    let world = World::new();
    let dir = world.random();
    let with = |n| {
        let config = monosema_evaluator::EvalConfig { batch_contexts: n, ..world.config() };
        world.evaluate(&config, &dir)
    };
    let (one, many) = (with(Some(1)), with(Some(64)));
    for (name, value) in &one.metrics {
        assert_figures(&many.metrics, &[(name, value.unwrap())], F32);
    }
    assert_eq!((&one.counted, &one.density, &one.spread.l0), (&many.counted, &many.density, &many.spread.l0));
    for (name, [low, high]) in &one.intervals.of {
        let [other_low, other_high] = many.intervals.of[name];
        let apart = (low - other_low).abs().max((high - other_high).abs());
        assert!(apart <= F32 * high.abs().max(1.0), "{name}: {low} to {high}, {other_low} to {other_high}");
    }
}

#[test]
fn pooled_figures_are_those_of_all_tokens_together() {
    let world = World::new();
    let dir = world.random();
    let report = world.evaluate(&world.config(), &dir);
    let reference = Reference::new(&world, &world.config().texts);
    let weighted = |name: &str| {
        let of =
            |i: usize| report.texts[i].metrics[name].unwrap() * report.texts[i].tally.counted_tokens as f64;
        (of(0) + of(1)) / report.counted.tally.counted_tokens as f64
    };
    assert_figures(&report.metrics, &[("l0", weighted("l0")), ("mse", weighted("mse"))], 1e-12);
    assert_figures(&report.metrics, &[("ce.clean", reference.clean().ce())], F32);
    // The variance of both texts is about the mean of both, not about each one's own.
    let (x, mean) = (reference.counted(), reference.mean());
    let spread: f64 =
        x.iter().flat_map(|x| x.iter().zip(&mean).map(|(&x, m)| (f64::from(x) - m).powi(2))).sum();
    let fvu = report.metrics["mse"].unwrap() * x.len() as f64 / spread;
    assert_figures(&report.metrics, &[("fvu", fvu)], F32);
}

#[test]
fn what_counted_is_told_exactly() {
    let world = World::new();
    let report = world.evaluate(&world.config(), &world.identity());
    let reference = Reference::new(&world, &world.config().texts[..1]);
    let tally = report.texts[0].tally;
    let windows = &reference.windows;
    let tokens: usize = windows.iter().map(monosema_text::Context::len).sum();
    assert_eq!((tally.contexts, tally.positions), (windows.len() as u64, tokens as u64));
    assert_eq!(tally.skipped_position, windows.len() as u64);
    let special = windows.iter().flat_map(|w| &w.tokens[1..]).filter(|&&token| token == EOS).count();
    assert!(special > 0, "separators must lie within windows for this to test anything");
    assert_eq!(tally.skipped_special, special as u64);
    assert_eq!(tally.counted_tokens, tally.positions - tally.skipped_position - tally.skipped_special);
    for part in [
        "up to 12 tokens",
        "the first position of each is skipped",
        "BOS and other special tokens are skipped",
    ] {
        assert!(report.counted.rule.contains(part), "{}", report.counted.rule);
    }
}

#[test]
fn flaws_beyond_the_limit_are_not_counted() {
    let world = World::new();
    let dir = world.identity();
    let path = world.path("b.jsonl");
    let lines = fs::read_to_string(&path).unwrap();
    fs::write(&path, lines + "{\"text\": \"w2 \\u0000 w3\"}\n").unwrap();
    let nul = |tokens| {
        let report = world.evaluate(&EvalConfig { tokens, ..world.config() }, &dir);
        report.texts.iter().map(|text| text.tally.nul).collect::<Vec<_>>()
    };
    assert_eq!((nul(None), nul(Some(25))), (vec![0, 1], vec![0, 0]));
}

#[test]
fn a_limit_of_tokens_is_kept() {
    let world = World::new();
    let dir = world.random();
    let mut config = world.config();
    config.tokens = Some(25);
    let limited = world.evaluate(&config, &dir);
    assert!(limited.texts.iter().all(|text| text.tally.counted_tokens == 25));
}

#[test]
fn figures_lie_within_their_intervals() {
    let world = World::new();
    let report = world.evaluate(&world.config(), &world.random());
    assert_eq!((report.intervals.resamples, report.intervals.documents), (50, 8));
    let headline =
        ["ce.sae", "loss_recovered.zero", "loss_recovered.resample", "kl", "l0", "fvu", "mse", "cos", "top1"];
    for name in headline {
        let ([low, high], figure) = (report.intervals.of[name], report.metrics[name].unwrap());
        assert!(low <= figure && figure <= high && low < high, "{name}: {figure} in {low} to {high}");
    }
    // What a whole set has is not a mean over documents.
    assert!(!report.intervals.of.contains_key("dead"));
    let without = EvalConfig { resamples: Some(0), ..world.config() };
    assert!(world.evaluate(&without, &world.random()).intervals.of.is_empty());
}

#[test]
fn what_was_not_asked_for_is_not_there_and_changes_nothing_else() {
    let world = World::new();
    let all = world.evaluate(&world.config(), &world.random());
    let page = || fs::read_to_string(world.path("out/report.html")).unwrap();
    assert!(page().contains("against zero ablation"));
    for asked in [vec![], vec![Ablation::Resample], vec![Ablation::Mean, Ablation::Zero]] {
        let config = EvalConfig { ablations: Some(asked.iter().copied().collect()), ..world.config() };
        let some = world.evaluate(&config, &world.random());
        let names = [(Ablation::Zero, ".zero"), (Ablation::Mean, ".mean"), (Ablation::Resample, ".resample")];
        let absent = |name: &str| {
            let of_absent =
                |(ablation, end): &(Ablation, &str)| !asked.contains(ablation) && name.ends_with(end);
            names.iter().any(of_absent) || (name == "kl_recovered" && !asked.contains(&Ablation::Zero))
        };
        for (name, figure) in &all.metrics {
            assert_eq!(some.metrics[name], figure.filter(|_| !absent(name)), "{name}");
            let interval = all.intervals.of.get(name).filter(|_| !absent(name));
            assert_eq!(some.intervals.of.get(name), interval, "{name}");
        }
        assert_eq!(some.by_position.ce_sae, all.by_position.ce_sae);
        assert_eq!(
            some.by_position.ce_zero.iter().any(Option::is_some),
            asked.contains(&Ablation::Zero),
            "{asked:?}"
        );
        assert_eq!(page().contains("against zero ablation"), asked.contains(&Ablation::Zero));
        assert_eq!(
            some.counted.rule.contains("and another token's activation,"),
            asked == [Ablation::Resample]
        );
        let [all, some] = [world.config(), config].map(|config| world.plan(&config, &world.random()));
        assert_eq!(some.passes.from_hook, 2 + asked.len() as u32);
        assert!(!some.shares_passes(&all));
    }
}

#[test]
fn what_is_told_by_position_is_the_whole_taken_apart() {
    let world = World::new();
    let report = world.evaluate(&world.config(), &world.random());
    let curves = &report.by_position;
    // Windows are of 12 tokens, the first of which is skipped; the last predicts nothing.
    assert_eq!(curves.position, (1..12).collect::<Vec<_>>());
    assert_eq!(curves.tokens.iter().sum::<u64>(), report.counted.tally.counted_tokens);
    assert_eq!((curves.ce_clean[10], curves.ce_sae[10]), (None, None));
    let tokens = || curves.tokens.iter().map(|&n| n as f64);
    let l0: f64 = curves.l0.iter().zip(tokens()).map(|(l0, n)| l0.unwrap() * n).sum();
    assert_figures(&report.metrics, &[("l0", l0 / tokens().sum::<f64>())], 1e-12);
    // Every window but the last ones predicts from each of its positions: means of both weigh about the same.
    let [least, most] =
        [f64::min, f64::max].map(|of| curves.ce_sae.iter().copied().flatten().reduce(of).unwrap());
    let ce = report.metrics["ce.sae"].unwrap();
    assert!(least < ce && ce < most);
    for histogram in [&report.spread.l0, &report.spread.log10_norm_x, &report.spread.log10_norm_x_hat] {
        assert_eq!(
            histogram.tokens.iter().sum::<u64>() + histogram.apart,
            report.counted.tally.counted_tokens
        );
        assert_eq!(histogram.edges.len(), histogram.tokens.len() + 1);
    }
}
