//! Plans: what recipes fill in, what is derived, and what is refused.

use monosema_core::{BlockHook, config};
use monosema_sae::Sae;

use super::*;
use crate::config::DecayShape;

fn facts(tokens: u64) -> StoreFacts {
    let column = |layer, width| HookColumn { hook: HookPoint::block(layer, BlockHook::ResidPost), width };
    StoreFacts { hooks: vec![column(8, 64), column(9, 32)], tokens, ..StoreFacts::default() }
}

fn resolve(toml: &str, tokens: u64) -> Result<TrainPlan, TrainError> {
    let hook = "hook = 'blocks.8.hook_resid_post'\n";
    let text = if toml.contains("hook =") { toml.to_owned() } else { format!("{hook}{toml}") };
    let config: TrainConfig = config::parse("x.toml".as_ref(), &text, &[]).unwrap();
    TrainPlan::resolve(&config, &facts(tokens), Seed(1))
}

fn schedule(steps: u64, lr: f64, lr_steps: [u64; 2], sparsity: f64, sparsity_warmup_steps: u64) -> Schedule {
    let [lr_warmup_steps, lr_decay_steps] = lr_steps;
    Schedule {
        steps,
        lr,
        lr_warmup_steps,
        lr_decay_steps,
        lr_decay_shape: DecayShape::Linear,
        lr_end: 0.0,
        sparsity,
        sparsity_warmup_steps,
        k: None,
        annealing: None,
    }
}

#[test]
fn the_recipe_fills_in_what_is_left_out() {
    let plan = resolve("", 4096 * 1000 + 5).unwrap();
    assert_eq!((plan.size, plan.steps, plan.tokens), (Size::new(64, 512), 1000, 4_096_000));
    assert_eq!(plan.schedule, schedule(1000, 5e-5, [0, 200], 5.0, 50));
    assert_eq!(
        (plan.adam_betas, plan.adam_eps, plan.grad_clip),
        (Betas([0.9, 0.999]), 1e-8, GradClip::Norm(1.0))
    );
    // 10M tokens are more than the run: a tenth of it is looked back on; or half, if that was asked for.
    assert_eq!((plan.dead_window_tokens, plan.dead_window_steps()), (100 * 4096, 100));
    let asked = resolve("dead_after_tokens = 10000000", 4096 * 1000).unwrap();
    assert_eq!(asked.dead_window_steps(), 500);
    assert_eq!(resolve("", 400_000_000).unwrap().dead_window_tokens, 2442 * 4096);
}

#[test]
fn every_number_can_be_given() {
    let plan = resolve(
        "hook = 'blocks.9.hook_resid_post'\nwidth = { latents = 100 }\ntokens = 2048\nbatch_tokens = 128\n\
         shuffle_buffer_tokens = 256\nlr = 1e-3\nsparsity = 2\nsparsity_warmup = { fraction = 0.5 }\nlr_decay = { steps = 0 }\n\
         lr_warmup = { fraction = 0.25 }\nadam_betas = [0.0, 0.5]\nadam_eps = 1e-6\ngrad_clip = 3\n\
         dead_after_tokens = 100\nscale_tokens = 10\nlog_every_steps = 2\n\
         architecture = { kind = 'relu', apply_b_dec_to_input = true }",
        512,
    )
    .unwrap();
    assert_eq!((plan.size, plan.steps, plan.epochs), (Size::new(32, 100), 16, 4.0));
    assert_eq!(plan.schedule, schedule(16, 1e-3, [4, 0], 2.0, 8));
    assert_eq!(
        (plan.adam_betas, plan.adam_eps, plan.grad_clip),
        (Betas([0.0, 0.5]), 1e-6, GradClip::Norm(3.0))
    );
    assert_eq!((plan.dead_window_tokens, plan.scale_tokens, plan.log_every_steps), (128, 10, 2));
    assert_ne!(plan.architecture, SaeConfig::default());
}

#[test]
fn what_cannot_work_is_refused_by_its_key() {
    let cases = [
        ("tokens = 4095", "[train] tokens: expected at least one batch of 4096"),
        ("tokens = 0", "tokens"),
        ("shuffle_buffer_tokens = 4095", "shuffle_buffer_tokens: expected at least one batch of 4096"),
        ("batch_tokens = 0", "batch_tokens: expected at least 1, found 0"),
        ("batch_tokens = 16777217", "batch_tokens: expected at most 16777216"),
        ("log_every_steps = 0", "log_every_steps"),
        ("lr = 0.0", "lr: expected a number above 0, found 0"),
        ("lr = nan", "lr"),
        ("sparsity = -1.0", "sparsity: expected a number from 0 on, found -1"),
        ("ema_decay = 1.0", "ema_decay: expected a number from 0 to below 1"),
        ("k_warmup = { steps = 3 }", "k_warmup: expected nothing"),
        ("skip = true", "skip: expected false"),
        ("hook_out = 'blocks.8.hook_resid_post'", "hook_out: expected another hook"),
        ("hook_out = 'blocks.7.hook_resid_post'", "hook_out: expected what the store holds"),
        (
            "hook_out = 'blocks.9.hook_resid_post'\narchitecture = { kind = 'gated' }",
            "architecture: expected apply_b_dec_to_input = false",
        ),
        ("hook_out = 'blocks.9.hook_resid_post'\nnormalize = 'layer_norm'", "normalize: expected another"),
        ("architecture = { kind = 'matryoshka', k = 3, prefixes = [0.5, 0.2] }", "prefixes"),
        ("adam_betas = [0.9, 1.0]", "adam_betas"),
        ("architecture = { kind = 'top_k', k = 32 }\nsparsity = 0.5", "sparsity: expected nothing"),
        (
            "architecture = { kind = 'top_k', k = 9 }\nwidth = { latents = 8 }",
            "architecture: expected k of at most 8, the number of latents, found k = 9",
        ),
        ("grad_clip = inf", "grad_clip"),
        ("grad_clip = 0", "grad_clip: expected a number above 0"),
        ("lr_decay = { fraction = 1.5 }", "lr_decay: expected a number from 0 to 1, found 1.5"),
        ("lr_warmup = { fraction = 0.9 }", "what lr_decay leaves"),
        ("width = { latents = 0 }", "width"),
        ("width = { expansion = 18446744073709551 }", "width"),
        (
            "hook = 'blocks.7.hook_resid_post'",
            "hook: expected what the store holds: blocks.8.hook_resid_post or",
        ),
    ];
    for (toml, part) in cases {
        let error = resolve(toml, 100_000).unwrap_err().to_string();
        assert!(error.contains(part), "{toml}: {part:?} is not in {error:?}");
    }
    let config = TrainConfig::default();
    let error = TrainPlan::resolve(&config, &facts(100_000), Seed(1)).unwrap_err().to_string();
    assert!(error.contains("hook: expected a choice between blocks.8"), "{error}");
    assert!(resolve("", 0).is_err());
}

#[test]
fn a_transcoder_reads_one_hook_and_gives_another() {
    let plan = resolve("hook_out = 'blocks.9.hook_resid_post'\nskip = true", 100_000).unwrap();
    assert_eq!(plan.size, Size { output: Some(Output { d_out: 32, skip: true }), ..Size::new(64, 512) });
}

#[test]
fn rows_that_keep_a_norm_of_1_begin_with_it() {
    for (decoder, rows) in [("free", 0.25), ("unit", 1.0)] {
        let plan = resolve(&format!("decoder = '{decoder}'\ninit_norm = 0.25"), 100_000).unwrap();
        let sae = Sae::init(&plan.architecture, plan.size, &plan.init(Vec::new()), &Device::flex());
        let (w_enc, w_dec) = (sae.affine().w_enc.val().transpose(), sae.affine().w_dec.val());
        for (matrix, expected) in [(w_enc.clone(), 0.25), (w_dec.clone(), rows)] {
            let norms = matrix.square().sum_dim(1).sqrt().into_data().try_into_vec::<f32>().unwrap();
            assert!(norms.iter().all(|norm| (norm - expected).abs() < 1e-6), "{decoder}: {norms:?}");
        }
        assert_eq!(w_enc.div_scalar(0.25).into_data(), w_dec.div_scalar(rows).into_data(), "{decoder}");
    }
}

#[test]
fn the_learning_rate_may_depend_on_the_latents() {
    let lr = |toml: &str| resolve(toml, 100_000).unwrap().schedule.lr;
    let top_k = "architecture = { kind = 'top_k', k = 4 }\nwidth = { latents = 4096 }\n";
    assert_eq!(lr(top_k), 4e-4);
    assert_eq!(lr(&format!("{top_k}lr_scaling = 'none'")), 2e-4);
}
