//! What every registered architecture must do, tried on each of its configurations.

use std::collections::BTreeMap;

use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{Device, Tensor, TensorData},
};
use monosema_core::{BlockHook, HookPoint, Seed};
use rand::Rng;

use crate::{Dictionary, Init, Metadata, Normalization, Now, Output, Sae, SaeConfig, Size, Weights};

/// Odd, so that nothing divides anything.
const D_IN: usize = 7;
const D_SAE: usize = 19;
const D_OUT: usize = 5;
const N: usize = 13;

/// Products of another blocking sum in another order: a few units in the last place of values near 1.
const REORDERING: f32 = 2e-6;

/// Every configuration as an autoencoder and, where it can be one, as a transcoder with and without a skip connection.
fn cases() -> Vec<(SaeConfig, Size)> {
    let sizes = [None, Some(false), Some(true)].map(|skip| {
        let output = skip.map(|skip| Output { d_out: D_OUT, skip });
        Size { output, ..Size::new(D_IN, D_SAE) }
    });
    let all = SaeConfig::variants().into_iter().flat_map(|config| sizes.map(|size| (config.clone(), size)));
    all.filter(|(config, size)| config.check(*size).is_ok()).collect()
}

fn uniform(rng: &mut impl Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Weights as training leaves them: nothing zero, nothing tied, decoder rows of norm 1 where activations must grow alike,
/// thresholds that latents can pass.
fn trained_weights(config: &SaeConfig, size: Size, seed: u64) -> Weights {
    let mut rng = Seed(seed).stream("conformance");
    let mut weights = Weights::default();
    for (name, shape) in config.shapes(size) {
        let mut values = uniform(&mut rng, shape.iter().product());
        match (name, config) {
            ("W_dec", SaeConfig::TopK(_)) => {
                for row in values.chunks_mut(size.d_out()) {
                    let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
                    row.iter_mut().for_each(|v| *v /= norm);
                }
            }
            ("threshold", _) => values.iter_mut().for_each(|v| *v = v.abs() / 2.0),
            ("log_threshold", _) => values.iter_mut().for_each(|v| *v -= 2.0),
            _ => {}
        }
        weights.insert_data(name, TensorData::new(values, shape));
    }
    weights
}

fn trained(config: &SaeConfig, size: Size, device: &Device) -> Sae {
    Sae::from_weights(config, size, trained_weights(config, size, 1), device)
}

/// What it becomes in a dictionary.
fn exported(config: &SaeConfig, size: Size, scale: f64) -> Sae {
    let device = Device::flex();
    let trained = trained(config, size, &device.clone().autodiff());
    trained.export(
        scale,
        config.chooses_in_batch().then(|| threshold(&trained.valid(), inputs(&device) * scale)),
    )
}

/// Between the smallest activation of a batch and the largest that was not chosen.
fn threshold(sae: &Sae, x: Tensor<2>) -> f32 {
    let kept = values(sae.encode(x.clone()));
    let pre_acts = values(sae.affine().pre_acts(x));
    let smallest = kept.iter().copied().filter(|&a| a > 0.0).fold(f32::INFINITY, f32::min);
    let below = pre_acts.iter().copied().filter(|&z| z < smallest).fold(0.0, f32::max);
    (smallest + below) / 2.0
}

fn noise(rows: usize, width: usize, stream: &str, device: &Device) -> Tensor<2> {
    let values = uniform(&mut Seed(2).stream(stream), rows * width);
    Tensor::from_data(TensorData::new(values, [rows, width]), device)
}

fn inputs(device: &Device) -> Tensor<2> {
    noise(N, D_IN, "inputs", device)
}

/// What is to come out.
fn targets(size: Size, device: &Device) -> Tensor<2> {
    if size.output.is_some() { noise(N, D_OUT, "targets", device) } else { inputs(device) }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

#[track_caller]
fn assert_close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs() / (1.0 + b.abs())).fold(0.0, f32::max);
    assert!(worst <= tolerance, "differ by {worst}, allowed {tolerance}");
}

#[test]
fn shapes_are_those_of_the_weights() {
    for (config, size) in cases() {
        let sae = Sae::init(&config, size, &Init::new(Seed(1), 0.5), &Device::flex());
        assert_eq!((sae.size(), sae.config()), (size, config.clone()));
        let found: BTreeMap<_, _> =
            sae.to_weights().iter().map(|(name, data)| (name, data.shape().to_vec())).collect();
        assert_eq!(found, config.shapes(size).into_iter().collect());
    }
}

#[test]
fn a_seed_means_the_same_weights() {
    for (config, size) in cases() {
        let weights =
            |seed| Sae::init(&config, size, &Init::new(Seed(seed), 1.0), &Device::flex()).to_weights();
        assert_eq!(weights(1), weights(1));
        assert_ne!(weights(1), weights(2));
    }
}

#[test]
fn saving_and_loading_changes_no_bit() {
    for (config, size) in cases() {
        let mut metadata = Metadata::new(HookPoint::block(3, BlockHook::ResidPost));
        metadata.model_name = Some("model".into());
        metadata.hook_out = size.output.map(|_| HookPoint::block(3, BlockHook::MlpOut));
        metadata.normalization = Normalization::LayerNorm;
        metadata.context_size = Some(128);
        metadata.scale = Some(0.1 + 0.2);
        metadata.facts.insert("recipe".into(), "april2024".into());
        metadata.other.insert("dataset_trust_remote_code".into(), true.into());
        let log_sparsity: Vec<_> = (0..D_SAE).map(|i| -10.0 + i as f32 / 3.0).collect();
        let saved = Dictionary::new(exported(&config, size, 0.7), metadata, Some(log_sparsity));
        let dir = tempfile::tempdir().unwrap();
        let written = saved.save(dir.path()).unwrap();
        assert_eq!(written.len(), std::fs::read_dir(dir.path()).unwrap().count());

        let loaded = Dictionary::load(dir.path(), &Device::flex()).unwrap();
        assert_eq!(loaded.sae().to_weights(), saved.sae().to_weights());
        assert_eq!((loaded.sae().config(), loaded.size()), (saved.sae().config(), size));
        assert_eq!(loaded.log_sparsity(), saved.log_sparsity());
        assert_eq!(loaded.metadata(), saved.metadata());
    }
}

#[test]
fn a_batch_may_be_split_anywhere() {
    for (config, size) in cases() {
        let x = inputs(&Device::flex());
        let sae = exported(&config, size, 1.0);
        let both = |x: Tensor<2>| {
            let acts = sae.encode(x.clone());
            (values(acts.clone()), values(sae.decode(acts, x)))
        };
        let (acts, x_hat) = both(x.clone());
        assert!(acts.iter().all(|&a| a >= 0.0) && acts.iter().any(|&a| a > 0.0));
        for split in [1, 5, 12] {
            let (mut first, second) =
                (both(x.clone().narrow(0, 0, split)), both(x.clone().narrow(0, split, N - split)));
            first.0.extend(second.0);
            first.1.extend(second.1);
            assert_close(&first.0, &acts, REORDERING);
            assert_close(&first.1, &x_hat, REORDERING);
        }
    }
}

#[test]
fn loss_is_what_encode_and_decode_say() {
    for (config, size) in cases() {
        let device = Device::flex();
        let (sae, x, y) = (trained(&config, size, &device), inputs(&device), targets(size, &device));
        let loss = sae.loss(x.clone(), y.clone(), &Now::new(0.5));
        let acts = sae.encode(x.clone());
        assert_close(&values(loss.acts), &values(acts.clone()), REORDERING);
        let (x_hat, y) = (values(sae.decode(acts, x)), values(y));
        let squared: f32 = y.iter().zip(x_hat).map(|(a, b)| (a - b).powi(2)).sum();
        assert_close(&values(loss.squared_error.clone()), &[squared / N as f32], 1e-5);
        let rest = loss.rest.unwrap_or_else(|| loss.penalty.zeros_like());
        let terms = loss.squared_error + loss.penalty * 0.5 + rest;
        assert_close(&values(loss.total), &values(terms), REORDERING);
    }
}

#[test]
fn export_is_the_same_function_of_raw_activations() {
    // What the sums in between round: they are larger than their results.
    const ROUNDING: f32 = 2e-5;
    let scale = 0.37;
    for (config, size) in cases() {
        let device = Device::flex();
        let (trained, exported) = (trained(&config, size, &device), exported(&config, size, scale));
        let x = inputs(&device);
        let before = trained.encode(x.clone() * scale);
        let after = exported.encode(x.clone());
        let expected = values(trained.decode(before.clone(), x.clone() * scale) / scale);
        assert_close(&values(exported.decode(after.clone(), x)), &expected, ROUNDING);
        let active = |acts: Tensor<2>| values(acts).into_iter().map(|a| a > 0.0).collect::<Vec<_>>();
        assert_eq!(active(after), active(before), "{config:?}");

        let weights = exported.to_weights();
        let (_, w_dec) = weights.iter().find(|(name, _)| *name == "W_dec").unwrap();
        for row in w_dec.as_slice::<f32>().unwrap().chunks(size.d_out()) {
            let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
            assert!((norm - 1.0).abs() < 1e-6, "{config:?}: a decoder row of norm {norm}");
        }
    }
}

/// The loss with `step` times `direction` added to the weight `name`.
fn loss_along((config, size): &(SaeConfig, Size), name: &str, direction: &[f32], step: f32) -> f64 {
    let mut moved = Weights::default();
    for (other, data) in trained_weights(config, *size, 1).iter() {
        let mut values: Vec<f32> = data.try_to_vec().unwrap();
        if other == name {
            values.iter_mut().zip(direction).for_each(|(v, d)| *v += step * d);
        }
        moved.insert_data(other, TensorData::new(values, data.shape().clone()));
    }
    let device = Device::flex();
    let sae = Sae::from_weights(config, *size, moved, &device);
    let loss = sae.loss(inputs(&device), targets(*size, &device), &Now::new(0.3));
    f64::from(loss.total.into_scalar::<f32>())
}

/// Whether the gradient of a weight is meant to be another than that of the loss: a pseudo-derivative, or none through a
/// frozen copy. Golden values hold these.
fn is_not_the_slope(config: &SaeConfig, name: &str) -> bool {
    match config {
        // A pre-activation that passes its threshold jumps.
        SaeConfig::JumpRelu(_) => !["W_dec", "W_skip"].contains(&name),
        // A gate that opens lets through what is behind it at once.
        SaeConfig::Gated(_) => !["r_mag", "b_mag"].contains(&name),
        _ => false,
    }
}

#[test]
fn gradients_equal_finite_differences() {
    // Rounding of the loss over the step, and the kinks of activations that the step crosses.
    const TOLERANCE: f64 = 0.01;
    const STEP: f32 = 1e-3;
    for case in cases() {
        let (config, size) = &case;
        let device = Device::flex().autodiff();
        let sae = trained(config, *size, &device);
        let loss = sae.loss(inputs(&device), targets(*size, &device), &Now::new(0.3));
        let gradients = GradientsParams::from_grads(loss.total.backward(), &sae);
        let mut in_order = InOrder { gradients, found: Vec::new() };
        sae.visit(&mut in_order);
        let shapes = config.shapes(*size);
        assert_eq!(in_order.found.len(), shapes.len());
        for ((name, _), gradient) in shapes.into_iter().zip(in_order.found) {
            if is_not_the_slope(config, name) {
                continue;
            }
            let direction = uniform(&mut Seed(3).stream(name), gradient.len());
            let expected: f64 =
                gradient.iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
            let [ahead, behind] = [STEP, -STEP].map(|step| loss_along(&case, name, &direction, step));
            let found = (ahead - behind) / (2.0 * f64::from(STEP));
            let error = (found - expected).abs() / expected.abs().max(1.0);
            assert!(error < TOLERANCE, "{case:?} {name}: difference {found}, gradient {expected}");
        }
    }
}

/// Collects the gradient of every parameter, in the order of the fields.
struct InOrder {
    gradients: GradientsParams,
    found: Vec<Vec<f32>>,
}

impl burn::module::ModuleVisitor for InOrder {
    fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
        let gradient = self.gradients.get::<D>(param.id).expect("the loss depends on every weight");
        self.found.push(values(gradient));
    }
}
