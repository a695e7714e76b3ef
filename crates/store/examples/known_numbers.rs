//! Writes one small shard of each dtype and layout, holding known numbers, for `tests/readers.py`:
//! `cargo run --release -p monosema-store --example known_numbers -- DIR`.

use std::{collections::BTreeMap, error::Error, path::PathBuf};

use monosema_core::{BlockHook, HookPoint, Seed, Stage, manifest::Work};
use monosema_store::{HookColumn, Layout, Order, Rows, StoreSchema, VectorDtype, Writer, WriterOptions};

/// Numbers in a vector, and tokens.
const WIDTH: usize = 6;
const TOKENS: usize = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let directory =
        std::env::args_os().nth(1).map(PathBuf::from).ok_or("expected a directory to write into")?;
    let column = HookColumn { hook: HookPoint::block(9, BlockHook::ResidPost), width: WIDTH };
    // -7, -6.5, …, 22.5, which every dtype holds exactly.
    let vectors: Vec<f32> = (0..WIDTH * TOKENS).map(|i| i as f32 * 0.5 - 7.0).collect();
    for (dtype, layout, name) in [
        (VectorDtype::F32, Layout::Binary, "f32"),
        (VectorDtype::F16, Layout::Binary, "f16"),
        (VectorDtype::BF16, Layout::Binary, "bf16"),
        (VectorDtype::F32, Layout::List, "f32-list"),
        (VectorDtype::F16, Layout::List, "f16-list"),
    ] {
        let schema = StoreSchema { hooks: vec![column], dtype, layout, order: Order::Text };
        // Several row groups, as a real shard has.
        let options = WriterOptions { row_group_tokens: 4, ..WriterOptions::default() };
        let work = Work { stage: Stage::Harvest, config: ().into(), seed: Seed(0), inputs: BTreeMap::new() };
        let mut writer = Writer::create(&directory.join(name), schema, options, &work)?;
        let positions: Vec<u32> = (0..TOKENS as u32).collect();
        let (token_ids, documents) = ([7; TOKENS], [3; TOKENS]);
        let rows = Rows {
            token_ids: &token_ids,
            documents: &documents,
            positions: &positions,
            places: &[0; TOKENS],
            vectors: &[&vectors],
        };
        writer.append(rows)?;
        writer.finish()?;
    }
    Ok(())
}
