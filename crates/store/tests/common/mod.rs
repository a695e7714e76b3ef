//! Stores made of numbers that tell where they belong.

// Each test file uses its part of this.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{collections::BTreeMap, path::Path};

use monosema_core::{BlockHook, HookPoint, Manifest, Seed, Stage, manifest::Work};
use monosema_store::{
    Batch, HookColumn, Layout, Order, Place, Rows, Store, StoreError, StoreSchema, VectorDtype, Writer,
    WriterOptions,
};

pub fn hook(layer: usize) -> HookPoint {
    HookPoint::block(layer, BlockHook::ResidPost)
}

/// Of rows in the order of their numbers.
pub fn schema(widths: &[usize], dtype: VectorDtype, layout: Layout) -> StoreSchema {
    let hooks = widths.iter().enumerate().map(|(layer, &width)| HookColumn { hook: hook(layer), width });
    StoreSchema { hooks: hooks.collect(), dtype, layout, order: Order::Text }
}

/// What all stores here are of.
pub fn work(seed: u64) -> Work {
    let config = serde_json::json!({});
    Work { stage: Stage::Harvest, config, seed: Seed(seed), inputs: BTreeMap::new() }
}

/// The vector of hook `layer` for token `i`: small integers, which every dtype holds exactly.
pub fn vector(i: usize, layer: usize, width: usize) -> Vec<f32> {
    (0..width).map(|d| ((i * 31 + layer * 7 + d) % 251) as f32 - 125.0).collect()
}

/// Writes tokens `0..n`, appended in parts of `part`, and seals the directory.
pub fn write(dir: &Path, schema: &StoreSchema, options: WriterOptions, n: usize, part: usize) -> Vec<String> {
    write_seeded(dir, schema, options, n, part, 0)
}

/// Likewise, in the order that `seed` draws, if it is a random one.
pub fn write_seeded(
    dir: &Path,
    schema: &StoreSchema,
    options: WriterOptions,
    n: usize,
    part: usize,
    seed: u64,
) -> Vec<String> {
    let mut writer = Writer::create(dir, schema.clone(), options, &work(seed)).unwrap();
    for start in (0..n).step_by(part) {
        append(&mut writer, schema, start..(start + part).min(n)).unwrap();
    }
    let written = writer.finish().unwrap();
    assert_eq!(written.tokens, n as u64);
    seal_work(dir, work(seed), n as u64, &written.shards);
    written.shards
}

pub fn append(
    writer: &mut Writer,
    schema: &StoreSchema,
    tokens: std::ops::Range<usize>,
) -> Result<(), StoreError> {
    let token_ids: Vec<u32> = tokens.clone().map(|i| i as u32).collect();
    let documents: Vec<u64> = tokens.clone().map(|i| (i / 10) as u64).collect();
    let positions: Vec<u32> = tokens.clone().map(|i| (i % 10) as u32).collect();
    let places: Vec<u64> = tokens.clone().map(|i| (i % 10) as u64).collect();
    let vectors: Vec<Vec<f32>> = schema
        .hooks
        .iter()
        .enumerate()
        .map(|(layer, h)| tokens.clone().flat_map(|i| vector(i, layer, h.width)).collect())
        .collect();
    let vectors: Vec<&[f32]> = vectors.iter().map(Vec::as_slice).collect();
    writer.append(Rows {
        token_ids: &token_ids,
        documents: &documents,
        positions: &positions,
        places: &places,
        vectors: &vectors,
    })
}

pub fn seal(dir: &Path, tokens: u64, shards: &[String]) {
    seal_work(dir, work(0), tokens, shards);
}

pub fn seal_work(dir: &Path, work: Work, tokens: u64, shards: &[String]) {
    let counts = BTreeMap::from([("tokens".to_owned(), tokens)]);
    Manifest::new(work, "cpu").seal(&Place::at(dir).unwrap(), counts, shards).unwrap();
}

/// Checks that every row of `batch` is whole, and returns its tokens.
pub fn tokens_of(batch: &Batch, layer: usize) -> Vec<usize> {
    assert_eq!(batch.x.len(), batch.n * batch.width);
    assert_eq!([batch.token_ids.len(), batch.documents.len(), batch.positions.len()], [batch.n; 3]);
    for (row, &id) in batch.token_ids.iter().enumerate() {
        let i = id as usize;
        assert_eq!((batch.documents[row], batch.positions[row]), ((i / 10) as u64, (i % 10) as u32));
        let x = &batch.x[row * batch.width..(row + 1) * batch.width];
        assert_eq!(x, vector(i, layer, batch.width), "token {i}");
    }
    batch.token_ids.iter().map(|&id| id as usize).collect()
}

/// A sealed store of `n` tokens in many small shards and row groups.
pub fn store(dir: &Path, n: usize) -> Store {
    let options = WriterOptions { shard_tokens: 100, row_group_tokens: 16, ..Default::default() };
    write(dir, &schema(&[3], VectorDtype::F32, Layout::Binary), options, n, 37);
    Store::open(dir).unwrap()
}
