//! The loop: batches in, parameters out, a line to the logs every so often.

use std::time::Instant;

use burn::tensor::Device;
use monosema_core::Progress;
use monosema_store::StoreError;

use crate::{
    Logs, Rates, Record, TrainBatch, TrainError, TrainPlan,
    step::TrainStep,
    window::{Means, Window},
};

/// Added to a frequency before its logarithm is taken; SAELens does the same.
const LOG_FLOOR: f64 = 1e-10;

/// What the loop knows at its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// The last line of the logs.
    pub last: Record,
    /// log10(frequency + 1e-10) of every latent over the run's last `dead_window_tokens`.
    pub log_sparsity: Vec<f32>,
    /// Latents that never fired in them.
    pub dead_latents: u64,
    /// Tokens a second over the whole loop.
    pub tokens_per_s: f64,
}

/// Trains what `step` holds for `plan.steps` steps on `batches`, each of `plan.batch_tokens` rows, which lie on `device`
/// (plain, without autodiff).
///
/// # Errors
/// A batch that cannot be read or has the wrong shape; too few batches; a loss that is not finite; logs that cannot
/// be written.
pub fn fit(
    plan: &TrainPlan,
    step: &mut dyn TrainStep,
    batches: impl IntoIterator<Item = Result<TrainBatch, StoreError>>,
    device: &Device,
    logs: &mut Logs,
) -> Result<Fitted, TrainError> {
    let mut batches = batches.into_iter();
    let mut window = Window::new(plan, device);
    let mut progress = Progress::start("train", "tokens", plan.tokens);
    let mut logged = (Instant::now(), 0);
    let mut last: Option<Record> = None;
    for index in 0..plan.steps {
        let TrainBatch { x, variance } = next_batch(plan, index, &mut batches)?;
        let rates = plan.schedule.at(index);
        let stats = step.step(x, rates);
        window.add(stats, variance);
        let done = index + 1;
        if done % plan.log_every_steps == 0 || done == plan.steps {
            let means = window.read();
            check_finite(index, &means, rates)?;
            let tokens_per_s = tokens_per_s(plan, done - logged.1, logged.0);
            logged = (Instant::now(), done);
            let record = record(plan, done, &means, rates, tokens_per_s);
            logs.write(&record)?;
            last = Some(record);
        }
        progress.advance(plan.batch_tokens as u64, || last.as_ref().map(summary).unwrap_or_default());
    }
    let tokens_per_s = progress.finish();
    let fired = window.fired_at_end();
    let frequency = |&n: &u64| n as f64 / plan.dead_window_tokens as f64;
    Ok(Fitted {
        last: last.expect("a plan has at least one step, and the last one is logged"),
        log_sparsity: fired.iter().map(|n| (frequency(n) + LOG_FLOOR).log10() as f32).collect(),
        dead_latents: fired.iter().filter(|&&n| n == 0).count() as u64,
        tokens_per_s,
    })
}

fn next_batch(
    plan: &TrainPlan,
    index: u64,
    batches: &mut impl Iterator<Item = Result<TrainBatch, StoreError>>,
) -> Result<TrainBatch, TrainError> {
    let wrong = |found: String| {
        let expected = format!("{} rows of {} numbers", plan.batch_tokens, plan.d_in);
        TrainError::Batch { step: index, expected, found }
    };
    let batch = batches.next().ok_or_else(|| wrong("the end of the data".into()))??;
    let [n, width] = batch.x.dims();
    if [n, width] != [plan.batch_tokens, plan.d_in] {
        return Err(wrong(format!("{n} rows of {width}")));
    }
    Ok(batch)
}

fn check_finite(index: u64, means: &Means, rates: Rates) -> Result<(), TrainError> {
    for (what, value) in [("loss", means.loss), ("gradient's norm", means.grad_norm)] {
        if !value.is_finite() {
            return Err(TrainError::Diverged { step: index, what, value, lr: rates.lr });
        }
    }
    Ok(())
}

fn tokens_per_s(plan: &TrainPlan, steps: u64, since: Instant) -> f64 {
    (steps * plan.batch_tokens as u64) as f64 / since.elapsed().as_secs_f64().max(1e-9)
}

fn record(plan: &TrainPlan, done: u64, means: &Means, rates: Rates, tokens_per_s: f64) -> Record {
    Record {
        step: done,
        tokens: done * plan.batch_tokens as u64,
        loss: means.loss,
        mse: means.squared_error,
        l1: means.penalty,
        l0: means.fired / plan.batch_tokens as f64,
        fvu: means.squared_error / means.variance,
        dead_share: (done >= plan.dead_window_steps()).then_some(means.dead),
        grad_norm: means.grad_norm,
        lr: rates.lr,
        l1_coefficient: rates.l1,
        tokens_per_s,
    }
}

fn summary(record: &Record) -> String {
    let dead = record.dead_share.map_or(String::new(), |share| format!(" dead {:.1} %", 100.0 * share));
    format!("loss {:.3} L0 {:.1} FVU {:.4}{dead}", record.loss, record.l0, record.fvu)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;
    use monosema_core::{BlockHook, HookPoint, Seed};
    use monosema_sae::Sae;
    use monosema_store::HookColumn;

    use super::*;
    use crate::{StoreFacts, TrainConfig, Width, step::StepStats};

    const D_IN: usize = 2;

    fn plan(steps: u64) -> TrainPlan {
        let hooks = vec![HookColumn { hook: HookPoint::block(0, BlockHook::ResidPost), width: D_IN }];
        let config = TrainConfig {
            width: Width::Latents(3),
            batch_tokens: Some(2),
            shuffle_buffer_tokens: Some(2),
            dead_after_tokens: Some(4),
            log_every_steps: Some(3),
            ..TrainConfig::default()
        };
        TrainPlan::resolve(&config, &StoreFacts { hooks, tokens: 2 * steps }, Seed(0)).unwrap()
    }

    /// Learns nothing; says that the latents fired as told.
    struct Scripted {
        sae: Sae,
        fired: Vec<[f32; 3]>,
        loss: f32,
    }

    impl TrainStep for Scripted {
        fn step(&mut self, x: Tensor<2>, _: Rates) -> StepStats {
            let device = x.device();
            let scalar = |value: f32| Tensor::<1>::from_data([value], &device);
            StepStats {
                loss: scalar(self.loss),
                squared_error: scalar(1.5),
                penalty: scalar(0.5),
                grad_norm: scalar(2.0),
                fired: Tensor::from_data(self.fired.remove(0), &device),
            }
        }

        fn sae(&self) -> Sae {
            self.sae.clone()
        }
    }

    fn run(batches: usize, fired: Vec<[f32; 3]>, loss: f32) -> Result<(Fitted, Vec<Record>), TrainError> {
        let (plan, device) = (plan(fired.len() as u64), Device::flex());
        let sae = Sae::init(&plan.architecture, plan.size(), Seed(0), &device);
        let mut step = Scripted { sae, fired, loss };
        let batch = TrainBatch { x: Tensor::zeros([2, D_IN], &device), variance: 5.0 };
        let dir = tempfile::tempdir().unwrap();
        let mut logs = Logs::create(dir.path())?;
        let batches = std::iter::repeat_with(|| Ok(batch.clone())).take(batches);
        let fitted = fit(&plan, &mut step, batches, &device, &mut logs)?;
        let text = std::fs::read_to_string(dir.path().join(crate::logs::METRICS)).unwrap();
        Ok((fitted, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()))
    }

    #[test]
    fn figures_by_hand() {
        // The dead window is 4 tokens: 2 steps.
        let fired = vec![[1.0, 0.0, 2.0], [1.0, 1.0, 0.0], [2.0, 0.0, 0.0], [1.0, 0.0, 0.0], [2.0, 0.0, 1.0]];
        let (fitted, records) = run(5, fired, 7.0).unwrap();
        let figures =
            |r: &Record| (r.step, r.tokens, r.l0, r.dead_share, r.fvu, r.loss, r.mse, r.l1, r.grad_norm);
        // 7 firings in 6 tokens; the third latent has been silent for 2 steps. 0.3 is 1.5 / 5.
        let third = f64::from(1.0_f32 / 3.0);
        assert_eq!(figures(&records[0]), (3, 6, 7.0 / 6.0, Some(third), 0.3, 7.0, 1.5, 0.5, 2.0));
        // 4 firings in 4 tokens; now it is the second latent.
        assert_eq!(figures(&records[1]), (5, 10, 1.0, Some(third), 0.3, 7.0, 1.5, 0.5, 2.0));
        assert_eq!((records.len(), &fitted.last), (2, &records[1]));
        // 3, 0 and 1 firings in the last 4 tokens.
        let expected = [0.75_f64.log10() as f32, -10.0, 0.25_f64.log10() as f32];
        assert!(fitted.log_sparsity.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{fitted:?}");
        assert_eq!(fitted.dead_latents, 1);
    }

    #[test]
    fn a_loss_that_is_no_number_ends_the_run() {
        let error = run(5, vec![[1.0; 3]; 5], f32::NAN).unwrap_err();
        assert!(matches!(error, TrainError::Diverged { step: 2, what: "loss", .. }), "{error}");
    }

    #[test]
    fn data_that_ends_early_is_an_error() {
        let error = run(4, vec![[1.0; 3]; 5], 1.0).unwrap_err().to_string();
        assert!(error.contains("batch 4") && error.contains("the end of the data"), "{error}");
    }
}
