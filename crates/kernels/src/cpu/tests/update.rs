//! How parameters move, given their gradients.

use super::{Case, form, jump};
use crate::{Activation, Form, Optimiser, Path, Penalty, Settings};

/// What a step makes of the first moments, the second, the parameters and their average, from its gradients. In f64, a number at a
/// time.
fn moved(case: &Case, which: usize, weight: f32, gradient: f32, factor: f64) -> [f64; 4] {
    let Settings { lr, betas, eps, weight_decay, ema_decay, .. } = case.settings;
    let g = f64::from(gradient) * factor;
    let [m, v] = [(1.0 - betas[0]) * g, (1.0 - betas[1]) * g * g];
    let mut w = f64::from(weight) * (1.0 - lr * weight_decay);
    w -= match case.settings.optimiser {
        Optimiser::Adam => {
            let [m, v] = [m / (1.0 - betas[0]), v / (1.0 - betas[1])];
            lr * m / (v.sqrt() + eps)
        }
        Optimiser::Signum if m == 0.0 => 0.0,
        Optimiser::Signum => lr * m.signum(),
    };
    if which == 4 && matches!(case.form.activation, Activation::JumpRelu { log: false, .. }) {
        w = w.max(0.0);
    }
    [m, v, w, ema_decay * f64::from(weight) + (1.0 - ema_decay) * w]
}

#[test]
fn parameters_move_as_the_optimiser_says() {
    let settings = Settings { l1: 0.7, lr: 1e-2, eps: 1e-4, ema_decay: 0.9, ..Settings::default() };
    for optimiser in [Optimiser::Adam, Optimiser::Signum] {
        for (weight_decay, grad_clip) in [(0.0, f64::INFINITY), (0.5, 0.3)] {
            for activation in [jump(0.5, false, true), jump(0.5, true, true), Activation::Gated] {
                let form = Form { skip: true, ..form(activation, Penalty::L1) };
                let mut case = Case::new([23, 11, 7, 37], form).towards(9);
                case.settings = Settings { optimiser, weight_decay, grad_clip, ..settings };
                let after = case.step(None, Path::Sparse);
                let factor = (grad_clip / (after.found.grad_norm + 1e-6)).min(1.0);
                let all = after.gradients.each_ref().map(Vec::len);
                for (i, j) in all.into_iter().enumerate().flat_map(|(i, n)| (0..n).map(move |j| (i, j))) {
                    let expected = moved(&case, i, case.parameters[i][j], after.gradients[i][j], factor);
                    let found =
                        [&after.first, &after.second, &after.parameters, &after.ema].map(|of| of[i][j]);
                    for (k, (found, expected)) in found.into_iter().zip(expected).enumerate() {
                        let untouched = k == 1 && optimiser == Optimiser::Signum;
                        let expected = if untouched { 0.0 } else { expected };
                        let off = (f64::from(found) - expected).abs();
                        assert!(off <= 3e-6 * expected.abs().max(0.1), "{i} {j} {k}: {found} {expected}");
                    }
                }
            }
        }
    }
}

#[test]
fn averages_are_of_rows_that_have_been_divided() {
    let form = Form { unit_decoder: true, ..form(Activation::TopK { k: 3 }, Penalty::None) };
    let mut case = Case::new([23, 11, 11, 37], form);
    case.settings = Settings { lr: 1e-2, ema_decay: 0.75, ..case.settings };
    let after = case.step(None, Path::Sparse);
    for ((new, ema), old) in after.parameters[1].iter().zip(&after.ema[1]).zip(&case.parameters[1]) {
        assert!((0.75 * old + 0.25 * new - ema).abs() < 1e-6);
    }
    for row in after.parameters[1].chunks_exact(11) {
        assert!((row.iter().map(|w| w * w).sum::<f32>() - 1.0).abs() < 1e-6);
    }
}
