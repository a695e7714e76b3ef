//! The loop: batches in, parameters out, a line to the logs every so often, and a checkpoint now and then. However many
//! dictionaries are trained, each batch is read, scaled and moved once.

use std::time::Instant;

use monosema_core::Progress;
use monosema_store::StoreError;

use crate::{Record, TrainBatch, TrainError, TrainPlan, member::Member, saver::Saver};

/// What the loop leaves.
pub(crate) struct Fitted {
    /// Who came to the end.
    pub(crate) members: Vec<Member>,
    /// Tokens a second over the whole loop.
    pub(crate) tokens_per_s: f64,
}

/// Trains `members`, whose plans share the batches, from step `done` on. Who diverges is handed to `diverged` there and then, and
/// the others go on.
///
/// # Errors
/// A batch that cannot be read or has the wrong shape; too few batches; logs that cannot be written.
pub(crate) fn fit(
    mut members: Vec<Member>,
    done: u64,
    batches: impl IntoIterator<Item = Result<TrainBatch, StoreError>>,
    saver: &mut Saver,
    mut diverged: impl FnMut(Member, TrainError),
) -> Result<Fitted, TrainError> {
    let plan = members[0].plan.clone();
    let mut batches = batches.into_iter();
    let mut progress = Progress::start("train", "tokens", plan.tokens);
    progress.skip(done * plan.batch_tokens as u64);
    let mut logged = (Instant::now(), done);
    for index in done..plan.steps {
        let batch = next_batch(&plan, index, &mut batches)?;
        let done = index + 1;
        for member in &mut members {
            member.advance(index, &batch);
        }
        if done % plan.log_every_steps == 0 || done == plan.steps {
            let tokens = (done - logged.1) * plan.batch_tokens as u64;
            let tokens_per_s = tokens as f64 / logged.0.elapsed().as_secs_f64().max(1e-9);
            logged = (Instant::now(), done);
            for (member, error) in log(&mut members, done, tokens_per_s)? {
                // So that nobody writes a checkpoint of it any more.
                saver.finish();
                diverged(member, error);
            }
            if members.is_empty() {
                break;
            }
            saver.after_log(&members, done)?;
        }
        progress.advance(plan.batch_tokens as u64, || summary(&members));
    }
    Ok(Fitted { members, tokens_per_s: progress.finish() })
}

/// Writes a line to the logs of each, and parts with those that diverged.
fn log(
    members: &mut Vec<Member>,
    done: u64,
    tokens_per_s: f64,
) -> Result<Vec<(Member, TrainError)>, TrainError> {
    let (mut going_on, mut diverged) = (Vec::new(), Vec::new());
    for mut member in members.drain(..) {
        match member.log(done, tokens_per_s) {
            Ok(()) => going_on.push(member),
            Err(error) if error.is_divergence() => diverged.push((member, error)),
            Err(error) => return Err(error),
        }
    }
    *members = going_on;
    Ok(diverged)
}

fn next_batch(
    plan: &TrainPlan,
    index: u64,
    batches: &mut impl Iterator<Item = Result<TrainBatch, StoreError>>,
) -> Result<TrainBatch, TrainError> {
    let wrong = |found: String| {
        let expected = format!("{} rows of {} numbers", plan.batch_tokens, plan.size.d_in);
        TrainError::Batch { step: index, expected, found }
    };
    let batch = batches.next().ok_or_else(|| wrong("the end of the data".into()))??;
    let [n, width] = batch.x.dims();
    if [n, width] != [plan.batch_tokens, plan.size.d_in] {
        return Err(wrong(format!("{n} rows of {width}")));
    }
    Ok(batch)
}

/// What a watcher wants to know: of one dictionary its figures, of several between what they are.
fn summary(members: &[Member]) -> String {
    let records: Vec<&Record> = members.iter().filter_map(|member| member.last.as_ref()).collect();
    let range = |name: &str, digits: usize, of: fn(&Record) -> Option<f64>| {
        let values = || records.iter().copied().filter_map(of);
        let least = values().fold(f64::INFINITY, f64::min);
        let most = values().fold(f64::NEG_INFINITY, f64::max);
        match values().count() {
            0 => String::new(),
            1 => format!(" {name} {least:.digits$}"),
            _ => format!(" {name} {least:.digits$}–{most:.digits$}"),
        }
    };
    let parts = [
        range("loss", 3, |record| Some(record.loss)),
        range("L0", 1, |record| Some(record.l0)),
        range("FVU", 4, |record| Some(record.fvu)),
        range("dead %", 1, |record| record.dead_share.map(|share| 100.0 * share)),
    ];
    parts.concat().trim_start().to_owned()
}

#[cfg(test)]
mod tests;
