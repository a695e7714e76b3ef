//! What every registered architecture must do, tried on each of its configurations.

use std::collections::BTreeMap;

use burn::{
    optim::GradientsParams,
    tensor::{Device, Tensor, TensorData},
};
use monosema_core::{BlockHook, HookPoint, Seed};
use rand::Rng;

use crate::{Dictionary, Metadata, Sae, SaeConfig, Size, Weights};

/// Odd, so that nothing divides anything.
const SIZE: Size = Size { d_in: 7, d_sae: 19 };
const N: usize = 13;

/// Products of another blocking sum in another order: a few units in the last place of values near 1.
const REORDERING: f32 = 2e-6;

fn uniform(rng: &mut impl Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// Weights as training leaves them: nothing zero, nothing tied, decoder rows of norm 1 where they are kept so.
fn trained_weights(config: &SaeConfig, seed: u64) -> Weights {
    let mut rng = Seed(seed).stream("conformance");
    let mut weights = Weights::default();
    for (name, shape) in config.shapes(SIZE) {
        let mut values = uniform(&mut rng, shape.iter().product());
        if name == "W_dec" && config.keeps_unit_decoder() {
            for row in values.chunks_mut(SIZE.d_in) {
                let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
                row.iter_mut().for_each(|v| *v /= norm);
            }
        }
        weights.insert_data(name, TensorData::new(values, shape));
    }
    weights
}

fn trained(config: &SaeConfig, device: &Device) -> Sae {
    Sae::from_weights(config, trained_weights(config, 1), device)
}

fn inputs(device: &Device) -> Tensor<2> {
    let values = uniform(&mut Seed(2).stream("inputs"), N * SIZE.d_in);
    Tensor::from_data(TensorData::new(values, [N, SIZE.d_in]), device)
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
    for config in SaeConfig::variants() {
        let sae = Sae::init(&config, SIZE, Seed(1), &Device::flex());
        assert_eq!((sae.size(), sae.config()), (SIZE, config.clone()));
        let found: BTreeMap<_, _> =
            sae.to_weights().iter().map(|(name, data)| (name, data.shape().to_vec())).collect();
        assert_eq!(found, config.shapes(SIZE).into_iter().collect());
    }
}

#[test]
fn a_seed_means_the_same_weights() {
    for config in SaeConfig::variants() {
        let weights = |seed| Sae::init(&config, SIZE, Seed(seed), &Device::flex()).to_weights();
        assert_eq!(weights(1), weights(1));
        assert_ne!(weights(1), weights(2));
    }
}

#[test]
fn saving_and_loading_changes_no_bit() {
    for config in SaeConfig::variants() {
        let mut metadata = Metadata::new(HookPoint::block(3, BlockHook::ResidPost));
        metadata.model_name = Some("model".into());
        metadata.context_size = Some(128);
        metadata.scale = Some(0.1 + 0.2);
        metadata.facts.insert("recipe".into(), "april2024".into());
        metadata.other.insert("dataset_trust_remote_code".into(), true.into());
        let log_sparsity: Vec<_> = (0..SIZE.d_sae).map(|i| -10.0 + i as f32 / 3.0).collect();
        let saved = Dictionary::new(trained(&config, &Device::flex()), metadata, Some(log_sparsity));
        let dir = tempfile::tempdir().unwrap();
        let written = saved.save(dir.path()).unwrap();
        assert_eq!(written.len(), std::fs::read_dir(dir.path()).unwrap().count());

        let loaded = Dictionary::load(dir.path(), &Device::flex()).unwrap();
        assert_eq!(loaded.sae().to_weights(), saved.sae().to_weights());
        assert_eq!(loaded.sae().config(), config);
        assert_eq!(loaded.log_sparsity(), saved.log_sparsity());
        assert_eq!(loaded.metadata(), saved.metadata());
    }
}

#[test]
fn a_batch_may_be_split_anywhere() {
    for config in SaeConfig::variants() {
        let device = Device::flex();
        let (sae, x) = (trained(&config, &device), inputs(&device));
        let both = |x: Tensor<2>| {
            let acts = sae.encode(x);
            (values(acts.clone()), values(sae.decode(acts)))
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
    for config in SaeConfig::variants() {
        let device = Device::flex();
        let (sae, x) = (trained(&config, &device), inputs(&device));
        let loss = sae.loss(x.clone(), 0.5);
        let acts = sae.encode(x.clone());
        assert_close(&values(loss.acts), &values(acts.clone()), REORDERING);
        let (x, x_hat) = (values(x), values(sae.decode(acts)));
        let squared: f32 = x.iter().zip(x_hat).map(|(a, b)| (a - b).powi(2)).sum();
        assert_close(&values(loss.squared_error.clone()), &[squared / N as f32], 1e-5);
        assert_close(&values(loss.total), &values(loss.squared_error + loss.penalty * 0.5), REORDERING);
    }
}

#[test]
fn export_is_the_same_function_of_raw_activations() {
    // What the sums in between round: they are larger than their results.
    const ROUNDING: f32 = 2e-5;
    let scale = 0.37;
    for config in SaeConfig::variants() {
        let device = Device::flex();
        let trained = trained(&config, &device);
        let exported =
            Sae::from_weights(&config, trained_weights(&config, 1), &device.clone().autodiff()).export(scale);
        let x = inputs(&device);
        let before = trained.encode(x.clone() * scale);
        let after = exported.encode(x);
        let expected = values(trained.decode(before.clone()) / scale);
        assert_close(&values(exported.decode(after.clone())), &expected, ROUNDING);
        let active = |acts: Tensor<2>| values(acts).into_iter().map(|a| a > 0.0).collect::<Vec<_>>();
        assert_eq!(active(after), active(before));

        let weights = exported.to_weights();
        let (_, w_dec) = weights.iter().find(|(name, _)| *name == "W_dec").unwrap();
        for row in w_dec.as_slice::<f32>().unwrap().chunks(SIZE.d_in) {
            let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
            assert!((norm - 1.0).abs() < 1e-6, "a decoder row of norm {norm}");
        }
    }
}

/// The loss with `step` times `direction` added to the weight `name`.
fn loss_along(config: &SaeConfig, name: &str, direction: &[f32], step: f32) -> f64 {
    let mut moved = Weights::default();
    for (other, data) in trained_weights(config, 1).iter() {
        let mut values: Vec<f32> = data.try_to_vec().unwrap();
        if other == name {
            values.iter_mut().zip(direction).for_each(|(v, d)| *v += step * d);
        }
        moved.insert_data(other, TensorData::new(values, data.shape().clone()));
    }
    let device = Device::flex();
    let loss = Sae::from_weights(config, moved, &device).loss(inputs(&device), 0.3);
    f64::from(loss.total.into_scalar::<f32>())
}

#[test]
fn gradients_equal_finite_differences() {
    // Rounding of the loss over the step, and the kinks of activations that the step crosses.
    const TOLERANCE: f64 = 0.01;
    const STEP: f32 = 1e-3;
    for config in SaeConfig::variants() {
        let device = Device::flex().autodiff();
        let sae = trained(&config, &device);
        let gradients = GradientsParams::from_grads(sae.loss(inputs(&device), 0.3).total.backward(), &sae);
        let mut by_name = NamedGradients { gradients, found: Vec::new(), path: Vec::new() };
        burn::module::Module::visit(&sae, &mut by_name);
        assert_eq!(by_name.found.len(), config.shapes(SIZE).len());
        for (field, gradient) in by_name.found {
            let name = field.replace("w_", "W_");
            let direction = uniform(&mut Seed(3).stream(&name), gradient.len());
            let expected: f64 =
                gradient.iter().zip(&direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
            let [ahead, behind] = [STEP, -STEP].map(|step| loss_along(&config, &name, &direction, step));
            let found = (ahead - behind) / (2.0 * f64::from(STEP));
            let error = (found - expected).abs() / expected.abs().max(1.0);
            assert!(error < TOLERANCE, "{config:?} {name}: difference {found}, gradient {expected}");
        }
    }
}

/// Collects the gradient of every parameter under the name of its field.
struct NamedGradients {
    gradients: GradientsParams,
    found: Vec<(String, Vec<f32>)>,
    path: Vec<String>,
}

impl burn::module::ModuleVisitor for NamedGradients {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &burn::module::Param<Tensor<D>>) {
        let gradient = self.gradients.get::<D>(param.id).expect("the loss depends on every weight");
        self.found.push((self.path.last().cloned().unwrap_or_default(), values(gradient)));
    }
}
