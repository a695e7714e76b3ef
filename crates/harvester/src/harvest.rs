//! Running a harvest: text is tokenised on one thread, the model runs on this one, shards are written on a third,
//! so that the model never waits for either.

use std::{
    path::Path,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use burn::tensor::Device;
use monosema_core::{Ahead, Manifest, Progress};
use monosema_store::{Writer, Written};
use monosema_transformer::{Checkpoint, LanguageModel};
use serde::Serialize;

use crate::{
    Counts, HarvestError, HarvestPlan,
    rows::{OwnedRows, RowMaker},
    windows::{Windows, windows},
};

/// Batches of activations on their way to the disk.
const ROWS_AHEAD: usize = 2;

/// What a harvest did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HarvestSummary {
    /// Tokens stored.
    pub tokens: u64,
    /// What was seen for them, and why some was left out.
    #[serde(flatten)]
    pub counts: Counts,
    /// Files written.
    pub shards: u64,
    /// Their size.
    pub bytes: u64,
    /// How long the model and the writing took.
    #[serde(skip)]
    pub elapsed: Duration,
    /// Tokens stored a second.
    pub tokens_per_second: f64,
}

/// Runs the model over the plan's text and writes the activations into `out`, which is sealed with `manifest` at the
/// end.
///
/// A directory that an interrupted harvest left is done over; one that is sealed is left alone. Nothing outside
/// `out` is written.
///
/// # Errors
/// A sealed `out`; text, model or disk that fail; activations that are not finite or too large for the
/// plan's dtype; text of which nothing counts. `out` is then not sealed.
pub fn harvest(
    plan: &HarvestPlan,
    manifest: Manifest,
    checkpoint: &Checkpoint,
    device: &Device,
    out: &Path,
) -> Result<HarvestSummary, HarvestError> {
    let writer = Writer::create(out, plan.schema(), plan.shards)?;
    let model = checkpoint.load(device)?;
    tracing::info!("harvesting {} into {}", plan.model, out.display());
    let started = Instant::now();
    let (counts, written) = run(plan, checkpoint, &model, writer)?;
    if let Some(limit) = plan.max_tokens.filter(|&limit| limit > written.tokens) {
        tracing::warn!("the text holds {} tokens that are kept, {limit} were asked for", written.tokens);
    }
    let mut named = counts.by_name();
    named.insert("shards".to_owned(), written.shards.len() as u64);
    let elapsed = started.elapsed();
    let manifest = manifest.seal(out, named, &written.shards)?;
    Ok(HarvestSummary {
        tokens: written.tokens,
        counts,
        shards: written.shards.len() as u64,
        bytes: manifest.files.values().map(|file| file.bytes).sum(),
        elapsed,
        tokens_per_second: written.tokens as f64 / elapsed.as_secs_f64().max(1e-9),
    })
}

fn run(
    plan: &HarvestPlan,
    checkpoint: &Checkpoint,
    model: &LanguageModel,
    writer: Writer,
) -> Result<(Counts, Written), HarvestError> {
    let windows = windows(plan, checkpoint, 1)?;
    thread::scope(|scope| {
        let (to_disk, from_model) = sync_channel(ROWS_AHEAD);
        let writing = scope.spawn(move || write(writer, &from_model));
        let counts = run_model(plan, model, windows, to_disk);
        // The channel is closed by now, so the writer comes to its end. If it failed, that is why the model stopped.
        let written = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((counts?, written))
    })
}

/// Runs the model over the windows and passes on what counts, until there are no more or the writer fails.
fn run_model(
    plan: &HarvestPlan,
    model: &LanguageModel,
    windows: Ahead<Result<Windows, HarvestError>>,
    to_disk: SyncSender<OwnedRows>,
) -> Result<Counts, HarvestError> {
    let mut maker = RowMaker::new(plan, model.clone(), &plan.hooks);
    let mut progress = Progress::start("harvest", "tokens", plan.tokens);
    let mut counts = Counts::default();
    for windows in windows {
        let (rows, of_windows) = maker.make(&windows?)?;
        counts += of_windows;
        progress.advance(rows.len() as u64, String::new);
        if rows.len() > 0 && to_disk.send(rows).is_err() {
            break;
        }
        if maker.is_done() {
            break;
        }
    }
    progress.finish();
    maker.check_any()?;
    Ok(counts)
}

fn write(mut writer: Writer, rows: &Receiver<OwnedRows>) -> Result<Written, HarvestError> {
    for rows in rows {
        rows.with(|rows| writer.append(rows))?;
    }
    Ok(writer.finish()?)
}
