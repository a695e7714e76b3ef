//! `monosema check-device DEVICE MODEL`: whether a device computes what the CPU does. `scripts/gpu-check.sh` runs it.
//!
//! The same numbers are computed on both: every hook and the logits of a language model, logits after a hook was
//! replaced, and a short training of every architecture. They are compared by ‖a − b‖ / ‖b‖, which a wrong kernel puts
//! near 1.

use std::collections::BTreeSet;

use anyhow::anyhow;
use burn::tensor::{DataError, Device, Int, Tensor, TensorData};
use monosema_core::{BlockHook, HookPoint};
use monosema_sae::{SaeConfig, Size};
use monosema_trainer::{
    conformance::{By, Values, short_training},
    step::{Path, Precision},
};
use monosema_transformer::{Capture, LanguageModel, Replace};

use crate::{
    device::{self, DeviceName},
    failure::{Failure, Outcome},
    output, table,
};

/// A training on shapes that divide nothing, on one that tensor cores take, and on one whose rows a GPU would like longer.
const TRAININGS: [(usize, Size); 3] =
    [(23, Size::new(11, 37)), (512, Size::new(128, 1024)), (256, Size::new(192, 3000))];

/// By which step, on the device and on the CPU.
const STEPS: [(By, By); 4] = [
    (By::Autodiff, By::Autodiff),
    (By::Fused(Path::Sparse, Precision::F32), By::Fused(Path::Sparse, Precision::F32)),
    (By::Fused(Path::Dense, Precision::F32), By::Fused(Path::Dense, Precision::F32)),
    (By::Fused(Path::Sparse, Precision::Bf16), By::Fused(Path::Sparse, Precision::F32)),
];

/// How far a device may be from the CPU.
struct Limits {
    /// In what one pass computes.
    pass: f64,
    /// In what a few steps of training come to.
    training: f64,
    /// The same with operands rounded to bf16, by 2⁻⁹ = 2e-3: more latents flip at their threshold.
    in_bf16: f64,
}

impl Limits {
    fn of(name: DeviceName) -> Self {
        match name {
            // cubecl computes f32 products in TF32 where that is fastest: operands are rounded to 2⁻¹¹ = 5e-4, and such
            // errors add up over blocks. In training they flip latents at their threshold and, through Adam's
            // division, the direction of weights whose gradient is all but zero.
            DeviceName::Gpu(..) => Self { pass: 1e-2, training: 1e-1, in_bf16: 5e-1 },
            // f32 throughout: sums in another order.
            DeviceName::Auto | DeviceName::Cpu | DeviceName::NdArray => {
                Self { pass: 1e-5, training: 1e-3, in_bf16: 5e-1 }
            }
        }
    }
}

pub(crate) fn run(name: DeviceName, model: &std::path::Path) -> Outcome {
    let checkpoint = crate::model::open(model).map_err(Failure::usage)?;
    let chosen = device::resolve(name)?;
    let limits = Limits::of(chosen.name);
    let mut rows = Vec::new();
    let of_model = |device: &Device| -> Outcome<Values> {
        let model = checkpoint.load(device).map_err(Failure::run)?;
        model_values(&model).map_err(Failure::run)
    };
    rows.extend(Row::of("model", limits.pass, &of_model(&chosen.device)?, &of_model(&Device::flex())?));
    for architecture in SaeConfig::variants() {
        for (n, size) in TRAININGS {
            for (by, expected_by) in STEPS {
                let what = format!("{architecture:?}, {by:?}, {} → {}", size.d_in, size.d_sae);
                let train =
                    |by, device| short_training(&architecture, size, n, by, device).map_err(Failure::run);
                // Some devices have no fused step, or none in bf16.
                if let Some(found) = train(by, &chosen.device)? {
                    let expected =
                        train(expected_by, &Device::flex())?.expect("the CPU has every step in f32");
                    let limit = match by {
                        By::Fused(_, Precision::Bf16) => limits.in_bf16,
                        By::Fused(..) | By::Autodiff => limits.training,
                    };
                    rows.extend(Row::of(&what, limit, &found, &expected));
                }
            }
        }
    }
    let head = [&format!("{} against cpu", chosen.name), "‖a − b‖ / ‖b‖", "at most", ""];
    output::print(table::render(&head, 1, rows.iter().map(Row::cells)))?;
    let differ = rows.iter().filter(|row| !row.agrees()).count();
    if differ == 0 { Ok(()) } else { Err(Failure::run(anyhow!("{}: {differ} value(s) differ", chosen.name))) }
}

/// One comparison.
struct Row {
    what: String,
    found: f64,
    limit: f64,
}

impl Row {
    /// One for every name.
    fn of(what: &str, limit: f64, found: &Values, expected: &Values) -> Vec<Self> {
        let row = |(name, found)| Self { what: format!("{what}: {name}"), found, limit };
        differences(found, expected).into_iter().map(row).collect()
    }

    /// A NaN does not.
    fn agrees(&self) -> bool {
        self.found <= self.limit
    }

    fn cells(&self) -> Vec<String> {
        let verdict = if self.agrees() { "ok" } else { "DIFFERS" };
        vec![
            self.what.clone(),
            format!("{:.1e}", self.found),
            format!("{:.0e}", self.limit),
            verdict.to_owned(),
        ]
    }
}

/// How far each of the values is from what is expected of its name; infinitely where either is missing.
fn differences(found: &Values, expected: &Values) -> Vec<(String, f64)> {
    let names: BTreeSet<&String> = found.iter().chain(expected).map(|(name, _)| name).collect();
    let of = |values: &'_ Values, name: &String| {
        values.iter().find(|(n, _)| n == name).map(|(_, values)| values.clone())
    };
    let difference = |name: &&String| match (of(found, name), of(expected, name)) {
        (Some(a), Some(b)) => relative(&a, &b),
        _ => f64::INFINITY,
    };
    names.iter().map(|name| ((*name).clone(), difference(name))).collect()
}

/// Every hook, the logits, and the logits after a replacement, of the same tokens everywhere.
fn model_values(model: &LanguageModel) -> Result<Values, DataError> {
    let info = model.info();
    let [batch, seq] = [3, info.max_context.min(100)];
    let ids: Vec<i32> =
        (0..batch * seq).map(|i| (i * i * 7 + i) % info.d_vocab).map(|id| id as i32).collect();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [batch, seq]), model.device());
    let mut capture = Capture::new(info.hooks());
    let logits = model.unembed(model.forward(tokens.clone(), &mut capture));
    let mut found = Vec::new();
    for hook in info.hooks() {
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

    #[test]
    fn what_is_off_not_a_number_or_missing_does_not_agree() {
        let values = |named: &[(&str, f32)]| -> Values {
            named.iter().map(|&(name, value)| (name.to_owned(), vec![value])).collect()
        };
        let expected = values(&[("a", 1.0), ("b", 1.0), ("c", 1.0), ("d", 1.0)]);
        let found = values(&[("a", 1.0), ("b", 1.1), ("c", f32::NAN), ("e", 1.0)]);
        let rows = differences(&found, &expected);
        let agree = rows.into_iter().map(|(what, found)| {
            let row = Row { what, found, limit: 1e-2 };
            (row.what.clone(), row.agrees(), row.cells()[3].clone())
        });
        let expected = [("a", true), ("b", false), ("c", false), ("d", false), ("e", false)];
        let verdict = |agrees| if agrees { "ok" } else { "DIFFERS" };
        let expected = expected.map(|(name, agrees)| (name.to_owned(), agrees, verdict(agrees).to_owned()));
        assert_eq!(agree.collect::<Vec<_>>(), expected);
    }
}
