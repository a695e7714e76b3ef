//! Reading and replacing at hook points.

use burn::tensor::{Device, Int, Tensor};
use monosema_core::{BlockHook, HookPoint};
use monosema_transformer::{Capture, LanguageModel, NoTap, Replace, Tap, next_token_losses};

use crate::fixture::{Case, relative_error, values};

const CASES: [&str; 8] = [
    "llama_gqa_tied",
    "gpt2",
    "mistral_head_dim_sliding_window",
    "pythia",
    "gemma2",
    "olmo2",
    "qwen3",
    "deepseek_v3",
];

fn logits(model: &LanguageModel, case: &Case, tap: &mut dyn Tap) -> Vec<f64> {
    values(model.unembed(model.forward(case.tokens(model.device()), tap)))
}

#[test]
fn a_value_replaced_by_itself_changes_nothing() {
    let device = Device::flex();
    for case in CASES.map(Case::read) {
        let model = case.load(&device);
        let clean = logits(&model, &case, &mut NoTap);
        for hook in model.info().hooks() {
            let mut visits = 0;
            let mut itself = Replace::new(hook, |x| {
                visits += 1;
                x
            });
            assert_eq!(logits(&model, &case, &mut itself), clean, "{} {hook}", case.name);
            assert_eq!(visits, 1);
        }
    }
}

#[test]
fn every_hook_matters_to_the_logits() {
    let device = Device::flex();
    for case in CASES.map(Case::read) {
        let model = case.load(&device);
        let clean = logits(&model, &case, &mut NoTap);
        for hook in model.info().hooks() {
            let ablated = logits(&model, &case, &mut Replace::new(hook, |x| x.zeros_like()));
            let change = relative_error(&ablated, &clean);
            assert!(change > 0.05, "{} {hook}: zero changes the logits by {change:.1e} only", case.name);
        }
    }
}

/// A pass that stood at a hook goes on, over and over, as one that never stopped; and shows the same on both sides of it.
#[test]
fn a_pass_that_is_paused_goes_on_as_if_it_never_had() {
    let device = Device::flex();
    for case in CASES.map(Case::read) {
        let model = case.load(&device);
        let hooks: Vec<_> = model.info().hooks().collect();
        let whole = |tap: &mut dyn Tap| values(model.forward(case.tokens(&device), tap));
        let clean = whole(&mut NoTap);
        for &hook in &hooks {
            let place = format!("{} {hook}", case.name);
            let around = [hooks[0], hooks[hooks.len() - 1]].into_iter().filter(|other| *other != hook);
            let [mut expected, mut found] = [(); 2].map(|()| Capture::new(around.clone()));
            whole(&mut expected);
            let paused = model.pause(case.tokens(&device), hook, &mut found);
            let zero = values(paused.resume(paused.value().zeros_like(), &mut NoTap));
            assert_eq!(zero, whole(&mut Replace::new(hook, |x| x.zeros_like())), "{place}");
            assert_eq!(values(paused.resume(paused.value(), &mut found)), clean, "{place}");
            // All at once, and those that are alike once. Groups of other sizes sum in another order.
            let each = paused.resume_each(vec![paused.value(), paused.value().zeros_like()]).into_iter();
            for (each, alone) in each.map(values).zip([&clean, &zero]) {
                let close = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-5 * b.abs().max(1.0);
                assert!(each.len() == alone.len() && each.iter().zip(alone).all(close), "{place}");
            }
            for other in around {
                let [expected, found] = [&mut expected, &mut found].map(|tap| tap.take(other).unwrap());
                assert_eq!(values(found), values(expected), "{place}: {other}");
            }
        }
    }
}

/// Splicing the residual stream of sequence B into a run over sequence A at layer L continues as B from there.
#[test]
fn what_is_spliced_in_is_what_runs_on() {
    let device = Device::flex();
    for case in CASES.map(Case::read) {
        let model = case.load(&device);
        let tokens = case.tokens(&device);
        let [a, b] = [0, 1].map(|row| tokens.clone().narrow(0, row, 1));
        let run = |tokens, tap: &mut dyn Tap| values(model.unembed(model.forward(tokens, tap)));
        let of_b = run(b.clone(), &mut NoTap);
        for layer in 0..model.info().n_layers {
            for site in [BlockHook::ResidPre, BlockHook::ResidMid, BlockHook::ResidPost] {
                let hook = HookPoint::block(layer, site);
                if model.info().check_hook(hook).is_err() {
                    continue;
                }
                let mut capture = Capture::new([hook]);
                model.run(b.clone(), &mut capture);
                let x = capture.take(hook).unwrap();
                let spliced = run(a.clone(), &mut Replace::new(hook, |_| x.clone()));
                assert_eq!(spliced, of_b, "{} {hook}", case.name);
            }
        }
    }
}

/// What attention and MLP write follows from what their last maps read.
#[test]
fn what_is_read_decides_what_is_written() {
    let device = Device::flex();
    for case in CASES.map(Case::read) {
        let model = case.load(&device);
        let tokens = case.tokens(&device);
        let [a, b] = [0, 1].map(|row| tokens.clone().narrow(0, row, 1));
        for (read, written) in
            [(BlockHook::AttnZ, BlockHook::AttnOut), (BlockHook::MlpPost, BlockHook::MlpOut)]
        {
            let [read, written] = [read, written].map(|site| HookPoint::block(1, site));
            if model.info().check_hook(read).is_err() {
                continue;
            }
            let mut of_b = Capture::new([read, written]);
            model.run(b.clone(), &mut of_b);
            let mut spliced = Spliced(read, of_b.take(read).unwrap(), Capture::new([written]));
            model.run(a.clone(), &mut spliced);
            let found = values(spliced.2.take(written).unwrap());
            assert_eq!(found, values(of_b.take(written).unwrap()), "{} {read}", case.name);
        }
    }
}

/// Replaces the value at one hook, and captures others.
struct Spliced(HookPoint, Tensor<3>, Capture);

impl Tap for Spliced {
    fn wants(&self, hook: HookPoint) -> bool {
        hook == self.0 || self.2.wants(hook)
    }

    fn visit(&mut self, hook: HookPoint, x: Tensor<3>) -> Tensor<3> {
        if hook == self.0 { self.1.clone() } else { self.2.visit(hook, x) }
    }
}

/// A pattern is a share of attention: it adds up to 1, over what is not in the future.
#[test]
fn patterns_are_shares_of_what_is_seen() {
    let device = Device::flex();
    for case in CASES.map(Case::read) {
        let model = case.load(&device);
        let tokens = case.tokens(&device);
        let seq = tokens.dims()[1];
        let hook = HookPoint::block(0, BlockHook::AttnPattern);
        assert_eq!(model.info().width(hook, seq).unwrap(), model.info().blocks[0].n_heads * seq);
        let mut capture = Capture::new([hook]);
        model.run(tokens, &mut capture);
        let pattern = values(capture.take(hook).unwrap());
        for (i, keys) in pattern.chunks(seq).enumerate() {
            let query = i / model.info().blocks[0].n_heads % seq;
            assert!((keys.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{}", case.name);
            assert!(keys[query + 1..].iter().all(|&share| share == 0.0), "{}", case.name);
        }
    }
}

/// A batch of several groups of sequences, every value replaced by a multiple that differs from row to row: what
/// each row gives is what it gives in a batch of one group.
#[test]
fn replacing_means_the_same_in_groups_of_sequences() {
    let device = Device::flex();
    for case in CASES.map(Case::read) {
        let model = case.load(&device);
        // Two sequences and five factors: ten rows that differ. Sequences are of 14 tokens or more.
        let rows = case.tokens(&device).repeat_dim(0, 5);
        let run = |copies: usize, hook| {
            let tokens = rows.clone().repeat_dim(0, copies);
            let factors = Tensor::<1, Int>::arange(0..tokens.dims()[0] as i64, &device);
            let factors: Tensor<3> = (factors.remainder_scalar(5).float() * 0.25 + 0.5).reshape([-1, 1, 1]);
            let mut replaced = Replace::new(hook, |x| x * factors.clone());
            values(model.unembed(model.forward(tokens, &mut replaced)))
        };
        for hook in model.info().hooks() {
            let error = relative_error(&run(7, hook), &run(1, hook).repeat(7));
            assert!(error < 1e-5, "{} {hook}: off by {error:.1e}", case.name);
        }
    }
}

/// Attention and MLP outputs are what the stream gains, after replacement too.
#[test]
fn the_stream_is_the_sum_of_what_is_written() {
    let device = Device::flex();
    for case in CASES.map(Case::read) {
        let model = case.load(&device);
        struct Doubled(Capture);
        impl Tap for Doubled {
            fn wants(&self, _: HookPoint) -> bool {
                true
            }
            fn visit(&mut self, hook: HookPoint, x: Tensor<3>) -> Tensor<3> {
                let written =
                    matches!(hook, HookPoint::Block { site: BlockHook::AttnOut | BlockHook::MlpOut, .. });
                self.0.visit(hook, if written { x * 2.0 } else { x })
            }
        }
        let mut tap = Doubled(Capture::new(model.info().hooks()));
        model.run(case.tokens(&device), &mut tap);
        for layer in 0..model.info().n_layers {
            let mut at = |site| tap.0.take(HookPoint::block(layer, site)).map(values);
            let [pre, attn, mid, mlp, post] = [
                BlockHook::ResidPre,
                BlockHook::AttnOut,
                BlockHook::ResidMid,
                BlockHook::MlpOut,
                BlockHook::ResidPost,
            ]
            .map(&mut at);
            let sum = |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a + b).collect() };
            let between = sum(&pre.unwrap(), &attn.unwrap());
            assert!(mid.is_none_or(|mid| relative_error(&mid, &between) < 1e-6));
            assert!(relative_error(&post.unwrap(), &sum(&between, &mlp.unwrap())) < 1e-6);
        }
    }
}

#[test]
fn a_run_gives_what_a_whole_forward_pass_gives_and_visits_nothing_unwanted() {
    struct Log(Vec<HookPoint>, Vec<HookPoint>);
    impl Tap for Log {
        fn wants(&self, hook: HookPoint) -> bool {
            self.0.contains(&hook)
        }
        fn visit(&mut self, hook: HookPoint, x: Tensor<3>) -> Tensor<3> {
            self.1.push(hook);
            x
        }
    }
    let device = Device::flex();
    let case = Case::read("llama_gqa_tied");
    let model = case.load(&device);
    let tokens = case.tokens(&device);
    for hook in model.info().hooks() {
        let mut whole = Capture::new([hook]);
        model.forward(tokens.clone(), &mut whole);
        let mut part = Capture::new([hook]);
        model.run(tokens.clone(), &mut part);
        assert_eq!(values(part.take(hook).unwrap()), values(whole.take(hook).unwrap()), "{hook}");
    }
    let wanted = vec![HookPoint::Embed, HookPoint::block(1, BlockHook::MlpOut)];
    let mut log = Log(wanted.clone(), Vec::new());
    model.run(tokens.clone(), &mut log);
    assert_eq!(log.1, wanted);
    let mut none = Log(Vec::new(), Vec::new());
    model.run(tokens, &mut none);
    assert!(none.1.is_empty());
}

#[test]
fn without_tokens_there_is_nothing_and_no_panic() {
    let device = Device::flex();
    let case = Case::read("gpt2");
    let model = case.load(&device);
    let (d_model, d_vocab) = (model.info().d_model, model.info().d_vocab);
    for shape in [[2, 0], [0, 3]] {
        let tokens = Tensor::<2, Int>::zeros(shape, &device);
        let mut capture = Capture::new([HookPoint::Embed]);
        let hidden = model.forward(tokens.clone(), &mut capture);
        model.run(tokens.clone(), &mut capture);
        assert!(capture.take(HookPoint::Embed).is_none());
        assert_eq!(hidden.dims(), [shape[0], shape[1], d_model]);
        assert_eq!(model.unembed(hidden.clone()).dims(), [shape[0], shape[1], d_vocab]);
        let losses = next_token_losses(&model, hidden, tokens).unwrap();
        assert_eq!(losses.dims(), [shape[0], shape[1].saturating_sub(1)]);
    }
    // One token has no next.
    let tokens = case.tokens(&device).narrow(1, 0, 1);
    let hidden = model.forward(tokens.clone(), &mut NoTap);
    assert_eq!(next_token_losses(&model, hidden, tokens).unwrap().dims(), [2, 0]);
}
