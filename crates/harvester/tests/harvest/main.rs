//! Harvests of a tiny random Llama, held against the model itself.

#![allow(clippy::unwrap_used)]

mod filters;
mod fixture;
mod padding;
mod parts;
mod stream;

use std::{collections::BTreeMap, fs};

use burn::tensor::{Device, Int, Tensor, TensorData};
use fixture::{D_MODEL, Fixture, context, hooks, stored};
use monosema_core::{HookPoint, Seed};
use monosema_harvester::{HarvestConfig, HarvestPlan};
use monosema_store::{Layout, Order, Store, VectorDtype};
use monosema_text::ContextConfig;
use monosema_transformer::{Capture, Checkpoint};

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn what_f16_cannot_hold_is_named() {
    let fixture = Fixture::new(&[100]);
    let file = fixture.dir.path().join("tiny/model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    // Weights beyond 65504, all of them; embeddings are what they are.
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for value in bytes[header..].chunks_exact_mut(4) {
        value.copy_from_slice(&7e4_f32.to_le_bytes());
    }
    fs::write(&file, bytes).unwrap();
    let checkpoint = Checkpoint::open(&fixture.dir.path().join("tiny")).unwrap();
    let config = HarvestConfig { dtype: VectorDtype::F16, hooks: vec![HookPoint::Embed], ..fixture.config() };
    let error = fixture.run_plan(&fixture.plan(&config).unwrap(), &checkpoint).unwrap_err().to_string();
    for part in [
        "hook_embed: found 70000",
        "position 2 of document 0 (token ",
        "f16 ends at 65504",
        "bf16",
        "max_norm",
    ] {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
    assert!(!fixture.out().join("manifest.json").exists());
}

#[test]
fn documents_kept_apart_are_stored_as_the_model_computes_them_one_by_one() {
    // Products over another number of rows may sum in another order.
    const ROUNDING: f32 = 1e-5;
    let fixture = Fixture::new(&[3, 6, 5, 4, 20, 2, 7, 6]);
    let context = ContextConfig { span_documents: false, skip_first: 1, ..context() };
    let store = |batch_tokens: usize| {
        let config = HarvestConfig { batch_tokens: Some(batch_tokens), ..fixture.config() };
        let plan = HarvestPlan::resolve(&config, &context, &fixture.checkpoint, Seed(1)).unwrap();
        let out = fixture.dir.path().join(batch_tokens.to_string());
        let summary = fixture.run_plan_into(&out, &plan, &fixture.checkpoint).unwrap();
        assert_eq!((summary.counts.documents, summary.counts.contexts), (8, 10));
        hooks().into_iter().map(|hook| stored(&out, hook)).collect::<Vec<_>>()
    };
    // Five windows at once, of several lengths; and each alone, without padding.
    for (together, alone) in store(40).iter().zip(&store(1)) {
        assert_eq!((&together.token_ids, &together.documents), (&alone.token_ids, &alone.documents));
        assert_eq!(together.positions, alone.positions);
        assert!(largest_difference(&together.x, &alone.x) < ROUNDING);
    }
}

#[test]
fn what_is_stored_is_what_the_model_computes() {
    let fixture = Fixture::new(&[28, 1, 0, 25, 90]);
    let summary = fixture.run(&fixture.config()).unwrap();
    let windows = fixture.windows();
    // 144 words and 2 separators (document 0 ends with its window), 7 places a window beside BOS.
    assert_eq!(windows.len(), 21);
    let expected: Vec<(u32, u64, u32)> =
        windows.iter().flat_map(|w| w.counted().map(|p| (w.tokens[p], w.documents[p], p as u32))).collect();
    assert!(expected.iter().all(|&(token, _, position)| token > 2 && position >= 2));
    assert_eq!((summary.tokens, summary.counts.contexts, summary.shards), (expected.len() as u64, 21, 1));
    assert_eq!(
        summary.counts.documents, 4,
        "the word of document 1 is seen where nothing counts, document 2 is empty"
    );

    let model = fixture.checkpoint.load(&Device::flex()).unwrap();
    for hook in hooks() {
        let batch = stored(&fixture.out(), hook);
        let ids = batch
            .token_ids
            .iter()
            .zip(&batch.documents)
            .zip(&batch.positions)
            .map(|((&t, &d), &p)| (t, d, p));
        assert!(ids.eq(expected.iter().copied()));
        assert_eq!(batch.width, D_MODEL);
        // The same batches as the plan's: 40 tokens are 5 windows of 8.
        let direct = |size: usize| {
            let mut rows = Vec::new();
            let mut rest = &windows[..];
            while !rest.is_empty() {
                let n = rest[..size.min(rest.len())].iter().take_while(|w| w.len() == rest[0].len()).count();
                let ids: Vec<i32> =
                    rest[..n].iter().flat_map(|w| w.tokens.iter().map(|&t| t as i32)).collect();
                let shape = [n, rest[0].len()];
                let mut capture = Capture::new([hook]);
                // The whole pass, which must not differ from one that stops early.
                let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, shape), &Device::flex());
                model.forward(tokens, &mut capture);
                let values = capture.take(hook).unwrap().into_data().try_to_vec::<f32>().unwrap();
                let counted = rest[..n].iter().flat_map(|w| (0..w.len()).map(|p| w.counts(p)));
                let kept = values.chunks(D_MODEL).zip(counted).filter(|(_, counted)| *counted);
                rows.extend(kept.flat_map(|(x, _)| x.to_vec()));
                rest = &rest[n..];
            }
            rows
        };
        assert_eq!(batch.x, direct(5), "{hook}: bit for bit");
        assert!(largest_difference(&batch.x, &direct(1)) < 1e-6, "{hook}: one window at a time");
    }
}

#[test]
fn batch_size_and_files_change_rounding_at_most() {
    let fixture = Fixture::new(&[200, 50]);
    fixture.run(&fixture.config()).unwrap();
    let expected = stored(&fixture.out(), hooks()[0]);
    for (batch_tokens, shard_tokens, row_group_tokens, layout) in
        [(1, 1 << 18, 4096, Layout::Binary), (8, 7, 3, Layout::List), (100_000, 50, 16, Layout::Binary)]
    {
        fs::remove_dir_all(fixture.out()).unwrap();
        let config = HarvestConfig {
            batch_tokens: Some(batch_tokens),
            shard_tokens,
            row_group_tokens,
            layout,
            ..fixture.config()
        };
        let summary = fixture.run(&config).unwrap();
        assert_eq!(summary.shards, summary.tokens.div_ceil(shard_tokens));
        let found = stored(&fixture.out(), hooks()[0]);
        assert_eq!((&found.token_ids, &found.documents), (&expected.token_ids, &expected.documents));
        assert!(largest_difference(&found.x, &expected.x) < 1e-6);
    }
}

#[test]
fn a_limit_is_kept_to_the_token() {
    let fixture = Fixture::new(&[400]);
    fixture.run(&fixture.config()).unwrap();
    let all = stored(&fixture.out(), hooks()[1]);
    fs::remove_dir_all(fixture.out()).unwrap();
    let config = HarvestConfig { tokens: Some(123), dtype: VectorDtype::F16, ..fixture.config() };
    assert_eq!(fixture.plan(&config).unwrap().tokens, 123);
    let summary = fixture.run(&config).unwrap();
    assert_eq!((summary.tokens, summary.counts.documents), (123, 1));
    let some = stored(&fixture.out(), hooks()[1]);
    assert_eq!(some.token_ids, all.token_ids[..123]);
    // Half a unit in the last place of f16, of values below 1/8.
    assert!(largest_difference(&some.x, &all.x[..123 * D_MODEL]) <= 2.0_f32.powi(-15));
}

#[test]
fn a_plan_knows_what_will_come() {
    let fixture = Fixture::new(&[4000, 4000]);
    let plan = fixture.plan(&fixture.config()).unwrap();
    // 8 positions a window: 6 count, and 1 of 8000 tokens is a separator.
    assert!(plan.tokens.abs_diff(8000 * 6 / 7) < 5, "{}", plan.tokens);
    assert_eq!(plan.disk_bytes, plan.tokens * (3 * 4 * D_MODEL as u64 + 16));
    assert_eq!(plan.batch_contexts, 5);
    assert!(plan.columns().iter().all(|column| column.width == D_MODEL));
    let summary = fixture.run(&fixture.config()).unwrap();
    assert!(plan.tokens.abs_diff(summary.tokens) < 5);
    assert!((0.9..1.2).contains(&(summary.bytes as f64 / plan.disk_bytes as f64)));
    let manifest = Store::open(&fixture.out()).unwrap().manifest().clone();
    assert_eq!(manifest.work, plan.work(&fixture.checkpoint).unwrap());
    assert_eq!(manifest.counts["documents"], 2);
    manifest.verify(&fixture.out()).unwrap();
    // Work is the same whatever was estimated, and another if the text is.
    let mut guess = plan.clone();
    (guess.tokens, guess.disk_bytes, guess.memory_bytes) = (1, 2, 3);
    assert_eq!(guess.work(&fixture.checkpoint).unwrap(), manifest.work);
    // Nor does it matter what the files are called.
    let copy = fixture.dir.path().join("copy");
    fs::create_dir(&copy).unwrap();
    for name in ["00.txt", "01.txt"] {
        fs::copy(fixture.dir.path().join("text").join(name), copy.join(name)).unwrap();
    }
    guess.text.files = vec![copy.display().to_string()];
    assert_eq!(guess.work(&fixture.checkpoint).unwrap(), manifest.work);
    fs::write(fixture.dir.path().join("text/01.txt"), "w1 w2").unwrap();
    assert_ne!(plan.work(&fixture.checkpoint).unwrap(), manifest.work);
}

#[test]
fn a_finished_harvest_is_left_alone_and_an_interrupted_one_goes_on() {
    let fixture = Fixture::new(&[300]);
    let config = HarvestConfig { shard_tokens: 50, order: Order::Shuffled, ..fixture.config() };
    fixture.run(&config).unwrap();
    let read = || {
        let entries = fs::read_dir(fixture.out()).unwrap().map(|e| e.unwrap().path());
        entries.map(|path| (path.clone(), fs::read(path).unwrap())).collect::<BTreeMap<_, _>>()
    };
    let finished = read();
    let same = fixture.run(&config).unwrap_err().to_string();
    assert!(same.contains("holds a finished store"), "{same}");
    assert_eq!(read(), finished);

    // As if it had been killed before the end, while the next shard was written.
    fs::remove_file(fixture.out().join("manifest.json")).unwrap();
    fs::remove_file(fixture.out().join("shard-00001.parquet")).unwrap();
    let kept = fixture.out().join("shard-00003.parquet");
    let before = fs::metadata(&kept).unwrap().modified().unwrap();
    fs::write(fixture.out().join("shard-00009.parquet"), "stale").unwrap();
    fs::write(fixture.out().join(".unfinished-x.tmp"), "half").unwrap();
    fixture.run(&config).unwrap();
    // Nobody can tell what that was, so it is kept.
    let aside = fixture.out().join("shard-00009.parquet.damaged");
    assert_eq!(fs::read_to_string(&aside).unwrap(), "stale");
    fs::remove_file(aside).unwrap();
    assert!(read() == finished, "the same bytes");
    assert_eq!(fs::metadata(&kept).unwrap().modified().unwrap(), before);
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_written() {
    let fixture = Fixture::new(&[100]);
    let config = fixture.config();
    let error = |config: HarvestConfig| fixture.plan(&config).unwrap_err().to_string();
    let lacking =
        error(HarvestConfig { hooks: vec!["blocks.3.hook_resid_pre".parse().unwrap()], ..config.clone() });
    assert!(lacking.contains("blocks.3.hook_resid_pre") && lacking.contains('3'), "{lacking}");
    let twice = error(HarvestConfig { hooks: vec![HookPoint::Embed; 2], ..config.clone() });
    assert!(twice.contains("hook_embed is named twice"), "{twice}");
    assert!(error(HarvestConfig { hooks: vec![], ..config.clone() }).contains("no hook is named"));
    assert!(
        error(HarvestConfig { batch_tokens: Some(0), ..config.clone() }).contains("[harvest] batch_tokens")
    );
    assert!(error(HarvestConfig { tokens: Some(0), ..config.clone() }).contains("[harvest] tokens"));
    assert!(
        error(HarvestConfig { shard_tokens: 0, ..config.clone() })
            .contains("shard_tokens: expected at least 1")
    );
    let list = HarvestConfig { dtype: VectorDtype::BF16, layout: Layout::List, ..config.clone() };
    assert!(error(list).contains("no bf16 for lists"));
    let long = ContextConfig { length: 17, ..Default::default() };
    let long = HarvestPlan::resolve(&config, &long, &fixture.checkpoint, Seed(0)).unwrap_err().to_string();
    assert!(long.contains("[context] length: tiny takes up to 16 tokens, found 17"), "{long}");
    assert!(!fixture.out().exists());
}

#[test]
fn text_that_fails_is_refused_and_leaves_no_sealed_directory() {
    let fixture = Fixture::new(&[100, 100]);
    let text = fixture.dir.path().join("text");
    let planned = fixture.plan(&fixture.config()).unwrap();
    let failed = |part: &str| {
        // When planning, and when it only shows later.
        let early = fixture.plan(&fixture.config()).unwrap_err();
        let late = fixture.run_plan(&planned, &fixture.checkpoint).unwrap_err();
        for error in [early.to_string(), late.to_string()] {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
        assert!(!fixture.out().join("manifest.json").exists());
    };
    fs::write(text.join("01.txt"), b"w1 \xff").unwrap();
    failed("01.txt: expected UTF-8, found an invalid sequence at byte 3");
    for name in ["00.txt", "01.txt"] {
        fs::write(text.join(name), "").unwrap();
    }
    failed("the text holds 0 token(s) in 2 document(s)");
    // A window of BOS and one word: both are among the first two.
    fs::write(text.join("00.txt"), "w1").unwrap();
    failed("none of the text's 2 tokens counts");
}

#[test]
fn a_sample_without_tokens_does_not_stop_a_harvest() {
    // Files 0, 2, 4, … of 16 are sampled.
    let documents: Vec<usize> = (0..16).map(|i| if i % 2 == 0 { 0 } else { 10 }).collect();
    let fixture = Fixture::new(&documents);
    assert_eq!(fixture.plan(&fixture.config()).unwrap().tokens, 1);
    assert_eq!(fixture.run(&fixture.config()).unwrap().counts.documents, 8);
}

#[test]
fn activations_that_are_not_finite_are_refused() {
    let fixture = Fixture::new(&[100]);
    let file = fixture.dir.path().join("tiny/model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    // Large but finite weights everywhere behind the header: products of three overflow.
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for value in bytes[header..].chunks_exact_mut(4) {
        value.copy_from_slice(&1e18_f32.to_le_bytes());
    }
    fs::write(&file, bytes).unwrap();
    let checkpoint = Checkpoint::open(&fixture.dir.path().join("tiny")).unwrap();
    let plan = fixture.plan(&fixture.config()).unwrap();
    let error = fixture.run_plan(&plan, &checkpoint).unwrap_err().to_string();
    assert!(
        error.contains("hook_resid_post: found") && error.contains("position 2 of document 0"),
        "{error}"
    );
    assert!(!fixture.out().join("manifest.json").exists());
}
