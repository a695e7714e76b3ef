//! The loop with a step that learns nothing and says what it is told to.

use std::{collections::BTreeMap, path::Path};

use burn::tensor::{Device, Tensor};
use monosema_core::{BlockHook, HookPoint, Seed, Stage, manifest::Work};
use monosema_sae::{Init, Sae};
use monosema_store::HookColumn;
use serde_json::Value;

use super::*;
use crate::{
    Rates, StoreFacts, TrainConfig, Width,
    logs::{self, Lengths},
    member::Firing,
    step::{StepState, StepStats, TrainStep},
};

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
    TrainPlan::resolve(&config, &StoreFacts { hooks, tokens: 2 * steps, ..StoreFacts::default() }, Seed(0))
        .unwrap()
}

/// Learns nothing; says that the latents fired as told.
struct Scripted {
    sae: Sae,
    fired: Vec<[f32; 3]>,
    loss: f32,
}

impl TrainStep for Scripted {
    fn step(&mut self, batch: &TrainBatch, _: Rates, _: Option<Tensor<1>>) -> StepStats {
        let device = batch.x.device();
        let scalar = |value: f32| Tensor::<1>::from_data([value], &device);
        StepStats {
            loss: scalar(self.loss),
            squared_error: scalar(1.5),
            penalty: scalar(0.5),
            grad_norm: scalar(2.0),
            fired: Tensor::from_data(self.fired.remove(0), &device),
            rest: Some(scalar(0.25)),
            smallest: None,
            next_penalty: None,
        }
    }

    fn sae(&self) -> Sae {
        self.sae.clone()
    }

    fn state(&self) -> StepState {
        StepState { parameters: self.sae.to_weights(), ..StepState::default() }
    }

    fn restore(&mut self, _: StepState) {
        unreachable!("nothing is interrupted here")
    }
}

fn member(plan: &TrainPlan, fired: Vec<[f32; 3]>, loss: f32, out: &Path) -> Member {
    let device = Device::flex();
    let sae = Sae::init(&plan.architecture, plan.size, &Init::new(Seed(0), 1.0), &device);
    let work = Work { stage: Stage::Train, config: Value::Null, seed: Seed(0), inputs: BTreeMap::new() };
    Member::with_step(
        plan.clone(),
        work,
        out,
        Box::new(Scripted { sae, fired, loss }),
        &Lengths::new(),
        &device,
    )
    .unwrap()
}

fn batches(n: usize) -> impl Iterator<Item = Result<TrainBatch, StoreError>> {
    let batch = TrainBatch { x: Tensor::zeros([2, D_IN], &Device::flex()), y: None, variance: 5.0 };
    std::iter::repeat_with(move || Ok(batch.clone())).take(n)
}

fn run(n: usize, fired: Vec<[f32; 3]>, loss: f32) -> Result<(Fitted, Vec<Record>), TrainError> {
    let (plan, dir) = (plan(fired.len() as u64), tempfile::tempdir().unwrap());
    let members = vec![member(&plan, fired, loss, dir.path())];
    let fitted = fit(members, 0, batches(n), &mut Saver::new(1_000_000), |_, error| panic!("{error}"))?;
    Ok((fitted, logs::read(dir.path(), logs::METRICS)?))
}

#[test]
fn figures_by_hand() {
    // The dead window is 4 tokens: 2 steps.
    let fired = vec![[1.0, 0.0, 2.0], [1.0, 1.0, 0.0], [2.0, 0.0, 0.0], [1.0, 0.0, 0.0], [2.0, 0.0, 1.0]];
    let (mut fitted, records) = run(5, fired, 7.0).unwrap();
    let figures = |r: &Record| {
        (r.step, r.tokens, r.l0, r.dead_share, r.fvu, [r.loss, r.mse, r.penalty, r.rest, r.grad_norm])
    };
    // 7 firings in 6 tokens; the third latent has been silent for 2 steps. 0.3 is 1.5 / 5.
    let third = f64::from(1.0_f32 / 3.0);
    assert_eq!(figures(&records[0]), (3, 6, 7.0 / 6.0, Some(third), 0.3, [7.0, 1.5, 0.5, 0.25, 2.0]));
    // 4 firings in 4 tokens; now it is the second latent.
    assert_eq!(figures(&records[1]), (5, 10, 1.0, Some(third), 0.3, [7.0, 1.5, 0.5, 0.25, 2.0]));
    let mut member = fitted.members.remove(0);
    assert_eq!((records.len(), member.last.as_ref()), (2, Some(&records[1])));
    // 3, 0 and 1 firings in the last 4 tokens.
    let (Firing { log_sparsity, dead_latents }, _) = member.end().unwrap();
    let expected = [0.75_f64.log10() as f32, -10.0, 0.25_f64.log10() as f32];
    assert!(log_sparsity.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{log_sparsity:?}");
    assert_eq!(dead_latents, 1);
}

#[test]
fn who_diverges_leaves_and_the_others_go_on() {
    let plan = plan(5);
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let members = [f32::NAN, 1.0].into_iter().zip(&dirs);
    let members = members.map(|(loss, dir)| member(&plan, vec![[1.0; 3]; 5], loss, dir.path())).collect();
    let mut diverged = Vec::new();
    let part = |member: Member, error| diverged.push((member.out, error));
    let Fitted { members, .. } = fit(members, 0, batches(5), &mut Saver::new(1_000_000), part).unwrap();
    assert_eq!(members.iter().map(|m| m.out.as_path()).collect::<Vec<_>>(), [dirs[1].path()]);
    assert_eq!(diverged[0].0, dirs[0].path());
    assert!(matches!(diverged[0].1, TrainError::Diverged { step: 2, what: "loss", .. }));
    let lines = |dir: &Path| logs::read::<Value>(dir, logs::METRICS).unwrap().len();
    assert_eq!((lines(dirs[0].path()), lines(dirs[1].path())), (1, 2));
}

#[test]
fn data_that_ends_early_is_an_error() {
    let error = run(4, vec![[1.0; 3]; 5], 1.0).err().unwrap().to_string();
    assert!(error.contains("batch 4") && error.contains("the end of the data"), "{error}");
}
