//! Benchmarks, one Criterion file a stage: `cargo bench -p monosema-benches --bench store`.
//!
//! Figures and their commands are kept in BENCHMARKS.md.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, path::Path};

use monosema_core::{BlockHook, HookPoint, Manifest, Seed, Stage, manifest::Work};
use monosema_store::{HookColumn, Layout, Order, Rows, StoreSchema, VectorDtype, Writer, WriterOptions};
use rand::Rng;

/// Rows that are written at once.
const ROWS: usize = 4096;

/// Vectors of one hook as they lie on disk.
pub fn schema(width: usize, dtype: VectorDtype, layout: Layout, order: Order) -> StoreSchema {
    let hook = HookPoint::block(9, BlockHook::ResidPost);
    StoreSchema { hooks: vec![HookColumn { hook, width }], dtype, layout, order }
}

/// Random numbers for so many rows, which are whole batches of 4096.
pub fn random_vectors(rows: usize, width: usize) -> Vec<f32> {
    let mut rng = Seed(0).stream("bench");
    (0..rows * width).map(|_| rng.random_range(-10.0..10.0)).collect()
}

/// Writes and seals a store of so many rows, whose vectors are all of `vectors` over and over.
pub fn write_store(
    directory: &Path,
    schema: StoreSchema,
    options: WriterOptions,
    rows: usize,
    vectors: &[f32],
) {
    let width = schema.hooks[0].width;
    let work = Work { stage: Stage::Harvest, config: ().into(), seed: Seed(0), inputs: BTreeMap::new() };
    let mut writer = Writer::create(directory, schema, options, &work).unwrap();
    let mut vectors = vectors.chunks(ROWS * width).cycle();
    for start in (0..rows).step_by(ROWS) {
        let places: Vec<u64> = (start as u64..).take(ROWS).collect();
        let ids: Vec<u32> = places.iter().map(|&place| place as u32).collect();
        let rows = Rows {
            token_ids: &ids,
            documents: &[0; ROWS],
            positions: &ids,
            places: &places,
            vectors: &[vectors.next().unwrap()],
        };
        writer.append(rows).unwrap();
    }
    let written = writer.finish().unwrap();
    seal(directory, work, written.tokens, &written.shards);
}

/// Seals a store of these shards.
pub fn seal(directory: &Path, work: Work, tokens: u64, shards: &[String]) {
    let counts = BTreeMap::from([("tokens".to_owned(), tokens)]);
    Manifest::new(work, "cpu").seal(directory, counts, shards).unwrap();
}

/// Processor time of this process, on Linux: fields 14 and 15 of `stat`, in hundredths of a second.
pub fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11..13)?.iter().filter_map(|field| field.parse::<f64>().ok()).sum();
    Some(ticks / 100.0)
}

/// The most memory that this process held at once, in 10⁶ bytes, on Linux.
pub fn peak_mb() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? * 1.024e-3)
}
