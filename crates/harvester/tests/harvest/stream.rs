//! Streams of activations: what a harvest would have stored, and taken up anywhere.

use std::{fs, sync::Arc};

use burn::tensor::Device;
use monosema_core::{HookPoint, Seed};
use monosema_harvester::{HarvestConfig, HarvestPlan, Stream};
use monosema_store::{Activations, Batch, BatchPlan, Store, StoreError, VectorDtype, shuffled};
use monosema_text::ContextConfig;

use crate::fixture::{D_MODEL, Fixture, context, hooks};

const BATCH: usize = 16;

impl Fixture {
    /// In groups of 10 rows, which are no whole number of windows, batches of windows or batches.
    fn streamed(&self) -> HarvestConfig {
        HarvestConfig { stream: true, row_group_tokens: 10, ..self.config() }
    }

    fn stream(&self, config: &HarvestConfig) -> Arc<dyn Activations> {
        self.stream_of(self.plan(config).unwrap())
    }

    fn stream_of(&self, plan: HarvestPlan) -> Arc<dyn Activations> {
        assert_eq!(plan.disk_bytes, 0);
        let work = plan.work(&self.checkpoint).unwrap();
        Arc::new(Stream::new(plan, work, self.checkpoint.clone(), &Device::flex()))
    }
}

/// Of `tokens`, batches with the vectors of two hooks.
fn plan(tokens: u64, buffer_tokens: usize) -> BatchPlan {
    BatchPlan {
        hook: hooks()[0],
        hook_out: Some(hooks()[2]),
        batch_tokens: BATCH,
        buffer_tokens,
        seed: Seed(5),
        tokens,
        delivered: 0,
    }
}

fn read(activations: &Arc<dyn Activations>, plan: BatchPlan) -> Vec<Batch> {
    shuffled(activations.clone(), plan, |_, _| 0.0).collect::<Result<_, _>>().unwrap()
}

type Row = (u64, u32, u32, Vec<u32>);

/// Where each row comes from and its vectors to the bit, sorted.
fn rows(batches: &[Batch]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for batch in batches {
        assert_eq!((batch.width, batch.width_out), (D_MODEL, D_MODEL));
        let vectors = batch.x.chunks(D_MODEL).zip(batch.y.chunks(D_MODEL));
        for (i, (x, y)) in vectors.enumerate() {
            let bits = x.iter().chain(y).map(|value| value.to_bits()).collect();
            rows.push((batch.documents[i], batch.positions[i], batch.token_ids[i], bits));
        }
    }
    rows.sort();
    rows
}

#[test]
fn a_stream_delivers_what_a_harvest_stores() {
    let fixture = Fixture::new(&[28, 1, 0, 25, 90]);
    for dtype in [VectorDtype::F32, VectorDtype::BF16] {
        let config = HarvestConfig { dtype, ..fixture.streamed() };
        let out = fixture.dir.path().join(dtype.name());
        let stored = HarvestConfig { stream: false, ..config.clone() };
        fixture.run_plan_into(&out, &fixture.plan(&stored).unwrap(), &fixture.checkpoint).unwrap();
        let store: Arc<dyn Activations> = Arc::new(Store::open(&out).unwrap());
        let stream = fixture.stream(&config);
        for buffer in [BATCH, 50, 1000] {
            let plan = plan(store.tokens(), buffer);
            let (streamed, stored) = (read(&stream, plan), read(&store, plan));
            assert!(rows(&streamed) == rows(&stored), "{dtype}, buffer {buffer}");
            assert_ne!(streamed, stored, "the orders are different ones");
        }
        assert_ne!(stream.digest(), store.digest(), "and so are the works");
    }
}

#[test]
fn a_stream_leaves_out_what_a_harvest_leaves_out() {
    let fixture = Fixture::new(&[28, 1, 0, 25, 90]);
    for tokens in [None, Some(33)] {
        // The filter looks at a hook that is not read, too.
        let config = HarvestConfig { max_norm_multiple: Some(1.2), tokens, ..fixture.streamed() };
        let out = fixture.dir.path().join(format!("{tokens:?}"));
        let stored = HarvestConfig { stream: false, ..config.clone() };
        fixture.run_plan_into(&out, &fixture.plan(&stored).unwrap(), &fixture.checkpoint).unwrap();
        let store: Arc<dyn Activations> = Arc::new(Store::open(&out).unwrap());
        let expected = rows(&read(&store, plan(store.tokens(), 50)));
        let once = rows(&read(&fixture.stream(&config), plan(store.tokens(), 50)));
        assert!(once == expected, "{tokens:?}");
        let stream = fixture.stream(&config);
        let all = read(&stream, plan(3 * store.tokens(), 50));
        let thrice = rows(&all);
        assert!(thrice.chunks(3).all(|same| same.iter().all(|row| *row == same[0])), "{tokens:?}");
        assert!(thrice.chunks(3).map(|same| &same[0]).eq(&expected));
        let delivered = 2 * BATCH as u64;
        let rest = read(&stream, BatchPlan { delivered, ..plan(3 * store.tokens(), 50) });
        assert!(rest == all[2..], "{tokens:?}: taken up");
    }
}

#[test]
fn a_limit_takes_the_first_of_the_text_each_time_it_is_read() {
    // Short documents, of which 4 tokens count, then long ones.
    let fixture = Fixture::new(&[5, 5, 5, 40, 40]);
    let context = ContextConfig { span_documents: false, ..context() };
    let config = HarvestConfig { tokens: Some(10), ..fixture.streamed() };
    let of_text = HarvestPlan::resolve(&config, &context, &fixture.checkpoint, Seed(1)).unwrap();
    let twice = rows(&read(&fixture.stream_of(of_text), plan(20, 50)));
    assert!(twice.chunks(2).all(|same| same[0] == same[1]));
    let found: Vec<_> = twice.chunks(2).map(|same| (same[0].0, same[0].1)).collect();
    let first = [(0, 2..6), (1, 2..6), (2, 2..4)];
    let expected: Vec<_> = first.into_iter().flat_map(|(d, p)| p.map(move |p| (d, p))).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_stream_is_taken_up_where_it_was() {
    let fixture = Fixture::new(&[200, 50]);
    let stream = fixture.stream(&fixture.streamed());
    // Further than the text, and no whole number of batches or groups.
    let tokens = 2 * stream.tokens() + 7;
    for buffer in [BATCH, 64, 5000] {
        let all = read(&stream, plan(tokens, buffer));
        assert_eq!(all.iter().map(|batch| batch.n as u64).sum::<u64>(), tokens);
        // A new process has a new stream.
        let stream = fixture.stream(&fixture.streamed());
        for done in [1, 2, 7, all.len() - 1] {
            let delivered = (done * BATCH) as u64;
            let rest = read(&stream, BatchPlan { delivered, ..plan(tokens, buffer) });
            assert!(rest == all[done..], "buffer {buffer}, {done} batches before");
        }
    }
}

#[test]
fn a_sample_changes_nothing_of_what_follows() {
    let fixture = Fixture::new(&[200, 50]);
    let stream = fixture.stream(&fixture.streamed());
    let long = plan(200, 64);
    let expected = read(&stream, long);
    // Of whole groups and of a part of one, of the same hooks and of others.
    let sample = |stream: &Arc<dyn Activations>, tokens, hook_out| {
        read(stream, BatchPlan { tokens, hook_out, ..plan(tokens, 64) })
    };
    for (tokens, hook_out) in [(40, long.hook_out), (45, long.hook_out), (40, None)] {
        let stream = fixture.stream(&fixture.streamed());
        let first = sample(&stream, tokens, hook_out);
        assert!(first == sample(&stream, tokens, hook_out), "{tokens} tokens twice");
        assert!(read(&stream, long) == expected, "after a sample of {tokens} tokens, {hook_out:?}");
        let delivered = 6 * BATCH as u64;
        assert!(read(&stream, BatchPlan { delivered, ..long }) == expected[6..]);
        let stream = fixture.stream(&fixture.streamed());
        sample(&stream, tokens, hook_out);
        assert!(read(&stream, BatchPlan { delivered, ..long }) == expected[6..], "taken up after a sample");
    }
}

#[test]
fn the_text_begins_again_at_its_end_or_at_the_limit() {
    let fixture = Fixture::new(&[200, 50]);
    let whole = fixture.streamed();
    for config in [HarvestConfig { tokens: Some(33), ..whole.clone() }, whole] {
        let stream = fixture.stream(&config);
        let once = rows(&read(&stream, plan(stream.tokens(), 50)));
        let thrice = rows(&read(&stream, plan(3 * stream.tokens(), 50)));
        assert!(thrice.chunks(3).map(|same| &same[0]).eq(&once));
        assert!(thrice.chunks(3).all(|same| same.iter().all(|row| *row == same[0])));
    }
}

#[test]
fn what_fails_on_the_way_ends_the_stream_and_says_why() {
    let fixture = Fixture::new(&[100, 100]);
    let stream = fixture.stream(&fixture.streamed());
    let text = fixture.dir.path().join("text");
    let last = |stream: &Arc<dyn Activations>| {
        let mut batches = shuffled(stream.clone(), plan(1000, BATCH), |_, _| 0.0);
        let error = batches.find_map(Result::err).unwrap();
        assert!(batches.next().is_none());
        error
    };
    fs::write(text.join("01.txt"), [0xff, 0xfe, 0xfd]).unwrap();
    let error = last(&stream);
    assert!(matches!(error, StoreError::Source(_)) && error.to_string().contains("01.txt"), "{error}");
    for name in ["00.txt", "01.txt"] {
        fs::write(text.join(name), "").unwrap();
    }
    let error = last(&stream).to_string();
    assert!(error.contains("no"), "{error}");
    let missing = BatchPlan { hook_out: Some(HookPoint::FinalNormalized), ..plan(10, BATCH) };
    let error = shuffled(stream, missing, |_, _| 0.0).next().unwrap().unwrap_err();
    assert!(matches!(error, StoreError::NoSuchHook { .. }), "{error}");
}
