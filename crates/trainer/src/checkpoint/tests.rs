//! What is interrupted anywhere and taken up at its last checkpoint comes to the same, bit for bit.

use burn::tensor::{Device, Tensor};
use monosema_core::{BlockHook, HookPoint, Seed, Stage};
use monosema_store::{HookColumn, StoreError};
use rand::Rng;

use super::*;
use crate::{
    BDecInit, DecoderNorm, Optimizer, Span, StoreFacts, TrainBatch, TrainConfig, Width, fit::fit, logs,
    member::Member, saver::Saver, step::StepKind,
};

const D_IN: usize = 7;
const D_SAE: usize = 24;
const N: usize = 16;
const STEPS: u64 = 40;

/// Trainings that together carry everything from step to step that can be carried.
fn configs() -> Vec<TrainConfig> {
    let base = TrainConfig {
        width: Width::Latents(D_SAE),
        batch_tokens: Some(N),
        shuffle_buffer_tokens: Some(N),
        dead_after_tokens: Some(4 * N as u64),
        log_every_steps: Some(3),
        lr: Some(1e-2),
        ..TrainConfig::default()
    };
    let mut configs: Vec<TrainConfig> = SaeConfig::variants()
        .into_iter()
        .map(|architecture| TrainConfig { architecture: Some(architecture), ..base.clone() })
        .collect();
    configs.push(TrainConfig { resample_every: Some(Span::Steps(8)), ..base.clone() });
    configs.push(TrainConfig {
        ema_decay: Some(0.9),
        optimizer: Some(Optimizer::Signum),
        weight_decay: Some(0.1),
        decoder: Some(DecoderNorm::Unit),
        b_dec_init: Some(BDecInit::Mean),
        micro_batch_tokens: Some(5),
        step: StepKind::Autodiff,
        ..base.clone()
    });
    configs
}

fn plan(config: &TrainConfig) -> TrainPlan {
    let hooks = vec![HookColumn { hook: HookPoint::block(0, BlockHook::ResidPost), width: D_IN }];
    let facts = StoreFacts { hooks, tokens: STEPS * N as u64, ..StoreFacts::default() };
    TrainPlan::resolve(config, &facts, Seed(1)).unwrap()
}

fn batches(from: u64, to: u64) -> impl Iterator<Item = Result<TrainBatch, StoreError>> {
    (from..to).map(|step| {
        let mut rng = Seed(step).stream("batch");
        let values = (0..N * D_IN).map(|_| rng.random_range(-1.5..1.5)).collect();
        let x = Tensor::from_data(TensorData::new(values, [N, D_IN]), &Device::flex());
        Ok(TrainBatch { x, y: None, variance: 5.0 })
    })
}

fn work() -> Work {
    Work { stage: Stage::Train, config: Value::Null, seed: Seed(1), inputs: BTreeMap::new() }
}

fn begin(plan: &TrainPlan, out: &Path, checkpoint: Option<Checkpoint>) -> Member {
    Member::begin(plan.clone(), work(), out, Vec::new(), 1.0, checkpoint, &Device::flex()).unwrap()
}

/// Trains up to `end`, where the data ends too if that is before the last step. Takes up what is in `out`.
fn run(plan: &TrainPlan, out: &Path, end: u64) -> Option<Member> {
    let newest = steps_in(out).into_iter().find_map(|steps| Checkpoint::load(out, steps, plan).ok());
    let done = newest.as_ref().map_or(0, |checkpoint| checkpoint.steps);
    let member = begin(plan, out, newest);
    let mut saver = Saver::new(0);
    let fitted = fit(vec![member], done, batches(done, end), &mut saver, |_, error| panic!("{error}"));
    saver.finish();
    fitted.ok().map(|mut fitted| fitted.members.remove(0))
}

/// All that a run leaves: its state, and the logs that are the same whenever it is the same.
fn result(member: &Member, out: &Path) -> (Checkpoint, Vec<Vec<u8>>) {
    let files = [logs::METRICS, logs::DENSITY].map(|name| fs::read(out.join(name)).unwrap());
    let checkpoint = member.checkpoint(STEPS).unwrap();
    // How long the others are depends on the clock.
    (Checkpoint { logs: Lengths::new(), ..checkpoint }, files.into())
}

#[test]
fn an_interruption_anywhere_changes_no_bit() {
    for config in configs() {
        let (plan, whole) = (plan(&config), tempfile::tempdir().unwrap());
        let expected = result(&run(&plan, whole.path(), STEPS).unwrap(), whole.path());
        let out = tempfile::tempdir().unwrap();
        // Before the first checkpoint, right after one, between two; again and again.
        for end in [2, 9, 10, 26, 26, 35] {
            assert!(run(&plan, out.path(), end).is_none(), "the data ended early");
        }
        let found = result(&run(&plan, out.path(), STEPS).unwrap(), out.path());
        assert!(found == expected, "{config:?}");
        assert_eq!(steps_in(out.path()).len(), KEPT);
    }
}

#[test]
fn a_damaged_checkpoint_is_noticed_wherever_the_damage_is() {
    let (plan, out) = (plan(&configs()[0]), tempfile::tempdir().unwrap());
    run(&plan, out.path(), 20);
    assert_eq!(steps_in(out.path()), [18, 15]);
    let path = file(out.path(), 18);
    let whole = fs::read(&path).unwrap();
    let loads = || Checkpoint::load(out.path(), 18, &plan).is_ok();
    assert!(loads());
    for at in (0..whole.len()).step_by(whole.len() / 150) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&path, damaged).unwrap();
        assert!(!loads(), "byte {at} of {}", whole.len());
    }
    for end in [0, 7, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..end]).unwrap();
        assert!(!loads(), "{end} bytes of {}", whole.len());
    }
    // The one before takes its place.
    assert!(run(&plan, out.path(), STEPS).is_some());
}

#[test]
fn numbers_that_are_not_finite_are_no_checkpoint() {
    let (plan, out) = (plan(&configs()[0]), tempfile::tempdir().unwrap());
    let mut checkpoint = begin(&plan, out.path(), None).checkpoint(3).unwrap();
    assert!(checkpoint.is_finite());
    let (_, values) = checkpoint.step.parameters.iter_mut().next().unwrap();
    values[0] = f32::INFINITY;
    assert!(!checkpoint.is_finite());
}

#[test]
fn what_is_damaged_does_not_count_and_what_comes_later_goes() {
    let (plan, out) = (plan(&configs()[0]), tempfile::tempdir().unwrap());
    run(&plan, out.path(), 20);
    assert_eq!(interrupted(out.path()), Some((work(), vec![18, 15])));
    set_aside(out.path(), 18);
    assert_eq!(interrupted(out.path()), Some((work(), vec![15])));
    run(&plan, out.path(), 22);
    assert_eq!(steps_in(out.path()), [21, 18]);
    remove_after(out.path(), 18).unwrap();
    assert_eq!(steps_in(out.path()), [18]);
    // Facts are read without tensors, and not where they are damaged.
    let path = file(out.path(), 18);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(interrupted(out.path()), Some((work(), vec![18])));
    fs::write(&path, &whole[..100]).unwrap();
    assert_eq!(interrupted(out.path()), None);
}

/// What a device without a fused step began, one with it goes on with, and the other way round.
#[test]
fn either_step_goes_on_with_what_the_other_began() {
    let [auto, autodiff] = [StepKind::Auto, StepKind::Autodiff].map(|step| {
        let jump_relu =
            configs().into_iter().find(|c| matches!(c.architecture, Some(SaeConfig::JumpRelu(_))));
        plan(&TrainConfig { step, ema_decay: Some(0.9), ..jump_relu.unwrap() })
    });
    let loss = |first: &TrainPlan, then: &TrainPlan| {
        let out = tempfile::tempdir().unwrap();
        run(first, out.path(), 20);
        let member = run(then, out.path(), STEPS).unwrap();
        member.last.unwrap().loss
    };
    let expected = loss(&auto, &auto);
    for (first, then) in [(&auto, &autodiff), (&autodiff, &auto)] {
        let found = loss(first, then);
        // They differ by rounding.
        assert!((found / expected - 1.0).abs() < 1e-3, "{found} for {expected}");
    }
}
