//! The model over batches that may be larger than the device's memory takes: then in halves.

use std::{
    any::Any,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use burn::tensor::{Int, Tensor, TensorData};
use monosema_core::HookPoint;
use monosema_text::ContextBatch;
use monosema_transformer::{Capture, LanguageModel};

use crate::HarvestError;

/// Runs a model and keeps what hooks see.
pub(crate) struct Forward {
    model: LanguageModel,
    hooks: Vec<HookPoint>,
    /// Windows that the device took at once, since there were too many for it.
    most: usize,
}

/// Why the model did not come through.
enum Failure {
    /// There was too much at once.
    Memory(String),
    /// Anything else.
    Other(String),
}

impl Forward {
    pub(crate) fn new(model: LanguageModel, hooks: Vec<HookPoint>) -> Self {
        Self { model, hooks, most: usize::MAX }
    }

    /// What each hook sees of `batch`, `[batch, seq, width]`.
    ///
    /// # Errors
    /// A token that the model does not know; a device that fails, or whose memory does not hold one window.
    pub(crate) fn values(&mut self, batch: &ContextBatch) -> Result<Vec<Vec<f32>>, HarvestError> {
        let (model, hooks) = (&self.model, &self.hooks);
        let (ids, seq) = (batch.token_ids(model.info().d_vocab)?, batch.seq_len());
        in_pieces(batch.n_contexts(), &mut self.most, |windows| {
            let shape = [windows.len(), seq];
            let ids = ids[windows.start * seq..windows.end * seq].to_vec();
            let run = || run(model, hooks, TensorData::new(ids, shape));
            let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(failure_of(panic)));
            if matches!(outcome, Err(Failure::Memory(_))) {
                // What the failed attempt holds goes first. If that fails too, the next attempt says so.
                model.device().memory_cleanup();
                let _waited = model.device().sync();
            }
            outcome
        })
    }
}

fn run(model: &LanguageModel, hooks: &[HookPoint], tokens: TensorData) -> Result<Vec<Vec<f32>>, Failure> {
    let tokens = Tensor::<2, Int>::from_data(tokens, model.device());
    let mut capture = Capture::new(hooks.iter().copied());
    model.run(tokens, &mut capture);
    let value = |&hook: &HookPoint| {
        let x = capture.take(hook).expect("the plan has checked that the model has the hook");
        let data = x.try_into_data().map_err(|error| Failure::new(error.to_string()))?;
        Ok(data.convert::<f32>().try_to_vec().expect("just converted"))
    };
    hooks.iter().map(value).collect()
}

impl Failure {
    fn new(reason: String) -> Self {
        let plain = reason.to_lowercase().replace('-', " ");
        let memory = ["out of memory", "out of device memory", "outofmemory", "buffertoobig"];
        if memory.iter().any(|words| plain.contains(words)) {
            Self::Memory(reason)
        } else {
            Self::Other(reason)
        }
    }
}

/// burn panics where the caller cannot be handed an error. A panic about anything but memory goes on.
fn failure_of(panic: Box<dyn Any + Send>) -> Failure {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
    match Failure::new(text.to_owned()) {
        Failure::Other(_) => resume_unwind(panic),
        memory => memory,
    }
}

/// The results of `run` for windows `0..n`, at most `most` at once; whenever they are too many, `most` becomes half of them.
fn in_pieces(
    n: usize,
    most: &mut usize,
    mut run: impl FnMut(Range<usize>) -> Result<Vec<Vec<f32>>, Failure>,
) -> Result<Vec<Vec<f32>>, HarvestError> {
    let mut all: Vec<Vec<f32>> = Vec::new();
    let mut done = 0;
    while done < n {
        let windows = done..n.min(done.saturating_add(*most));
        match run(windows.clone()) {
            Ok(values) if windows.len() == n => return Ok(values),
            Ok(values) => {
                all.resize_with(values.len(), Vec::new);
                all.iter_mut().zip(values).for_each(|(all, mut values)| all.append(&mut values));
                done = windows.end;
            }
            Err(Failure::Memory(_)) if windows.len() > 1 => {
                *most = windows.len() / 2;
                tracing::warn!(
                    "the device's memory does not hold {} windows at once; going on with {most}",
                    windows.len()
                );
            }
            Err(Failure::Memory(reason)) => return Err(HarvestError::OutOfMemory { reason }),
            Err(Failure::Other(reason)) => return Err(HarvestError::Device { reason }),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device with room for `room` windows, whose two hooks see the window's number once and twice.
    fn device(
        room: usize,
        asked: &mut Vec<Range<usize>>,
    ) -> impl FnMut(Range<usize>) -> Result<Vec<Vec<f32>>, Failure> {
        move |windows| {
            asked.push(windows.clone());
            if windows.len() > room {
                return Err(Failure::new("an out-of-memory error happened during launch".into()));
            }
            let once: Vec<f32> = windows.map(|window| window as f32).collect();
            Ok(vec![once.clone(), once.iter().flat_map(|&x| [x, x]).collect()])
        }
    }

    #[test]
    fn too_many_windows_are_halved_until_they_fit_and_stay_halved() {
        let (mut most, mut asked) = (usize::MAX, Vec::new());
        let values = in_pieces(7, &mut most, device(2, &mut asked)).unwrap();
        assert_eq!(asked, [0..7, 0..3, 0..1, 1..2, 2..3, 3..4, 4..5, 5..6, 6..7]);
        assert_eq!(values[0], [0., 1., 2., 3., 4., 5., 6.]);
        assert_eq!(values[1][..4], [0., 0., 1., 1.]);
        let mut asked = Vec::new();
        in_pieces(2, &mut most, device(2, &mut asked)).unwrap();
        assert_eq!(asked, [0..1, 1..2]);
        let (mut most, mut asked) = (usize::MAX, Vec::new());
        let whole = in_pieces(7, &mut most, device(7, &mut asked)).unwrap();
        assert_eq!((asked.len(), asked[0].clone(), most), (1, 0..7, usize::MAX));
        assert_eq!(whole, values);
    }

    #[test]
    fn one_window_that_does_not_fit_and_other_faults_are_errors() {
        let error = in_pieces(4, &mut usize::MAX.clone(), device(0, &mut Vec::new())).unwrap_err();
        assert!(matches!(error, HarvestError::OutOfMemory { .. }), "{error}");
        let broken = |_| Err(Failure::new("the device is poisoned".into()));
        let error = in_pieces(4, &mut usize::MAX.clone(), broken).unwrap_err();
        assert!(matches!(&error, HarvestError::Device { reason } if reason.contains("poisoned")), "{error}");
    }

    #[test]
    fn a_panic_about_memory_is_one_of_these_and_another_goes_on() {
        let caught = |text: &'static str| failure_of(Box::new(text));
        assert!(matches!(caught("out of device memory allocating 8 bytes"), Failure::Memory(_)));
        assert!(catch_unwind(|| caught("a shape does not fit")).is_err());
    }
}
