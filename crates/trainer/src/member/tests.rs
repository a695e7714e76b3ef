//! What a member carries from step to step, with a step that learns nothing, says what it is told to and notes what it is told.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use monosema_core::{BlockHook, HookPoint, Seed, Stage};
use monosema_sae::Init;
use monosema_store::HookColumn;
use serde_json::Value;

use super::*;
use crate::{StoreFacts, TrainConfig, Width, step::StepState};

const N: usize = 4;
const D_SAE: usize = 3;

/// What a step is to say.
#[derive(Clone, Default)]
struct Says {
    smallest: Option<f32>,
    penalty: f32,
    next_penalty: f32,
    fired: [f32; D_SAE],
}

/// The rates and the dead latents that each step was given.
type Given = Vec<(Rates, Option<Vec<f32>>)>;

struct Scripted {
    sae: Sae,
    says: Vec<Says>,
    given: Rc<RefCell<Given>>,
}

impl TrainStep for Scripted {
    fn step(&mut self, batch: &TrainBatch, rates: Rates, dead: Option<Tensor<1>>) -> StepStats {
        let Says { smallest, penalty, next_penalty, fired } = self.says.remove(0);
        self.given.borrow_mut().push((rates, dead.map(|dead| dead.into_data().iter().collect())));
        let device = batch.x.device();
        let scalar = |value: f32| Tensor::<1>::from_data([value], &device);
        StepStats {
            loss: scalar(1.0),
            squared_error: scalar(1.0),
            penalty: scalar(penalty),
            grad_norm: scalar(1.0),
            fired: Tensor::from_data(fired, &device),
            rest: None,
            smallest: smallest.map(scalar),
            next_penalty: rates.next_p.map(|_| scalar(next_penalty)),
        }
    }

    fn sae(&self) -> Sae {
        self.sae.clone()
    }

    fn state(&self) -> StepState {
        unreachable!("nothing is saved here")
    }

    fn restore(&mut self, _: StepState) {
        unreachable!("nothing is interrupted here")
    }
}

/// Takes as many steps as there is something to say in, with these keys of `[train]`.
fn run(keys: &str, says: &[Says]) -> (Member, Given) {
    let config: TrainConfig = monosema_core::config::parse("x.toml".as_ref(), keys, &[]).unwrap();
    let config = TrainConfig {
        width: Width::Latents(D_SAE),
        batch_tokens: Some(N),
        shuffle_buffer_tokens: Some(N),
        ..config
    };
    let hooks = vec![HookColumn { hook: HookPoint::block(0, BlockHook::ResidPost), width: 2 }];
    let facts = StoreFacts { hooks, tokens: (says.len() * N) as u64, ..StoreFacts::default() };
    let plan = TrainPlan::resolve(&config, &facts, Seed(0)).unwrap();
    let device = Device::flex();
    let sae = Sae::init(&plan.architecture, plan.size, &Init::new(Seed(0), 1.0), &device);
    let given = Rc::<RefCell<Given>>::default();
    let step = Box::new(Scripted { sae, says: says.to_vec(), given: given.clone() });
    let work = Work { stage: Stage::Train, config: Value::Null, seed: Seed(0), inputs: BTreeMap::new() };
    let out = tempfile::tempdir().unwrap();
    let mut member = Member::with_step(plan, work, out.path(), step, &Lengths::new(), &device).unwrap();
    let batch = TrainBatch { x: Tensor::zeros([N, 2], &device), y: None, variance: 1.0 };
    (0..says.len() as u64).for_each(|index| member.advance(index, &batch));
    let given = given.borrow().clone();
    (member, given)
}

/// The threshold after steps whose smallest activations were these.
fn threshold_after(smallest: &[f32], decay: f64) -> f32 {
    let says = smallest.iter().map(|&value| Says { smallest: Some(value), ..Says::default() });
    let keys = format!("architecture = {{ kind = 'batch_top_k', k = 1 }}\nthreshold_decay = {decay}");
    run(&keys, &says.collect::<Vec<_>>()).0.threshold().unwrap()
}

#[test]
fn the_threshold_is_a_mean_of_batches_that_have_one() {
    let threshold = |smallest: &[f32]| threshold_after(smallest, 0.75);
    assert_eq!(threshold(&[4.0]), 4.0);
    assert_eq!(threshold(&[4.0, 8.0]), 5.0);
    // A batch that kept fewer than it might says nothing, first or later.
    assert_eq!(threshold(&[0.0, 4.0, 0.0, 8.0]), 5.0);
    assert_eq!(threshold(&[0.0, 0.0]), 0.0);
}

/// dictionary_learning's, in a training of its `BatchTopKTrainer` with a `threshold_beta` of 0.9: `tests/fixtures/README.md`. Its last two
/// batches keep fewer than they might; they move its threshold, and ours stays.
#[test]
fn the_threshold_is_that_of_dictionary_learning() {
    let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures"));
    let bytes = std::fs::read(fixtures.join("train_step_batch_top_k/golden.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let series = |name| -> Vec<f32> {
        let data = tensors.tensor(name).unwrap().data();
        data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    };
    let (mut smallest, thresholds, full) = (series("smallest"), series("threshold"), 8);
    for (step, expected) in thresholds[..full].iter().enumerate() {
        let found = threshold_after(&smallest[..=step], 0.9);
        // A few roundings of numbers near 1.
        assert!((found - expected).abs() < 1e-6, "step {step}: {found}, theirs is {expected}");
    }
    smallest[full..].fill(0.0);
    assert_eq!(threshold_after(&smallest, 0.9), threshold_after(&smallest[..full], 0.9));
}

#[test]
fn when_the_exponent_changes_the_penalty_stays_what_it_was() {
    let says = Says { penalty: 6.0, next_penalty: 2.0, ..Says::default() };
    let keys = "architecture = { kind = 'p_anneal', annealing = { start = 0.0, end = 0.5, changes = 2 } }\n\
                sparsity = 0.5\nsparsity_warmup = { steps = 0 }";
    let (_, given) = run(keys, &vec![says; 40]);
    let at = |step: usize| (given[step].0.p, given[step].0.sparsity);
    // After steps 10 and 20, each time by 6 / 2.
    assert_eq!([at(0), at(10)], [(1.0, 0.5); 2]);
    assert_eq!([at(11), at(20)], [(0.6, 1.5); 2]);
    assert_eq!(at(21).1, 4.5);
    assert!((at(21).0 - 0.2).abs() < 1e-12 && at(39) == at(21), "{:?}", at(39));
}

#[test]
fn latents_are_dead_once_they_were_silent_for_the_window() {
    let fires = |fired| Says { fired, ..Says::default() };
    let says = [fires([1.0, 0.0, 0.0]), fires([0.0, 1.0, 0.0]), fires([1.0, 0.0, 0.0]), fires([1.0; 3])];
    let dead = |keys: &str| run(keys, &says).1.into_iter().map(|(_, dead)| dead).collect::<Vec<_>>();
    // The window is two steps.
    let window = format!("dead_after_tokens = {}\n", 2 * N);
    let expected = [[0.0; 3], [0.0; 3], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]].map(|dead| Some(dead.to_vec()));
    assert_eq!(dead(&format!("{window}architecture = {{ kind = 'top_k', k = 1 }}")), expected);
    // Whose loss has no use for it is not told.
    let without =
        format!("{window}architecture = {{ kind = 'top_k', k = 1, aux = {{ coefficient = 0.0 }} }}");
    assert_eq!(dead(&without), [None, None, None, None]);
}

#[test]
fn k_falls_as_the_schedule_has_it() {
    let keys = "architecture = { kind = 'top_k', k = 1 }\nk_warmup = { steps = 2 }\nk_warmup_factor = 3.0";
    let (_, given) = run(keys, &vec![Says::default(); 4]);
    let k: Vec<_> = given.iter().map(|(rates, _)| rates.k).collect();
    assert_eq!(k, [Some(3), Some(2), None, None]);
}
