//! Harvests in another order and in parts: the same rows.

use std::{
    fs,
    path::{Path, PathBuf},
};

use monosema_core::{HookPoint, Manifest, Seed, Stage};
use monosema_harvester::{HarvestConfig, HarvestPlan};
use monosema_store::{BatchPlan, Order, Part, Store, join};
use monosema_text::ContextConfig;

use crate::fixture::{Fixture, context, hooks, stored};

/// Documents kept apart, each window by itself, so that rows are the same to the bit whatever they are harvested with.
fn apart(fixture: &Fixture, config: HarvestConfig) -> HarvestPlan {
    let context = ContextConfig { span_documents: false, ..context() };
    let config = HarvestConfig { batch_tokens: Some(1), shard_tokens: 20, ..config };
    HarvestPlan::resolve(&config, &context, &fixture.checkpoint, Seed(1)).unwrap()
}

/// The rows of a store, with the bits of their vectors, sorted.
fn rows(out: &Path) -> Vec<(u64, u32, u32, Vec<u32>)> {
    let batch = stored(out, hooks()[0]);
    let ids = batch.documents.iter().zip(&batch.positions).zip(&batch.token_ids);
    let vectors = batch.x.chunks(batch.width).map(|x| x.iter().map(|value| value.to_bits()).collect());
    let mut rows: Vec<_> = ids.zip(vectors).map(|(((&d, &p), &t), x)| (d, p, t, x)).collect();
    rows.sort();
    rows
}

#[test]
fn the_order_changes_no_row() {
    let fixture = Fixture::new(&[200, 50, 90]);
    let [text, shuffled] = [Order::Text, Order::Shuffled].map(|order| {
        let out = fixture.dir.path().join(format!("{order:?}"));
        let plan = fixture.plan(&HarvestConfig { order, shard_tokens: 50, ..fixture.config() }).unwrap();
        fixture.run_plan_into(&out, &plan, &fixture.checkpoint).unwrap();
        out
    });
    assert_eq!(rows(&text), rows(&shuffled));
    assert_ne!(stored(&text, hooks()[0]).token_ids, stored(&shuffled, hooks()[0]).token_ids);
}

#[test]
fn parts_hold_the_rows_of_the_whole_and_may_be_empty() {
    let fixture = Fixture::new(&[28, 1, 0, 25, 90]);
    let plan = apart(&fixture, HarvestConfig { order: Order::Shuffled, ..fixture.config() });
    let whole = fixture.dir.path().join("whole");
    let summary = fixture.run_plan_into(&whole, &plan, &fixture.checkpoint).unwrap();
    // Of the last parts there is no document, and of the third an empty one.
    let acts = fixture.dir.path().join("acts");
    let mut tokens = Vec::new();
    for part in Part::all(7) {
        let plan = plan.clone().of_part(part).unwrap();
        let summary =
            fixture.run_plan_into(&acts.join(part.directory()), &plan, &fixture.checkpoint).unwrap();
        tokens.push(summary.tokens);
    }
    assert_eq!(tokens[2..], [0, tokens[3], tokens[4], 0, 0]);
    let manifest = join(&acts, plan.work(&fixture.checkpoint).unwrap()).unwrap();
    assert_eq!(manifest.counts["tokens"], summary.tokens);
    assert_eq!(manifest.counts["documents"], summary.counts.documents);
    assert_eq!(manifest.counts["contexts"], summary.counts.contexts);
    assert_eq!(rows(&acts), rows(&whole));
    Store::open(&acts).unwrap();
}

#[test]
fn a_part_stops_at_its_share_of_the_tokens() {
    let fixture = Fixture::new(&[100, 100, 100, 100]);
    let plan = apart(&fixture, HarvestConfig { tokens: Some(21), ..fixture.config() });
    let tokens: Vec<u64> = Part::all(2)
        .map(|part| {
            let out = fixture.dir.path().join(part.directory());
            let plan = plan.clone().of_part(part).unwrap();
            assert_eq!(plan.tokens, part.share(21));
            fixture.run_plan_into(&out, &plan, &fixture.checkpoint).unwrap().tokens
        })
        .collect();
    assert_eq!(tokens, [11, 10]);
    let error = plan.of_part("1/22".parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("[harvest] tokens: expected at least one for each of the 22 parts"), "{error}");
}

#[test]
fn hooks_kept_apart_are_the_same_store_and_stores_of_their_own() {
    let fixture = Fixture::new(&[200, 50, 90]);
    let config = HarvestConfig { order: Order::Shuffled, shard_tokens: 50, ..fixture.config() };
    let [together, apart] = [false, true].map(|hooks_apart| {
        let out = fixture.dir.path().join(format!("apart-{hooks_apart}"));
        let plan = fixture.plan(&HarvestConfig { hooks_apart, ..config.clone() }).unwrap();
        let summary = fixture.run_plan_into(&out, &plan, &fixture.checkpoint).unwrap();
        (out, plan, summary)
    });
    assert_eq!(together.2.tokens, apart.2.tokens);
    assert_eq!(3 * together.2.shards, apart.2.shards);
    // The rows of three hooks name their tokens three times.
    assert_eq!(apart.1.disk_bytes - together.1.disk_bytes, 2 * 24 * apart.1.tokens);
    let read = |out: &Path, hook, hook_out| {
        let plan = BatchPlan {
            hook,
            hook_out,
            batch_tokens: 40,
            buffer_tokens: 40,
            seed: Seed(3),
            tokens: 500,
            delivered: 80,
        };
        Store::open(out).unwrap().batches(plan).collect::<Result<Vec<_>, _>>().unwrap()
    };
    let [one, two, three] = hooks()[..] else { panic!("three hooks") };
    for (hook, hook_out) in [(one, None), (two, Some(three)), (three, Some(one))] {
        assert!(read(&together.0, hook, hook_out) == read(&apart.0, hook, hook_out), "{hook} {hook_out:?}");
    }
    // Each by itself, wherever it is.
    let moved = fixture.dir.path().join("moved");
    fs::rename(apart.0.join(two.to_string()), &moved).unwrap();
    assert!(read(&together.0, two, None) == read(&moved, two, None));
    assert!(Store::open(&apart.0).is_err());
    fs::rename(&moved, apart.0.join(two.to_string())).unwrap();
    assert_eq!(stored(&apart.0, three).x, stored(&together.0, three).x);

    // What is lost comes back, and what is interrupted goes on: of one hook, and of all.
    let (out, plan, _) = apart;
    let shard = |hook: HookPoint, i: u32| out.join(hook.to_string()).join(format!("shard-0000{i}.parquet"));
    let bytes = |paths: &[PathBuf]| paths.iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>();
    let files = [shard(one, 0), shard(two, 1), shard(three, 2)];
    let manifest = out.join("manifest.json");
    let (before, sealed) = (bytes(&files), fs::read(&manifest).unwrap());
    fs::remove_file(shard(two, 1)).unwrap();
    fixture.run_plan_into(&out, &plan, &fixture.checkpoint).unwrap();
    assert!(bytes(&files) == before);
    for path in &files {
        fs::remove_file(path).unwrap();
    }
    fs::remove_file(&manifest).unwrap();
    fs::remove_file(out.join(three.to_string()).join("manifest.json")).unwrap();
    fixture.run_plan_into(&out, &plan, &fixture.checkpoint).unwrap();
    assert!(bytes(&files) == before && fs::read(&manifest).unwrap() == sealed);
    let error = fixture.run_plan_into(&out, &plan, &fixture.checkpoint).unwrap_err().to_string();
    assert!(error.contains("holds a finished store"), "{error}");
}

#[test]
fn a_part_says_which_it_is() {
    let fixture = Fixture::new(&[30, 30]);
    let plan = apart(&fixture, fixture.config());
    let part = plan.clone().of_part("2/2".parse().unwrap()).unwrap();
    fixture.run_plan(&part, &fixture.checkpoint).unwrap();
    let manifest = Manifest::read(&fixture.out(), Stage::Harvest).unwrap();
    assert_eq!(manifest.work.differences(&plan.work(&fixture.checkpoint).unwrap()).len(), 1);
    assert!(rows(&fixture.out()).iter().all(|row| row.0 == 1), "documents keep their numbers");
    // Whoever finds it goes on with nothing else.
    fs::remove_file(fixture.out().join("manifest.json")).unwrap();
    let error = fixture.run_plan(&plan, &fixture.checkpoint).unwrap_err().to_string();
    assert!(error.contains("an interrupted harvest of other work"), "{error}");
}
