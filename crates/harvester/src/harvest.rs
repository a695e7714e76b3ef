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
use monosema_core::{Ahead, Manifest, Progress};
use monosema_store::StoreError;
use monosema_transformer::{Checkpoint, LanguageModel};
use serde::Serialize;

use crate::{
    Counts, HarvestError, HarvestPlan,
    rows::{OwnedRows, RowMaker},
    windows::{Windows, windows},
    writers::{AllStored, Writers},
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
    /// Tokens stored a second, those aside that were there already.
    pub tokens_per_second: f64,
}

/// Runs the model over the plan's text and writes the activations into `out`, which is sealed with `manifest` at the
/// end.
///
/// What an interrupted harvest of the same work left goes on: its shards stay, and the model runs only where rows are missing. The
/// result is the same bits. Likewise shards are made anew that a sealed `out` has lost. Nothing outside `out` is written.
///
/// # Errors
/// An `out` that is sealed and whole, or holds other work; a shard made anew that is not what it was; text, model or disk that
/// fail; activations that are not finite or too large for the plan's dtype; text of which nothing counts. `out` is then not sealed, and what is finished stays.
pub fn harvest(
    plan: &HarvestPlan,
    manifest: Manifest,
    checkpoint: &Checkpoint,
    device: &Device,
    out: &Path,
) -> Result<HarvestSummary, HarvestError> {
    let writers = Writers::create(plan, &manifest.work, out)?;
    let model = checkpoint.load(device)?;
    tracing::info!("harvesting {} into {}", plan.model, out.display());
    let started = Instant::now();
    let full = |error| no_room(error, plan, out);
    let (Done { counts, computed }, writers) = run(plan, checkpoint, &model, writers).map_err(full)?;
    let tokens = counts.tokens();
    if let Some(limit) = plan.limit().filter(|&limit| limit > tokens) {
        tracing::warn!("the text holds {tokens} tokens that are kept, {limit} were asked for");
    }
    let manifest = writers.finish(out, manifest, &counts.by_name()).map_err(full)?;
    let elapsed = started.elapsed();
    Ok(HarvestSummary {
        tokens,
        counts,
        shards: manifest.files.len() as u64,
        bytes: manifest.files.values().map(|file| file.bytes).sum(),
        elapsed,
        tokens_per_second: computed as f64 / elapsed.as_secs_f64().max(1e-9),
    })
}

/// Says of a full disk how much is still to come.
fn no_room(error: HarvestError, plan: &HarvestPlan, out: &Path) -> HarvestError {
    let HarvestError::Store(source @ StoreError::Full { .. }) = error else { return error };
    let directories = fs::read_dir(out).into_iter().flatten().flatten().map(|entry| entry.path());
    let files =
        directories.chain([out.to_owned()]).filter_map(|path| fs::read_dir(path).ok()).flatten().flatten();
    let files = files.filter_map(|file| file.metadata().ok()).filter(fs::Metadata::is_file);
    let there: u64 = files.map(|file| file.len()).sum();
    HarvestError::NoRoom { bytes: plan.disk_bytes.saturating_sub(there), source }
}

/// What the model has been run over so far.
#[derive(Default)]
struct Done {
    counts: Counts,
    /// Rows that the model was run for.
    computed: u64,
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
    writers: Writers,
) -> Result<(Done, Writers), HarvestError> {
    let windows = windows(plan, checkpoint, 1)?;
    thread::scope(|scope| {
        let (to_disk, from_model) = sync_channel(ROWS_AHEAD);
        let stored = writers.stored();
        let writing = scope.spawn(move || write(writers, &from_model));
        let done = run_model(plan, model, windows, &stored, &to_disk);
        drop(to_disk);
        // The channel is closed by now, so the writer comes to its end. If it failed, that is why the model stopped.
        let writers = writing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((done?, writers))
    })
}

/// Runs the model over the windows and passes on what counts, until there are no more or the writer fails.
fn run_model(
    plan: &HarvestPlan,
    model: &LanguageModel,
    windows: Ahead<Result<Windows, HarvestError>>,
    stored: &AllStored,
    to_disk: &SyncSender<Step>,
) -> Result<Done, HarvestError> {
    let mut maker = RowMaker::new(plan, model.clone(), &plan.hooks);
    let mut progress = Progress::start("harvest", "tokens", plan.tokens);
    let mut done = Done::default();
    for windows in windows {
        let windows = windows?;
        let (first, n) = (done.counts.tokens(), windows.batch.n_counted() as u64);
        let known = !plan.rows_depend_on_values();
        let (counts, step) = if known && stored.covers(&(first..first + n)) {
            (maker.pass_by(&windows), Step::Skip(n))
        } else {
            let (rows, counts) = maker.make(&windows)?;
            done.computed += rows.len() as u64;
            (counts, Step::Append(rows))
        };
        done.counts += counts;
        progress.advance(counts.tokens(), String::new);
        if to_disk.send(step).is_err() {
            break;
        }
        if maker.is_done() {
            break;
        }
    }
    progress.finish();
    // A part may come away with nothing.
    if done.counts.contexts > 0 {
        maker.check_any()?;
    }
    Ok(done)
}

fn write(mut writers: Writers, steps: &Receiver<Step>) -> Result<Writers, HarvestError> {
    for step in steps {
        match step {
            Step::Skip(n) => writers.skip(n),
            Step::Append(rows) => writers.append(&rows)?,
        }
    }
    Ok(writers)
}
