//! Shuffled batches: every token once an epoch, the same for the same seed, and really mixed.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use common::{hook, store, tokens_of};
use monosema_core::Seed;
use monosema_store::{BatchPlan, Layout, Store, VectorDtype, WriterOptions, shuffled};

fn plan(batch_tokens: usize, buffer_tokens: usize, seed: u64, tokens: u64) -> BatchPlan {
    BatchPlan {
        hook: hook(0),
        hook_out: None,
        batch_tokens,
        buffer_tokens,
        seed: Seed(seed),
        tokens,
        delivered: 0,
    }
}

/// The tokens in the order in which they come, and the sizes of the batches.
fn read(store: &Store, plan: BatchPlan) -> (Vec<usize>, Vec<usize>) {
    let batches: Vec<_> = store.batches(plan).collect::<Result<_, _>>().unwrap();
    let tokens = batches.iter().flat_map(|b| tokens_of(b, 0)).collect();
    (tokens, batches.iter().map(|b| b.n).collect())
}

#[test]
fn every_token_comes_once_an_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let n = 533;
    let store = store(dir.path(), n);
    // Buffers below a row group, between, and above the whole store; batches that straddle epochs.
    for (batch, buffer) in [(1, 1), (5, 5), (16, 40), (50, 200), (533, 533), (64, 10_000), (700, 700)] {
        let total = 3 * n as u64;
        let (tokens, sizes) = read(&store, plan(batch, buffer, 1, total));
        assert_eq!(tokens.len(), 3 * n);
        for epoch in tokens.chunks(n) {
            let mut epoch = epoch.to_vec();
            epoch.sort_unstable();
            assert_eq!(epoch, (0..n).collect::<Vec<_>>(), "batch {batch}, buffer {buffer}");
        }
        let (last, full) = sizes.split_last().unwrap();
        assert!(full.iter().all(|&size| size == batch));
        assert_eq!(*last, (3 * n - 1) % batch + 1);
    }
}

#[test]
fn the_seed_decides_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), 500);
    let plan = |seed| plan(20, 100, seed, 1000);
    let expected = read(&store, plan(1)).0;
    for delay in [0, 1] {
        // A slow consumer changes nothing, nor does stopping early.
        let mut tokens = Vec::new();
        for batch in store.batches(plan(1)).take(30) {
            std::thread::sleep(std::time::Duration::from_millis(delay));
            tokens.extend(tokens_of(&batch.unwrap(), 0));
        }
        assert_eq!(tokens, expected[..600]);
    }
    assert_ne!(read(&store, plan(2)).0, expected);
    assert_ne!(expected[..500], expected[500..], "epochs must differ");
    // Asking for less delivers the beginning of the same stream.
    assert_eq!(read(&store, BatchPlan { tokens: 333, ..plan(1) }).0, expected[..333]);
}

#[test]
fn the_order_of_a_seed_stays_what_it_was() {
    // Runs are repeated with later versions: how batches are made may change, their order may not.
    let dir = tempfile::tempdir().unwrap();
    let (tokens, _) = read(&store(dir.path(), 500), plan(20, 100, 1, 600));
    assert_eq!(tokens[..8], [46, 424, 177, 423, 43, 174, 115, 97]);
    // Into the second epoch.
    assert_eq!(tokens[496..504], [124, 307, 410, 379, 111, 411, 110, 429]);
}

#[test]
fn vectors_are_visited_in_the_order_in_which_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), 533);
    let plan = plan(50, 200, 1, 1066);
    let mut visits = 0;
    let visited = shuffled(Arc::new(store.clone()), plan, move |x, _| {
        visits += 1;
        let sum = x.iter().map(|&x| f64::from(x)).sum::<f64>();
        x.iter_mut().for_each(|x| *x *= 2.0);
        1000.0 * f64::from(visits) + sum
    });
    let mut before = 0;
    for (batch, plain) in visited.zip(store.batches(plan)) {
        let (batch, plain) = (batch.unwrap(), plain.unwrap());
        assert_eq!(batch.token_ids, plain.token_ids);
        assert!(batch.x.iter().zip(&plain.x).all(|(x, plain)| *x == 2.0 * plain));
        let visits: usize = (before + 1..=before + batch.n).sum();
        let sum = plain.x.iter().map(|&x| f64::from(x)).sum::<f64>();
        assert_eq!((batch.sum, plain.sum), (1000.0 * visits as f64 + sum, 0.0));
        before += batch.n;
    }
    assert_eq!(before, 1066);
}

/// Pearson correlation of the place in the stream with the place on disk.
fn correlation(tokens: &[usize]) -> f64 {
    let n = tokens.len() as f64;
    let mean = (n - 1.0) / 2.0;
    let covariance: f64 =
        tokens.iter().enumerate().map(|(i, &t)| (i as f64 - mean) * (t as f64 - mean)).sum();
    covariance / (n * (n * n - 1.0) / 12.0)
}

#[test]
fn a_buffer_mixes() {
    let dir = tempfile::tempdir().unwrap();
    let n = 8000;
    let store = store(dir.path(), n);
    let (tokens, _) = read(&store, plan(50, 2000, 1, n as u64));
    // 500 row groups in random order: the correlation has a standard deviation of 1/√500.
    assert!(correlation(&tokens).abs() < 5.0 / 500.0_f64.sqrt(), "{}", correlation(&tokens));
    // Of a batch of 50 from a buffer of 2000 rows = 125 groups, few share a group: in expectation about
    // C(50, 2) / 125 ≈ 10 pairs. Undisturbed groups of 16 would give 360.
    let pairs: usize = tokens
        .chunks(50)
        .map(|batch| {
            let same = |a: &usize, b: &usize| a / 100 == b / 100 && a % 100 / 16 == b % 100 / 16;
            batch
                .iter()
                .enumerate()
                .map(|(i, a)| batch[..i].iter().filter(|&b| same(a, b)).count())
                .sum::<usize>()
        })
        .sum();
    let mean = pairs as f64 / (n / 50) as f64;
    assert!((5.0..20.0).contains(&mean), "{mean} pairs of one row group a batch");
    // Neighbours on disk do not stay neighbours.
    let neighbours = tokens.windows(2).filter(|w| w[1] == w[0] + 1).count();
    assert!(neighbours < 60, "{neighbours} of {n}");
}

#[test]
fn a_buffer_of_everything_shuffles_uniformly() {
    // Over 600 epochs of 20 tokens, each token comes first about 30 times: 5 standard deviations are 27.
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), 20);
    let (tokens, _) = read(&store, plan(20, 20, 3, 600 * 20));
    let mut counts = [0; 20];
    tokens.chunks(20).for_each(|epoch| counts[epoch[0]] += 1);
    assert!(counts.iter().all(|count| (4..57).contains(count)), "{counts:?}");
}

#[test]
fn plans_that_cannot_work_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), 50);
    let error = |plan: BatchPlan| {
        let mut batches = store.batches(plan);
        let error = batches.next().unwrap().unwrap_err().to_string();
        assert!(batches.next().is_none());
        error
    };
    assert!(error(plan(0, 10, 0, 5)).contains("at least 1 token"));
    assert!(error(plan(20, 10, 0, 5)).contains("a buffer of at least one batch of 20 tokens, found 10"));
    assert!(error(plan(20, 20, 0, 0)).contains("at least 1 token to deliver"));
    let hook = error(BatchPlan { hook: hook(7), ..plan(20, 20, 0, 5) });
    assert!(
        hook.contains("expected activations of blocks.7.hook_resid_post, found those of blocks.0"),
        "{hook}"
    );
    assert!(store.sequential(common::hook(0), 0).next().unwrap().is_err());
}

#[test]
fn a_stream_is_taken_up_where_it_was_left() {
    let dir = tempfile::tempdir().unwrap();
    let n = 533;
    let store = store(dir.path(), n);
    for (batch, buffer) in [(1, 1), (5, 5), (16, 40), (50, 200), (64, 10_000), (700, 700)] {
        let plan = plan(batch, buffer, 1, 3 * n as u64);
        let (whole, sizes) = read(&store, plan);
        for batches in [0, 1, sizes.len() / 3, sizes.len() / 2, sizes.len() - 1] {
            let delivered = batches * batch;
            let rest = read(&store, BatchPlan { delivered: delivered as u64, ..plan });
            assert_eq!(rest.0, whole[delivered..], "batch {batch}, buffer {buffer}, after {batches}");
            assert_eq!(rest.1, sizes[batches..]);
        }
    }
    // Between batches, and past the end.
    for delivered in [7, 2000] {
        let plan = BatchPlan { delivered, ..plan(16, 40, 1, 533) };
        assert!(store.batches(plan).next().unwrap().is_err());
    }
}

#[test]
fn two_hooks_of_a_token_come_together() {
    let dir = tempfile::tempdir().unwrap();
    let schema = common::schema(&[5, 3], VectorDtype::F16, Layout::default());
    let options = WriterOptions { shard_tokens: 64, row_group_tokens: 16, ..WriterOptions::default() };
    common::write(dir.path(), &schema, options, 200, 50);
    let store = Store::open(dir.path()).unwrap();
    let (one, other) = (plan(30, 60, 3, 300), BatchPlan { hook: hook(1), ..plan(30, 60, 3, 300) });
    let [xs, ys] = [one, other].map(|plan| store.batches(plan).collect::<Result<Vec<_>, _>>().unwrap());
    for delivered in [0, 90] {
        let both = BatchPlan { hook_out: Some(hook(1)), delivered, ..one };
        let both: Vec<_> = store.batches(both).collect::<Result<_, _>>().unwrap();
        for ((both, x), y) in
            both.iter().zip(&xs[delivered as usize / 30..]).zip(&ys[delivered as usize / 30..])
        {
            assert_eq!((&both.x, both.width, &both.token_ids), (&x.x, x.width, &x.token_ids));
            assert_eq!((&both.y, both.width_out), (&y.x, y.width));
        }
    }
}
