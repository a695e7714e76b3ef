//! Steps of every form against the loss written down in f64, on every path, by all instructions and with any number of threads.

mod by_hand;
mod reference;
mod tape;
mod update;

use rayon::ThreadPoolBuilder;

use self::reference::{Expected, expected};
use super::{
    pairs::Multiplier,
    step::step_by,
    values::{Examples, Found, State, Values},
};
use crate::{Activation, Aux, Form, Last, Path, Penalty, Settings};

/// A dictionary, a batch and what to do with them.
#[derive(Clone, Debug)]
struct Case {
    n: usize,
    d_in: usize,
    d_out: usize,
    d_sae: usize,
    form: Form,
    settings: Settings,
    /// In the order of [`Values::into_parts`].
    parameters: [Vec<f32>; 7],
    x: Vec<f32>,
    y: Option<Vec<f32>>,
    dead: Option<Vec<f32>>,
    last: Last,
}

/// What a step leaves behind: parameters, gradients and moments, and what it found.
struct After {
    parameters: [Vec<f32>; 7],
    gradients: [Vec<f32>; 7],
    first: [Vec<f32>; 7],
    second: [Vec<f32>; 7],
    ema: [Vec<f32>; 7],
    found: Found,
}

/// Numbers without structure, between -1 and 1.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let value = |i: u64| {
        let mixed = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed >> 40) as f32) / (1 << 23) as f32 - 1.0
    };
    (0..n as u64).map(value).collect()
}

fn values(parts: &mut [Vec<f32>; 7]) -> Values<&mut [f32]> {
    let [w_enc, w_dec, b_enc, b_dec, more, more_2, w_skip] = parts.each_mut().map(|values| &mut values[..]);
    Values { w_enc, w_dec, b_enc, b_dec, more: [more, more_2], w_skip }
}

impl Case {
    /// Of this size: n, d_in, d_out, d_sae. About a third of the pre-activations are positive.
    fn new([n, d_in, d_out, d_sae]: [usize; 4], form: Form) -> Self {
        let scaled = |n, seed, scale: f32, shift: f32| -> Vec<f32> {
            numbers(n, seed).iter().map(|value| value * scale + shift).collect()
        };
        let more = match form.activation {
            Activation::JumpRelu { .. } => [d_sae, 0],
            Activation::Gated => [d_sae, d_sae],
            _ => [0, 0],
        };
        // Some thresholds are 0, and some logarithms such that they are nearly.
        let first = match form.activation {
            Activation::JumpRelu { log: false, .. } => {
                scaled(d_sae, 6, 0.4, 0.3).into_iter().map(|theta| theta.max(0.0)).collect()
            }
            _ => scaled(more[0], 6, 1.0, -1.0),
        };
        let scale = (3.0 / d_in as f32).sqrt();
        let parameters = [
            scaled(d_sae * d_in, 1, scale, 0.0),
            scaled(d_sae * d_out, 2, scale, 0.0),
            scaled(d_sae, 3, 0.3, -0.3),
            scaled(d_out, 4, 0.3, 0.0),
            first,
            scaled(more[1], 7, 0.5, 0.1),
            scaled(if form.skip { d_in * d_out } else { 0 }, 8, 0.3, 0.0),
        ];
        let settings = Settings { l1: 0.7, p: 0.6, lr: 1e-3, grad_clip: 1.0, ..Settings::default() };
        let last = Last { share: 0.0, aux_share: 0.0, ..Last::default() };
        let x = numbers(n * d_in, 5);
        Self { n, d_in, d_out, d_sae, form, settings, parameters, x, y: None, dead: None, last }
    }

    /// Towards another target.
    fn towards(self, seed: u64) -> Self {
        let y = numbers(self.n * self.d_out, seed);
        Self { y: Some(y), ..self }
    }

    /// With every so manieth latent dead.
    fn dead(self, every: usize) -> Self {
        let dead = (0..self.d_sae).map(|latent| f32::from(u8::from(latent % every == every - 1))).collect();
        Self { dead: Some(dead), ..self }
    }

    fn is_dead(&self, latent: usize) -> bool {
        self.dead.as_ref().is_some_and(|dead| dead[latent] != 0.0)
    }

    fn y(&self) -> &[f32] {
        self.y.as_deref().unwrap_or(&self.x)
    }

    fn step(&self, multiplier: Option<Multiplier>, path: Path) -> After {
        let zeros = || self.parameters.each_ref().map(|values| vec![0.0; values.len()]);
        let mut after = [self.parameters.clone(), zeros(), zeros(), zeros(), self.parameters.clone()];
        let [parameters, gradients, first, second, ema] = after.each_mut().map(values);
        let state = State { parameters, gradients, first, second, ema: Some(ema) };
        let settings = Settings { path: Some(path), ..self.settings };
        let examples = Examples { x: &self.x, y: self.y.as_deref(), dead: self.dead.as_deref() };
        let found = step_by(multiplier, state, examples, &self.form, &settings, &self.last);
        let [parameters, gradients, first, second, ema] = after;
        After { parameters, gradients, first, second, ema, found }
    }

    /// What `after` must be, to rounding.
    #[track_caller]
    fn holds(&self, after: &After, expected: &Expected, what: &str) {
        let found = &after.found;
        // Powers below 1 are steep near 0, where an activation is known to few digits.
        let tolerance = if self.form.penalty == Penalty::Power { 1e-4 } else { 1e-5 };
        for (name, found, expected) in [
            ("squared error", found.squared_error, expected.squared_error),
            ("reconstruction", found.reconstruction, expected.reconstruction),
            ("penalty", found.penalty, expected.penalty),
            ("aux", found.aux, expected.aux),
            ("norm", found.grad_norm, expected.grad_norm),
        ] {
            let close = (found - expected).abs() <= tolerance * expected.abs() + 1e-7;
            assert!(close, "{name}: {found}, not {expected}; {what}");
        }
        assert_eq!(found.fired, expected.fired, "{what}");
        for (i, (found, expected)) in after.gradients.iter().zip(&expected.gradients).enumerate() {
            let largest = expected.iter().fold(1e-3_f64, |most, value| most.max(value.abs()));
            for (j, (found, expected)) in found.iter().zip(expected).enumerate() {
                let off = (f64::from(*found) - expected).abs() / largest;
                assert!(off <= tolerance, "parameter {i} at {j}: {found}, not {expected}; {what}");
            }
        }
    }

    /// Holds steps against the loss, whatever the path, the instructions and the threads.
    #[track_caller]
    fn check(&self) {
        let expected = expected(self);
        let paths = match self.form.has_dense_path() {
            true => &[Path::Sparse, Path::Dense][..],
            false => &[Path::Sparse],
        };
        let instructions = [None].into_iter().chain(Multiplier::all().into_iter().map(Some));
        for multiplier in instructions {
            for path in paths {
                let what = format!("{multiplier:?} {path:?} {:?}", [self.n, self.d_in, self.d_sae]);
                let what = format!("{what} {:?}", self.form);
                let after = [1, 3].map(|threads| {
                    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
                    pool.expect("there are threads").install(|| self.step(multiplier, *path))
                });
                self.holds(&after[0], &expected, &what);
                assert!(after[0].parameters == after[1].parameters, "threads: {what}");
                assert!(after[0].gradients == after[1].gradients, "threads: {what}");
                assert_eq!(after[0].found.path, *path, "{what}");
            }
        }
    }
}

/// n, d_in, d_out, d_sae: odd ones, tokens of several tasks, a token alone.
const SIZES: [[usize; 4]; 4] = [[23, 11, 11, 37], [133, 33, 33, 53], [140, 5, 5, 101], [1, 3, 3, 2]];

/// The same for transcoders.
const ACROSS: [[usize; 4]; 3] = [[23, 11, 7, 37], [133, 9, 50, 53], [1, 1, 3, 2]];

fn form(activation: Activation, penalty: Penalty) -> Form {
    Form::new(activation, penalty)
}

fn jump(bandwidth: f64, log: bool, ste_to_input: bool) -> Activation {
    Activation::JumpRelu { bandwidth, log, ste_to_input }
}

const TANH: Penalty = Penalty::Tanh { scale: 4.0 };

#[test]
fn penalties_of_positive_activations() {
    for size in SIZES {
        for penalty in [Penalty::None, Penalty::L1, Penalty::Power, TANH] {
            for apply_b_dec_to_input in [false, true] {
                let form = Form { apply_b_dec_to_input, ..form(Activation::Relu, penalty) };
                Case::new(size, form).check();
            }
        }
    }
}

#[test]
fn the_largest() {
    for size in SIZES {
        for activation in [Activation::TopK { k: 3 }, Activation::BatchTopK { k: 2 }] {
            for unit_decoder in [false, true] {
                let form =
                    Form { unit_decoder, apply_b_dec_to_input: true, ..form(activation, Penalty::None) };
                for floor in [0.0, 0.3, 1e3] {
                    let mut case = Case::new(size, form.clone());
                    case.last.floor = floor;
                    case.check();
                }
            }
        }
    }
}

#[test]
fn a_batch_tells_the_smallest_value_that_it_keeps() {
    let case = Case::new([23, 11, 11, 37], form(Activation::BatchTopK { k: 2 }, Penalty::None));
    let mut z = Vec::new();
    for x in case.x.chunks_exact(11) {
        for (w, bias) in case.parameters[0].chunks_exact(11).zip(&case.parameters[2]) {
            z.push(
                x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum::<f64>() + f64::from(*bias),
            );
        }
    }
    z.sort_by(|a, b| b.total_cmp(a));
    let floor = case.step(None, Path::Sparse).found.floor;
    assert!((f64::from(floor) - z[2 * 23 - 1]).abs() < 1e-6, "{floor} {}", z[2 * 23 - 1]);
}

#[test]
fn thresholds() {
    for size in SIZES {
        for penalty in [
            Penalty::None,
            Penalty::L1,
            Penalty::Step,
            TANH,
            Penalty::TargetL0 { target: 1.7 },
            Penalty::Power,
        ] {
            for (bandwidth, log, ste_to_input) in
                [(0.3, false, false), (0.3, true, true), (2.0, false, true), (1e-3, true, false)]
            {
                let form = form(jump(bandwidth, log, ste_to_input), penalty);
                Case::new(size, Form { apply_b_dec_to_input: log, ..form }).check();
            }
        }
    }
}

#[test]
fn thresholds_of_zero() {
    for penalty in [Penalty::Step, TANH] {
        for ste_to_input in [false, true] {
            let mut case = Case::new([23, 11, 11, 37], form(jump(0.4, false, ste_to_input), penalty));
            case.parameters[4].fill(0.0);
            case.check();
        }
    }
}

#[test]
fn dead_latents_below_their_thresholds() {
    for size in SIZES {
        for (log, ste_to_input) in [(false, false), (true, true)] {
            for every in [1, 2, 5] {
                let form = form(jump(0.5, log, ste_to_input), TANH);
                let form = Form { pre_act: Some(0.3), apply_b_dec_to_input: log, ..form };
                Case::new(size, form.clone()).dead(every).check();
                Case::new(size, Form { penalty: Penalty::Step, ..form }).dead(every).check();
            }
        }
        // Nothing is said of dead ones.
        Case::new(size, Form { pre_act: Some(0.3), ..form(jump(0.5, false, true), TANH) }).check();
    }
}

#[test]
fn gates() {
    for size in SIZES {
        for penalty in [Penalty::None, Penalty::L1] {
            for apply_b_dec_to_input in [false, true] {
                for unit_decoder in [false, true] {
                    let form =
                        Form { apply_b_dec_to_input, unit_decoder, ..form(Activation::Gated, penalty) };
                    Case::new(size, form).check();
                }
            }
        }
    }
}

/// Prefixes with no latents of their own among them.
fn prefixes(d_sae: usize) -> Vec<usize> {
    match d_sae {
        2 => vec![1, 1, 2],
        _ => vec![1, 5, 5, 17, d_sae],
    }
}

#[test]
fn reconstructions_of_prefixes() {
    for size in SIZES {
        for activation in [Activation::BatchTopK { k: 2 }, Activation::Relu, jump(0.5, false, true)] {
            let penalty = if activation == Activation::Relu { Penalty::L1 } else { Penalty::None };
            for unit_decoder in [false, true] {
                let form = Form { prefixes: prefixes(size[3]), unit_decoder, ..form(activation, penalty) };
                let form = Form { apply_b_dec_to_input: true, ..form };
                Case::new(size, form.clone()).check();
                let aux = Some(Aux { k: 3, coefficient: 0.4 });
                Case::new(size, Form { aux, ..form }).dead(4).check();
            }
        }
    }
}

#[test]
fn what_is_left_over_revives_the_dead() {
    for size in SIZES {
        for activation in [Activation::TopK { k: 3 }, Activation::BatchTopK { k: 2 }, Activation::Relu] {
            // More than are dead, some, one.
            for k in [1000, 4, 1] {
                let aux = Some(Aux { k, coefficient: 0.4 });
                for unit_decoder in [false, true] {
                    let form = Form { aux, unit_decoder, ..form(activation, Penalty::None) };
                    let form = Form { apply_b_dec_to_input: unit_decoder, ..form };
                    for every in [1, 2, 7] {
                        Case::new(size, form.clone()).dead(every).check();
                    }
                }
            }
        }
        for every in [2, 200] {
            for activation in [Activation::Gated, jump(0.5, true, true)] {
                let aux = Some(Aux { k: 4, coefficient: 0.4 });
                Case::new(size, Form { aux, ..form(activation, Penalty::L1) }).dead(every).check();
            }
        }
    }
}

#[test]
fn no_dead_latents_change_nothing() {
    let aux = Some(Aux { k: 4, coefficient: 0.4 });
    let size = [133, 33, 33, 53];
    let without = Case::new(size, form(Activation::TopK { k: 3 }, Penalty::None));
    let none = Case { form: Form { aux, ..without.form.clone() }, ..without.clone() };
    let expected = without.step(None, Path::Sparse);
    for case in [none.clone().dead(1000), none] {
        let found = case.step(None, Path::Sparse);
        assert!(found.parameters == expected.parameters && found.found.aux == 0.0);
    }
}

#[test]
fn other_targets() {
    for size in ACROSS {
        for skip in [false, true] {
            let of = |activation, penalty| Form { skip, ..form(activation, penalty) };
            let aux = Some(Aux { k: 4, coefficient: 0.4 });
            let prefixes = prefixes(size[3]);
            for form in [
                of(Activation::Relu, Penalty::L1),
                Form { unit_decoder: true, aux, ..of(Activation::TopK { k: 3 }, Penalty::None) },
                Form { prefixes, aux, ..of(Activation::BatchTopK { k: 2 }, Penalty::None) },
                Form { pre_act: Some(0.1), ..of(jump(0.5, true, true), TANH) },
                of(Activation::Gated, Penalty::L1),
            ] {
                Case::new(size, form).towards(9).dead(3).check();
            }
        }
    }
    // A skip connection of an autoencoder, and a target of its own where the input is shifted.
    for skip in [false, true] {
        let form = Form { skip, apply_b_dec_to_input: true, ..form(Activation::Relu, Penalty::L1) };
        Case::new([23, 11, 11, 37], form.clone()).check();
        Case::new([23, 11, 11, 37], form).towards(9).check();
    }
}

/// Larger ones than the loss is written down for: what screening finds is what is there.
#[test]
fn all_instructions_find_the_same_latents() {
    let shifted = |form| Form { apply_b_dec_to_input: true, ..form };
    let aux = Some(Aux { k: 9, coefficient: 0.4 });
    let forms = [
        form(Activation::Relu, Penalty::L1),
        form(Activation::TopK { k: 7 }, Penalty::None),
        Form { aux, ..form(Activation::BatchTopK { k: 5 }, Penalty::None) },
        Form { pre_act: Some(0.1), ..form(jump(0.2, false, true), Penalty::Step) },
        form(Activation::Gated, Penalty::L1),
    ];
    for [n, d_in, d_sae] in [[23, 11, 37], [301, 19, 1061], [140, 1301, 97], [33, 31, 50]] {
        for form in forms.clone().map(shifted) {
            for floor in [0.0, 0.3, 1e3] {
                let mut case = Case::new([n, d_in, d_in, d_sae], form.clone()).dead(9);
                case.last.floor = floor;
                let exact = case.step(None, Path::Sparse).gradients.concat();
                let mut screened = Multiplier::all().into_iter();
                let first = case.step(screened.next(), Path::Sparse);
                let largest = exact.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
                for (found, expected) in first.gradients.concat().iter().zip(&exact) {
                    let what = format!("{n} {d_in} {form:?} {floor}");
                    assert!((found - expected).abs() <= 1e-5 * largest, "{what}");
                }
                // What is active is computed in f32, so that nothing is left of how it was found.
                for multiplier in screened {
                    let other = case.step(Some(multiplier), Path::Sparse);
                    let same = first.parameters == other.parameters && first.gradients == other.gradients;
                    assert!(same, "{multiplier:?} {n} {d_in} {form:?} {floor}");
                }
            }
        }
    }
}
