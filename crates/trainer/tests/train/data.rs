//! Data with a known dictionary, and stores of it.

use std::path::Path;

use monosema_core::{
    BlockHook, HookPoint, Manifest, Seed, Stage, digest_bytes,
    manifest::{Input, Work},
};
use monosema_store::{
    HookColumn, Layout, Order, Rows, Store, StoreSchema, VectorDtype, Writer, WriterOptions,
};
use rand::Rng;

/// The hook of all stores here.
pub(crate) fn hook() -> HookPoint {
    HookPoint::block(3, BlockHook::ResidPost)
}

/// `n` points in `d_in` dimensions, each the sum of `active` of `features` random unit directions with
/// coefficients from 0.5 to 1.5. Returns points and directions, row by row.
pub(crate) fn superposition(
    seed: u64,
    n: usize,
    d_in: usize,
    features: usize,
    active: usize,
) -> (Vec<f32>, Vec<f32>) {
    let mut rng = Seed(seed).stream("superposition");
    let mut directions = Vec::with_capacity(features * d_in);
    for _ in 0..features {
        let row: Vec<f32> =
            (0..d_in).map(|_| (0..12).map(|_| rng.random_range(-0.5f32..0.5)).sum()).collect();
        let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        directions.extend(row.iter().map(|v| v / norm));
    }
    let mut x = vec![0.0; n * d_in];
    for point in x.chunks_mut(d_in) {
        for _ in 0..active {
            let feature = rng.random_range(0..features);
            let coefficient = rng.random_range(0.5..1.5);
            let direction = &directions[feature * d_in..][..d_in];
            point.iter_mut().zip(direction).for_each(|(x, d)| *x += coefficient * d);
        }
    }
    (x, directions)
}

/// A sealed store of `x`, as a harvest leaves it.
pub(crate) fn store(directory: &Path, x: &[f32], d_in: usize) -> Store {
    let schema = StoreSchema {
        hooks: vec![HookColumn { hook: hook(), width: d_in }],
        dtype: VectorDtype::F32,
        layout: Layout::default(),
        order: Order::Text,
    };
    let options = WriterOptions { shard_tokens: 4096, row_group_tokens: 512, ..WriterOptions::default() };
    let n = x.len() / d_in;
    let ids: Vec<u32> = (0..n as u32).collect();
    let documents: Vec<u64> = vec![0; n];
    let places: Vec<u64> = (0..n as u64).collect();
    let config = serde_json::json!({ "context": { "length": 64, "bos": null } });
    let input = |name: &str| Input::new(name, digest_bytes(name.as_bytes()));
    let inputs =
        [("model", "synthetic"), ("text", "a.txt, b.txt")].map(|(role, name)| (role.into(), input(name)));
    let work = Work { stage: Stage::Harvest, config, seed: Seed(0), inputs: inputs.into() };
    let mut writer = Writer::create(directory, schema, options, &work).unwrap();
    let (token_ids, positions) = (&ids, &ids);
    let rows = Rows { token_ids, documents: &documents, positions, places: &places, vectors: &[x] };
    writer.append(rows).unwrap();
    let written = writer.finish().unwrap();
    let counts = [("tokens".to_owned(), written.tokens)].into();
    Manifest::new(work, "cpu").seal(directory, counts, &written.shards).unwrap();
    Store::open(directory).unwrap()
}
