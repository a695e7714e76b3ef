//! Losses, gradients and parameters of training steps are PyTorch's. `fixtures/train_step/export.py` made them.
#![allow(clippy::unwrap_used)]
#![allow(deprecated, reason = "burn-ndarray is on its way out upstream; here it is the second opinion")]

use std::path::Path;

use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{Device, Tensor, TensorData},
};
use monosema_core::{BlockHook, HookPoint, Seed};
use monosema_sae::{Sae, SaeConfig, Weights};
use monosema_store::HookColumn;
use monosema_trainer::{
    Rates, StoreFacts, TrainConfig, TrainPlan, Width,
    step::{AutodiffStep, FusedStep, TrainStep},
};
use safetensors::SafeTensors;

const D_IN: usize = 9;
const D_SAE: usize = 24;
const N: usize = 16;
const STEPS: usize = 10;
/// As in the exporter.
const RATES: Rates = Rates { lr: 2e-3, l1: 0.7 };
const GRAD_CLIP: f64 = 20.0;

/// The reference is float64; a gradient here is a float32 sum over 16 tokens and up to 24 latents.
const GRADIENT_TOLERANCE: f32 = 2e-6;
/// Ten steps of 2e-3 move a weight by at most 0.02, and Adam divides by gradients that are near 0 at times.
///
/// Its ε is 1e-8, PyTorch's, in the exporter and in the recipe. With 1e-5, which is burn's own default, the steps of
/// weights with small gradients are shorter: `W_dec` is then 7e-6 away, and the test fails.
const WEIGHT_TOLERANCE: f32 = 2e-6;

const NAMES: [&str; 4] = ["W_enc", "b_enc", "W_dec", "b_dec"];

fn golden(name: &str) -> (Vec<usize>, Vec<f32>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/train_step/golden.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let view = tensors.tensor(name).unwrap();
    let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    (view.shape().to_vec(), values)
}

#[track_caller]
fn assert_close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(
        worst <= tolerance * largest.max(1.0),
        "{what}: differs by {worst}, the largest value is {largest}"
    );
}

fn start(device: &Device) -> Sae {
    let mut weights = Weights::default();
    for name in NAMES {
        let (shape, values) = golden(&format!("start.{name}"));
        match shape[..] {
            [n] => weights.insert(name, values, [n]),
            [n, m] => weights.insert(name, values, [n, m]),
            _ => unreachable!("weights are vectors and matrices"),
        }
    }
    Sae::from_weights(&SaeConfig::default(), weights, &device.clone().autodiff())
}

fn batch(step: usize, device: &Device) -> Tensor<2> {
    let (_, x) = golden("x");
    let values = x[step * N * D_IN..][..N * D_IN].to_vec();
    Tensor::from_data(TensorData::new(values, [N, D_IN]), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

fn devices() -> [Device; 2] {
    [Device::flex(), Device::ndarray()]
}

#[test]
fn gradients_are_pytorchs() {
    for device in devices() {
        let sae = start(&device);
        let loss = sae.loss(batch(0, &device).autodiff(), RATES.l1);
        let gradients = GradientsParams::from_grads(loss.total.backward(), &sae);
        let affine = sae.affine();
        let found = [
            values(gradients.get::<2>(affine.w_enc.id).unwrap()),
            values(gradients.get::<1>(affine.b_enc.id).unwrap()),
            values(gradients.get::<2>(affine.w_dec.id).unwrap()),
            values(gradients.get::<1>(affine.b_dec.id).unwrap()),
        ];
        for (name, found) in NAMES.iter().zip(found) {
            assert_close(name, &found, &golden(&format!("gradient.{name}")).1, GRADIENT_TOLERANCE);
        }
    }
}

#[test]
fn ten_steps_are_pytorchs() {
    let hooks = vec![HookColumn { hook: HookPoint::block(0, BlockHook::ResidPost), width: D_IN }];
    let config = TrainConfig {
        width: Width::Latents(D_SAE),
        batch_tokens: Some(N),
        grad_clip: Some(GRAD_CLIP),
        ..TrainConfig::default()
    };
    let facts = StoreFacts { hooks, tokens: (N * STEPS) as u64 };
    let plan = TrainPlan::resolve(&config, &facts, Seed(0)).unwrap();
    for (device, kind) in [("flex", "autodiff"), ("ndarray", "autodiff"), ("flex", "fused")] {
        let device = if device == "flex" { Device::flex() } else { Device::ndarray() };
        let mut step: Box<dyn TrainStep> = match kind {
            "fused" => Box::new(FusedStep::new(start(&device).valid(), &plan, &device).unwrap()),
            _ => Box::new(AutodiffStep::new(start(&device), &plan)),
        };
        for index in 0..STEPS {
            let stats = step.step(batch(index, &device), RATES);
            let found = [stats.loss, stats.squared_error, stats.penalty, stats.grad_norm, stats.fired.sum()];
            for (name, found) in ["loss", "mse", "l1", "grad_norm", "fired"].iter().zip(found) {
                assert_close(name, &values(found), &golden(name).1[index..=index], GRADIENT_TOLERANCE);
            }
            if index == 0 || index == STEPS - 1 {
                for (name, found) in step.sae().to_weights().iter() {
                    let expected = golden(&format!("after{}.{name}", index + 1)).1;
                    assert_close(name, found.as_slice().unwrap(), &expected, WEIGHT_TOLERANCE);
                }
            }
        }
    }
}
