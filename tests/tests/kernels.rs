//! The fused step computes the gradients of autodiff: for every activation, by either path, in either precision, at odd
//! sizes, with no latent active and with all of them.
#![allow(clippy::unwrap_used)]

use burn::tensor::{Device, Tensor, TensorData};
use monosema_kernels::{
    Activation, Form, Found, Hints, NORM_TINY, Parameters, Path, Precision, Settings, State, step,
};

/// Odd: within one task and one tile, with a remainder of each, and with sums of several parts.
const SIZES: [[usize; 3]; 3] = [[23, 11, 37], [301, 19, 1061], [140, 1301, 97]];

/// Relative to the largest value: f32 sums of hundreds of terms in another order.
const ROUNDING: f32 = 1e-5;

const L1: f64 = 0.7;

/// Numbers without structure, between -1 and 1.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let value = |i: u64| {
        let mixed = (i + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(seed.wrapping_mul(0xbf58_476d_1ce4_e5b9));
        let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed >> 40) as f32) / (1 << 23) as f32 - 1.0
    };
    (0..n as u64).map(value).collect()
}

fn matrix(shape: [usize; 2], seed: u64) -> Tensor<2> {
    Tensor::from_data(TensorData::new(numbers(shape[0] * shape[1], seed), shape), &Device::flex())
}

fn vector(n: usize, seed: u64) -> Tensor<1> {
    Tensor::from_data(TensorData::new(numbers(n, seed), [n]), &Device::flex())
}

fn values<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
    tensor.to_data().try_to_vec().unwrap()
}

/// Rows of both matrices have norms near 1; the decoder's exactly that.
fn parameters([_, d_in, d_sae]: [usize; 3], bias: f32) -> Parameters {
    let scale = (3.0 / d_in as f64).sqrt();
    let w_dec = matrix([d_sae, d_in], 2);
    Parameters {
        w_enc: matrix([d_sae, d_in], 1) * scale,
        w_dec: w_dec.clone() / w_dec.square().sum_dim(1).sqrt(),
        b_enc: vector(d_sae, 3) * 0.1 + f64::from(bias),
        b_dec: vector(d_in, 4) * 0.3,
    }
}

fn state(parameters: Parameters) -> State {
    let zeros = || Parameters {
        w_enc: parameters.w_enc.zeros_like(),
        w_dec: parameters.w_dec.zeros_like(),
        b_enc: parameters.b_enc.zeros_like(),
        b_dec: parameters.b_dec.zeros_like(),
    };
    State { gradients: zeros(), first: zeros(), second: zeros(), parameters }
}

fn settings(precision: Precision, path: Path, hints: Hints) -> Settings {
    Settings {
        l1: L1,
        lr: 1e-3,
        betas: [0.9, 0.999],
        eps: 1e-8,
        grad_clip: 1.0,
        time: 1,
        precision,
        path: Some(path),
        hints,
    }
}

/// 1 where a pre-activation is positive and among those that the activation keeps.
fn mask(pre_acts: &Tensor<2>, activation: Activation) -> Tensor<2> {
    let ([n, d_sae], pre_acts) = (pre_acts.dims(), values(pre_acts));
    let keep = |values: &[f32], k: usize| {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
        let mut kept = vec![0.0; values.len()];
        order.iter().take(k).for_each(|i| kept[*i] = f32::from(values[*i] > 0.0));
        kept
    };
    let kept = match activation {
        Activation::Relu => keep(&pre_acts, n * d_sae),
        Activation::TopK { k } => pre_acts.chunks(d_sae).flat_map(|row| keep(row, k)).collect(),
        Activation::BatchTopK { k } => keep(&pre_acts, n * k),
    };
    Tensor::from_data(TensorData::new(kept, [n, d_sae]), &Device::flex())
}

/// Loss terms, gradients' norm, gradients and firings by autodiff.
fn expected(p: &Parameters, x: &Tensor<2>, form: Form) -> Vec<(&'static str, Vec<f32>)> {
    let leaf = |t: &Tensor<2>| Tensor::from_inner(t.clone()).require_grad();
    let bias = |t: &Tensor<1>| Tensor::from_inner(t.clone()).require_grad();
    let (w_enc, w_dec, b_enc, b_dec) = (leaf(&p.w_enc), leaf(&p.w_dec), bias(&p.b_enc), bias(&p.b_dec));
    let x = Tensor::from_inner(x.clone());
    let input = if form.apply_b_dec_to_input { x.clone() - b_dec.clone().unsqueeze() } else { x.clone() };
    let pre_acts = input.matmul(w_enc.clone().transpose()) + b_enc.clone().unsqueeze();
    let mask = mask(&pre_acts.clone().inner(), form.activation);
    let acts = pre_acts * Tensor::from_inner(mask.clone());
    let x_hat = acts.clone().matmul(w_dec.clone()) + b_dec.clone().unsqueeze();
    let squared_error = (x_hat - x).square().sum_dim(1).mean();
    let norms = (w_dec.clone().square().sum_dim(1) + NORM_TINY).sqrt();
    let penalty = acts.matmul(norms).mean();
    let gradients = (squared_error.clone() + penalty.clone() * L1).backward();
    let mut of_w_dec = w_dec.grad(&gradients).unwrap();
    if form.unit_decoder {
        // The rows have norm 1.
        let rows = w_dec.clone().inner();
        of_w_dec = of_w_dec.clone() - rows.clone() * (of_w_dec * rows).sum_dim(1);
    }
    let found = vec![
        ("w_enc", values(&w_enc.grad(&gradients).unwrap())),
        ("w_dec", values(&of_w_dec)),
        ("b_enc", values(&b_enc.grad(&gradients).unwrap())),
        ("b_dec", values(&b_dec.grad(&gradients).unwrap())),
    ];
    let square: f64 = found.iter().flat_map(|(_, g)| g).map(|g| f64::from(*g).powi(2)).sum();
    let numbers = [values(&squared_error)[0], values(&penalty)[0], square.sqrt() as f32];
    let fired = values(&mask.sum_dim(0));
    found.into_iter().chain([("numbers", numbers.to_vec()), ("fired", fired)]).collect()
}

fn found(state: &State, found: &Found) -> Vec<Vec<f32>> {
    let g = &state.gradients;
    vec![
        values(&g.w_enc),
        values(&g.w_dec),
        values(&g.b_enc),
        values(&g.b_dec),
        values(&found.numbers),
        values(&found.fired),
    ]
}

#[track_caller]
fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= ROUNDING * largest, "{what}: differ by {worst}, the largest is {largest}");
}

fn forms() -> Vec<Form> {
    let activations = [
        Activation::Relu,
        Activation::TopK { k: 1 },
        Activation::TopK { k: 7 },
        Activation::BatchTopK { k: 5 },
        Activation::TopK { k: 5000 },
    ];
    let of = |activation| {
        [(false, false), (true, true)].map(|(apply_b_dec_to_input, unit_decoder)| Form {
            activation,
            apply_b_dec_to_input,
            unit_decoder,
        })
    };
    activations.into_iter().flat_map(of).collect()
}

#[test]
fn gradients_are_those_of_autodiff() {
    // The last step's smallest activation: unknown, far too low, and too high, so that encoding is repeated.
    let hints = [Hints::default(), Hints { share: 0.0, floor: 1e-3 }, Hints { share: 0.0, floor: 1e3 }];
    for size in SIZES {
        for bias in [0.0, -1e3, -1.5, 10.0] {
            let (p, x) = (parameters(size, bias), matrix([size[0], size[1]], 5));
            for form in forms() {
                let expected = expected(&p, &x, form);
                for (precision, path) in [
                    (Precision::F32, Path::Sparse),
                    (Precision::F32, Path::Dense),
                    (Precision::Auto, Path::Sparse),
                ] {
                    for hints in hints {
                        let settings = settings(precision, path, hints);
                        let (state, result) = step(state(p.clone()), x.clone(), form, settings);
                        for ((name, expected), found) in expected.iter().zip(found(&state, &result)) {
                            let what = format!("{name} of {size:?} {form:?} bias {bias} {settings:?}");
                            assert_close(&what, &found, expected);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn unit_rows_keep_their_norms() {
    let (size, form) = (
        SIZES[1],
        Form { activation: Activation::TopK { k: 7 }, apply_b_dec_to_input: true, unit_decoder: true },
    );
    let x = matrix([size[0], size[1]], 5);
    let settings = Settings { lr: 0.1, ..settings(Precision::Auto, Path::Sparse, Hints::default()) };
    let before = parameters(size, 0.0);
    let (state, _) = step(state(before.clone()), x, form, settings);
    let norms = values(&state.parameters.w_dec.clone().square().sum_dim(1));
    assert!(norms.iter().all(|norm| (norm - 1.0).abs() < 1e-6));
    assert_ne!(values(&state.parameters.w_dec), values(&before.w_dec));
}

#[test]
fn what_others_hold_is_not_changed() {
    let form = Form { activation: Activation::Relu, apply_b_dec_to_input: false, unit_decoder: false };
    let (size, x) = (SIZES[0], matrix([SIZES[0][0], SIZES[0][1]], 5));
    let p = parameters(size, 0.0);
    let before = values(&p.w_enc);
    let (after, _) =
        step(state(p.clone()), x, form, settings(Precision::Auto, Path::Sparse, Hints::default()));
    assert_eq!(values(&p.w_enc), before);
    assert_ne!(values(&after.parameters.w_enc), before);
}

/// A number that is none must not be lost on the way: the loss shows it, and training stops.
#[test]
fn what_is_no_number_spoils_the_loss() {
    let size = SIZES[1];
    for (precision, activation) in [
        (Precision::F32, Activation::Relu),
        (Precision::Auto, Activation::Relu),
        (Precision::F32, Activation::TopK { k: 3 }),
        (Precision::Auto, Activation::TopK { k: 3 }),
        (Precision::Auto, Activation::BatchTopK { k: 3 }),
    ] {
        let form = Form { activation, apply_b_dec_to_input: false, unit_decoder: false };
        let x = matrix([size[0], size[1]], 5);
        let mut p = parameters(size, 0.0);
        p.b_enc = p.b_enc.slice_fill(700..701, f32::NAN);
        let hints = Hints { share: 0.0, floor: 0.1 };
        let (_, found) = step(state(p), x, form, settings(precision, Path::Sparse, hints));
        assert!(values(&found.numbers)[0].is_nan(), "{activation:?} {precision:?}");
    }
}

#[test]
fn a_row_of_zeros_stays_one() {
    let (size, x) = (SIZES[0], matrix([SIZES[0][0], SIZES[0][1]], 5));
    for unit_decoder in [false, true] {
        let form = Form { activation: Activation::Relu, apply_b_dec_to_input: true, unit_decoder };
        let mut p = parameters(size, -1e3);
        p.w_dec = p.w_dec.slice_fill([3..4, 0..size[1]], 0.0);
        let settings = Settings { path: None, ..settings(Precision::Auto, Path::Sparse, Hints::default()) };
        let (state, _) = step(state(p), x.clone(), form, settings);
        let found = values(&state.parameters.w_dec.slice([3..4, 0..size[1]]));
        assert_eq!(found, vec![0.0; size[1]]);
    }
}

#[test]
fn the_path_follows_the_density() {
    let (size, x) = (SIZES[1], matrix([SIZES[1][0], SIZES[1][1]], 5));
    let form = Form { activation: Activation::Relu, apply_b_dec_to_input: false, unit_decoder: false };
    for (bias, expected) in [(0.0, Path::Dense), (-1.5, Path::Sparse)] {
        let settings = Settings { path: None, ..settings(Precision::Auto, Path::Sparse, Hints::default()) };
        let (_, found) = step(state(parameters(size, bias)), x.clone(), form, settings);
        assert_eq!((found.path, Path::for_share(found.hints.share)), (expected, expected));
    }
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    let (size, x) = (SIZES[1], matrix([SIZES[1][0], SIZES[1][1]], 5));
    for form in forms() {
        for (precision, path) in
            [(Precision::F32, Path::Sparse), (Precision::F32, Path::Dense), (Precision::Auto, Path::Sparse)]
        {
            let take = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let settings = settings(precision, path, Hints { share: 0.0, floor: 0.2 });
                let (state, result) =
                    pool.install(|| step(state(parameters(size, -0.3)), x.clone(), form, settings));
                (found(&state, &result), values(&state.parameters.w_enc), values(&state.parameters.w_dec))
            };
            assert!(take(1) == take(3), "{form:?} {precision:?} {path:?}");
        }
    }
}
