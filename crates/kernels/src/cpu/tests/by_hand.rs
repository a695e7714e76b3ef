//! Small cases worked out on paper.

use super::{After, Case, form, jump};
use crate::{Activation, Aux, Form, Path, Penalty, Settings};

/// Inputs and outputs of width 1, weights of the encoder as given, of the decoder all 1, no biases.
fn narrow(form: Form, x: &[f32], w_enc: &[f32]) -> Case {
    let mut case = Case::new([x.len(), 1, 1, w_enc.len()], form);
    case.x = x.to_vec();
    case.settings = Settings { l1: 1.0, ..Settings::default() };
    let more = case.parameters.each_ref().map(|values| vec![0.0; values.len()]);
    let [.., first, second, skip] = more;
    let d_sae = w_enc.len();
    case.parameters = [w_enc.to_vec(), vec![1.0; d_sae], vec![0.0; d_sae], vec![0.0], first, second, skip];
    case
}

#[track_caller]
fn close(found: &[f32], expected: &[f32]) {
    let same = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-5);
    assert!(same && found.len() == expected.len(), "{found:?}, not {expected:?}");
}

/// On both paths.
fn steps(case: &Case) -> Vec<After> {
    let paths = if case.form.has_dense_path() { &[Path::Sparse, Path::Dense][..] } else { &[Path::Sparse] };
    paths.iter().map(|path| case.step(None, *path)).collect()
}

/// x = 2: z = 1, 3, 0.4 against θ = 0.9, 1, 0.5 with ε = 0.4, so the first and third are near. x̂ = 1 + 3, the gradient of
/// x̂ is 2 · 2 = 4.
#[test]
fn thresholds_and_steps() {
    let mut case = narrow(form(jump(0.4, false, false), Penalty::Step), &[2.0], &[0.5, 1.5, 0.2]);
    case.parameters[4] = vec![0.9, 1.0, 0.5];
    for after in steps(&case) {
        assert_eq!(after.found.fired, [1.0, 1.0, 0.0]);
        assert_eq!([after.found.squared_error, after.found.penalty], [4.0, 2.0]);
        // −(θ·4 + 1)/ε where it is near.
        close(&after.gradients[4], &[-(0.9 * 4.0 + 1.0) / 0.4, 0.0, -(0.5 * 4.0 + 1.0) / 0.4]);
        close(&after.gradients[2], &[4.0, 4.0, 0.0]);
        close(&after.gradients[0], &[8.0, 8.0, 0.0]);
        close(&after.gradients[1], &[4.0, 12.0, 0.0]);
        close(&after.gradients[3], &[4.0]);
    }
    // Straight through to the input too.
    case.form.activation = jump(0.4, false, true);
    for after in steps(&case) {
        close(&after.gradients[2], &[4.0 + 11.5, 4.0, 7.5]);
    }
    // The parameter is the logarithm: the gradient is multiplied by θ.
    case.form.activation = jump(0.4, true, false);
    case.parameters[4] = vec![0.9_f32.ln(), 0.0, 0.5_f32.ln()];
    for after in steps(&case) {
        close(&after.gradients[4], &[-0.9 * 11.5, 0.0, -0.5 * 7.5]);
    }
}

/// Of two tokens with 2 and 1 active latents, L0 = 1.5.
#[test]
fn a_target_for_how_many_are_active() {
    let penalty = Penalty::TargetL0 { target: 2.0 };
    let mut case = narrow(form(jump(1.0, false, false), penalty), &[2.0, 1.0], &[1.0, 0.7]);
    case.parameters[4] = vec![0.5, 1.0];
    case.y = Some(vec![3.4, 1.0]);
    for after in steps(&case) {
        assert!((after.found.penalty - 0.0625).abs() < 1e-12, "{}", after.found.penalty);
        // No errors. 2 (L0/2 − 1)/2 = −0.25, of a token half of it; near are 1.4 and 0.7 to 1.
        close(&after.gradients[4], &[0.0, 0.25]);
    }
}

/// κ = 0.5, ν = 1, two tokens: z = 1, −1 against θ = 0.25. The second is below, by 1.25.
#[test]
fn a_dead_latent_below_its_threshold() {
    let of = Form { pre_act: Some(0.5), ..form(jump(0.1, false, false), Penalty::None) };
    let mut case = narrow(of, &[1.0, -1.0], &[1.0]);
    case.parameters[4] = vec![0.25];
    case.y = Some(vec![1.0, 0.0]);
    case.dead = Some(vec![1.0]);
    for after in steps(&case) {
        assert_eq!(after.found.squared_error, 0.0);
        assert!((after.found.aux - 0.5 * 1.25 / 2.0).abs() < 1e-7, "{}", after.found.aux);
        close(&after.gradients[4], &[0.25]);
        close(&after.gradients[2], &[-0.25]);
        close(&after.gradients[0], &[0.25]);
        close(&after.gradients[1], &[0.3125]);
    }
}

/// x = 1, z = 2 and −1: the gate is open for the first. m = 0.5·2 + 0.25 with r_mag = ln 0.5.
#[test]
fn a_gate() {
    let mut case = narrow(form(Activation::Gated, Penalty::L1), &[1.0], &[2.0, -1.0]);
    case.parameters[4] = vec![0.5_f32.ln(); 2];
    case.parameters[5] = vec![0.25; 2];
    for after in steps(&case) {
        // x̂ = 1.25, and 2 through the gate alone.
        assert_eq!(after.found.squared_error, 0.0625);
        assert!((after.found.aux - 1.0).abs() < 1e-6 && (after.found.penalty - 2.0).abs() < 1e-6);
        // 2·0.25 by m; by the gate 1 of the penalty and 2·1 of its reconstruction.
        close(&after.gradients[2], &[3.0, 0.0]);
        close(&after.gradients[5], &[0.5, 0.0]);
        close(&after.gradients[4], &[0.5, 0.0]);
        close(&after.gradients[0], &[3.0 + 0.25, 0.0]);
        // 1.25 · 0.5 of the error, 2 of the penalty.
        close(&after.gradients[1], &[2.625, 0.0]);
        close(&after.gradients[3], &[0.5]);
    }
}

/// x = 1, acts = 2, 3: x̂ = 2 after one latent and 5 after two, errors 1 and 4.
#[test]
fn two_prefixes() {
    let of = Form { prefixes: vec![1, 2], ..form(Activation::BatchTopK { k: 2 }, Penalty::None) };
    for after in steps(&narrow(of, &[1.0], &[2.0, 3.0])) {
        assert_eq!([after.found.squared_error, after.found.reconstruction], [16.0, 17.0]);
        assert_eq!(after.found.floor, 2.0);
        close(&after.gradients[2], &[10.0, 8.0]);
        close(&after.gradients[1], &[20.0, 24.0]);
        close(&after.gradients[3], &[10.0]);
    }
}

/// Tokens 1 and 3; the first latent is active and leaves e = 0.5, 1.5 over. The others are dead: z = 0.2, 0.6, and 0.1, 0.3.
#[test]
fn a_dead_latent_is_revived() {
    let aux = Some(Aux { k: 1, coefficient: 2.0 });
    let of = Form { aux, ..form(Activation::TopK { k: 1 }, Penalty::None) };
    let mut case = narrow(of, &[1.0, 3.0], &[0.5, 0.2, 0.1]);
    case.dead = Some(vec![0.0, 1.0, 1.0]);
    for after in steps(&case) {
        // ê − e = −0.3, −0.9; Σ of squares 0.9 over a spread of 0.5.
        assert!((after.found.aux - 2.0 * 0.9 / 0.5).abs() < 1e-5, "{}", after.found.aux);
        // 2·2/0.5 = 8 times those.
        close(&after.gradients[2], &[-0.5 - 1.5, -2.4 - 7.2, 0.0]);
        close(&after.gradients[0], &[-0.5 - 4.5, -2.4 - 21.6, 0.0]);
        close(&after.gradients[1], &[-0.25 - 2.25, -0.48 - 4.32, 0.0]);
        assert_eq!(after.found.fired, [2.0, 0.0, 0.0]);
    }
}

/// tanh(4 · 0.5) with an input of 0.5.
#[test]
fn a_penalty_that_levels_off() {
    let mut case = narrow(form(jump(0.1, false, false), Penalty::Tanh { scale: 4.0 }), &[0.5], &[1.0]);
    case.parameters[4] = vec![0.1];
    let slope = 4.0 * (1.0 - 2.0_f32.tanh().powi(2));
    for after in steps(&case) {
        assert!((after.found.penalty - 2.0_f64.tanh()).abs() < 1e-6);
        close(&after.gradients[2], &[slope]);
        close(&after.gradients[1], &[0.5 * slope]);
    }
}
