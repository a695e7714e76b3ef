//! Windows of many lengths: batched by length, and padding never seen, never stored.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{Device, Int, Tensor, TensorData};
use monosema_core::{BlockHook, HookPoint, Seed};
use monosema_harvester::{HarvestConfig, HarvestPlan};
use monosema_store::Batch;
use monosema_text::{ContextConfig, InvalidUtf8};
use monosema_transformer::Capture;

use crate::fixture::{D_MODEL, Fixture, context, hooks, stored};

/// Products over another number of rows may sum in another order.
const ROUNDING: f32 = 1e-5;

/// Documents of every length from 0 to 16, in no order.
fn lengths() -> Vec<usize> {
    (0..85).map(|i| i * 7 % 17).collect()
}

#[test]
fn rows_are_those_of_each_window_alone() {
    let fixture = Fixture::new(&lengths());
    let context = ContextConfig { length: 16, span_documents: false, ..context() };
    let config = HarvestConfig { batch_tokens: Some(128), ..fixture.config() };
    let plan = HarvestPlan::resolve(&config, &context, &fixture.checkpoint, Seed(1)).unwrap();
    let counts = fixture.run_plan(&plan, &fixture.checkpoint).unwrap().counts;
    // Batches of up to 128 places hold more than one length, some of them.
    let share = counts.padding_share();
    assert!(counts.padding > 0 && share < 0.08, "{share}");

    let model = fixture.checkpoint.load(&Device::flex()).unwrap();
    let windows = fixture.windows_of(&context);
    let mut stored: Vec<Batch> = hooks().into_iter().map(|hook| stored(&fixture.out(), hook)).collect();
    for (hook, rows) in hooks().into_iter().zip(&stored) {
        let alone: BTreeMap<(u64, u32), Vec<f32>> = windows
            .iter()
            .flat_map(|window| {
                let ids: Vec<i32> = window.tokens.iter().map(|&token| token as i32).collect();
                let ids = TensorData::new(ids, [1, window.len()]);
                let mut capture = Capture::new([hook]);
                model.run(Tensor::<2, Int>::from_data(ids, &Device::flex()), &mut capture);
                let x = capture.take(hook).unwrap().into_data().try_to_vec::<f32>().unwrap();
                let row = |p: usize| x[p * D_MODEL..(p + 1) * D_MODEL].to_vec();
                window.counted().map(|p| ((window.documents[p], p as u32), row(p))).collect::<Vec<_>>()
            })
            .collect();
        for (i, x) in rows.x.chunks(D_MODEL).enumerate() {
            let alone = &alone[&(rows.documents[i], rows.positions[i])];
            let norm = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>().sqrt();
            let apart: Vec<f32> = x.iter().zip(alone).map(|(a, b)| a - b).collect();
            assert!(norm(&apart) <= ROUNDING * norm(alone), "{hook}");
        }
    }
    // Every token that counts is there once, and nothing else.
    let expected: BTreeSet<_> =
        windows.iter().flat_map(|w| w.counted().map(|p| (w.documents[p], p as u32, w.tokens[p]))).collect();
    let rows = stored.remove(0);
    let found: BTreeSet<_> =
        (0..rows.n).map(|i| (rows.documents[i], rows.positions[i], rows.token_ids[i])).collect();
    assert_eq!((found.len(), found), (rows.n, expected));
}

#[test]
fn patterns_are_laid_out_to_the_length_of_the_plan() {
    const HEADS: usize = 3;
    const LENGTH: usize = 16;
    let fixture = Fixture::new(&lengths());
    let context = ContextConfig { length: LENGTH, span_documents: false, ..context() };
    let hook = HookPoint::block(1, BlockHook::AttnPattern);
    let config = HarvestConfig { batch_tokens: Some(128), hooks: vec![hook], ..fixture.config() };
    let plan = HarvestPlan::resolve(&config, &context, &fixture.checkpoint, Seed(1)).unwrap();
    assert_eq!(plan.columns()[0].width, HEADS * LENGTH);
    fixture.run_plan(&plan, &fixture.checkpoint).unwrap();
    let rows = stored(&fixture.out(), hook);
    assert_eq!(rows.width, HEADS * LENGTH);
    let windows = fixture.windows_of(&context);
    let short = windows.iter().filter(|window| window.len() < LENGTH).count();
    assert!(short > 20, "{short} of {}", windows.len());
    for (pattern, &position) in rows.x.chunks(HEADS * LENGTH).zip(&rows.positions) {
        for head in pattern.chunks(LENGTH) {
            let (seen, ahead) = head.split_at(position as usize + 1);
            assert!(seen.iter().all(|&p| p > 0.0) && ahead.iter().all(|&p| p == 0.0), "{head:?}");
            assert!((seen.iter().sum::<f32>() - 1.0).abs() < ROUNDING);
        }
    }
}

#[test]
fn a_limit_takes_the_first_of_the_text_and_not_the_longest_windows() {
    // Short documents, of which 4 tokens count, then long ones.
    let fixture = Fixture::new(&[5, 5, 5, 5, 40, 40, 40]);
    let context = ContextConfig { length: 16, span_documents: false, ..context() };
    let windows = fixture.windows_of(&context);
    let plan = |tokens| {
        let config = HarvestConfig { tokens: Some(tokens), ..fixture.config() };
        HarvestPlan::resolve(&config, &context, &fixture.checkpoint, Seed(1)).unwrap()
    };
    // What is stored, in the order of the text, and windows that the model ran over.
    let harvest = |plan: &HarvestPlan, name: &str| {
        let out = fixture.dir.path().join(name);
        let counts = fixture.run_plan_into(&out, plan, &fixture.checkpoint).unwrap().counts;
        let rows = stored(&out, hooks()[0]);
        let found: BTreeSet<_> = rows.documents.into_iter().zip(rows.positions).collect();
        (found.into_iter().collect::<Vec<_>>(), counts.contexts)
    };
    for (tokens, contexts) in [(1, 1), (8, 2), (10, 3), (16, 4), (19, 5)] {
        let rows = windows.iter().flat_map(|w| w.counted().map(|p| (w.documents[p], p as u32)));
        let expected = (rows.take(tokens as usize).collect(), contexts);
        assert_eq!(harvest(&plan(tokens), &tokens.to_string()), expected);
    }
    let part = plan(16).of_part("2/2".parse().unwrap()).unwrap();
    let expected = [1, 3].into_iter().flat_map(|document| (2..6).map(move |p| (document, p))).collect();
    assert_eq!(harvest(&part, "part"), (expected, 2));
}

#[test]
fn packed_windows_have_no_padding() {
    let fixture = Fixture::new(&[28, 1, 0, 25, 90]);
    assert_eq!(fixture.run(&fixture.config()).unwrap().counts.padding, 0);
}

#[test]
fn flaws_of_the_text_are_counted() {
    let fixture = Fixture::new(&[6, 40]);
    let text = fixture.dir.path().join("text");
    // Words of their own: the tokenizer's token for what it does not know.
    std::fs::write(text.join("01.txt"), b"w1 \xff w2 w3 \0 w4 w5 w9 \xc3 w6 w7").unwrap();
    let mut config = fixture.config();
    config.text.invalid_utf8 = InvalidUtf8::Replace;
    let summary = fixture.run(&config).unwrap();
    assert_eq!((summary.counts.invalid_utf8, summary.counts.nul), (2, 1));
    let batch = stored(&fixture.out(), hooks()[0]);
    let unknown = batch.documents.iter().zip(&batch.token_ids).filter(|&(&d, &t)| d == 1 && t == 0).count();
    assert_eq!(unknown, 3, "each stands where it counts");
    // What was read ahead and is beyond the limit is none of the harvest's.
    let out = fixture.dir.path().join("limited");
    let plan = fixture.plan(&HarvestConfig { tokens: Some(2), ..config }).unwrap();
    let counts = fixture.run_plan_into(&out, &plan, &fixture.checkpoint).unwrap().counts;
    assert_eq!((counts.documents, counts.invalid_utf8, counts.nul), (1, 0, 0));
}
