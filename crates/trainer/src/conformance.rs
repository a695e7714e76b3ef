//! A short training whose every number two devices can be compared by.

use burn::tensor::{DataError, Device, Tensor, TensorData};
use monosema_core::{BlockHook, HookPoint, Seed};
use monosema_kernels::Path;
use monosema_sae::{Sae, SaeConfig, Size};
use monosema_store::HookColumn;

use crate::{
    StoreFacts, TrainBatch, TrainConfig, TrainPlan, Width,
    step::{AutodiffStep, FusedStep, Precision, TrainStep},
};

const STEPS: u64 = 5;

/// Values by name.
pub type Values = Vec<(String, Vec<f32>)>;

/// By which step to train.
#[derive(Clone, Copy, Debug)]
pub enum By {
    /// [`AutodiffStep`].
    Autodiff,
    /// [`FusedStep`], by this path.
    Fused(Path, Precision),
}

/// Trains `architecture` on `device` for a few steps of `n` made-up activations, the same everywhere. Returns, by name,
/// losses, gradient norms and counts of every step, how far each weight moved, and latents and reconstructions of
/// the dictionary that comes out; `None` if the device has no such step.
///
/// # Errors
/// Values that do not come back from the device.
///
/// # Panics
/// A device that fails may panic on its own threads and here.
pub fn short_training(
    architecture: &SaeConfig,
    size: Size,
    n: usize,
    by: By,
    device: &Device,
) -> Result<Option<Values>, DataError> {
    let column = HookColumn { hook: HookPoint::block(0, BlockHook::ResidPost), width: size.d_in };
    let config = TrainConfig {
        architecture: Some(architecture.clone()),
        width: Width::Latents(size.d_sae),
        batch_tokens: Some(n),
        lr: Some(1e-3),
        precision: if let By::Fused(_, precision) = by { precision } else { Precision::Auto },
        ..TrainConfig::default()
    };
    let facts = StoreFacts { hooks: vec![column], tokens: STEPS * n as u64, ..StoreFacts::default() };
    let plan = TrainPlan::resolve(&config, &facts, Seed(0)).expect("the numbers above make a training");
    let batch = |step| TrainBatch { x: batch([n, size.d_in], step, device), y: None, variance: 1.0 };

    let init = |device: &Device| Sae::init(architecture, size, &plan.init(Vec::new()), device);
    let before = init(device).to_weights();
    let mut step: Box<dyn TrainStep> = match by {
        By::Autodiff => Box::new(AutodiffStep::new(init(&device.clone().autodiff()), &plan)),
        By::Fused(path, _) => {
            let step =
                plan.check_device(device).ok().and_then(|()| FusedStep::new(init(device), &plan, device));
            let Some(mut step) = step else { return Ok(None) };
            step.force(Some(path));
            Box::new(step)
        }
    };
    let mut found = Vec::new();
    for index in 0..STEPS {
        let stats = step.step(&batch(index), plan.schedule.at(index), None);
        for (name, values) in
            [("loss", stats.loss), ("gradient norm", stats.grad_norm), ("fired", stats.fired)]
        {
            found.push((format!("{name} {index}"), values.into_data().try_to_vec()?));
        }
    }
    for ((name, before), (_, after)) in before.iter().zip(step.sae().to_weights().iter()) {
        let (before, after): (Vec<f32>, Vec<f32>) = (before.try_to_vec()?, after.try_to_vec()?);
        let moved = after.iter().zip(&before).map(|(after, before)| after - before).collect();
        found.push((format!("{name} moved"), moved));
    }
    let exported = step.sae().export(0.5, Some(0.1));
    let x = batch(STEPS).x;
    let acts = exported.encode(x.clone());
    found.push(("acts".into(), acts.clone().into_data().try_to_vec()?));
    found.push(("x_hat".into(), exported.decode(acts, x).into_data().try_to_vec()?));
    Ok(Some(found))
}

/// A fixed pattern without structure, between -2 and 2.
fn batch(shape: [usize; 2], step: u64, device: &Device) -> Tensor<2> {
    let value = |i: u64| ((i * 2_654_435_761 + step * 40_503) % 4096) as f32 / 1024.0 - 2.0;
    let values: Vec<f32> = (0..(shape[0] * shape[1]) as u64).map(value).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}
