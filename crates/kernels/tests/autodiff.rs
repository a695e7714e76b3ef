//! The fused step computes the gradients of autodiff: for every activation, by either path, in either precision, at odd
//! sizes, with no latent active and with all of them.
#![allow(clippy::unwrap_used)]

use burn::tensor::{Device, Tensor, TensorData};
use monosema_kernels::{
    Activation, Extras, Form, Found, Last, Memory, NORM_TINY, Parameters, Path, Penalty, Precision, Settings,
    State, step, supports,
};

/// Odd: within one task and one tile, with a remainder of each, and with sums of several parts. Even: as GPUs like it, with more
/// candidates for TopK than fit where they are gathered.
const SIZES: [[usize; 3]; 4] = [[23, 11, 37], [301, 19, 1061], [140, 1301, 97], [70, 64, 5120]];

/// Of the encoder: some latents active, none, few and all.
const BIASES: [f32; 4] = [0.0, -1e3, -1.5, 10.0];

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
        extras: Extras::none(&Device::flex()),
    }
}

fn settings(precision: Precision, path: Path) -> Settings {
    Settings { l1: L1, lr: 1e-3, grad_clip: 1.0, precision, path: Some(path), ..Settings::default() }
}

fn form(activation: Activation, apply_b_dec_to_input: bool, unit_decoder: bool) -> Form {
    Form { apply_b_dec_to_input, unit_decoder, ..Form::new(activation, Penalty::L1) }
}

/// A memory of a step with this smallest activation, after which screening is worth it.
fn after(floor: f32) -> Memory {
    Last { share: 0.0, floor, ..Last::default() }.into()
}

/// Devices that are here and have a fused step.
fn devices() -> Vec<Device> {
    #[cfg(not(feature = "wgpu"))]
    let gpus = Vec::new();
    #[cfg(feature = "wgpu")]
    let gpus = {
        let gpus = Device::enumerate(burn::tensor::DeviceType::Wgpu).into_vec();
        let relu = form(Activation::Relu, false, false);
        let told = settings(Precision::Auto, Path::Sparse);
        assert!(gpus.iter().any(|gpu| supports(gpu, &relu, &told)), "no GPU, in hardware or in software");
        gpus
    };
    [gpus, vec![Device::flex()]].concat()
}

fn to_device(p: &Parameters, device: &Device) -> Parameters {
    Parameters {
        w_enc: p.w_enc.clone().to_device(device),
        w_dec: p.w_dec.clone().to_device(device),
        b_enc: p.b_enc.clone().to_device(device),
        b_dec: p.b_dec.clone().to_device(device),
        extras: Extras::none(device),
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
        Activation::JumpRelu { .. } | Activation::Gated => unreachable!("these are tested where they are"),
    };
    Tensor::from_data(TensorData::new(kept, [n, d_sae]), &Device::flex())
}

/// Loss terms, gradients' norm, gradients and firings by autodiff.
fn expected(p: &Parameters, x: &Tensor<2>, form: &Form) -> Vec<(&'static str, Vec<f32>)> {
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
        [&found.squared_error, &found.penalty, &found.grad_norm].into_iter().flat_map(values).collect(),
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
        Activation::TopK { k: 1000 },
        Activation::BatchTopK { k: 5 },
        Activation::BatchTopK { k: 400 },
        Activation::TopK { k: 5000 },
    ];
    let of =
        |activation| [(false, false), (true, true)].map(|(of_input, unit)| form(activation, of_input, unit));
    activations.into_iter().flat_map(of).collect()
}

#[test]
fn gradients_are_those_of_autodiff() {
    let devices = devices();
    for (size_number, size) in SIZES.into_iter().enumerate() {
        for (bias_number, bias) in BIASES.into_iter().enumerate() {
            // Numbers of which no two are equal but for rounding at the threshold of a TopK.
            let (p, x) = (parameters(size, bias), matrix([size[0], size[1]], 9));
            for (form_number, form) in forms().into_iter().enumerate() {
                let expected = expected(&p, &x, &form);
                // In software all of it takes many minutes. So beside the CPU, which does all, each form meets every size and every bias,
                // but not every pair of them.
                let square = (size_number + bias_number + form_number) % BIASES.len() == 0;
                let settings = settings(Precision::F32, Path::Sparse);
                let on = |device: &&Device| {
                    (square || **device == Device::flex()) && supports(device, &form, &settings)
                };
                for device in devices.iter().filter(on) {
                    let (p, x) = (to_device(&p, device), x.clone().to_device(device));
                    assert_gradients(&p, &x, &form, &expected, &format!("{size:?} {form:?} bias {bias}"));
                }
            }
        }
    }
}

fn assert_gradients(p: &Parameters, x: &Tensor<2>, form: &Form, expected: &[(&str, Vec<f32>)], what: &str) {
    for (precision, path) in
        [(Precision::F32, Path::Sparse), (Precision::F32, Path::Dense), (Precision::Auto, Path::Sparse)]
    {
        let memories = match form.activation {
            // The last step's smallest activation: unknown, far too low, and too high, so that encoding is repeated.
            Activation::BatchTopK { .. } => vec![Memory::default(), after(1e-3), after(1e3)],
            _ => vec![after(0.0)],
        };
        for memory in memories {
            let settings = settings(precision, path);
            let (state, result) = step(State::new(p.clone()), x.clone(), form, settings, &memory);
            for ((name, expected), found) in expected.iter().zip(found(&state, &result)) {
                assert_close(&format!("{name} of {what} {settings:?} on {:?}", x.device()), &found, expected);
            }
        }
    }
}

#[test]
fn unit_rows_keep_their_norms() {
    let (size, form) = (SIZES[1], form(Activation::TopK { k: 7 }, true, true));
    let x = matrix([size[0], size[1]], 5);
    let settings = Settings { lr: 0.1, ..settings(Precision::Auto, Path::Sparse) };
    for device in devices() {
        let before = to_device(&parameters(size, 0.0), &device);
        let x = x.clone().to_device(&device);
        let (state, _) = step(State::new(before.clone()), x, &form, settings, &Memory::default());
        let norms = values(&state.parameters.w_dec.clone().square().sum_dim(1));
        assert!(norms.iter().all(|norm| (norm - 1.0).abs() < 1e-6));
        assert_ne!(values(&state.parameters.w_dec), values(&before.w_dec));
    }
}

#[test]
fn what_others_hold_is_not_changed() {
    let form = form(Activation::Relu, false, false);
    let (size, x) = (SIZES[0], matrix([SIZES[0][0], SIZES[0][1]], 5));
    for device in devices() {
        let mut p = to_device(&parameters(size, 0.0), &device);
        let (mut state, memory) = (State::new(p.clone()), Memory::default());
        for _ in 0..2 {
            let before = values(&p.w_enc);
            let x = x.clone().to_device(&device);
            (state, _) = step(state, x, &form, settings(Precision::Auto, Path::Sparse), &memory);
            assert_eq!(values(&p.w_enc), before);
            assert_ne!(values(&state.parameters.w_enc), before);
            p = state.parameters.clone();
        }
    }
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
        let form = form(activation, false, false);
        let x = matrix([size[0], size[1]], 5);
        let mut p = parameters(size, 0.0);
        p.b_enc = p.b_enc.slice_fill(700..701, f32::NAN);
        for device in devices() {
            let (p, x) = (to_device(&p, &device), x.clone().to_device(&device));
            let (_, found) = step(State::new(p), x, &form, settings(precision, Path::Sparse), &after(0.1));
            assert!(values(&found.squared_error)[0].is_nan(), "{activation:?} {precision:?} on {device:?}");
        }
    }
}

#[test]
fn a_row_of_zeros_stays_one() {
    let (size, x) = (SIZES[0], matrix([SIZES[0][0], SIZES[0][1]], 5));
    for unit_decoder in [false, true] {
        let form = form(Activation::Relu, true, unit_decoder);
        let mut p = parameters(size, -1e3);
        p.w_dec = p.w_dec.slice_fill([3..4, 0..size[1]], 0.0);
        let settings = Settings { path: None, ..settings(Precision::Auto, Path::Sparse) };
        for device in devices() {
            let (p, x) = (to_device(&p, &device), x.clone().to_device(&device));
            let (state, _) = step(State::new(p), x, &form, settings, &Memory::default());
            let found = values(&state.parameters.w_dec.slice([3..4, 0..size[1]]));
            assert_eq!(found, vec![0.0; size[1]]);
        }
    }
}

#[test]
fn the_path_follows_the_density() {
    let (size, x) = (SIZES[1], matrix([SIZES[1][0], SIZES[1][1]], 5));
    let form = form(Activation::Relu, false, false);
    for (bias, expected) in [(0.0, Path::Dense), (-1.5, Path::Sparse)] {
        let settings = Settings { path: None, ..settings(Precision::Auto, Path::Sparse) };
        let memory = Memory::default();
        step(State::new(parameters(size, bias)), x.clone(), &form, settings, &memory);
        let last = memory.last();
        assert_eq!((last.path, Path::for_share(last.share)), (Some(expected), expected));
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
                let (p, settings) = (parameters(size, -0.3), settings(precision, path));
                let (state, result) =
                    pool.install(|| step(State::new(p), x.clone(), &form, settings, &after(0.2)));
                (found(&state, &result), values(&state.parameters.w_enc), values(&state.parameters.w_dec))
            };
            assert!(take(1) == take(3), "{form:?} {precision:?} {path:?}");
        }
    }
}
