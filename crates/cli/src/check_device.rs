//! `monosema check-device DEVICE MODEL`: whether a device computes what the CPU does. `scripts/gpu-check.sh` runs it.
//!
//! The same numbers are computed on both: every hook and the logits of a language model, logits after a hook was
//! replaced, and a short training of every architecture. They are compared by ‖a − b‖ / ‖b‖, which a wrong kernel puts
//! near 1.

use std::path::Path;

use anyhow::anyhow;
use burn::tensor::{DataError, Device, Int, Tensor, TensorData};
use monosema_core::{BlockHook, HookPoint};
use monosema_sae::{SaeConfig, Size};
use monosema_trainer::conformance::short_training;
use monosema_transformer::{Capture, Checkpoint, LanguageModel, Replace};

use crate::{
    device::{self, DeviceName},
    failure::{Failure, Outcome},
    output, table,
};

/// Values by name.
type Values = Vec<(String, Vec<f32>)>;

/// A training on shapes that divide nothing, and on one that tensor cores take.
const TRAININGS: [(usize, Size); 2] =
    [(23, Size { d_in: 11, d_sae: 37 }), (512, Size { d_in: 128, d_sae: 1024 })];

/// How far a device may be from the CPU.
struct Limits {
    /// In what one pass computes.
    pass: f64,
    /// In what a few steps of training come to.
    training: f64,
}

impl Limits {
    fn of(name: DeviceName) -> Self {
        match name {
            // cubecl computes f32 products in TF32 where that is fastest: operands are rounded to 2⁻¹¹ = 5e-4, and such
            // errors add up over blocks. In training they flip latents at their threshold and, through Adam's
            // division, the direction of weights whose gradient is all but zero.
            DeviceName::Cuda(_) => Self { pass: 1e-2, training: 1e-1 },
            // f32 throughout: sums in another order.
            DeviceName::Auto | DeviceName::Cpu | DeviceName::NdArray => Self { pass: 1e-5, training: 1e-3 },
        }
    }
}

pub(crate) fn run(name: DeviceName, model: &Path) -> Outcome {
    let checkpoint = Checkpoint::open(model).map_err(Failure::usage)?;
    let chosen = device::resolve(name)?;
    let limits = Limits::of(chosen.name);
    let mut rows = Vec::new();
    let mut differ = 0;
    let mut compare = |what: &str, limit: f64, compute: &dyn Fn(&Device) -> Outcome<Values>| -> Outcome {
        for ((name, a), (_, b)) in compute(&chosen.device)?.iter().zip(&compute(&Device::flex())?) {
            let found = relative(a, b);
            // A NaN is a difference too.
            let verdict = if found <= limit { "ok" } else { "DIFFERS" };
            differ += usize::from(verdict != "ok");
            let what = format!("{what}: {name}");
            rows.push(vec![what, format!("{found:.1e}"), format!("{limit:.0e}"), verdict.to_owned()]);
        }
        Ok(())
    };
    compare("model", limits.pass, &|device| {
        let model = checkpoint.load(device).map_err(Failure::run)?;
        model_values(&model).map_err(Failure::run)
    })?;
    for architecture in SaeConfig::variants() {
        for (n, size) in TRAININGS {
            let what = format!("{architecture:?}, {} → {}", size.d_in, size.d_sae);
            compare(&what, limits.training, &|device| {
                short_training(&architecture, size, n, device).map_err(Failure::run)
            })?;
        }
    }
    let head = [&format!("{} against cpu", chosen.name), "‖a − b‖ / ‖b‖", "at most", ""];
    output::print(table::render(&head, 1, rows))?;
    if differ == 0 { Ok(()) } else { Err(Failure::run(anyhow!("{}: {differ} value(s) differ", chosen.name))) }
}

/// Every hook, the logits, and the logits after a replacement, of the same tokens everywhere.
fn model_values(model: &LanguageModel) -> Result<Values, DataError> {
    let info = model.info();
    let [batch, seq] = [3, info.max_context.min(100)];
    let ids: Vec<i32> =
        (0..batch * seq).map(|i| (i * i * 7 + i) % info.d_vocab).map(|id| id as i32).collect();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [batch, seq]), model.device());
    let mut capture = Capture::new(HookPoint::all(info.n_layers));
    let logits = model.unembed(model.forward(tokens.clone(), &mut capture));
    let mut found = Vec::new();
    for hook in HookPoint::all(info.n_layers) {
        let x = capture.take(hook).expect("a whole pass visits every hook");
        found.push((hook.to_string(), x.into_data().try_to_vec()?));
    }
    found.push(("logits".into(), logits.into_data().try_to_vec()?));
    let middle = HookPoint::block(info.n_layers / 2, BlockHook::ResidPre);
    let logits = model.unembed(model.forward(tokens, &mut Replace::new(middle, |x| x * 0.5)));
    found.push((format!("logits, {middle} halved"), logits.into_data().try_to_vec()?));
    Ok(found)
}

/// ‖a − b‖ / ‖b‖; 0 where both are zero, and not a number where either is not.
fn relative(a: &[f32], b: &[f32]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = square(&mut a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b)));
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    if difference == 0.0 { 0.0 } else { difference / square(&mut b.iter().map(|&b| f64::from(b))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_and_nan_is_one() {
        assert_eq!(relative(&[3.0, 0.0], &[0.0, 4.0]), 1.25);
        assert_eq!(relative(&[0.0], &[0.0]), 0.0);
        assert_eq!(relative(&[1.0], &[]), f64::INFINITY);
        assert!(relative(&[f32::NAN], &[1.0]).is_nan() && relative(&[f32::NAN], &[f32::NAN]).is_nan());
    }
}
