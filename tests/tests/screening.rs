//! Screening loses no latent: on the activations of the embedded demo and dictionaries trained on them, which latents are
//! active is what f64 says, by screened encoding as by encoding in f32, but for those within rounding of the threshold.
#![allow(clippy::unwrap_used)]

use std::{num::NonZeroUsize, path::Path};

use burn::tensor::{Device, Int, Tensor, TensorData};
use monosema_core::{BlockHook, HookPoint, Seed};
use monosema_kernels::{Form, Last, Memory, Parameters, Precision, Settings, State, screens, step};
use monosema_sae::{AuxK, Sae, SaeConfig, Size, architecture::top_k::TopKConfig};
use monosema_store::HookColumn;
use monosema_text::{ContextConfig, ContextPlan, Corpus, TextConfig, contexts};
use monosema_trainer::{
    StoreFacts, TrainBatch, TrainConfig, TrainPlan, Width,
    step::{FusedStep, TrainStep},
};
use monosema_transformer::{Capture, Checkpoint};
use rayon::prelude::*;

const WINDOWS: usize = 64;
const D_SAE: usize = 1024;
const BATCH: usize = 1016;
const STEPS: usize = 200;
const K: usize = 24;

/// A pre-activation may be on either side of its threshold if it is at most so many times 2⁻²⁴‖x‖‖w‖ away from it: the
/// roundings of an f32 sum whose partial sums are as large as that. (Found: 0.2, here and on SmolLM2's activations.)
const ROUNDINGS: f64 = 1.0;

/// Pairs of a token and a latent that may be so close, of all: were they more, this would test nothing.
const DOUBTFUL_SHARE: f64 = 1e-5;

/// What rounding numbers to bf16 does to their product, about, in units of ‖x‖‖w‖. Pairs that are so close to the threshold are
/// those that screening would get wrong if it did not look twice.
const BF16: f64 = 1.0 / 4096.0;

/// So many there must be.
const NEAR: usize = 1000;

/// Activations `[n, d_in]` after block 2 of the demo model on held-out stories, position 0 aside, scaled to a mean norm of √d_in.
fn activations() -> (Vec<f32>, usize) {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("data/demo");
    let checkpoint = Checkpoint::open(&demo.join("model")).unwrap();
    let tokenizer = checkpoint.tokenizer().unwrap();
    let text = TextConfig::new(vec![demo.join("stories/heldout.jsonl").display().to_string()]);
    let plan = ContextPlan::new(&ContextConfig::default(), &tokenizer).unwrap();
    let windows = contexts(Corpus::open(&text).unwrap().documents(), &tokenizer, &plan).take(WINDOWS);
    let ids: Vec<i32> = windows
        .flat_map(|window| window.unwrap().tokens)
        .map(|token| i32::try_from(token).unwrap())
        .collect();
    let ids: Tensor<2, Int> =
        Tensor::from_data(TensorData::new(ids, [WINDOWS, plan.length]), &Device::flex());
    let hook = HookPoint::block(2, BlockHook::ResidPost);
    let mut capture = Capture::new([hook]);
    checkpoint.load(&Device::flex()).unwrap().run(ids, &mut capture);
    let captured = capture.take(hook).unwrap();
    let [_, length, d_in] = captured.dims();
    let x = captured.narrow(1, 1, length - 1).reshape([-1, d_in as i32]);
    let norm: f32 = x.clone().square().sum_dim(1).sqrt().mean().into_scalar();
    ((x * (d_in as f64).sqrt() / f64::from(norm)).into_data().try_into_vec().unwrap(), d_in)
}

fn tensor(x: &[f32], d_in: usize) -> Tensor<2> {
    Tensor::from_data(TensorData::new(x.to_vec(), [x.len() / d_in, d_in]), &Device::flex())
}

/// A dictionary that has learnt something: its latents are as rare as those of a longer training.
fn train(architecture: &SaeConfig, sparsity: Option<f64>, x: &[f32], d_in: usize) -> Parameters {
    let config = TrainConfig {
        architecture: Some(architecture.clone()),
        width: Width::Latents(D_SAE),
        batch_tokens: Some(BATCH),
        lr: Some(2e-3),
        sparsity,
        ema_decay: Some(0.0),
        ..TrainConfig::default()
    };
    let hooks = vec![HookColumn { hook: HookPoint::block(2, BlockHook::ResidPost), width: d_in }];
    let facts = StoreFacts { hooks, tokens: (STEPS * BATCH) as u64, ..StoreFacts::default() };
    let plan = TrainPlan::resolve(&config, &facts, Seed(0)).unwrap();
    let sae = Sae::init(architecture, plan.size, &plan.init(Vec::new()), &Device::flex());
    let mut fused = FusedStep::new(sae, &plan, &Device::flex()).unwrap();
    let batches: Vec<&[f32]> = x.chunks_exact(BATCH * d_in).collect();
    for index in 0..STEPS {
        let x = tensor(batches[index % batches.len()], d_in);
        fused.step(&TrainBatch { x, y: None, variance: 1.0 }, plan.schedule.at(index as u64), None);
    }
    fused.sae().to_parameters()
}

/// On how many tokens each latent is active.
fn fired(parameters: &Parameters, x: Tensor<2>, form: &Form, precision: Precision) -> Vec<usize> {
    let state = State::new(parameters.clone());
    let settings = Settings { lr: 1e-3, grad_clip: 1.0, precision, ..Settings::default() };
    // So few that screening is worth it.
    let memory = Memory::from(Last { share: 0.0, ..Last::default() });
    step(state, x, form, settings, &memory).1.fired.into_data().iter::<f32>().map(|n| n as usize).collect()
}

/// On how many tokens each latent is active for certain, on how many it may be or not, and on how many it is within [`BF16`]
/// of the threshold, from sums in f64. Of a token's latents, the `k` largest are active if they are positive.
fn truth(parameters: &Parameters, x: &[f32], form: &Form, k: usize) -> Vec<[usize; 3]> {
    let wide = |data: TensorData| data.iter::<f64>().collect::<Vec<_>>();
    let (w_enc, b_enc) = (wide(parameters.w_enc.to_data()), wide(parameters.b_enc.to_data()));
    let b_dec = wide(parameters.b_dec.to_data());
    let d_in = b_dec.len();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let norms: Vec<f64> = w_enc.chunks(d_in).map(|row| dot(row, row).sqrt()).collect();
    let of_token = |x: &[f32]| {
        let shift = |b: f64| if form.apply_b_dec_to_input { b } else { 0.0 };
        let x: Vec<f64> = x.iter().zip(&b_dec).map(|(x, b)| f64::from(*x) - shift(*b)).collect();
        let length = dot(&x, &x).sqrt();
        let pre_acts: Vec<f64> = w_enc.chunks(d_in).zip(&b_enc).map(|(row, b)| dot(&x, row) + b).collect();
        let mut sorted = pre_acts.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let [last, next] = [k - 1, k].map(|rank| sorted.get(rank).map_or(0.0, |value| value.max(0.0)));
        let each = pre_acts.iter().zip(&norms).map(|(&value, norm)| {
            // From the largest that is not chosen, or from the smallest that is.
            let distance = if value >= last { value - next } else { value - last };
            let apart = distance.abs() / (length * norm);
            let doubtful = apart <= ROUNDINGS * 0.5_f64.powi(24);
            [distance > 0.0 && !doubtful, doubtful, apart <= BF16].map(usize::from)
        });
        each.collect::<Vec<_>>()
    };
    let add = |mut a: Vec<[usize; 3]>, b: Vec<[usize; 3]>| {
        a.iter_mut().flatten().zip(b.as_flattened()).for_each(|(a, b)| *a += b);
        a
    };
    x.par_chunks(d_in).map(of_token).reduce(|| vec![[0; 3]; b_enc.len()], add)
}

#[test]
fn active_latents_are_those_of_f64_but_for_rounding() {
    if !screens() {
        return;
    }
    let (x, d_in) = activations();
    let n = x.len() / d_in;
    let top_k = |apply_b_dec_to_input| {
        let k = NonZeroUsize::new(K).unwrap();
        SaeConfig::TopK(TopKConfig { k, apply_b_dec_to_input, aux: AuxK::OFF, ..TopKConfig::default() })
    };
    for (architecture, sparsity, k) in
        [(SaeConfig::default(), Some(1.5), D_SAE), (top_k(false), None, K), (top_k(true), None, K)]
    {
        let form = architecture.form(Size::new(d_in, D_SAE), sparsity.is_none()).unwrap();
        let parameters = train(&architecture, sparsity, &x, d_in);
        let truth = truth(&parameters, &x, &form, k);
        let [certain, doubtful, near] =
            [0, 1, 2].map(|i| truth.iter().map(|counts| counts[i]).sum::<usize>());
        let share = certain as f64 / (n * D_SAE) as f64;
        assert!((0.005..0.06).contains(&share), "{architecture:?}: {share} of the latents are active");
        assert!(
            (doubtful as f64) < DOUBTFUL_SHARE * (n * D_SAE) as f64,
            "{architecture:?}: {doubtful} in doubt"
        );
        assert!(near >= NEAR, "{architecture:?}: {near} are so close that bf16 does not tell");
        for precision in [Precision::F32, Precision::Auto] {
            let found = fired(&parameters, tensor(&x, d_in), &form, precision);
            for (latent, (found, [certain, doubtful, _])) in found.iter().zip(&truth).enumerate() {
                assert!(
                    (*certain..=certain + doubtful).contains(found),
                    "{architecture:?}, {precision:?}: latent {latent} is active on {found} tokens, on {certain} of them for \
                     certain, and on {doubtful} it may be"
                );
            }
        }
    }
}
