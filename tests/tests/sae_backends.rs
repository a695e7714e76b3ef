//! Every registered architecture computes the same on both CPU backends: functions, losses and training steps.
#![allow(clippy::unwrap_used)]
#![allow(deprecated, reason = "burn-ndarray is on its way out upstream; here it is the second opinion")]

use burn::tensor::{Device, Tensor, TensorData};
use monosema_core::{BlockHook, HookPoint, Seed};
use monosema_sae::{Sae, SaeConfig};
use monosema_store::HookColumn;
use monosema_trainer::{
    StoreFacts, TrainConfig, TrainPlan, Width,
    step::{AutodiffStep, TrainStep},
};

const D_IN: usize = 11;
const D_SAE: usize = 37;
const N: usize = 23;
const STEPS: u64 = 5;

/// f32 sums in another order, carried through a few steps of Adam.
const TOLERANCE: f32 = 1e-5;

/// A fixed pattern without structure, between -2 and 2.
fn batch(step: u64, device: &Device) -> Tensor<2> {
    let value = |i: u64| ((i * 2_654_435_761 + step * 40_503) % 4096) as f32 / 1024.0 - 2.0;
    let values: Vec<f32> = (0..(N * D_IN) as u64).map(value).collect();
    Tensor::from_data(TensorData::new(values, [N, D_IN]), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// Every number of a short training and of the dictionary that it ends in, by name.
fn everything(architecture: &SaeConfig, device: &Device) -> Vec<(String, Vec<f32>)> {
    let hooks = vec![HookColumn { hook: HookPoint::block(0, BlockHook::ResidPost), width: D_IN }];
    let config = TrainConfig {
        architecture: Some(architecture.clone()),
        width: Width::Latents(D_SAE),
        batch_tokens: Some(N),
        lr: Some(1e-3),
        ..TrainConfig::default()
    };
    let plan = TrainPlan::resolve(&config, &StoreFacts { hooks, tokens: STEPS * N as u64 }, Seed(0)).unwrap();
    let sae = Sae::init(architecture, plan.size(), plan.seed, &device.clone().autodiff());
    let mut step = AutodiffStep::new(sae, &plan);
    let mut found = Vec::new();
    for index in 0..STEPS {
        let stats = step.step(batch(index, device), plan.schedule.at(index));
        found.push((format!("loss {index}"), values(stats.loss)));
        found.push((format!("gradient norm {index}"), values(stats.grad_norm)));
        found.push((format!("fired {index}"), values(stats.fired)));
    }
    let exported = step.sae().export(0.5);
    for (name, data) in exported.to_weights().iter() {
        found.push((name.to_owned(), data.try_to_vec().unwrap()));
    }
    let acts = exported.encode(batch(STEPS, device));
    found.push(("acts".into(), values(acts.clone())));
    found.push(("x_hat".into(), values(exported.decode(acts))));
    found
}

#[test]
fn flex_and_ndarray_agree() {
    for architecture in SaeConfig::variants() {
        let [flex, ndarray] =
            [Device::flex(), Device::ndarray()].map(|device| everything(&architecture, &device));
        assert_eq!(flex.len(), ndarray.len());
        for ((name, a), (_, b)) in flex.iter().zip(&ndarray) {
            assert_eq!(a.len(), b.len(), "{architecture:?} {name}");
            let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f32::max);
            assert!(worst <= TOLERANCE, "{architecture:?} {name}: differ by {worst}");
        }
    }
}
