//! Running a harvest: text is tokenised on one thread, the model runs on this one, shards are written on a third,
//! so that the model never waits for either.

use std::{
    fs,
    path::Path,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use burn::tensor::Device;
use monosema_core::{Ahead, Manifest, ManifestError, Progress, Stage};
use monosema_store::{Place, StoreError, Stored, Writer, Written};
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
/// What an interrupted harvest of the same work left goes on: its shards stay, and the model runs only where rows are missing. The
/// result is the same bits. Likewise shards are made anew that a sealed `out` has lost. Nothing outside `out` is written.
///
/// # Errors
/// An `out` that is sealed and whole, or holds other work; a shard made anew that is not what it was; text, model or disk that fail; activations that are not finite or too large for the
/// plan's dtype; text of which nothing counts. `out` is then not sealed, and what is finished stays.
pub fn harvest(
    plan: &HarvestPlan,
    manifest: Manifest,
    checkpoint: &Checkpoint,
    device: &Device,
    out: &Path,
) -> Result<HarvestSummary, HarvestError> {
    let writer = Writer::create(out, plan.schema(), plan.shards, &manifest.work)?;
    let model = checkpoint.load(device)?;
    tracing::info!("harvesting {} into {}", plan.model, out.display());
    let started = Instant::now();
    let (counts, written) =
        run(plan, checkpoint, &model, writer).map_err(|error| no_room(error, plan, out))?;
    if let Some(limit) = plan.limit().filter(|&limit| limit > written.tokens) {
        tracing::warn!("the text holds {} tokens that are kept, {limit} were asked for", written.tokens);
    }
    let mut named = counts.by_name();
    named.insert("shards".to_owned(), written.shards.len() as u64);
    let elapsed = started.elapsed();
    let place = Place::at(out)?;
    let manifest = match Manifest::read(&place, Stage::Harvest) {
        // What was missing is there again, and what the manifest says.
        Ok(sealed) => sealed,
        Err(ManifestError::Unsealed { .. }) => {
            let manifest = Manifest { files: written.files, ..manifest };
            manifest.seal(&place, named, &written.shards)?
        }
        Err(error) => return Err(error.into()),
    };
    Ok(HarvestSummary {
        tokens: written.tokens,
        counts,
        shards: written.shards.len() as u64,
        bytes: manifest.files.values().map(|file| file.bytes).sum(),
        elapsed,
        tokens_per_second: written.tokens as f64 / elapsed.as_secs_f64().max(1e-9),
    })
}

/// Says of a full disk how much is still to come.
fn no_room(error: HarvestError, plan: &HarvestPlan, out: &Path) -> HarvestError {
    let HarvestError::Store(source @ StoreError::Full { .. }) = error else { return error };
    let files = fs::read_dir(out).into_iter().flatten().flatten();
    let there: u64 = files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum();
    HarvestError::NoRoom { bytes: plan.disk_bytes.saturating_sub(there), source }
}

/// What becomes of a batch.
enum Step {
    /// Its rows are stored already: so many.
    Skip(u64),
    Append(OwnedRows),
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
        let stored = writer.stored().clone();
        let writing = scope.spawn(move || write(writer, &from_model));
        let counts = run_model(plan, model, windows, &stored, &to_disk);
        drop(to_disk);
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
    stored: &Stored,
    to_disk: &SyncSender<Step>,
) -> Result<Counts, HarvestError> {
    let mut maker = RowMaker::new(plan, model.clone(), &plan.hooks);
    let mut progress = Progress::start("harvest", "tokens", plan.tokens);
    let mut counts = Counts::default();
    for windows in windows {
        let windows = windows?;
        let (first, wanted) = (counts.tokens(), windows.wanted as u64);
        let (of_windows, step) = if !plan.rows_depend_on_values() && stored.covers(first..first + wanted) {
            (maker.pass_by(&windows), Step::Skip(wanted))
        } else {
            let (rows, of_windows) = maker.make(&windows)?;
            (of_windows, Step::Append(rows))
        };
        counts += of_windows;
        progress.advance(of_windows.tokens(), String::new);
        if to_disk.send(step).is_err() {
            break;
        }
        if maker.is_done() {
            break;
        }
    }
    progress.finish();
    // A part may come away with nothing.
    if counts.contexts > 0 {
        maker.check_any()?;
    }
    Ok(counts)
}

fn write(mut writer: Writer, steps: &Receiver<Step>) -> Result<Written, HarvestError> {
    for step in steps {
        match step {
            Step::Skip(n) => writer.skip(n),
            Step::Append(rows) => rows.with(|rows| writer.append(rows))?,
        }
    }
    Ok(writer.finish()?)
}
